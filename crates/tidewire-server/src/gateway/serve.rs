//! Serving a connection to its end, whatever carries it: commands in, frames out, and the clock of both.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tidewire_protocol::codes::DisconnectCode;
use tidewire_protocol::v1::ClosedConnection;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::ahead::Ahead;
use super::connection::{Connection, Vitals};
use crate::effect::Order;
use crate::hub::outbox::{Disconnect, Frame, Next, Outbox};
use crate::metrics::{CodeLabel, Loss, is_write_timed};
use crate::node::Node;
use crate::publication::Form;

/// Where commands come from.
pub(super) trait Source: Send {
    /// The next frame of commands. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why none follows.
    fn next(&mut self, outbox: &Outbox) -> impl Future<Output = Result<Bytes, End>> + Send;
}

/// Where frames go.
pub(super) trait Sink: Send {
    /// Writes frames, as few pieces as worthwhile. What a dropped future has written is not known: nothing may follow.
    fn write(&mut self, frames: &[Frame]) -> impl Future<Output = io::Result<()>> + Send;

    /// Writes the end of frames whose beginning a [`Carrier`](crate::hub::outbox::Carrier) has written; only where there is one.
    fn finish(&mut self, rest: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Answers a ping of the transport, if it has any.
    fn pong(&mut self, payload: Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// We end it; the client is to be told.
    Ours(Disconnect),
    /// The client is gone.
    Theirs,
}

impl From<DisconnectCode> for End {
    fn from(code: DisconnectCode) -> Self {
        Self::Ours(code.into())
    }
}

/// What the two sides of a connection share.
pub(super) struct Shared {
    pub(super) node: Arc<Node>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) vitals: Arc<Vitals>,
}

/// Serves one connection until it ends. Reader and writer are two futures of one task: an idle connection costs one
/// wake-up for each ping, and no command waits behind a delivery or the other way round.
///
/// Futures are boxed where they are made: the task of an idle connection is small so, and would be several times that with
/// room for all that a busy or ending one needs.
pub(super) async fn serve(
    source: &mut impl Source,
    sink: &mut impl Sink,
    connection: Box<Connection>,
    shared: &Shared,
) -> End {
    let Shared { node, outbox, .. } = shared;
    let form = connection.form;
    let mut reader = Box::pin(read(source, connection, shared));
    let mut writer = Box::pin(write(sink, form, shared));
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
    let end = match ending {
        Some(end) => end,
        // What waits, the replies before the end among it, is still written.
        None => writer.await,
    };
    if let End::Ours(disconnect) = &end {
        // Whatever the reason: nobody writes after the end.
        outbox.end(disconnect.clone());
        let code = disconnect.code.number.into();
        node.metrics.disconnects.get_or_create(&CodeLabel { code }).inc();
        if let Some(who) = shared.vitals.who.get().filter(|_| disconnect.code == DisconnectCode::SLOW) {
            who.tenant.metrics.losses.add(Loss::Slow, 1);
        }
        tracing::debug!(code, reason = &*disconnect.reason, "connection ended");
    }
    shared.note(&end);
    end
}

impl Shared {
    /// Remembers how the connection ended, if it was somebody's.
    fn note(&self, end: &End) {
        let Some(who) = self.vitals.who.get() else { return };
        let ending = self.vitals.ending.get_or_init(|| match end {
            End::Ours(disconnect) => (disconnect.code.number.into(), disconnect.reason.to_string()),
            End::Theirs => (0, "the client was gone".to_owned()),
        });
        let (code, reason) = ending.clone();
        if let Some(seat) = self.outbox.seat() {
            seat.closed(code, &reason);
        }
        let now = self.node.clock.now();
        self.node.journal.note(
            &who.tenant,
            ClosedConnection {
                at: now.to_string(),
                user: who.user.to_string(),
                client: who.client.to_string(),
                node: self.node.id.clone(),
                transport: self.vitals.transport.as_str().into(),
                code,
                reason,
                lasted_ms: u64::try_from(now.since(who.since).as_millis()).unwrap_or(u64::MAX),
            },
        );
    }
}

async fn read(source: &mut impl Source, mut connection: Box<Connection>, shared: &Shared) -> End {
    let Shared { node, outbox, vitals } = shared;
    let (mut ahead, may_ask) = (Ahead::default(), node.tenants.ask());
    loop {
        let next = tokio::select! {
            frame = ahead.next(source, outbox) => match frame {
                Ok(frame) => {
                    node.metrics.received(vitals.transport, frame.len());
                    if let Some(seat) = outbox.seat() {
                        seat.heard(&frame);
                    }
                    What::Frame(frame)
                }
                Err(end) => return end,
            },
            order = vitals.orders.next() => What::Order(order),
            () = reached(connection.next_expiry()) => What::Expiry,
        };
        let running = Box::pin(async {
            match next {
                What::Frame(frame) => connection.handle(&frame).await,
                What::Order(order) => connection.obey(order).await,
                What::Expiry => connection.expire().await,
            }
        });
        let done = match may_ask {
            true => ahead.run(source, outbox, vitals, running).await,
            false => Ok(running.await),
        };
        match done {
            Ok(Ok(())) => {}
            Ok(Err(disconnect)) => return End::Ours(disconnect),
            Err(end) => return end,
        }
    }
}

/// What a connection does next.
enum What {
    Frame(Bytes),
    Order(Order),
    Expiry,
}

/// Waits for a time; without one, for ever.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => Box::pin(sleep_until(time)).await,
        None => pending().await,
    }
}

/// What the writer waits for next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Connect,
    PingTime,
    Pong,
}

async fn write(sink: &mut impl Sink, form: Form, shared: &Shared) -> End {
    let Shared { node, outbox, vitals, .. } = shared;
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
            next = outbox.next() => {
                if let Err(end) = Box::pin(write_next(sink, shared, next)).await {
                    return end;
                }
                if awaited == Awaited::Connect && vitals.is_connected() {
                    (awaited, due) = (Awaited::PingTime, Instant::now() + timing.ping_every);
                }
            },
            () = &mut timer => {
                if end_at.is_some_and(|end_at| end_at <= Instant::now()) {
                    return DisconnectCode::EXPIRED.into();
                }
                match awaited {
                    // The reply to its connect command went without the writer.
                    Awaited::Connect if vitals.is_connected() => {
                        (awaited, due) = (Awaited::PingTime, due + timing.ping_every.saturating_sub(timing.connect_within));
                    }
                    Awaited::Connect => return DisconnectCode::STALE.into(),
                    Awaited::Pong if !vitals.take_heard() => return DisconnectCode::NO_PONG.into(),
                    Awaited::Pong => {
                        (awaited, due) = (Awaited::PingTime, due + (timing.ping_every - timing.pong_within));
                    }
                    Awaited::PingTime => {
                        vitals.take_heard();
                        outbox.push(Frame::new(form.encoding.ping()));
                        (awaited, due) = match form.is_unidirectional {
                            true => (Awaited::PingTime, Instant::now() + timing.ping_every),
                            false => (Awaited::Pong, Instant::now() + timing.pong_within),
                        };
                    }
                }
            }
        }
    }
}

/// Writes what was taken from the outbox.
async fn write_next(sink: &mut impl Sink, shared: &Shared, next: Next) -> Result<(), End> {
    let Shared { node, outbox, vitals, .. } = shared;
    let time_max = node.config.timing.write_within;
    let frame_bytes = match next {
        Next::Write(frames) => {
            within(sink.write(&frames), outbox, time_max).await?;
            if is_write_timed()
                && let Some(who) = vitals.who.get()
                && let Some(made) = frames.iter().find_map(Frame::made)
            {
                who.tenant.metrics.written(made);
            }
            frames.iter().map(Frame::len).sum()
        }
        Next::Finish(rest) => {
            within(sink.finish(&rest.bytes), outbox, time_max).await?;
            rest.frame_bytes
        }
        Next::Pong(payload) => {
            within(sink.pong(payload), outbox, time_max).await?;
            0
        }
        Next::Close(disconnect) => return Err(End::Ours(disconnect)),
    };
    outbox.written(frame_bytes);
    Ok(())
}

/// Writes, unless that takes too long or the connection turns out to be slow.
async fn within(
    write: impl Future<Output = io::Result<()>>,
    outbox: &Outbox,
    time_max: Duration,
) -> Result<(), End> {
    let mut write = pin!(write);
    // Most writes fit into the socket's buffer; only one that does not needs a timer.
    let outcome = match write.as_mut().now_or_never() {
        Some(outcome) => Ok(outcome),
        None => tokio::select! {
            biased;
            // The write is given up.
            disconnect = outbox.cut() => return Err(End::Ours(disconnect)),
            outcome = timeout(time_max, write) => outcome,
        },
    };
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Theirs),
        Err(_) => Err(End::Ours(Disconnect::new(
            DisconnectCode::WRITE_ERROR,
            "write error: timing.write_within is over",
        ))),
    }
}
