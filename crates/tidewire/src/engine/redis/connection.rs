//! A multiplexed connection: many callers, one link at a time, redialed when it breaks.
//!
//! Callers encode straight into one shared buffer and get a reply slot; the writer lets other callers add theirs before
//! it writes once for all; the reader gives replies to slots in order. A push is never a reply. A caller that goes away
//! leaves its slot behind, so that the pairing stays right; its reply is dropped when it comes.

mod queue;
mod supervisor;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use self::queue::{Enqueue, Shared};
use super::command::Encode;
use super::link::{Dial, Link, Server};
use super::resp::Value;
use crate::error::{Error, ErrorKind};
use crate::tasks::Tasks;

/// Bytes of commands that wait to be written or answered, per connection. Past it callers wait, in order.
const IN_FLIGHT_BYTES_MAX: usize = 16 << 20;
/// How often an outcome-unknown request that may be repeated is sent; a command that breaks each link must end.
const SENDS_MAX: u32 = 4;

/// A handle on a multiplexed connection. Clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    /// The tasks end with the last handle, or with all tasks of the engine.
    _stop: Arc<DropGuard>,
}

/// Whether a request may take effect twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It is idempotent or deduplicated: sent again after a break that leaves its outcome unknown.
    Safe,
    /// Sent again only while nothing of it can have been executed.
    Never,
}

/// What a connection does now.
#[derive(Clone, Debug)]
pub(super) enum LinkState {
    /// A greeted link is open; `links` counts those opened so far.
    Up { links: u64, server: Server },
    /// No link, and why; it is being dialed.
    Down(Arc<str>),
    /// Closed for good.
    Closed,
}

/// Why a request has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    /// The link broke, or there was none; the server cannot have executed the request.
    NotSent(Arc<str>),
    /// The link broke after all of the request was written: it was executed or not.
    Unknown(Arc<str>),
    /// The deadline passed; `sent` says whether the server may have the request.
    TimedOut { sent: bool },
    /// The deadline passed while the queue had no room.
    Full,
    /// The request alone is larger than the queue.
    TooLarge { bytes: usize },
    /// The server answered with this error.
    Refused(Bytes),
    /// The connection was closed before the request was written.
    Closed,
}

impl Connection {
    /// Takes over an open link and keeps the connection up with `dial`, until `tasks` stop.
    pub(super) fn open(link: Link, dial: Arc<dyn Dial>, tasks: &Tasks) -> Self {
        let (state, _) = watch::channel(LinkState::Down("not connected yet".into()));
        let shared = Arc::new(Shared::new(state, IN_FLIGHT_BYTES_MAX));
        let stop = tasks.stopping().child_token();
        // Opened here, not in the task: a request that is made at once finds the link.
        shared.open_link(link.server.clone());
        tasks.spawn(supervisor::keep_up(shared.clone(), link, dial, stop.clone(), tasks.clone()));
        Self { shared, _stop: Arc::new(stop.drop_guard()) }
    }

    /// Sends a command and waits for its reply until `deadline`; an error reply is an error.
    ///
    /// While there is no link the request waits for one. The deadline is kept to a tenth of a second. Dropping
    /// the future drops the reply, never its place: the command may still be executed.
    pub(super) async fn request<C: Encode + ?Sized>(
        &self,
        command: &C,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<Value, RequestError> {
        let mut sends = 0;
        loop {
            match self.send_once(command, deadline).await {
                Ok(Value::Error(text)) => return Err(RequestError::Refused(text)),
                Ok(value) => return Ok(value),
                Err(RequestError::NotSent(_)) if Instant::now() < deadline => {}
                Err(RequestError::Unknown(_)) if repeat == Repeat::Safe && sends + 1 < SENDS_MAX => sends += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn send_once<C: Encode + ?Sized>(&self, command: &C, deadline: Instant) -> Result<Value, RequestError> {
        let bytes_max = command.wire_bytes_max();
        let mut room = None;
        let reply = loop {
            match self.shared.enqueue(command, bytes_max, deadline, room.take()) {
                Enqueue::Queued(reply) => break reply,
                Enqueue::NoRoom => room = Some(self.shared.wait_for_room(bytes_max, deadline).await?),
                Enqueue::NoLink => self.wait_for_link(deadline).await?,
                Enqueue::TooLarge => return Err(RequestError::TooLarge { bytes: bytes_max }),
            }
        };
        // The sender is dropped only with the connection's tasks.
        reply.await.unwrap_or(Err(RequestError::Unknown("the connection was dropped".into())))
    }

    async fn wait_for_link(&self, deadline: Instant) -> Result<(), RequestError> {
        let mut state = self.shared.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, LinkState::Down(_)));
        match tokio::time::timeout_at(deadline, settled).await {
            Ok(Ok(state)) if matches!(*state, LinkState::Up { .. }) => Ok(()),
            Ok(_) => Err(RequestError::Closed),
            Err(_) => match &*self.shared.state.borrow() {
                LinkState::Down(why) => Err(RequestError::NotSent(why.clone())),
                _ => Err(RequestError::TimedOut { sent: false }),
            },
        }
    }

    /// What the connection does now.
    pub(super) fn state(&self) -> LinkState {
        self.shared.state.borrow().clone()
    }

    /// Time of a round trip made now.
    pub(super) async fn ping(&self, time_max: Duration) -> Result<Duration, RequestError> {
        let start = Instant::now();
        self.request(&[b"PING".as_slice()], Repeat::Safe, start + time_max).await?;
        Ok(start.elapsed())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("state", &*self.shared.state.borrow()).finish_non_exhaustive()
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "redis cannot be reached: {why}"),
            Self::Unknown(why) => write!(f, "the link to redis broke before the answer: {why}"),
            Self::TimedOut { sent: true } => f.write_str("redis did not answer in time (limits.call_time_max)"),
            Self::TimedOut { sent: false } => {
                f.write_str("the request was not sent to redis in time (limits.call_time_max)")
            }
            Self::Full => write!(f, "{IN_FLIGHT_BYTES_MAX} bytes of requests to redis wait already"),
            Self::TooLarge { bytes } => {
                write!(f, "a request of {bytes} bytes to redis is over its limit of {IN_FLIGHT_BYTES_MAX}")
            }
            Self::Refused(text) => write!(f, "redis refused: {}", String::from_utf8_lossy(text)),
            Self::Closed => f.write_str("the connection to redis is closed"),
        }
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        let kind = match &error {
            RequestError::NotSent(_) | RequestError::TimedOut { sent: false } => ErrorKind::Unavailable,
            RequestError::Unknown(_) | RequestError::TimedOut { sent: true } => ErrorKind::TimedOut,
            RequestError::Full => ErrorKind::Backpressure,
            RequestError::TooLarge { .. } => ErrorKind::TooLarge,
            RequestError::Refused(text) => kind_of_refusal(text),
            RequestError::Closed => ErrorKind::Closed,
        };
        Self::new(kind, error.to_string())
    }
}

/// What a caller can do about an error reply, by its first word.
fn kind_of_refusal(text: &[u8]) -> ErrorKind {
    match text.split(|&byte| byte == b' ').next().unwrap_or_default() {
        // The server says so itself: not now. Nothing was executed.
        b"LOADING" | b"MASTERDOWN" | b"READONLY" | b"CLUSTERDOWN" | b"TRYAGAIN" | b"BUSY" | b"NOREPLICAS" => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Engine,
    }
}

#[cfg(test)]
mod tests;
