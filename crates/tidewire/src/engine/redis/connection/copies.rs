//! Waiting until replicas, and the server's own device, have what was written on a link.
//!
//! `WAIT` and `WAITAOF` hold up everything behind them on their link, so appends that need them have a connection of their
//! own, and all that wait on it at one time are answered by one round of them.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Connection, RequestError};
use crate::engine::Durability;
use crate::engine::redis::command::Command;
use crate::engine::redis::refusal;
use crate::engine::redis::resp::Value;

/// How long a round may hold up the link. Who needs more copies than there are waits in further rounds, between which
/// others come to their turn.
const ROUND_TIME_MAX: Duration = Duration::from_millis(100);
/// How much longer the answer to a round may take; a link that is silent for longer is dead.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// What must hold beside the primary having it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::engine::redis) struct Need {
    /// So many replicas have received it.
    pub(in crate::engine::redis) copies: u8,
    /// The primary's append-only file holds it, on the device.
    pub(in crate::engine::redis) is_fsynced: bool,
}

impl Need {
    pub(in crate::engine::redis) fn of(durability: Durability) -> Self {
        match durability {
            Durability::Fast => Self::default(),
            Durability::Replicated(copies) => Self { copies, is_fsynced: false },
            Durability::Fsynced => Self { copies: 0, is_fsynced: true },
        }
    }

    /// What satisfies both.
    pub(in crate::engine::redis) fn and(self, other: Self) -> Self {
        Self { copies: self.copies.max(other.copies), is_fsynced: self.is_fsynced || other.is_fsynced }
    }

    pub(in crate::engine::redis) fn is_any(self) -> bool {
        self != Self::default()
    }
}

/// What was found to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine::redis) struct Reached {
    pub(in crate::engine::redis) copies: u8,
    pub(in crate::engine::redis) is_fsynced: bool,
}

impl Reached {
    /// What an append that asked for `durability` is confirmed as; none if less holds.
    pub(in crate::engine::redis) fn confirms(self, durability: Durability) -> Option<Durability> {
        match durability {
            Durability::Fast => Some(Durability::Fast),
            Durability::Replicated(asked) => {
                (self.copies >= asked).then_some(Durability::Replicated(self.copies))
            }
            Durability::Fsynced => self.is_fsynced.then_some(Durability::Fsynced),
        }
    }

    fn satisfies(self, need: Need) -> bool {
        self.copies >= need.copies && (self.is_fsynced || !need.is_fsynced)
    }
}

/// How a server makes sure that its device has what it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::redis) enum Syncing {
    /// Before each reply: `appendfsync always`.
    BeforeReply,
    /// When asked, by `WAITAOF`.
    WhenAsked,
}

/// Those who wait on a connection for copies.
#[derive(Default)]
pub(super) struct Waiting {
    waiters: Mutex<Vec<Waiter>>,
    /// Held by who asks the server for all.
    turn: tokio::sync::Mutex<()>,
}

struct Waiter {
    link: u64,
    need: Need,
    syncing: Option<Syncing>,
    deadline: Instant,
    reached: oneshot::Sender<Result<Reached, RequestError>>,
}

impl Connection {
    /// Waits until all that was answered on `link` has what `need` says, and gives what it has; at the deadline that may
    /// be less. `syncing` is how the server of this link syncs, where that is needed.
    ///
    /// # Errors
    /// `NotSent` and `Unknown` when the link broke or its server became a replica: it is not known who has what.
    pub(in crate::engine::redis) async fn reach(
        &self,
        link: u64,
        need: Need,
        syncing: Option<Syncing>,
        deadline: Instant,
    ) -> Result<Reached, RequestError> {
        let waiting = &self.shared.waiting;
        let (reached, mut outcome) = oneshot::channel();
        waiting.waiters.lock().push(Waiter { link, need, syncing, deadline, reached });
        loop {
            tokio::select! {
                biased;
                // Dropped only by a leader that was dropped itself, when the engine stops.
                outcome = &mut outcome => return outcome.unwrap_or(Err(RequestError::Closed)),
                _turn = waiting.turn.lock() => {
                    // Those whose replies came with ours join the round.
                    tokio::task::yield_now().await;
                    self.ask_for_all(link).await;
                }
            }
        }
    }

    /// One round: asks for all who wait on `link`, and leaves those who are to wait on.
    async fn ask_for_all(&self, link: u64) {
        let waiters = std::mem::take(&mut *self.shared.waiting.waiters.lock());
        let (waiters, others): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|waiter| waiter.link == link);
        self.shared.waiting.waiters.lock().extend(others);
        let Some(copies) = waiters.iter().map(|waiter| waiter.need.copies).min() else { return };
        let must_ask = |waiter: &Waiter| {
            waiter.need.is_fsynced && waiter.syncing.is_none_or(|syncing| syncing == Syncing::WhenAsked)
        };
        let asks_for_sync = waiters.iter().any(must_ask);
        let outcome = self.ask_once(link, copies, asks_for_sync).await;
        let now = Instant::now();
        for waiter in waiters {
            let outcome = outcome.clone().map(|reached| Reached {
                is_fsynced: reached.is_fsynced || waiter.syncing == Some(Syncing::BeforeReply),
                ..reached
            });
            match outcome {
                Ok(reached) if !reached.satisfies(waiter.need) && now < waiter.deadline => {
                    self.shared.waiting.waiters.lock().push(waiter);
                }
                // Who waited may have gone away.
                outcome => drop(waiter.reached.send(outcome)),
            }
        }
    }

    /// How the server of `link` can sync.
    ///
    /// # Errors
    /// `Refused` with what to change where it cannot.
    pub(in crate::engine::redis) async fn syncing(
        &self,
        link: u64,
        deadline: Instant,
    ) -> Result<Syncing, RequestError> {
        let settings = Command::new("CONFIG").arg("GET").arg("append*").arg("no-appendfsync-on-rewrite");
        let command = Command::new("COMMAND").arg("INFO").arg("waitaof");
        let settings = self.submit(&settings, Some(link), deadline).await?;
        let command = self.submit(&command, Some(link), deadline).await?;
        let settings = settings.reply().await?;
        let is = |name: &str, wanted: &str| {
            setting(&settings, name).is_some_and(|value| value == wanted.as_bytes())
        };
        let can_wait = match command.reply().await? {
            Value::Array(commands) => commands.first().is_some_and(|command| *command != Value::Null),
            _ => false,
        };
        if is("appendonly", "no") {
            return Err(refused("the server keeps no append-only file: set appendonly yes"));
        }
        if is("appendfsync", "always") && is("no-appendfsync-on-rewrite", "no") {
            return Ok(Syncing::BeforeReply);
        }
        match can_wait {
            true => Ok(Syncing::WhenAsked),
            false => Err(refused(
                "the server cannot say when it has synced: it needs appendfsync always and \
                 no-appendfsync-on-rewrite no, or to be Redis 7.2 or Valkey",
            )),
        }
    }

    async fn ask_once(&self, link: u64, copies: u8, asks_for_sync: bool) -> Result<Reached, RequestError> {
        let deadline = Instant::now() + ROUND_TIME_MAX + ANSWER_TIME_MAX;
        let round = i64::try_from(ROUND_TIME_MAX.as_millis()).unwrap_or(i64::MAX);
        // Also without a need for copies: it proves that the server is still a primary.
        let wait = Command::new("WAIT").int(copies.into()).int(round);
        let copies = self.submit(&wait, Some(link), deadline).await?;
        let synced = match asks_for_sync {
            true => {
                let wait = Command::new("WAITAOF").int(1).int(0).int(round);
                Some(self.submit(&wait, Some(link), deadline).await?)
            }
            false => None,
        };
        let copies = u8::try_from(number(copies.reply().await?)?).unwrap_or(u8::MAX);
        let Some(synced) = synced else { return Ok(Reached { copies, is_fsynced: false }) };
        // The server's own device, then those of replicas.
        let local = match synced.reply().await? {
            Value::Array(counts) => counts.into_iter().next().unwrap_or(Value::Null),
            other => other,
        };
        Ok(Reached { copies, is_fsynced: number(local)? > 0 })
    }
}

fn refused(text: &'static str) -> RequestError {
    RequestError::Refused(Bytes::from_static(text.as_bytes()))
}

/// A setting in an answer to `CONFIG GET`; none where the server tells nobody.
fn setting<'a>(settings: &'a Value, name: &str) -> Option<&'a [u8]> {
    let Value::Map(settings) = settings else { return None };
    settings.iter().find(|(key, _)| key.as_bytes() == Some(name.as_bytes()))?.1.as_bytes()
}

fn number(reply: Value) -> Result<i64, RequestError> {
    match reply {
        // The server was told to follow another, before we waited or while we did.
        Value::Error(text) if refusal::is_demotion(&text) || is_of_replica(&text) => {
            Err(RequestError::Unknown("the server has become a replica".into()))
        }
        Value::Error(text) => Err(RequestError::Refused(text)),
        reply => reply.as_int().ok_or_else(|| RequestError::Refused("an answer that is no number".into())),
    }
}

fn is_of_replica(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("cannot be used with replica instances")
}
