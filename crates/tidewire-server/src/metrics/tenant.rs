//! What a node counts of each tenant.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::metrics::gauge::Gauge;
use tidewire::clock::Stopwatch;
use tidewire::{Clock, GapReason, Timestamp};

use super::counts::{Counts, Times, kinds};
use crate::lifecycle::LifecycleEvent;

/// One write in so many is timed.
const WRITES_FOR_ONE_TIMED: u32 = 64;

kinds! {
    /// How a recovery ended.
    Recovery {
        /// The subscriber got all that it missed.
        Complete = "complete",
        /// What it missed is no longer kept.
        Lost = "lost",
    }
}

kinds! {
    /// What was meant for clients and did not reach them.
    Loss {
        /// A live event: this node was too slow for it.
        Overflow = "overflow",
        /// Live events of a channel while the link to the engine was down.
        LinkLost = "link_lost",
        /// Kept events of a channel that retention removed before they were read.
        Trimmed = "trimmed",
        /// Kept events of a channel that the engine found damaged.
        Damaged = "damaged",
        /// Kept events of a channel whose stream began anew.
        HistoryLost = "history_lost",
        /// A gap of a kind that this version does not know.
        Other = "other",
        /// A subscription that the server ended because its subscriber lacks events; its client comes back for them.
        Expelled = "expelled",
        /// A connection whose outbox was full.
        Slow = "slow",
        /// What a connection was told to do from outside, with too much of that waiting.
        Order = "order",
        /// What was to be done to a user's connections and could not be told to the other nodes.
        Effect = "effect",
    }
}

kinds! {
    /// Why somebody was not let in, or not allowed something.
    AuthFailure {
        /// No token where one is needed.
        TokenMissing = "token_missing",
        /// A token that is forged, malformed, or not for us.
        TokenInvalid = "token_invalid",
        /// A token that was good once.
        TokenExpired = "token_expired",
        /// A token whose key could not be fetched.
        TokenUnavailable = "token_unavailable",
        /// The token of a subscription that does not allow it.
        SubscriptionToken = "subscription_token",
        /// A command that neither a rule nor the token allows.
        Permission = "permission",
        /// A web page that may not connect.
        Origin = "origin",
        /// A request to the server API without a known key.
        ApiKey = "api_key",
    }
}

kinds! {
    /// What a stream was read for.
    StreamRead {
        /// To begin listening where it ends.
        Open = "open",
        /// To learn where it ends, for a client that was further than this node.
        End = "end",
        /// For what subscribers missed.
        Recovery = "recovery",
    }
}

/// What a node counts of one tenant.
#[derive(Default)]
pub(crate) struct TenantMetrics {
    /// Which of those with lines of their own it is, from 0, once something has happened in it.
    pub(super) rank: OnceLock<usize>,
    clock: Clock,
    /// Open connections, from the connect command on.
    pub(crate) connections: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(super) deliveries: AtomicU64,
    /// From publishing to the outboxes, of each delivery.
    pub(super) delivery_lag: Times,
    /// From the outbox to the socket, of some writes.
    pub(super) write_lag: Times,
    pub(crate) losses: Counts<Loss>,
    pub(crate) recoveries: Counts<Recovery>,
    pub(super) recovered_events: AtomicU64,
    pub(crate) stream_reads: Counts<StreamRead>,
    pub(crate) auth_failures: Counts<AuthFailure>,
    /// What its backend was told by this node.
    pub(crate) lifecycle_events: Counts<LifecycleEvent>,
}

impl TenantMetrics {
    /// Lags are told by `clock`.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Counts an event that was handed to so many connections; `since` is when it was published. The clock is read once for
    /// all of them. Where the clock of the node that published it is ahead of ours, it took no time.
    pub(crate) fn delivered(&self, count: u64, since: Timestamp) {
        if count > 0 {
            self.deliveries.fetch_add(count, Relaxed);
            self.delivery_lag.add(self.clock.now().since(since), count);
        }
    }

    /// Counts a write, one of many, whose oldest frame was made then.
    pub(crate) fn written(&self, since: Stopwatch) {
        self.write_lag.add(since.elapsed(), 1);
    }

    /// Counts a gap that the library told of.
    pub(crate) fn missed(&self, reason: GapReason) {
        let (loss, count) = match reason {
            GapReason::Overflow(count) => (Loss::Overflow, count),
            GapReason::LinkLost => (Loss::LinkLost, 1),
            GapReason::Trimmed => (Loss::Trimmed, 1),
            GapReason::Damaged => (Loss::Damaged, 1),
            GapReason::HistoryLost => (Loss::HistoryLost, 1),
            _ => (Loss::Other, 1),
        };
        self.losses.add(loss, count);
    }

    /// Counts events that were given to a subscriber that had missed them.
    pub(crate) fn recovered(&self, events: usize) {
        self.recovered_events.fetch_add(events as u64, Relaxed);
    }
}

/// Whether this write is one of those that are timed. Each thread counts its own, so that none waits for another.
pub(crate) fn is_write_timed() -> bool {
    thread_local!(static WRITES: Cell<u32> = const { Cell::new(0) });
    let before = WRITES.replace(WRITES.get().wrapping_add(1));
    before.is_multiple_of(WRITES_FOR_ONE_TIMED)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lag_is_weighed_by_deliveries_and_no_less_than_nothing() {
        let now = Timestamp::from_millis(10_000);
        let metrics = TenantMetrics::new(Clock::virtual_at(now));
        metrics.delivered(2, now.saturating_sub(Duration::from_millis(40)));
        metrics.delivered(1, now.saturating_add(Duration::from_secs(5)));
        metrics.delivered(0, Timestamp::default());
        let lag = metrics.delivery_lag.load();
        assert_eq!((lag.count(), lag.seconds()), (3, 0.08));
        assert_eq!(lag.buckets().into_iter().find(|(longest, _)| *longest == 0.0005), Some((0.0005, 1)));
    }

    #[test]
    fn live_events_that_were_dropped_are_counted_one_by_one() {
        let metrics = TenantMetrics::default();
        metrics.missed(GapReason::Overflow(7));
        metrics.missed(GapReason::LinkLost);
        let of = |loss| metrics.losses.of(loss);
        assert_eq!((of(Loss::Overflow), of(Loss::LinkLost), of(Loss::Trimmed)), (7, 1, 0));
    }
}
