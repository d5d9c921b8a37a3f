//! A channel: the handle that publishes, appends, subscribes and reads.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use super::Bus;
use super::append::Appending;
use super::batch::Batching;
use super::fold::Folding;
use super::group::{Group, Tracing};
use super::item::Received;
use super::read::Reading;
use super::stats::{Counters, PublisherStats, Rates, SubscriberStats};
use super::subscription::Subscribing;
use crate::engine::{Interest, Start, StreamStats, Trimmed};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Receiving, Sending, Violation, conform, opened};
use crate::name::{ChannelPath, GroupPath};
use crate::position::Position;

/// A name in a tenant that events are published to and subscribed to. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidewire::Result<()> {
/// use std::time::Duration;
/// use tidewire::{Event, Tidewire};
///
/// let tidewire = Tidewire::open("memory:").await?;
/// let orders = tidewire.tenant("shop")?.channel("orders")?;
/// let mut subscription = orders.subscribe().open().await?;
///
/// let receipt = orders.append(Event::new("order.placed", r#"{"id":7}"#)).dedup("order-7").await?;
///
/// let received = subscription.next().await.and_then(|item| item.into_event()).expect("the event");
/// assert_eq!(received.position, receipt.position);
/// assert_eq!(received.event.data(), r#"{"id":7}"#);
/// tidewire.close(Duration::from_secs(5)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Channel {
    bus: Arc<Bus>,
    path: ChannelPath,
    counters: Arc<Counters>,
}

/// What is known of a channel: its stream, and what this node did with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelStats {
    /// Nodes that listen to exactly this channel.
    pub subscribers: u64,
    /// Its stream: length, first and last offset, bytes, removed.
    pub stream: StreamStats,
    /// What this node sent.
    pub published: PublisherStats,
    /// What this node's subscriptions got.
    pub received: SubscriberStats,
    /// Events per second on this node, between the last two calls that were a second or more apart.
    pub rates: Rates,
}

impl Channel {
    pub(crate) fn new(bus: Arc<Bus>, path: ChannelPath) -> Self {
        let counters = bus.stats.channel(&path);
        Self { bus, path, counters }
    }

    /// The name within its tenant.
    pub fn name(&self) -> &str {
        self.path.channel()
    }

    /// The full name.
    pub fn path(&self) -> &ChannelPath {
        &self.path
    }

    /// Sends a live event to whoever listens now: no offset, no memory, at most once.
    ///
    /// Tried again after a failure that may pass; receivers drop the second copy of an event among the last 256
    /// of the channel. Dropping the future may leave the event sent.
    ///
    /// # Errors
    /// `TooLarge` past a limit; `Unavailable` or `TimedOut` when the retries are used up; `Closed`.
    pub async fn publish(&self, event: Event) -> Result<()> {
        self.bus.publish(&self.path, &self.counters, event).await
    }

    /// Appends an event to the channel's stream and announces it, in one atomic step; await the result.
    ///
    /// # Errors
    /// `TooLarge` past a limit; `Unavailable` when the retries are used up and nothing was appended; `TimedOut`
    /// when the outcome is unknown - only an append with a [`dedup`](Appending::dedup) id is tried again then;
    /// `Engine` when the engine refuses, for instance on a full disk; `Closed`.
    pub fn append(&self, event: Event) -> Appending {
        self.appending(Ok(event))
    }

    pub(super) fn appending(&self, event: Result<Event>) -> Appending {
        Appending::new(self.bus.clone(), self.counters.clone(), self.path.clone(), event)
    }

    /// Listens, to typed events if `E` says so.
    pub(super) fn subscribing<E>(&self) -> Subscribing<E> {
        Subscribing::new(self.bus.clone(), Interest::Channel(self.path.clone()))
    }

    pub(super) fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    /// Collects appends into batches by size and time.
    pub fn batcher(&self) -> Batching {
        Batching::new(self.bus.clone(), self.counters.clone(), self.path.clone())
    }

    /// Listens; several subscriptions of one channel each get every event.
    pub fn subscribe(&self) -> Subscribing {
        self.subscribing()
    }

    /// A group of consumers of this channel's stream; where it begins if it is not there has to be said.
    ///
    /// # Errors
    /// `InvalidName`: 1 to 64 of `A-Z a-z 0-9 - _ .`.
    pub fn group(&self, name: &str, start: Start) -> Result<Group> {
        Ok(Group::new(self.bus.clone(), GroupPath::new(self.path.clone(), name)?, start))
    }

    /// The names of the groups that the stream has, at most 1,000.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn groups(&self) -> Result<Vec<Box<str>>> {
        let _in_flight = self.bus.enter()?;
        self.bus.engine.log.groups(&self.path).await
    }

    /// Where an event is, by its id: in the stream, and with each group; await the result. An event that waits for its time
    /// is in neither.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn trace(&self, event: Uuid) -> Tracing {
        Tracing::new(self.bus.clone(), self.path.clone(), event)
    }

    /// Takes back an event that waits for its time, by [`Receipt::scheduled`](super::Receipt::scheduled). False if its
    /// time has come, or it is not known.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn cancel(&self, scheduled: &str) -> Result<bool> {
        let _in_flight = self.bus.enter()?;
        self.bus.engine.log.cancel(&self.path, scheduled).await
    }

    /// An event from outside as the contract of its type has it: its data checked, its schema, key and subject named, sealed and
    /// signed. One that came with a signature keeps it; of one whose type has no contract, JSON is held to
    /// [`JsonLimits`](crate::JsonLimits).
    ///
    /// Without a `dataschema` it is of the newest version.
    ///
    /// # Errors
    /// The first rule that does not hold, as a [`Violation`]. `NotFound` if the tenant lacks a key to sign or seal it with.
    pub fn conform(&self, event: Event) -> Result<Result<Event, Violation>> {
        let (tenant, keys) = (self.path.tenant(), &self.bus.keys);
        let catalog = self.bus.catalogs.speaking_of(tenant, &event);
        conform(event, &catalog, &Sending { tenant, keys, now: self.bus.clock.now() })
    }

    /// The data of an event as those may see it who only operate the system: what its contract marks is hidden. `None` if
    /// nothing of it is.
    pub fn redacted(&self, event: &Event) -> Option<Value> {
        self.bus.catalogs.redacted(self.path.tenant(), event)
    }

    /// The data of a sealed event in clear, for those whom its tenant lets have it. `None` if it is not sealed, or this node
    /// does not have the key.
    pub fn opened(&self, event: &Event) -> Option<Bytes> {
        if !event.is_sealed() {
            return None;
        }
        opened(event, &Receiving { tenant: self.path.tenant(), keys: &self.bus.keys })
    }

    /// Reads what the stream keeps.
    pub fn read(&self) -> Reading {
        Reading::new(self.bus.clone(), self.path.clone())
    }

    /// Folds every event of the stream into a state, in order: event sourcing. The state is kept under `name` as a snapshot
    /// every 1,000 events, and the next fold goes on from there; the end of the stream when it begins is where it ends.
    ///
    /// Use another name when `fold` changes: a snapshot is a state that the old one has made. The state is kept as JSON, at
    /// most 4 MiB, as an entry `fold:CHANNEL:NAME` of the tenant.
    ///
    /// # Errors
    /// `InvalidName`: 1 to 64 of `A-Z a-z 0-9 - _ .`. `PositionLost` if an event that is in no snapshot was removed or is
    /// damaged, also where a lost history makes the fold [begin again](super::Folded::lost). `Codec` for an event that
    /// cannot be decoded or that `fold` refuses. `TooLarge` for the state. Errors of the engine.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidewire::Result<()> {
    /// use tidewire::{Event, Tidewire};
    ///
    /// let account = Tidewire::open("memory:").await?.tenant("bank")?.channel("account-7")?;
    /// for amount in ["100", "-30", "5"] {
    ///     account.append(Event::new("account.changed", amount)).await?;
    /// }
    /// let balance = account.fold("balance", 0_i64, |balance, received| {
    ///     *balance += std::str::from_utf8(received.event.data())?.parse::<i64>()?;
    ///     Ok(())
    /// });
    /// assert_eq!(balance.await?.state, 75);
    /// # Ok(()) }
    /// ```
    pub fn fold<S, F>(&self, name: &str, initial: S, fold: F) -> Folding<S, F>
    where
        F: FnMut(&mut S, &Received) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
    {
        Folding::new(self.bus.clone(), self.path.clone(), name, initial, fold)
    }

    /// Removes the events before `position`, which itself stays.
    ///
    /// # Errors
    /// `PositionLost` if the stream is in another epoch; errors of the engine.
    pub async fn trim(&self, position: Position) -> Result<Trimmed> {
        let _in_flight = self.bus.enter()?;
        let epoch = self.bus.engine.log.read(&self.path, crate::engine::Range::BOUNDS).await?.epoch;
        if epoch != position.epoch {
            return Err(Error::new(
                ErrorKind::PositionLost,
                format!(
                    "position {position} is of another epoch than {:?}, which is in {epoch}",
                    self.name()
                ),
            ));
        }
        self.bus.engine.log.trim(&self.path, position.offset).await
    }

    /// Size and use of the channel.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn stats(&self) -> Result<ChannelStats> {
        Ok(ChannelStats {
            subscribers: self.bus.engine.pubsub.subscribers(&self.path).await?,
            stream: self.bus.engine.log.stats(&self.path).await?,
            published: self.counters.publisher(),
            received: self.counters.subscriber(),
            rates: self.counters.rates(self.bus.clock.now()),
        })
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.path)
    }
}
