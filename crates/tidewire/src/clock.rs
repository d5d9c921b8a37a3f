//! Time, real or virtual. The only place that asks the system for it.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::error::{Error, ErrorKind};

/// A moment: milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment plus `duration`; the end of time if that overflows.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This moment minus `duration`; the Unix epoch if that underflows.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Time from `earlier` to this moment, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in whole milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<SystemTime> for Timestamp {
    /// Moments before the Unix epoch become the Unix epoch.
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, as CloudEvents wants it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(time) => write!(f, "{time}"),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Reads RFC 3339; moments before the Unix epoch become the Unix epoch.
    fn from_str(text: &str) -> Result<Self, Error> {
        let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| {
            let example = "2026-01-31T12:00:00Z";
            Error::new(ErrorKind::Codec, format!("time {text:?} is not RFC 3339, such as {example}"))
                .caused_by(error)
        })?;
        Ok(Self(u64::try_from(time.as_millisecond()).unwrap_or_default()))
    }
}

/// A source of time: the system's, or a virtual one that moves only when told to.
///
/// Cloning gives another handle on the same clock.
///
/// ```
/// # use std::time::Duration;
/// use tidewire::{Clock, Timestamp};
/// let clock = Clock::virtual_at(Timestamp::from_millis(1_000));
/// clock.advance(Duration::from_secs(2));
/// assert_eq!(clock.now(), Timestamp::from_millis(3_000));
/// ```
#[derive(Clone, Debug)]
pub struct Clock(Option<Arc<watch::Sender<u64>>>);

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The system's clock.
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `start` until [`advance`](Self::advance) moves it.
    pub fn virtual_at(start: Timestamp) -> Self {
        Self(Some(Arc::new(watch::Sender::new(start.as_millis()))))
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system's time")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => SystemTime::now().into(),
            Some(millis) => Timestamp(*millis.borrow()),
        }
    }

    /// Time since some moment that stays the same, finer than [`now`](Self::now) and never set back.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    pub(crate) fn monotonic(&self) -> Duration {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        match &self.0 {
            None => BEGIN.get_or_init(Instant::now).elapsed(),
            Some(millis) => Duration::from_millis(*millis.borrow()),
        }
    }

    /// Moves a virtual clock forward and wakes who sleeps until then. A system clock does not move.
    pub fn advance(&self, by: Duration) {
        if let Some(now) = &self.0 {
            now.send_modify(|now| *now = now.saturating_add(millis(by)));
        }
    }

    /// Sleeps for `duration` of this clock. Dropping the future cancels the sleep.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            None => tokio::time::sleep(duration).await,
            Some(now) => {
                let until = self.now().saturating_add(duration).as_millis();
                let mut watched = now.subscribe();
                // The sender lives in `self`, so the wait cannot fail before the time comes.
                let _passed = watched.wait_for(|now| *now >= until).await.is_ok();
            }
        }
    }
}

/// Measures how long something took, on the monotonic system clock.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for millis in [0, 1, 1_730_000_000_000, 1_730_000_000_123] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
        let error = "noon".parse::<Timestamp>().unwrap_err();
        assert!(error.to_string().contains("RFC 3339"), "{error}");
    }
}
