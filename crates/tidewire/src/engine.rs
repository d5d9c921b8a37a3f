//! The seam between the library and what stores and moves bytes.
//!
//! Three object-safe traits, bytes only: [`PubSub`] moves live events and announcements, [`Log`] keeps
//! streams and the groups that read them, [`Store`] keeps entries under keys. `bus` and
//! `kit` are written once over the seam; an engine never sees an event's data, a handler or a policy.
//! `docs/seam.md` draws the whole of it, with the methods that later capabilities add, and says for each
//! what is atomic on the embedded engine, on one Redis, and on a Cluster.
//!
//! # Rules for every method
//! - **Names are valid.** Paths are checked where they enter the library.
//! - **Bounded.** At most [`limits::BATCH_EVENTS_MAX`](crate::limits::BATCH_EVENTS_MAX) entries and
//!   [`limits::BATCH_BYTES_MAX`](crate::limits::BATCH_BYTES_MAX) bytes go into or come out of a call; the
//!   caller splits. A call ends within [`Limits::call_time_max`](crate::Limits::call_time_max).
//! - **Cancel-safe.** Dropping a future abandons the answer, never the pairing of answers with callers;
//!   the operation may still happen.
//! - **Errors by outcome.** `Unavailable` and `Backpressure`: nothing was done. `TimedOut`: unknown.
//!   `Engine`: refused, and a retry will not help.

pub mod embedded;
mod finding;
mod group;
mod log;
mod members;
mod pubsub;
pub mod redis;
mod store;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use finding::{Examine, Finding};
pub use group::{
    Adopted, Change, Commit, GroupStats, Listing, Opened, Opening, RecordStats, Shelf, ShelfItem, Start,
    Turn, Turned,
};
pub use log::Durability;
pub use log::{
    Announce, Append, Appended, AtBound, Dedup, Direction, Effect, Fork, Log, Page, Range, Retention, Seen,
    Stored, StreamStats, Term, Trimmed, Version,
};
pub use members::{Member, MembersChange, MembersChanged, MembersCondition, MembersPage};
pub use pubsub::{Heard, Interest, Kept, Probe, PubSub, Sink};
pub use store::{Condition, Store};

use crate::clock::Clock;
use crate::error::Result;
use crate::limits::Limits;
use crate::tasks::Tasks;

/// What every method of the seam returns. A boxed future keeps the traits object-safe.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// An open engine. Dropping the last clone stops its tasks; [`Tasks::close`] on `tasks` drains them first.
#[derive(Clone)]
pub struct Engine {
    /// Live events and announcements.
    pub pubsub: Arc<dyn PubSub>,
    /// Streams.
    pub log: Arc<dyn Log>,
    /// Entries under keys.
    pub store: Arc<dyn Store>,
    /// What it finds out about itself, for those who operate it.
    pub examine: Examine,
    /// Its name for people: `memory`, `file`, `redis`.
    pub name: &'static str,
    /// Whether confirmed appends survive a restart of this process.
    pub is_durable: bool,
    /// Whether several processes can open it and hear each other.
    pub is_shared: bool,
    /// Its background tasks.
    pub tasks: Tasks,
}

/// What an engine is given when it is opened.
pub struct Setup {
    /// Where it delivers what it hears.
    pub sink: Arc<dyn Sink>,
    /// The time.
    pub clock: Clock,
    /// The bounds.
    pub limits: Limits,
    /// Where it spawns background work.
    pub tasks: Tasks,
}
