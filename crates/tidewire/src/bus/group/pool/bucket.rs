//! A token bucket: how many may start over time.

use std::time::Duration;

use super::Rate;

/// A bucket that fills at the rate, up to the burst. Times are those of [`Clock::monotonic`](crate::Clock::monotonic).
pub(super) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    const PER_SECOND_MIN: f64 = 0.001;

    pub(super) fn new(rate: Rate, now: Duration) -> Self {
        let per_second = rate.per_second.max(Self::PER_SECOND_MIN);
        // Waits are whole milliseconds, so a smaller bucket would lose what comes within one.
        let burst = f64::from(rate.burst).max(per_second / 1_000.0).max(1.0);
        Self { per_second, burst, tokens: burst, filled: now }
    }

    /// How long until one may start, in whole milliseconds; `None`: now.
    pub(super) fn wait(&mut self, now: Duration) -> Option<Duration> {
        let gained = now.saturating_sub(self.filled).as_secs_f64() * self.per_second;
        (self.tokens, self.filled) = ((self.tokens + gained).min(self.burst), now);
        // What rounding leaves out is no reason to wait another millisecond.
        let missing = 1.0 - 1e-6 - self.tokens;
        (missing > 0.0).then(|| {
            let millis = (missing / self.per_second * 1_000.0).ceil();
            Duration::from_secs_f64(millis / 1_000.0).max(Duration::from_millis(1))
        })
    }

    /// One has started.
    pub(super) fn take(&mut self, now: Duration) {
        let _filled = self.wait(now);
        self.tokens -= 1.0;
    }
}
