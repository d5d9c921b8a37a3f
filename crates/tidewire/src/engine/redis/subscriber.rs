//! The connection that listens: one for all channels and patterns of a node, apart from the data connection. On a
//! cluster, one for each primary.
//!
//! Nothing here pairs replies with requests by their count. Each batch of changes is followed by a `PING` with a number
//! of its own; when that number comes back, everything before it has taken effect, and an error that came before it
//! belongs to that batch. Confirmations and `*unsubscribe` pushes are not replies: a server may send them unasked. On a
//! cluster the last one of a name says whether the server hears it for us.

mod interests;
mod listen;
mod sharded;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use self::interests::{Change, Interests, Mode, Name};
pub(super) use self::sharded::Sharded;
use super::link::{Dial, Link, Openings};
use super::refusal::{self, Explained};
use crate::engine::{Heard, Interest, Sink};
use crate::error::{Error, ErrorKind, Result};
use crate::tasks::Tasks;

/// The outcome of a batch of changes.
type Confirm = oneshot::Sender<Result<(), String>>;

/// A handle on the listening connection.
pub(super) struct Subscriber {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    interests: Mutex<Interests>,
    /// Wakes the connection when there are changes to send.
    changed: Notify,
    openings: Openings,
    told: Told,
}

/// Who is told what this connection hears, and what it does not hear any more.
enum Told {
    Sink(Arc<dyn Sink>),
    Sharded(Arc<Sharded>),
}

impl Told {
    fn hear(&self, heard: Heard) {
        match self {
            Self::Sink(sink) => sink.hear(heard),
            Self::Sharded(sharded) => sharded.hear(heard),
        }
    }
}

impl Subscriber {
    /// Takes over an open link and listens on it, and on those that `dial` opens after it.
    pub(super) fn open(link: Link, dial: Arc<dyn Dial>, sink: Arc<dyn Sink>, tasks: &Tasks) -> Self {
        Self::begin(Some(link), dial, Interests::new(Mode::Classic), Told::Sink(sink), tasks)
    }

    /// Listens to the slots of one primary of a cluster, on the links that `dial` opens in the background.
    pub(super) fn sharded(dial: Arc<dyn Dial>, sharded: Arc<Sharded>, tasks: &Tasks) -> Self {
        Self::begin(None, dial, Interests::new(Mode::Sharded), Told::Sharded(sharded), tasks)
    }

    fn begin(
        link: Option<Link>,
        dial: Arc<dyn Dial>,
        interests: Interests,
        told: Told,
        tasks: &Tasks,
    ) -> Self {
        let shared = Arc::new(Shared {
            interests: Mutex::new(interests),
            changed: Notify::new(),
            openings: Openings::default(),
            told,
        });
        let stop = tasks.stopping().child_token();
        let listening = listen::keep_listening(shared.clone(), link, dial);
        let (stopped, closed) = (stop.clone(), shared.clone());
        tasks.spawn(async move {
            stopped.run_until_cancelled(listening).await;
            closed.interests.lock().close();
        });
        Self { shared, _stop: stop.drop_guard() }
    }

    /// Starts to hear `interests` of a server that matches patterns; answers when it hears for us.
    pub(super) async fn subscribe(&self, interests: Vec<Interest>, deadline: Instant) -> Result<()> {
        let names: Vec<Name> = interests.iter().map(Name::of).collect();
        self.hear(&names, deadline).await
    }

    /// Stops to hear `interests` of a server that matches patterns.
    pub(super) fn unsubscribe(&self, interests: &[Interest]) {
        let names: Vec<Name> = interests.iter().map(Name::of).collect();
        self.leave(&names);
    }

    /// Starts to hear `names`; answers when the server hears for us.
    pub(super) async fn hear(&self, names: &[Name], deadline: Instant) -> Result<()> {
        let changes = self.shared.interests.lock().add(names);
        if changes.is_empty() {
            return Ok(());
        }
        let outcome = self.confirm(changes, deadline).await;
        if outcome.is_err() {
            self.shared.interests.lock().give_up(names);
        }
        outcome
    }

    /// Stops to hear `names`. What cannot be told to the server now is told by not asking the next link for it.
    pub(super) fn leave(&self, names: &[Name]) {
        let mut held = self.shared.interests.lock();
        let changes = held.remove(names);
        let is_changed = !changes.is_empty();
        held.queue(changes, None);
        drop(held);
        if is_changed {
            self.shared.changed.notify_one();
        }
    }

    /// How often it had a link, and since when it has this one.
    pub(super) fn openings(&self) -> &Openings {
        &self.shared.openings
    }

    /// Time of a round trip made now.
    pub(super) async fn ping(&self, time_max: Duration) -> Result<Duration> {
        let start = Instant::now();
        self.confirm(Vec::new(), start + time_max).await?;
        Ok(start.elapsed())
    }

    async fn confirm(&self, changes: Vec<Change>, deadline: Instant) -> Result<()> {
        let (confirm, confirmed) = oneshot::channel();
        self.shared.interests.lock().queue(changes, Some(confirm));
        self.shared.changed.notify_one();
        match timeout_at(deadline, confirmed).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(refusal))) => {
                let kind = refusal::kind_of(refusal.as_bytes());
                Err(Error::new(
                    kind,
                    format!("redis refused to subscribe: {}", Explained(refusal.as_bytes())),
                ))
            }
            Ok(Err(_)) => Err(Error::closed("the connection to redis")),
            Err(_) => {
                let why = self.shared.interests.lock().fault();
                Err(Error::new(ErrorKind::Unavailable, format!("redis did not confirm in time: {why}")))
            }
        }
    }
}

#[cfg(test)]
mod tests;
