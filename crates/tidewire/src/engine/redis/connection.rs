//! A multiplexed connection: many callers, one link at a time, redialed when it breaks.
//!
//! Callers encode straight into one shared buffer and get a reply slot; the writer lets other callers add theirs before
//! it writes once for all; the reader gives replies to slots in order. A push is never a reply. A caller that goes away
//! leaves its slot behind, so that the pairing stays right; its reply is dropped when it comes.

mod copies;
mod queue;
mod reply;
mod supervisor;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

pub(super) use self::copies::{Need, Reached, Syncing};
use self::queue::{Enqueue, Shared};
pub(super) use self::reply::Pending;
use super::command::Encode;
use super::link::{Dial, Link, Openings};
use super::refusal::{self, Explained};
use super::resp::Value;
use crate::error::{Error, ErrorKind};
use crate::tasks::Tasks;

/// Bytes of commands that wait to be written or answered, per connection. Past it callers wait, in order.
const IN_FLIGHT_BYTES_MAX: usize = 16 << 20;
/// How often an outcome-unknown request that may be repeated is sent; a command that breaks each link must end.
pub(super) const SENDS_MAX: u32 = 4;

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
    /// A greeted link is open: the first is 1, each later one has a higher number.
    Up(u64),
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
    /// The deadline passed; the server may have executed the request, or may yet.
    TimedOut,
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
        Self::begin(Some(link), dial, tasks)
    }

    /// As [`Connection::open`], where the first link is dialed in the background too.
    pub(super) fn dialing(dial: Arc<dyn Dial>, tasks: &Tasks) -> Self {
        Self::begin(None, dial, tasks)
    }

    fn begin(link: Option<Link>, dial: Arc<dyn Dial>, tasks: &Tasks) -> Self {
        let (state, _) = watch::channel(LinkState::Down("not connected yet".into()));
        let shared = Arc::new(Shared::new(state, IN_FLIGHT_BYTES_MAX));
        let stop = tasks.stopping().child_token();
        // Opened here, not in the task: a request that is made at once finds the link.
        if link.is_some() {
            shared.open_link();
        }
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
        // A link and room for the request are the rule; the rest is apart, so that this future stays small.
        let first = self.shared.enqueue(command, command.wire_bytes_max(), deadline, None, None);
        let repeated = match first {
            Enqueue::Queued(pending) => match pending.await {
                Ok(Value::Error(text)) => return Err(RequestError::Refused(text)),
                Err(RequestError::NotSent(_)) => 0,
                Err(RequestError::Unknown(_)) if repeat == Repeat::Safe => 1,
                outcome => return outcome,
            },
            Enqueue::NoRoom | Enqueue::NoLink | Enqueue::TooLarge => 0,
        };
        Box::pin(self.request_patiently(command, repeat, deadline, repeated)).await
    }

    /// Sends a command until it is answered, after outcomes of it that were unknown `repeated` times.
    async fn request_patiently<C: Encode + ?Sized>(
        &self,
        command: &C,
        repeat: Repeat,
        deadline: Instant,
        mut repeated: u32,
    ) -> Result<Value, RequestError> {
        loop {
            match self.send_once(command, deadline).await {
                Ok(Value::Error(text)) => return Err(RequestError::Refused(text)),
                Ok(value) => return Ok(value),
                Err(RequestError::NotSent(_)) if Instant::now() < deadline => {}
                Err(RequestError::Unknown(_)) if repeat == Repeat::Safe && repeated + 1 < SENDS_MAX => {
                    repeated += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn send_once<C: Encode + ?Sized>(
        &self,
        command: &C,
        deadline: Instant,
    ) -> Result<Value, RequestError> {
        loop {
            match self.submit(command, None, deadline).await {
                Ok(pending) => return pending.reply().await,
                Err(RequestError::NotSent(_)) => self.link(deadline).await?,
                Err(error) => return Err(error),
            };
        }
    }

    /// As [`Connection::request`], once and only if there is a link now; an error reply is a value here.
    pub(super) async fn try_request<C: Encode + ?Sized>(
        &self,
        command: &C,
        deadline: Instant,
    ) -> Result<Value, RequestError> {
        self.submit(command, None, deadline).await?.reply().await
    }

    /// Queues a command and gives its reply to come. With a `link`, on that link and on no other: commands that
    /// are submitted one after the other to one link are executed in that order.
    ///
    /// # Errors
    /// `NotSent` when there is no such link now, `Full` when there was no room in time, `TooLarge`.
    pub(super) async fn submit<C: Encode + ?Sized>(
        &self,
        command: &C,
        link: Option<u64>,
        deadline: Instant,
    ) -> Result<Pending, RequestError> {
        let bytes_max = command.wire_bytes_max();
        let mut turn = None;
        loop {
            match self.shared.enqueue(command, bytes_max, deadline, link, turn.take()) {
                Enqueue::Queued(pending) => return Ok(pending),
                Enqueue::NoRoom => {
                    turn = Some(Box::pin(self.shared.wait_for_room(bytes_max, deadline)).await?);
                }
                Enqueue::NoLink => return Err(RequestError::NotSent(self.why_down())),
                Enqueue::TooLarge => return Err(RequestError::TooLarge { bytes: bytes_max }),
            }
        }
    }

    /// The number of the open link; waits for one until `deadline`.
    pub(super) async fn link(&self, deadline: Instant) -> Result<u64, RequestError> {
        let mut state = self.shared.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, LinkState::Down(_)));
        match tokio::time::timeout_at(deadline, settled).await {
            Ok(Ok(state)) => match &*state {
                LinkState::Up(link) => Ok(*link),
                LinkState::Down(_) | LinkState::Closed => Err(RequestError::Closed),
            },
            Ok(Err(_)) => Err(RequestError::Closed),
            Err(_) => Err(RequestError::NotSent(self.why_down())),
        }
    }

    /// Waits until `link` is not the open link any more.
    pub(super) async fn lost(&self, link: u64) {
        let mut state = self.shared.state.subscribe();
        // An error says that the connection itself is gone.
        drop(state.wait_for(|state| !matches!(state, LinkState::Up(up) if *up == link)).await);
    }

    fn why_down(&self) -> Arc<str> {
        match &*self.shared.state.borrow() {
            LinkState::Down(why) => why.clone(),
            LinkState::Up(_) | LinkState::Closed => "the link has just changed".into(),
        }
    }

    /// Whether both are handles on the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// How often it had a link, and since when it has this one.
    pub(super) fn openings(&self) -> &Openings {
        &self.shared.openings
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
            Self::TimedOut => f.write_str("redis did not answer in time (limits.call_time_max)"),
            Self::Full => write!(f, "{IN_FLIGHT_BYTES_MAX} bytes of requests to redis wait already"),
            Self::TooLarge { bytes } => {
                write!(f, "a request of {bytes} bytes to redis is over its limit of {IN_FLIGHT_BYTES_MAX}")
            }
            Self::Refused(text) => write!(f, "redis refused: {}", Explained(text)),
            Self::Closed => f.write_str("the connection to redis is closed"),
        }
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        let kind = match &error {
            RequestError::NotSent(_) => ErrorKind::Unavailable,
            RequestError::Unknown(_) | RequestError::TimedOut => ErrorKind::TimedOut,
            RequestError::Full => ErrorKind::Backpressure,
            RequestError::TooLarge { .. } => ErrorKind::TooLarge,
            RequestError::Refused(text) => refusal::kind_of(text),
            RequestError::Closed => ErrorKind::Closed,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests;
