//! One error type: what the caller can do about it, what was attempted, and what lay underneath.

use std::borrow::Cow;
use std::fmt;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name, URL or option is not valid; the text says which character or part. Not retryable.
    InvalidName,
    /// A bound of [`crate::limits`] was passed; the text names the limit, its setting and the value seen.
    TooLarge,
    /// The named thing does not exist.
    NotFound,
    /// Somebody else changed or holds the thing: re-read, then decide.
    Conflict,
    /// A lock or lease is no longer held by the caller.
    LockLost,
    /// The position lies in history that is gone (trimmed, damaged, or another epoch).
    PositionLost,
    /// The engine cannot be reached or refuses for now. **Nothing was done**: retrying is safe.
    Unavailable,
    /// No answer in time. **The outcome is unknown**: retry only what is deduplicated or idempotent.
    TimedOut,
    /// A bounded queue is full. Nothing was done: slow down, then retry.
    Backpressure,
    /// This handle was closed.
    Closed,
    /// Bytes could not be decoded.
    Codec,
    /// The engine reported a fault that a retry will not mend (full disk, damaged file, refused command).
    Engine,
}

/// An error with its kind, what was being attempted, and its source.
///
/// The text names the thing, the limit and its setting, and never holds a secret.
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    text: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `text` is lower case, names the thing and, where there is one, the fix.
    pub fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts { kind, text: text.into(), source: None }))
    }

    /// The same error with the fault that caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without a change.
    ///
    /// After [`ErrorKind::TimedOut`] the first call may have taken effect; see there.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Backpressure)
    }

    pub(crate) fn too_large(what: &str, seen: usize, limit: usize, setting: &str) -> Self {
        Self::new(ErrorKind::TooLarge, format!("{what} is {seen} bytes, limit is {limit} (limits.{setting})"))
    }

    pub(crate) fn closed(what: &'static str) -> Self {
        Self::new(ErrorKind::Closed, format!("{what} is closed"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
