//! What becomes of a delivery.

use std::fmt::Display;
use std::time::Duration;

/// What a handler says of a delivery, and nothing else settles it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is handled.
    Ack,
    /// It failed in a way that may pass: it is delivered again, until the attempts are used up.
    Retry {
        /// How long it waits; `None`: as the group's [`Retries`](super::Retries) say.
        after: Option<Duration>,
        /// What went wrong.
        error: Box<str>,
    },
    /// It will never succeed: it goes to the dead letters.
    Reject {
        /// Why.
        reason: Box<str>,
    },
    /// Its key cannot go on now: it waits, and with order so do the later events of its key. Counts as no attempt.
    Park {
        /// Why.
        reason: Box<str>,
    },
    /// It was not handled: it is delivered again at once, to whoever has room. Counts as no attempt.
    HandBack,
}

impl Outcome {
    /// It failed: it is delivered again as the group's [`Retries`](super::Retries) say.
    pub fn retry(error: impl Display) -> Self {
        Self::Retry { after: None, error: error.to_string().into() }
    }

    /// It failed: it is delivered again at once.
    pub fn retry_now(error: impl Display) -> Self {
        Self::retry_after(Duration::ZERO, error)
    }

    /// It failed: it is delivered again after `after`, at most [`Retries::DELAY_MAX`](super::Retries::DELAY_MAX).
    pub fn retry_after(after: Duration, error: impl Display) -> Self {
        Self::Retry { after: Some(after), error: error.to_string().into() }
    }

    /// It will never succeed.
    pub fn reject(reason: impl Display) -> Self {
        Self::Reject { reason: reason.to_string().into() }
    }

    /// Its key cannot go on now.
    pub fn park(reason: impl Display) -> Self {
        Self::Park { reason: reason.to_string().into() }
    }
}

impl<E: std::error::Error> From<E> for Outcome {
    /// An error that nobody classified may pass: with `?` in a handler it is a retry.
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// What a handler may return: nothing, an [`Outcome`], or a `Result` whose error is one or becomes a retry.
pub trait IntoOutcome {
    /// The outcome it stands for.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Ack
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<T: IntoOutcome> IntoOutcome for Result<T, Outcome> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(|outcome| outcome, T::into_outcome)
    }
}

impl<T: IntoOutcome, E: Display> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(Outcome::retry, T::into_outcome)
    }
}
