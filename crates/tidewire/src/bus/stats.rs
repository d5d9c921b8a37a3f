//! What this node published and received, per channel and in all.

use std::ops::Add;
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

/// What this node sent to a channel, live and kept apart.
#[derive(Debug, Clone)]
pub struct ChannelActivity {
    /// The channel; none for all others together.
    pub channel: Option<ChannelPath>,
    /// Events published to whoever listens.
    pub published: PublisherStats,
    /// Events appended to its stream, those that handlers emitted included.
    pub appended: PublisherStats,
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
    appended: Tally,
    /// Its number among the channels that are told of one by one; 0 without.
    rank: AtomicU64,
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

    fn stats(&self) -> PublisherStats {
        let (succeeded, failed) = (self.succeeded.load(Relaxed), self.failed.load(Relaxed));
        PublisherStats { total: succeeded + failed, succeeded, failed }
    }
}

impl Add for PublisherStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
        }
    }
}

impl Counters {
    pub(super) fn published(&self, is_success: bool) {
        self.published.add(is_success);
    }

    pub(super) fn appended(&self, is_success: bool) {
        self.appended.add(is_success);
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
        self.published.stats() + self.appended.stats()
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
    /// The highest [`Counters::rank`].
    ranked: Mutex<u64>,
}

impl Stats {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, channels: RwLock::default(), rest: Arc::default(), ranked: Mutex::default() }
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

    /// What was sent to each channel that anything was sent to, at most `channels_max` of them one by one: those that were
    /// told of first, so that no count ever goes down.
    pub(super) fn activity(&self, channels_max: usize) -> Vec<ChannelActivity> {
        let channels = self.channels.read();
        let mut ranked = self.ranked.lock();
        let channels_max = channels_max as u64;
        let mut activity = Vec::new();
        let (mut published, mut appended) = (self.rest.published.stats(), self.rest.appended.stats());
        for (channel, counters) in &*channels {
            let (live, kept) = (counters.published.stats(), counters.appended.stats());
            if live.total + kept.total == 0 {
                continue;
            }
            if counters.rank.load(Relaxed) == 0 && *ranked < channels_max {
                *ranked += 1;
                counters.rank.store(*ranked, Relaxed);
            }
            if (1..=channels_max).contains(&counters.rank.load(Relaxed)) {
                let channel = Some(channel.clone());
                activity.push(ChannelActivity { channel, published: live, appended: kept });
            } else {
                (published, appended) = (published + live, appended + kept);
            }
        }
        if published.total + appended.total > 0 {
            activity.push(ChannelActivity { channel: None, published, appended });
        }
        activity
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
                    publisher + sent,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_past_the_bound_are_told_of_together_and_the_others_stay() {
        let stats = Stats::new(Clock::system());
        let channel = |name: &str| stats.channel(&ChannelPath::new("test", "shop", name).unwrap());
        channel("first").appended(true);
        channel("unused");
        let told = |max| {
            let told = stats.activity(max).into_iter().map(|activity| {
                let channel = activity.channel.map_or("others".into(), |path| path.channel().to_owned());
                (channel, activity.published.total, activity.appended.total)
            });
            let mut told: Vec<_> = told.collect();
            told.sort();
            told
        };
        assert_eq!(told(1), [("first".into(), 0, 1)]);
        for name in ["a", "b", "z"] {
            channel(name).published(true);
        }
        assert_eq!(told(1), [("first".into(), 0, 1), ("others".into(), 3, 0)]);
    }
}
