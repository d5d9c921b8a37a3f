//! What this node did for a group.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What this node's consumers of a group did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsumerStats {
    /// Attempts begun.
    pub delivered: u64,
    /// Deliveries acknowledged.
    pub acked: u64,
    /// Attempts that failed and are tried again.
    pub retried: u64,
    /// Deliveries that their handler rejected.
    pub rejected: u64,
    /// Times that a delivery was set aside with its key.
    pub parked: u64,
    /// Deliveries that were handed back without an attempt.
    pub handed_back: u64,
    /// Deliveries that went to the dead letters, those rejected included.
    pub dead: u64,
    /// Attempts that ended with their process, as far as this node took over from it.
    pub crashed: u64,
    /// Events dropped because their id was handled before.
    pub duplicates: u64,
    /// Events that were gone before they could be delivered.
    pub missed: u64,
    /// Sessions of this node that lost what they held.
    pub sessions_lost: u64,
    /// Times that the group was lost and made again.
    pub rebuilt: u64,
    /// Time spent in handlers, microseconds.
    pub handler_micros: u64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// Counters that are added to without a lock.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64),*
        }

        impl Counters {
            pub(super) fn stats(&self) -> ConsumerStats {
                ConsumerStats { $($name: self.$name.load(Relaxed)),* }
            }
        }
    };
}

counters!(
    delivered,
    acked,
    retried,
    rejected,
    parked,
    handed_back,
    dead,
    crashed,
    duplicates,
    missed,
    sessions_lost,
    rebuilt,
    handler_micros
);

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

/// Whole microseconds, saturating.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
