//! Why a command or request failed: what the caller is told, and what the log is told.

use std::borrow::Cow;

use tidewire::{ErrorKind, Violation};
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::http::ApiError;

/// A failed command or request. Logged once, where it is answered, and only if it has a detail.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the caller can do about it.
    pub(crate) code: ErrorCode,
    /// What the caller is told.
    pub(crate) message: Cow<'static, str>,
    /// What only the log is told, beside the id of the connection or request.
    pub(crate) detail: Option<String>,
    /// Where data is wrong, and which rule it breaks there.
    pub(crate) violation: Option<Box<Violation>>,
}

impl Failure {
    /// The caller's fault; `message` names the thing, the limit and the fix.
    pub(crate) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), detail: None, violation: None }
    }
}

impl From<Failure> for ApiError<'static> {
    fn from(failure: Failure) -> Self {
        let error = Self::new(failure.code, failure.message);
        match failure.violation {
            None => error,
            Some(violation) => {
                let Violation { pointer, rule, .. } = *violation;
                let [pointer, rule] = [pointer, rule].map(|text| Some(String::from(text).into()));
                Self { pointer, rule, ..error }
            }
        }
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.text)
    }
}

impl From<tidewire::Error> for Failure {
    /// Names and sizes are the caller's fault and told as they are; of all else the caller learns what it can do.
    fn from(error: tidewire::Error) -> Self {
        let (code, message) = match error.kind() {
            ErrorKind::InvalidName | ErrorKind::TooLarge | ErrorKind::Codec => {
                return Self::new(ErrorCode::BAD_REQUEST, error.to_string());
            }
            ErrorKind::PositionLost => {
                return Self::new(ErrorCode::UNRECOVERABLE_POSITION, error.to_string());
            }
            ErrorKind::NotFound => return Self::new(ErrorCode::NOT_FOUND, error.to_string()),
            ErrorKind::Conflict => return Self::new(ErrorCode::CONFLICT, error.to_string()),
            ErrorKind::Backpressure => (ErrorCode::TOO_MANY_REQUESTS, ErrorCode::TOO_MANY_REQUESTS.text),
            ErrorKind::Unavailable => {
                (ErrorCode::INTERNAL, "engine is unavailable, nothing was done: try again")
            }
            ErrorKind::TimedOut => {
                (ErrorCode::INTERNAL, "engine gave no answer in time, the outcome is unknown")
            }
            _ => (ErrorCode::INTERNAL, ErrorCode::INTERNAL.text),
        };
        Self { detail: Some(error.to_string()), ..Self::new(code, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_engine_stay_in_the_log() {
        for kind in [ErrorKind::Unavailable, ErrorKind::TimedOut, ErrorKind::Engine, ErrorKind::Backpressure]
        {
            let failure = Failure::from(tidewire::Error::new(kind, "10.0.0.7 refused"));
            assert!(!failure.message.contains("10.0.0.7"), "{failure:?}");
            assert_eq!(failure.detail.as_deref(), Some("10.0.0.7 refused"));
        }
    }

    #[test]
    fn faults_of_the_caller_are_told_as_they_are() {
        let failure = Failure::from(tidewire::Error::new(ErrorKind::TooLarge, "event is too large"));
        assert_eq!((failure.code, &*failure.message), (ErrorCode::BAD_REQUEST, "event is too large"));
        assert_eq!(failure.detail, None);
    }
}
