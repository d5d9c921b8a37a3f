//! The WebSocket of a connection: frames in, frames out, and the clock of both.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tidewire_protocol::EMPTY_FRAME;
use tidewire_protocol::codes::DisconnectCode;
use tidewire_protocol::limits::CLOSE_REASON_BYTES_MAX;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use super::connection::{Connection, Origin, Vitals};
use crate::hub::outbox::{Disconnect, Frame, Next, Outbox};
use crate::metrics::CodeLabel;
use crate::node::Node;

/// Buffers of the WebSocket, in bytes. Small: most connections are idle most of the time, and with the library's default
/// of 128 KiB each they would cost 30 times the memory. Frames are written as they come, so none waits in a buffer.
const READ_BUFFER_BYTES: usize = 2 * 1024;
const WRITE_BUFFER_BYTES: usize = 0;

/// Frames are joined into one WebSocket frame up to this size, in bytes: past it a copy costs more than a write.
const JOINED_BYTES_MAX: usize = 64 * 1024;

/// How long the close frame and the client's answer to it may take. The socket stays open for it, because closing it with
/// unread bytes in it would make the kernel take back the close frame.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The subprotocol of JSON frames; the default where a client names none.
const JSON_SUBPROTOCOL: &str = "centrifuge-json";
const PROTOBUF_SUBPROTOCOL: &str = "centrifuge-protobuf";

/// `GET /connection/websocket`.
pub(crate) async fn upgrade(
    State(node): State<Arc<Node>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let text_of = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let origin = Origin { origin: text_of(header::ORIGIN), host: text_of(header::HOST).unwrap_or_default() };
    if let Some(page) = &origin.origin
        && !node.tenants.admit_origin(page, &origin.host)
    {
        tracing::info!(origin = page, "upgrade refused: origin is not in tenants.*.origins");
        return (StatusCode::FORBIDDEN, "origin is not allowed\n").into_response();
    }
    let query = query.unwrap_or_default();
    let wants_protobuf = upgrade.requested_protocols().any(|protocol| protocol == PROTOBUF_SUBPROTOCOL)
        || query.split('&').any(|pair| matches!(pair, "cf_protocol=protobuf" | "format=protobuf"));
    if wants_protobuf {
        return (StatusCode::BAD_REQUEST, "protobuf is not available, connect with JSON\n").into_response();
    }
    let Some(place) = node.take_place() else {
        tracing::warn!("upgrade refused: node is full (limits.connections_max)");
        return (StatusCode::SERVICE_UNAVAILABLE, "node is full\n").into_response();
    };
    let frame_bytes_max = node.config.limits.client_frame_bytes_max;
    upgrade
        .protocols([JSON_SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(frame_bytes_max)
        .max_frame_size(frame_bytes_max)
        .on_upgrade(|socket| async {
            let tasks = node.tasks.clone();
            let (sink, stream) = socket.split();
            let outbox = Arc::new(Outbox::new(node.config.limits.outbox_bytes_max));
            let vitals = Arc::new(Vitals::default());
            let connection = Connection::new(node.clone(), outbox.clone(), vitals.clone(), place, origin);
            tasks.spawn(serve(sink, stream, node, connection, outbox, vitals));
        })
}

/// Why a connection ended.
enum End {
    /// We end it; the client is to be told.
    Ours(Disconnect),
    /// The client is gone.
    Theirs,
}

/// Serves one connection to its end. Reader and writer are two futures of one task: an idle connection costs one wake-up
/// for each ping, and no command waits behind a delivery or the other way round.
///
/// Futures are boxed where they are made: the task of an idle connection takes 1.4 KB so, and would take 7 KB with room
/// for all that a busy or ending one needs.
async fn serve(
    mut sink: SplitSink<WebSocket, Message>,
    mut stream: SplitStream<WebSocket>,
    node: Arc<Node>,
    connection: Connection,
    outbox: Arc<Outbox>,
    vitals: Arc<Vitals>,
) {
    let end = {
        let mut reader = Box::pin(read(&mut stream, connection));
        let mut writer = Box::pin(write(&mut sink, &outbox, &vitals, &node));
        let ending = tokio::select! {
            end = &mut writer => Some(end),
            end = &mut reader => match end {
                End::Ours(disconnect) => {
                    outbox.end(disconnect);
                    None
                }
                End::Theirs => Some(End::Theirs),
            },
            () = node.tasks.stopping().cancelled() => {
                outbox.end(DisconnectCode::SHUTDOWN.into());
                None
            }
        };
        match ending {
            Some(end) => end,
            // What waits, the replies before the end among it, is still written.
            None => writer.await,
        }
    };
    if let End::Ours(disconnect) = end {
        let code = disconnect.code.number.into();
        node.metrics.disconnects.get_or_create(&CodeLabel { code }).inc();
        tracing::debug!(code, reason = &*disconnect.reason, "connection ended");
        Box::pin(close(sink, stream, disconnect)).await;
    }
}

async fn read(stream: &mut SplitStream<WebSocket>, mut connection: Connection) -> End {
    loop {
        let frame = match stream.next().await {
            Some(Ok(Message::Text(frame))) => frame,
            Some(Ok(Message::Binary(_))) => return End::Ours(DisconnectCode::INAPPROPRIATE_PROTOCOL.into()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Err(error)) if is_too_large(&error) => {
                let reason = "message size limit exceeded (limits.client_frame_bytes_max)";
                return End::Ours(Disconnect::new(DisconnectCode::FRAME_TOO_LARGE, reason));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Theirs,
        };
        if let Err(disconnect) = Box::pin(connection.handle(&frame)).await {
            return End::Ours(disconnect);
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    use std::error::Error;
    let source = error.source().and_then(|source| source.downcast_ref::<tungstenite::Error>());
    matches!(source, Some(tungstenite::Error::Capacity(_)))
}

/// What the writer waits for next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Connect,
    PingTime,
    Pong,
}

async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    outbox: &Outbox,
    vitals: &Vitals,
    node: &Node,
) -> End {
    let timing = &node.config.timing;
    let mut awaited = Awaited::Connect;
    let mut due = Instant::now() + timing.connect_within;
    let mut timer: std::pin::Pin<&mut Sleep> = pin!(sleep_until(due));
    loop {
        let end_at = vitals.end_at();
        let wake_at = end_at.map_or(due, |end_at| end_at.min(due));
        if timer.deadline() != wake_at {
            timer.as_mut().reset(wake_at);
        }
        tokio::select! {
            biased;
            next = outbox.next() => match next {
                Next::Close(disconnect) => return End::Ours(disconnect),
                Next::Write(frames) => {
                    if let Err(end) = Box::pin(write_all(sink, outbox, frames, timing.write_within)).await {
                        return end;
                    }
                    if awaited == Awaited::Connect && vitals.is_connected() {
                        (awaited, due) = (Awaited::PingTime, Instant::now() + timing.ping_every);
                    }
                }
            },
            () = &mut timer => {
                if end_at.is_some_and(|end_at| end_at <= Instant::now()) {
                    return End::Ours(DisconnectCode::EXPIRED.into());
                }
                match awaited {
                    Awaited::Connect => return End::Ours(DisconnectCode::STALE.into()),
                    Awaited::Pong if !vitals.take_heard() => return End::Ours(DisconnectCode::NO_PONG.into()),
                    Awaited::Pong => {
                        (awaited, due) = (Awaited::PingTime, due + (timing.ping_every - timing.pong_within));
                    }
                    Awaited::PingTime => {
                        vitals.take_heard();
                        outbox.push(Frame::new(EMPTY_FRAME.into()));
                        (awaited, due) = (Awaited::Pong, Instant::now() + timing.pong_within);
                    }
                }
            }
        }
    }
}

/// Writes what was taken from the outbox, joined into as few WebSocket frames as worthwhile, flushed once.
async fn write_all(
    sink: &mut SplitSink<WebSocket, Message>,
    outbox: &Outbox,
    frames: Vec<Frame>,
    within: Duration,
) -> Result<(), End> {
    let bytes = frames.iter().map(Frame::len).sum();
    let mut write = pin!(async {
        for text in joined(frames) {
            sink.feed(Message::Text(text)).await?;
        }
        sink.flush().await
    });
    // Most writes fit into the socket's buffer; only one that does not needs a timer.
    let outcome = match write.as_mut().now_or_never() {
        Some(outcome) => Ok(outcome),
        None => tokio::select! {
            biased;
            () = outbox.cut() => {
                // The write is given up: the outbox has the reason.
                return match outbox.next().await {
                    Next::Close(disconnect) => Err(End::Ours(disconnect)),
                    Next::Write(_) => Err(End::Ours(DisconnectCode::SLOW.into())),
                };
            }
            outcome = timeout(within, write) => outcome,
        },
    };
    match outcome {
        Ok(Ok(())) => {
            outbox.written(bytes);
            Ok(())
        }
        Ok(Err(_)) => Err(End::Theirs),
        Err(_) => Err(End::Ours(Disconnect::new(
            DisconnectCode::WRITE_ERROR,
            "write error: timing.write_within is over",
        ))),
    }
}

/// Joins frames by newlines. One alone is passed on as it is, shared with all others who get it.
fn joined(frames: Vec<Frame>) -> Vec<Utf8Bytes> {
    let mut texts = Vec::new();
    let mut frames = frames.into_iter().peekable();
    while let Some(first) = frames.next() {
        let fits = |length: usize, next: &Frame| length + 1 + next.len() <= JOINED_BYTES_MAX;
        if !frames.peek().is_some_and(|next| fits(first.len(), next)) {
            texts.push(first.into_text());
            continue;
        }
        let mut text = first.as_str().to_owned();
        while let Some(next) = frames.next_if(|next| fits(text.len(), next)) {
            text.push('\n');
            text.push_str(next.as_str());
        }
        texts.push(text.into());
    }
    texts
}

/// Sends the close frame, and waits for the client to take it.
async fn close(
    mut sink: SplitSink<WebSocket, Message>,
    mut stream: SplitStream<WebSocket>,
    disconnect: Disconnect,
) {
    let code = disconnect.code.number;
    let frame = CloseFrame { code, reason: shortened(&disconnect.reason).into() };
    let farewell = async {
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            if code == DisconnectCode::FRAME_TOO_LARGE.number {
                // The stream cannot be read past the frame that was too large.
                sleep(CLOSE_WITHIN).await;
            }
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    // A client that does not take part is cut off all the same.
    let _in_time = timeout(CLOSE_WITHIN, farewell).await.is_ok();
}

/// The longest start of `reason` that a close frame can hold.
fn shortened(reason: &str) -> &str {
    reason.get(..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Frame {
        Frame::new(text.to_owned().into())
    }

    #[test]
    fn joins_small_frames_and_passes_large_ones_on() {
        let large = "x".repeat(JOINED_BYTES_MAX);
        let texts = joined(vec![frame("a"), frame("b"), frame(&large), frame("c"), frame("d")]);
        assert_eq!(texts.iter().map(|text| text.as_str()).collect::<Vec<_>>(), ["a\nb", &large, "c\nd"]);
        assert!(joined(Vec::new()).is_empty());
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let long = "\u{e9}".repeat(CLOSE_REASON_BYTES_MAX);
        assert_eq!(shortened(&long).len(), CLOSE_REASON_BYTES_MAX - 1);
        assert_eq!(shortened("slow"), "slow");
    }
}
