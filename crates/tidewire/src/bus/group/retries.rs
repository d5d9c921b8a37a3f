//! When a delivery that failed is delivered again, and how often.

use std::time::Duration;

/// How failed deliveries are delivered again: at once for `immediate_count` times, then after a wait that doubles from
/// `first_delay` to `delay_max`, each shortened by a random part of up to half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Failures after which it is delivered again at once; 0.
    pub immediate_count: u32,
    /// The wait after the first other failure; 100 ms.
    pub first_delay: Duration,
    /// The longest wait; 30 s, at most [`DELAY_MAX`](Self::DELAY_MAX).
    pub delay_max: Duration,
    /// Attempts after which it goes to the dead letters; 10. Those that ended with their process count, too.
    pub attempts_max: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            immediate_count: 0,
            first_delay: Duration::from_millis(100),
            delay_max: Duration::from_secs(30),
            attempts_max: 10,
        }
    }
}

impl Retries {
    /// No delivery waits longer: nothing is out of sight for more than a day.
    pub const DELAY_MAX: Duration = Duration::from_secs(24 * 3_600);

    /// The first failure is the last.
    pub const NEVER: Self =
        Self { immediate_count: 0, first_delay: Duration::ZERO, delay_max: Duration::ZERO, attempts_max: 1 };

    /// The wait after so many failed attempts, 1 or more.
    pub(super) fn delay(&self, attempts: u32) -> Duration {
        let Some(doublings) = attempts.checked_sub(self.immediate_count + 1) else { return Duration::ZERO };
        let full = self.first_delay.saturating_mul(2_u32.saturating_pow(doublings)).min(self.delay_max);
        full.min(Self::DELAY_MAX).mul_f64(1.0 - fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_after_the_immediate_ones_up_to_the_longest() {
        let retries =
            Retries { immediate_count: 2, delay_max: Duration::from_millis(300), ..Retries::default() };
        for (attempts, full) in [(1, 0), (2, 0), (3, 100), (4, 200), (5, 300), (40, 300)] {
            let (delay, full) = (retries.delay(attempts), Duration::from_millis(full));
            assert!(delay >= full / 2 && delay <= full, "{attempts}: {delay:?}");
        }
    }
}
