//! What this node did for a group.

use std::array;
use std::ops::AddAssign;
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
    /// How long the handlers took.
    pub handler_times: HandlerTimes,
}

/// How many handlers took how long, in steps of twice the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandlerTimes([u64; TIMES]);

/// Steps of a histogram: from 1 microsecond to 36 minutes, longer than the default timeout of a handler.
const TIMES: usize = 32;

impl HandlerTimes {
    /// Each step: the longest time in it, and how many handlers took that long but longer than the step before. The last
    /// step, of all that took longer still, has no longest time.
    pub fn steps(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let longest = |step| Some(Duration::from_micros(1_u64 << step)).filter(|_| step + 1 < TIMES);
        self.0.into_iter().enumerate().map(move |(step, count)| (longest(step), count))
    }

    /// How many handlers there were.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// A [`HandlerTimes`] that is added to without a lock.
#[derive(Debug)]
pub(super) struct Times([AtomicU64; TIMES]);

impl Default for Times {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Times {
    fn add(&self, micros: u64) {
        let step = micros.max(1).checked_next_power_of_two().map_or(TIMES, |power| power.ilog2() as usize);
        if let Some(count) = self.0.get(step.min(TIMES - 1)) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn load(&self) -> HandlerTimes {
        HandlerTimes(array::from_fn(|step| self.0.get(step).map_or(0, |count| count.load(Relaxed))))
    }
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// Counters that are added to without a lock.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            handler_times: Times,
            $(pub(super) $name: AtomicU64),*
        }

        impl Counters {
            pub(super) fn stats(&self) -> ConsumerStats {
                ConsumerStats {
                    handler_times: self.handler_times.load(),
                    $($name: self.$name.load(Relaxed)),*
                }
            }
        }

        impl AddAssign for ConsumerStats {
            fn add_assign(&mut self, other: Self) {
                let times = self.handler_times.0.iter_mut().zip(other.handler_times.0);
                times.for_each(|(count, more)| *count += more);
                $(self.$name += other.$name;)*
            }
        }
    };
}

impl Counters {
    /// Counts how long a handler took.
    pub(super) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        add(&self.handler_micros, micros);
        self.handler_times.add(micros);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_step_that_it_fits_into() {
        let counters = Counters::default();
        for micros in [0, 1, 2, 3, 4, 1_000, u64::MAX] {
            counters.took(Duration::from_micros(micros));
        }
        let times = counters.stats().handler_times;
        let counted = times.steps().filter(|(_, count)| *count > 0);
        let micros = counted.map(|(longest, count)| (longest.map(|time| time.as_micros()), count));
        let expected = [(Some(1), 2), (Some(2), 1), (Some(4), 2), (Some(1_024), 1), (None, 1)];
        assert_eq!(micros.collect::<Vec<_>>(), expected);
        assert_eq!(times.count(), 7);
    }

    #[test]
    fn what_several_consumers_did_adds_up() {
        let counters = Counters::default();
        add(&counters.acked, 2);
        counters.took(Duration::from_micros(8));
        let mut sum = counters.stats();
        sum += counters.stats();
        assert_eq!((sum.acked, sum.handler_micros, sum.handler_times.count()), (4, 16, 2));
    }
}
