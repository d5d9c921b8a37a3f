//! Channels: publish, append, subscribe, read - policy over the engine seam, written once for all engines.

mod append;
mod batch;
mod catalogs;
mod channel;
mod event_log;
mod events;
mod fold;
mod group;
mod hub;
mod in_flight;
mod item;
mod lane;
mod read;
mod retry;
mod stats;
mod subscription;
mod wanted;

use std::sync::Arc;

use bytes::Bytes;

pub use append::{Appending, Receipt};
pub use batch::{Batcher, Batching, Confirmation};
pub use channel::{Channel, ChannelStats};
pub use event_log::TARGET as EVENT_LOG_TARGET;
pub use events::{Events, Typed, TypedItem, TypedSubscription};
pub use fold::{Folded, Folding};
pub use group::{
    AuditAction, AuditEntry, DeadLetterPage, DeadLetters, DeadReason, DeadReasons, GroupStatus, Purge,
    Replay, SeekPreview, SessionStatus, Swept, Trace, TracedCopy, TracedInGroup, Tracing, Whereabouts,
};
pub use group::{
    BreakerState, Breaking, Consumer, ConsumerStats, Consuming, DeadKind, DeadLetter, Deliveries, Delivery,
    Emit, EventHandler, FromDelivery, Group, GroupActivity, HandlerService, HandlerTimes, Handling,
    IntoOutcome, Json, Lost, Outcome, Pool, Pulled, Rate, Retries, Settling, Share, State, States, Unknown,
    fingerprint, typed,
};
pub use item::{Gap, GapReason, Item, Received};
pub use read::{History, Reading};
pub use retry::RetryPolicy;
pub use stats::{ChannelActivity, PublisherStats, Rates, SubscriberStats};
pub use subscription::{Subscribing, Subscription};

pub(crate) use group::Consumers;
pub(crate) use hub::Hub;

use self::catalogs::Catalogs;
use self::in_flight::{Call, InFlight};
use self::stats::{Counters, Stats};
use crate::clock::{Clock, Timestamp};
use crate::engine::{Append, Appended, AtBound, Engine, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Catalog, Event, Keys, NodeId, Receiving, Unreadable, opened, verify};
use crate::limits::Limits;
use crate::name::ChannelPath;
use crate::tasks::Tasks;

/// What all handles of one node share.
pub(crate) struct Bus {
    pub(crate) engine: Engine,
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) retry: RetryPolicy,
    pub(crate) retention: Retention,
    pub(crate) node: NodeId,
    pub(crate) tasks: Tasks,
    pub(crate) consumers: Consumers,
    pub(crate) keys: Keys,
    pub(crate) catalogs: Catalogs,
    stats: Stats,
    in_flight: InFlight,
}

/// What a [`Bus`] is made of.
pub(crate) struct Settings {
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    pub(crate) retry: RetryPolicy,
    pub(crate) retention: Retention,
    pub(crate) catalog: Catalog,
    pub(crate) keys: Keys,
}

impl Bus {
    pub(crate) fn new(engine: Engine, hub: Arc<Hub>, tasks: Tasks, settings: Settings) -> Self {
        let Settings { clock, limits, retry, retention, catalog, keys } = settings;
        let stats = Stats::new(clock.clone());
        let (node, consumers, in_flight) = (NodeId::random(), Consumers::default(), InFlight::default());
        let catalogs = Catalogs::new(catalog);
        Self {
            engine,
            hub,
            clock,
            limits,
            retry,
            retention,
            node,
            tasks,
            consumers,
            keys,
            catalogs,
            stats,
            in_flight,
        }
    }

    /// Holds a received event against the contract of its type, if it has one.
    fn verify(&self, tenant: &str, event: &Event) -> Result<(), Unreadable> {
        let catalog = self.catalogs.speaking_of(tenant, event);
        verify(event, &catalog, &Receiving { tenant, keys: &self.keys })
    }

    /// A text that was made while the event was handled, without what is hidden of it; none if it may stay as it is.
    fn scrubbed(&self, tenant: &str, event: &Event, text: &str) -> Option<Box<str>> {
        let contract = self.catalogs.hiding(tenant, event)?;
        contract.scrubbed(text, &opened(event, &Receiving { tenant, keys: &self.keys })?)
    }

    /// Marks a call as in flight until the mark is dropped, so that closing waits for it.
    fn enter(&self) -> Result<Call<'_>> {
        self.in_flight.enter().ok_or_else(|| Error::closed("this node"))
    }

    /// Refuses new calls and waits for those in flight.
    pub(crate) async fn drain(&self) {
        self.in_flight.drain().await;
    }

    /// What this node published and received on all channels.
    pub(crate) fn totals(&self) -> (PublisherStats, SubscriberStats) {
        self.stats.totals()
    }

    /// What this node sent to each channel.
    pub(crate) fn activity(&self, channels_max: usize) -> Vec<ChannelActivity> {
        self.stats.activity(channels_max)
    }

    /// Sends a live event. After an unknown outcome it is sent again marked, and receivers drop a second copy.
    async fn publish(&self, channel: &ChannelPath, counters: &Counters, mut event: Event) -> Result<()> {
        let _in_flight = self.enter()?;
        let now = self.clock.now();
        event.stamp(self.node, now, &self.limits)?;
        let outcome = self
            .retry
            .run(&self.clock, now, Error::is_retryable, |retry| {
                if retry == 1 {
                    event.mark_retried();
                }
                self.engine.pubsub.publish(channel, Bytes::from(&event))
            })
            .await;
        counters.published(outcome.is_ok());
        outcome
    }

    /// Appends one event, trying again where that cannot have a second effect.
    async fn append(&self, counters: &Counters, append: Append, now: Timestamp) -> Result<Appended> {
        let is_deduplicated = append.dedup.is_some();
        let at_bound = append.retention.at_bound;
        let is_safe = |error: &Error| match error.kind() {
            ErrorKind::TimedOut => is_deduplicated,
            ErrorKind::Backpressure => at_bound != AtBound::Reject,
            _ => error.is_retryable(),
        };
        let outcome = self
            .retry
            .run(&self.clock, now, is_safe, |_| async {
                let outcomes = self.engine.log.append(vec![append.clone()]).await?;
                outcomes.into_iter().next().unwrap_or_else(|| Err(no_outcome()))
            })
            .await;
        counters.appended(outcome.is_ok());
        event_log::appended(&append, outcome.as_ref(), || self.clock.now().since(now));
        outcome
    }

    /// Appends those again that found their stream full and are to wait for room, while the retries last.
    async fn wait_for_room(&self, batch: &[Append], outcomes: &mut [Result<Appended>], start: Timestamp) {
        let refused = |outcomes: &[Result<Appended>]| -> Vec<usize> {
            let is_full = |outcome: &Result<Appended>| {
                outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Backpressure)
            };
            let waits = batch.iter().zip(outcomes).enumerate().filter(|(_, (append, outcome))| {
                append.retention.at_bound == AtBound::Block && is_full(outcome)
            });
            waits.map(|(index, _)| index).collect()
        };
        for retry in 0..self.retry.retry_count {
            let indexes = refused(outcomes);
            if indexes.is_empty() || self.clock.now().since(start) >= self.retry.time_max {
                return;
            }
            self.clock.sleep(self.retry.delay(retry)).await;
            let again = indexes.iter().filter_map(|index| batch.get(*index)).cloned().collect();
            let Ok(answers) = self.engine.log.append(again).await else { return };
            for (index, answer) in indexes.into_iter().zip(answers) {
                if let Some(outcome) = outcomes.get_mut(index) {
                    *outcome = answer;
                }
            }
        }
    }

    /// Appends a batch, trying again only where nothing of it was done.
    async fn append_batch(&self, counters: &Counters, batch: &[Append]) -> Result<Vec<Result<Appended>>> {
        let is_rejecting = batch.iter().any(|append| append.retention.at_bound == AtBound::Reject);
        let is_safe = |error: &Error| match error.kind() {
            ErrorKind::Backpressure => !is_rejecting,
            kind => kind == ErrorKind::Unavailable,
        };
        let now = self.clock.now();
        let append = |_| self.engine.log.append(batch.to_vec());
        let mut outcomes = self.retry.run(&self.clock, now, is_safe, append).await;
        if let Ok(outcomes) = &mut outcomes {
            self.wait_for_room(batch, outcomes, now).await;
        }
        let took = || self.clock.now().since(now);
        match &outcomes {
            Ok(outcomes) => {
                for (append, outcome) in batch.iter().zip(outcomes) {
                    counters.appended(outcome.is_ok());
                    event_log::appended(append, outcome.as_ref(), took);
                }
            }
            Err(error) => {
                for append in batch {
                    counters.appended(false);
                    event_log::appended(append, Err(error), took);
                }
            }
        }
        outcomes
    }
}

fn no_outcome() -> Error {
    Error::new(ErrorKind::Engine, "engine answered an append with no outcome")
}

#[cfg(test)]
mod tests;
