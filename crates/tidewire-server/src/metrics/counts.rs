//! Counters and histograms that the hot paths add to: no lock, no label to look up.

use std::array;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A fixed set of words that something is told apart by.
pub(crate) trait Kind: Copy {
    const WORDS: &'static [&'static str];

    /// Its place among the words.
    fn index(self) -> usize;
}

/// An enum of which each variant has its word on the page.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$of])* $variant),+ }

        impl $crate::metrics::counts::Kind for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use kinds;

/// One counter for each of a set of words.
pub(crate) struct Counts<K> {
    counts: Box<[AtomicU64]>,
    kind: PhantomData<K>,
}

impl<K: Kind> Default for Counts<K> {
    fn default() -> Self {
        Self { counts: K::WORDS.iter().map(|_| AtomicU64::new(0)).collect(), kind: PhantomData }
    }
}

impl<K: Kind> Counts<K> {
    pub(crate) fn add(&self, kind: K, count: u64) {
        if let Some(counter) = self.counts.get(kind.index()) {
            counter.fetch_add(count, Relaxed);
        }
    }

    /// The counts in the order of the words.
    pub(super) fn load(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Relaxed)).collect()
    }

    #[cfg(test)]
    pub(crate) fn of(&self, kind: K) -> u64 {
        self.counts[kind.index()].load(Relaxed)
    }
}

/// The longest time of each step but the last, in microseconds: half a millisecond to a minute.
const BOUNDS: [u64; 15] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000, 60_000_000,
];
const STEPS: usize = BOUNDS.len() + 1;

/// A histogram of times.
pub(crate) struct Times {
    steps: [AtomicU64; STEPS],
    micros: AtomicU64,
}

/// What a [`Times`] held at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TimesSeen {
    steps: [u64; STEPS],
    micros: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { steps: array::from_fn(|_| AtomicU64::new(0)), micros: AtomicU64::new(0) }
    }
}

impl Times {
    /// Adds `count` things that took this long each.
    pub(crate) fn add(&self, time: Duration, count: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let step = BOUNDS.partition_point(|longest| *longest < micros);
        if let Some(step) = self.steps.get(step) {
            step.fetch_add(count, Relaxed);
        }
        self.micros.fetch_add(micros.saturating_mul(count), Relaxed);
    }

    pub(super) fn load(&self) -> TimesSeen {
        TimesSeen {
            steps: array::from_fn(|step| self.steps.get(step).map_or(0, |count| count.load(Relaxed))),
            micros: self.micros.load(Relaxed),
        }
    }
}

impl TimesSeen {
    pub(super) fn add(&mut self, other: &Self) {
        self.steps.iter_mut().zip(other.steps).for_each(|(count, more)| *count += more);
        self.micros = self.micros.wrapping_add(other.micros);
    }

    pub(super) fn count(&self) -> u64 {
        self.steps.iter().sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "exact for 285 years")]
    pub(super) fn seconds(&self) -> f64 {
        self.micros as f64 / 1e6
    }

    /// The longest time of each step in seconds, and how many took that long but longer than the step before.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let longest = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        longest.zip(self.steps).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_step_that_is_long_enough() {
        let times = Times::default();
        for micros in [0, 500, 501, 60_000_000, 60_000_001] {
            times.add(Duration::from_micros(micros), 2);
        }
        let seen = times.load();
        let buckets = seen.buckets();
        assert_eq!(buckets[..2], [(0.0005, 4), (0.001, 2)]);
        assert_eq!(buckets[14..], [(60.0, 2), (f64::INFINITY, 2)]);
        assert_eq!((seen.count(), seen.seconds()), (10, 240.002_004));
    }
}
