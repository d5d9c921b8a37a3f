//! Why a command or request failed: what the caller is told, and what the log is told.

use std::borrow::Cow;

use tidewire::ErrorKind;
use tidewire_protocol::codes::ErrorCode;

/// A failed command or request. Logged once, where it is answered, and only if it has a detail.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the caller can do about it.
    pub(crate) code: ErrorCode,
    /// What the caller is told.
    pub(crate) message: Cow<'static, str>,
    /// What only the log is told, beside the id of the connection or request.
    pub(crate) detail: Option<String>,
}

impl Failure {
    /// The caller's fault; `message` names the thing, the limit and the fix.
    pub(crate) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), detail: None }
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.text)
    }
}

impl From<tidewire::Error> for Failure {
    /// Names and sizes are the caller's fault and told as they are; all else stays in the log.
    fn from(error: tidewire::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::InvalidName | ErrorKind::TooLarge | ErrorKind::Codec => {
                return Self::new(ErrorCode::BAD_REQUEST, error.to_string());
            }
            ErrorKind::PositionLost => {
                return Self::new(ErrorCode::UNRECOVERABLE_POSITION, error.to_string());
            }
            ErrorKind::Backpressure => ErrorCode::TOO_MANY_REQUESTS,
            _ => ErrorCode::INTERNAL,
        };
        Self { code, message: code.text.into(), detail: Some(error.to_string()) }
    }
}
