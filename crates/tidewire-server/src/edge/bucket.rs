//! A bound on how often something may happen: a bucket of tokens that fills again evenly.

use std::time::Duration;

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// From one token to the next.
    interval: Duration,
    /// What an untouched bucket gives at once, as the time in which it fills.
    full: Duration,
}

/// A bucket of tokens, as the one moment that says it all: when it will be full again. (The generic cell rate algorithm,
/// ITU-T I.371: nothing has to be added up as time goes by, so nothing is lost by rounding.)
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at: Duration,
}

impl Rate {
    /// So many in each `per`, and so many at once after a rest; `None` where it is none.
    pub(super) fn new(count: u32, per: Duration, burst: u32) -> Option<Self> {
        // Rounded up: a bucket must not fill faster than it may.
        let nanos = per.as_nanos().div_ceil(u128::from(count).max(1));
        let interval = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        (count > 0).then(|| Self { interval, full: interval.saturating_mul(burst.max(1)) })
    }
}

impl Bucket {
    /// Takes a token.
    ///
    /// # Errors
    /// There is none; how long until there is.
    pub(super) fn take(&mut self, rate: &Rate, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.max(now).saturating_add(rate.interval);
        match full_at.saturating_sub(now).saturating_sub(rate.full) {
            Duration::ZERO => {
                self.full_at = full_at;
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// How long until it is as if it had never been touched.
    pub(super) fn debt(&self, now: Duration) -> Duration {
        self.full_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn take_all(bucket: &mut Bucket, rate: &Rate, now: Duration) -> u32 {
        (0..).find(|_| bucket.take(rate, now).is_err()).unwrap()
    }

    #[test]
    fn it_gives_its_burst_and_then_exactly_its_rate() {
        for (count, burst) in [(1, 1), (1, 50), (7, 3), (100, 1), (100, 100), (1_000, 20)] {
            let rate = Rate::new(count, SECOND, burst).unwrap();
            let (mut bucket, mut now) = (Bucket::default(), Duration::from_secs(5));
            assert_eq!(take_all(&mut bucket, &rate, now), burst);
            // Looked at often: what came since is taken as it comes, and ten seconds give ten times the rate.
            let mut taken = 0;
            for _ in 0..10_000 {
                now += Duration::from_millis(1);
                taken += take_all(&mut bucket, &rate, now);
            }
            assert!((10 * count - 1..=10 * count).contains(&taken), "{taken} of {count} a second");
            // Looked at once: what came is all there, up to the burst.
            for seconds in [1, 2, 60] {
                now += SECOND * seconds;
                let taken = take_all(&mut bucket, &rate, now);
                let came = (count * seconds).min(burst);
                assert!((came.max(1) - 1..=came).contains(&taken), "{taken}, not {came}");
            }
        }
    }

    #[test]
    fn it_says_how_long_until_there_is_one() {
        let rate = Rate::new(4, SECOND, 2).unwrap();
        let (mut bucket, now) = (Bucket::default(), Duration::from_secs(1));
        assert_eq!(take_all(&mut bucket, &rate, now), 2);
        let wait = bucket.take(&rate, now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(250));
        assert_eq!(bucket.debt(now), Duration::from_millis(500));
        assert!(bucket.take(&rate, now + wait - Duration::from_nanos(1)).is_err());
        assert!(bucket.take(&rate, now + wait).is_ok());
    }

    #[test]
    fn no_rate_is_none() {
        assert!(Rate::new(0, SECOND, 5).is_none());
    }
}
