//! One connection of many: raw TCP and our own framing, without a buffer of its own.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use anyhow::anyhow;
use tidewire_protocol::codes::DisconnectCode;
use tidewire_protocol::websocket::{
    FrameHeader, Incoming, Opcode, Reader, Role, accept_key, encode_close, encode_frame,
};
use tidewire_protocol::{
    Command, ConnectRequest, Encoding, Method, PushBody, Reply, ReplyBody, SubscribeRequest,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::number::{number_in, number_in_line};
use super::target::Target;
use crate::print::one_line;
use crate::wire::Ended;

/// From the first packet to the answer to the connect command. Long, because a server that thousands call at once answers
/// late, and is to be measured.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// Largest text or binary taken from a server, in bytes: an event, with room around it.
const RECEIVED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest head of an HTTP answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What all connections of a thread read into, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;
/// Any 16 bytes would do: the key proves that a server speaks WebSocket, and hides nothing.
const HANDSHAKE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// An open connection whose connect command was accepted.
pub(super) struct Connection {
    stream: TcpStream,
    reader: Reader,
    encoding: Encoding,
    last_id: u32,
    answers_pings: bool,
}

impl Connection {
    pub(super) async fn open(target: &Target) -> Result<Self, Ended> {
        let opening = Self::open_slowly(target);
        let opened = timeout(OPEN_WITHIN, opening).await;
        opened.map_err(|_| Ended::Lost(format!("{target} did not answer within {OPEN_WITHIN:?}")))?
    }

    async fn open_slowly(target: &Target) -> Result<Self, Ended> {
        let mut stream = TcpStream::connect(target.address)
            .await
            .map_err(|error| Ended::Lost(target.unreachable(&error)))?;
        stream.set_nodelay(true).map_err(lost)?;
        upgrade(&mut stream, target).await?;
        let mut connection = Self {
            stream,
            reader: Reader::new(Role::Client, RECEIVED_BYTES_MAX),
            encoding: target.encoding,
            last_id: 0,
            answers_pings: false,
        };
        let connect = Method::Connect(ConnectRequest {
            token: target.token.as_deref().unwrap_or_default().into(),
            name: env!("CARGO_BIN_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..ConnectRequest::default()
        });
        let answers_pings = connection
            .ask("connect", connect, |body| match body {
                ReplyBody::Connect(result) => Some(result.pong),
                _ => None,
            })
            .await?;
        connection.answers_pings = answers_pings;
        Ok(connection)
    }

    /// Subscribes, and waits for the answer. What is published meanwhile is passed over.
    pub(super) async fn subscribe(&mut self, channel: &str) -> Result<(), Ended> {
        let request = SubscribeRequest { channel: channel.into(), ..SubscribeRequest::default() };
        let is_subscribed = |body: &ReplyBody<'_>| matches!(body, ReplyBody::Subscribe(_)).then_some(());
        self.ask(channel, Method::Subscribe(request), is_subscribed).await
    }

    /// Publishes all of it in one frame, and waits for the answers.
    pub(super) async fn publish(&mut self, requests: Vec<Method<'_>>) -> Result<(), Ended> {
        let first = self.last_id + 1;
        let mut left = requests.len();
        self.send(requests).await?;
        while left > 0 {
            self.read(|reply| {
                left -= usize::from(reply.id >= first);
                match reply.body {
                    ReplyBody::Error(error) => Err(Ended::by_error("publish", &error)),
                    _ => Ok(()),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Sends commands in one frame; the replies to them carry the ids up to the one returned.
    pub(super) async fn send(&mut self, methods: Vec<Method<'_>>) -> Result<u32, Ended> {
        let mut payload = Vec::new();
        for method in methods {
            if !payload.is_empty() {
                payload.extend_from_slice(self.encoding.separator());
            }
            self.last_id += 1;
            payload.extend_from_slice(&Command { id: self.last_id, method }.encode(self.encoding));
        }
        let frame = self.frame(&payload);
        self.stream.write_all(&frame).await.map_err(lost)?;
        Ok(self.last_id)
    }

    /// Waits for bytes, and hands on each reply that is whole. Pings are answered.
    pub(super) async fn read(
        &mut self,
        mut hear: impl FnMut(Reply<'_>) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let encoding = self.encoding;
        self.payloads(|payload| {
            let mut ping_count = 0;
            for reply in encoding.decode_replies(payload).map_err(off_protocol)? {
                match reply.body {
                    ReplyBody::ServerPing => ping_count += 1,
                    _ => hear(reply)?,
                }
            }
            Ok(ping_count)
        })
        .await
    }

    /// Waits for bytes, and hands on the number of each event of ours.
    pub(super) async fn read_numbers(&mut self, mut hear: impl FnMut(u64)) -> Result<(), Ended> {
        let encoding = self.encoding;
        self.payloads(|payload| {
            if encoding == Encoding::Protobuf {
                return hear_replies(encoding, payload, &mut hear);
            }
            let mut ping_count = 0;
            for line in str::from_utf8(payload).map_err(off_protocol)?.split('\n') {
                // Decoding each would cost as much as it costs the server to send it.
                match line.starts_with("{\"push\"").then(|| number_in_line(line)).flatten() {
                    Some(number) => hear(number),
                    None => ping_count += hear_replies(encoding, line.as_bytes(), &mut hear)?,
                }
            }
            Ok(ping_count)
        })
        .await
    }

    /// Says good-bye, so that the server does not take it for a lost connection.
    pub(super) async fn close(mut self) {
        let close = encode_close(Some((DisconnectCode::NORMAL_CLOSURE.number, "")), Some(mask()));
        // It finds out anyhow.
        let _said = self.stream.write_all(&close).await.is_ok();
    }

    /// Asks, and waits for what `take` makes of the answer.
    async fn ask<T>(
        &mut self,
        what: &str,
        method: Method<'_>,
        take: impl Fn(&ReplyBody<'_>) -> Option<T>,
    ) -> Result<T, Ended> {
        let id = self.send(vec![method]).await?;
        let mut answer = None;
        while answer.is_none() {
            self.read(|reply| {
                match (&reply.body, reply.id == id) {
                    (_, false) => {}
                    (ReplyBody::Error(error), true) => return Err(Ended::by_error(what, error)),
                    (body, true) => match take(body) {
                        Some(taken) => answer = Some(taken),
                        None => return Err(off_protocol("an answer of another kind")),
                    },
                }
                Ok(())
            })
            .await?;
        }
        answer.ok_or_else(|| off_protocol("no answer"))
    }

    /// Reads once; `take` gets each payload, and returns how many pings were in it.
    async fn payloads(&mut self, mut take: impl FnMut(&[u8]) -> Result<usize, Ended>) -> Result<(), Ended> {
        let mut answers = Vec::new();
        let mut ping_count = 0;
        poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut bytes = ReadBuf::new(buffer);
                ready!(Pin::new(&mut self.stream).poll_read(context, &mut bytes)).map_err(lost)?;
                if bytes.filled().is_empty() {
                    return Poll::Ready(Err(Ended::Lost("server closed the connection".into())));
                }
                let mut input = bytes.filled();
                while let Some(incoming) = self.reader.read(&mut input).map_err(off_protocol)? {
                    match incoming {
                        Incoming::Text(text) => ping_count += take(text.as_bytes())?,
                        Incoming::Binary(binary) => ping_count += take(&binary)?,
                        Incoming::Ping(data) => {
                            let header = FrameHeader::whole(Opcode::Pong, data.len()).masked(mask());
                            answers.extend_from_slice(&encode_frame(header, &data));
                        }
                        Incoming::Pong(_) => {}
                        Incoming::Close(close) => return Poll::Ready(Err(by_close(close))),
                    }
                }
                Poll::Ready(Ok(()))
            })
        })
        .await?;
        if self.answers_pings {
            (0..ping_count).for_each(|_| answers.extend_from_slice(&self.frame(&self.encoding.ping())));
        }
        if answers.is_empty() { Ok(()) } else { self.stream.write_all(&answers).await.map_err(lost) }
    }

    fn frame(&self, payload: &[u8]) -> bytes::Bytes {
        let opcode = match self.encoding {
            Encoding::Json => Opcode::Text,
            Encoding::Protobuf => Opcode::Binary,
        };
        encode_frame(FrameHeader::whole(opcode, payload.len()).masked(mask()), payload)
    }
}

/// The numbers of events in replies, and how many pings are among them.
fn hear_replies(encoding: Encoding, payload: &[u8], hear: &mut impl FnMut(u64)) -> Result<usize, Ended> {
    let mut ping_count = 0;
    for reply in encoding.decode_replies(payload).map_err(off_protocol)? {
        match reply.body {
            ReplyBody::ServerPing => ping_count += 1,
            ReplyBody::Push(push) => match push.body {
                PushBody::Publication(event) => {
                    number_in(event.data.as_bytes()).into_iter().for_each(&mut *hear)
                }
                other => check_push(&other)?,
            },
            _ => {}
        }
    }
    Ok(ping_count)
}

/// The end of a connection, where it ends the command too.
pub(super) fn into_error(ended: Ended) -> anyhow::Error {
    match ended {
        Ended::Lost(reason) => anyhow!(reason),
        Ended::Final(error) => error,
    }
}

/// A subscription that the server ends is an error: nobody asked for it.
pub(super) fn check_push(push: &PushBody<'_>) -> Result<(), Ended> {
    match push {
        PushBody::Unsubscribe(end) => Err(Ended::Lost(format!(
            "server ended the subscription: {} (code {})",
            one_line(&end.reason),
            end.code
        ))),
        _ => Ok(()),
    }
}

/// Becomes a WebSocket.
async fn upgrade(stream: &mut TcpStream, target: &Target) -> Result<(), Ended> {
    let protocol = match target.encoding {
        Encoding::Json => "",
        Encoding::Protobuf => "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
    };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {HANDSHAKE_KEY}\r\n{protocol}\r\n",
        target.client_path(),
        target.authority()
    );
    stream.write_all(request.as_bytes()).await.map_err(lost)?;
    // Behind the head of a WebSocket nothing comes before it is asked for; another answer's body says nothing to us.
    let mut head = Vec::new();
    while !is_whole(&head) {
        if head.len() > HEAD_BYTES_MAX || stream.read_buf(&mut head).await.map_err(lost)? == 0 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let accepted = head.lines().filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("sec-websocket-accept")
            && Some(value.trim()) == accept_key(HANDSHAKE_KEY).as_deref()
    });
    match status {
        101 if accepted => Ok(()),
        500.. => Err(Ended::Lost(format!("{target} takes no connection now: status {status}"))),
        0 => Err(Ended::Lost(format!("{target} answers no HTTP"))),
        _ => Err(Ended::Final(anyhow!(
            "{target} answers status {status}: is that where clients connect? Give --url the path too"
        ))),
    }
}

fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|window| window == b"\r\n\r\n")
}

fn by_close(close: Option<(u16, String)>) -> Ended {
    let Some((number, reason)) = close else {
        return Ended::Lost("server closed the connection".into());
    };
    let text = format!("server closed the connection: {} (code {number})", one_line(&reason));
    match (DisconnectCode { number, text: "" }).may_reconnect() {
        true => Ended::Lost(text),
        false if number == DisconnectCode::INVALID_TOKEN.number => Ended::Final(anyhow!(
            "{text}; give --token or TIDEWIRE_TOKEN one that the server accepts, such as `tidewire token` makes"
        )),
        false => Ended::Final(anyhow!(text)),
    }
}

fn lost(error: io::Error) -> Ended {
    Ended::Lost(error.to_string())
}

fn off_protocol(what: impl fmt::Display) -> Ended {
    Ended::Final(anyhow!("server does not keep to the client protocol: {what}"))
}

/// A new one for each frame.
fn mask() -> [u8; 4] {
    fastrand::u32(..).to_ne_bytes()
}
