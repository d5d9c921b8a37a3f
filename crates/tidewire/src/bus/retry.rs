//! Trying again: exponential backoff with jitter.

use std::future::Future;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};

/// How often and how fast a call to the engine is tried again.
///
/// Waits `first_delay`, then twice as long each time up to `delay_max`; each wait is shortened by a random part
/// of up to half, so that callers that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries after the first; 3.
    pub retry_count: u32,
    /// The wait before the first retry; 100 ms.
    pub first_delay: Duration,
    /// The longest wait; 5 s.
    pub delay_max: Duration,
    /// No try starts later than this after the first one did; 5 s. A try itself ends within
    /// [`Limits::call_time_max`](crate::Limits::call_time_max).
    pub time_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let (first_delay, time_max) = (Duration::from_millis(100), Duration::from_secs(5));
        Self { retry_count: 3, first_delay, delay_max: time_max, time_max }
    }
}

impl RetryPolicy {
    /// One try, no more.
    pub const NEVER: Self = Self {
        retry_count: 0,
        first_delay: Duration::ZERO,
        delay_max: Duration::ZERO,
        time_max: Duration::ZERO,
    };

    /// The wait before retry number `retry`, counted from 0.
    pub(crate) fn delay(&self, retry: u32) -> Duration {
        let full = self.first_delay.saturating_mul(2_u32.saturating_pow(retry)).min(self.delay_max);
        full.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// Calls `attempt` with the number of the try, from 0, until it succeeds, fails in a way that is not safe
    /// to try again, or the retries or their time, counted from `start`, are used up; then its last error is returned.
    pub(crate) async fn run<T, F>(
        &self,
        clock: &Clock,
        start: Timestamp,
        is_safe: impl Fn(&Error) -> bool,
        mut attempt: impl FnMut(u32) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let may_retry = |retry, error: &Error| {
            retry < self.retry_count && is_safe(error) && clock.now().since(start) < self.time_max
        };
        let mut outcome = attempt(0).await;
        // The first try succeeds as a rule; what comes after it is apart, so that the future of a call stays small.
        if outcome.as_ref().is_err_and(|error| may_retry(0, error)) {
            let retries = async {
                let mut retry = 0;
                while let Err(error) = &outcome
                    && may_retry(retry, error)
                {
                    tracing::debug!(%error, retry, "trying again");
                    clock.sleep(self.delay(retry)).await;
                    retry += 1;
                    outcome = attempt(retry).await;
                }
                outcome
            };
            return Box::pin(retries).await;
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn delays_double_to_the_cap_with_at_most_half_taken_off() {
        let policy = RetryPolicy { delay_max: Duration::from_millis(300), ..RetryPolicy::default() };
        for (retry, full) in [(0, 100), (1, 200), (2, 300), (40, 300)] {
            let delay = policy.delay(retry);
            assert!(
                delay >= Duration::from_millis(full / 2) && delay <= Duration::from_millis(full),
                "{delay:?}"
            );
        }
    }

    #[tokio::test]
    async fn starts_no_try_after_its_time() {
        let policy = RetryPolicy { first_delay: Duration::ZERO, ..RetryPolicy::default() };
        let clock = Clock::virtual_at(Timestamp::from_millis(0));
        let mut tries = 0;
        let outcome: Result<()> = policy
            .run(&clock, clock.now(), Error::is_retryable, |_| {
                tries += 1;
                clock.advance(Duration::from_secs(3));
                std::future::ready(Err(Error::new(ErrorKind::Unavailable, "no")))
            })
            .await;
        assert!(outcome.is_err());
        assert_eq!(tries, 2, "the second one ends after 6 s");
    }

    #[tokio::test]
    async fn tries_again_only_what_may_succeed_and_only_so_often() {
        let policy =
            RetryPolicy { first_delay: Duration::ZERO, time_max: Duration::MAX, ..RetryPolicy::default() };
        for (kind, expected_tries) in [(ErrorKind::Unavailable, 4), (ErrorKind::Engine, 1)] {
            let mut tries = 0;
            let outcome: Result<()> = policy
                .run(&Clock::system(), Timestamp::default(), Error::is_retryable, |_| {
                    tries += 1;
                    std::future::ready(Err(Error::new(kind, "no")))
                })
                .await;
            assert_eq!((outcome.unwrap_err().kind(), tries), (kind, expected_tries));
        }
    }
}
