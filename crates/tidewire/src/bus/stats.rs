//! What this node published and received, per channel and in all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use crate::clock::{Clock, Timestamp};
use crate::limits;
use crate::name::ChannelPath;

/// What this node sent to a channel, live and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublisherStats {
    /// Events handed in.
    pub total: u64,
    /// Events confirmed by the engine.
    pub succeeded: u64,
    /// Events given up on.
    pub failed: u64,
}

/// What this node's subscriptions got from a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriberStats {
    /// Events yielded.
    pub received: u64,
    /// Gaps yielded.
    pub gaps: u64,
    /// Items that a handler finished.
    pub processed: u64,
    /// Items that a handler failed on.
    pub failed: u64,
}

/// Events per second on this node.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Events confirmed.
    pub published: f64,
    /// Events yielded to subscribers.
    pub received: f64,
}

/// Counters of one channel; the hot path adds to them without a lock or a clock.
#[derive(Debug, Default)]
pub(super) struct Counters {
    published: Tally,
    received: AtomicU64,
    gaps: AtomicU64,
    handled: Tally,
    sampled: Mutex<Sample>,
}

#[derive(Debug, Default)]
struct Sample {
    at: Timestamp,
    published: u64,
    received: u64,
    rates: Rates,
}

#[derive(Debug, Default)]
struct Tally {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    fn add(&self, is_success: bool) {
        let counter = if is_success { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }
}

impl Counters {
    pub(super) fn published(&self, is_success: bool) {
        self.published.add(is_success);
    }

    pub(super) fn received(&self) {
        self.received.fetch_add(1, Relaxed);
    }

    pub(super) fn gap(&self) {
        self.gaps.fetch_add(1, Relaxed);
    }

    pub(super) fn handled(&self, is_success: bool) {
        self.handled.add(is_success);
    }

    pub(super) fn publisher(&self) -> PublisherStats {
        let succeeded = self.published.succeeded.load(Relaxed);
        let failed = self.published.failed.load(Relaxed);
        PublisherStats { total: succeeded + failed, succeeded, failed }
    }

    pub(super) fn subscriber(&self) -> SubscriberStats {
        SubscriberStats {
            received: self.received.load(Relaxed),
            gaps: self.gaps.load(Relaxed),
            processed: self.handled.succeeded.load(Relaxed),
            failed: self.handled.failed.load(Relaxed),
        }
    }

    /// Rates between the last two calls that were at least a second apart.
    pub(super) fn rates(&self, now: Timestamp) -> Rates {
        let (published, received) = (self.publisher().succeeded, self.subscriber().received);
        let mut sample = self.sampled.lock();
        let elapsed = now.since(sample.at);
        if elapsed >= Duration::from_secs(1) {
            #[expect(clippy::cast_precision_loss, reason = "a rate is approximate")]
            let per_second = |count: u64| count as f64 / elapsed.as_secs_f64();
            sample.rates = Rates {
                published: per_second(published - sample.published),
                received: per_second(received - sample.received),
            };
            (sample.at, sample.published, sample.received) = (now, published, received);
        }
        sample.rates
    }
}

/// The counters of all channels of a node.
#[derive(Debug)]
pub(super) struct Stats {
    clock: Clock,
    channels: RwLock<FxHashMap<ChannelPath, Arc<Counters>>>,
    /// Counts channels past the bound, and patterns.
    rest: Arc<Counters>,
}

impl Stats {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, channels: RwLock::default(), rest: Arc::default() }
    }

    /// The counters of a channel; past [`limits::STATS_CHANNELS_MAX`] those that count all further ones.
    pub(super) fn channel(&self, channel: &ChannelPath) -> Arc<Counters> {
        if let Some(counters) = self.channels.read().get(channel) {
            return counters.clone();
        }
        let mut channels = self.channels.write();
        if channels.len() >= limits::STATS_CHANNELS_MAX {
            return self.rest.clone();
        }
        let opened = Sample { at: self.clock.now(), ..Sample::default() };
        let counters = || Arc::new(Counters { sampled: Mutex::new(opened), ..Counters::default() });
        channels.entry(channel.clone()).or_insert_with(counters).clone()
    }

    /// The counters of what has no channel of its own.
    pub(super) fn uncounted(&self) -> Arc<Counters> {
        self.rest.clone()
    }

    /// Sums over all channels.
    pub(super) fn totals(&self) -> (PublisherStats, SubscriberStats) {
        let channels = self.channels.read();
        let all = channels.values().chain([&self.rest]);
        all.fold(
            Default::default(),
            |(publisher, subscriber): (PublisherStats, SubscriberStats), counters| {
                let (sent, got) = (counters.publisher(), counters.subscriber());
                (
                    PublisherStats {
                        total: publisher.total + sent.total,
                        succeeded: publisher.succeeded + sent.succeeded,
                        failed: publisher.failed + sent.failed,
                    },
                    SubscriberStats {
                        received: subscriber.received + got.received,
                        gaps: subscriber.gaps + got.gaps,
                        processed: subscriber.processed + got.processed,
                        failed: subscriber.failed + got.failed,
                    },
                )
            },
        )
    }
}
