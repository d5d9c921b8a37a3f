//! What a backend answers.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tidewire::Timestamp;
use tidewire_protocol::Opaque;
use tidewire_protocol::codes::{DisconnectCode, ErrorCode};

use crate::failure::Failure;
use crate::hub::outbox::Disconnect;
use crate::tokens::{Refusal, SubscriptionClaims};

/// Error codes that are a backend's own.
const OWN_ERRORS: std::ops::RangeInclusive<u32> = 400..=1_999;
/// Disconnect codes that are a backend's own.
const OWN_DISCONNECTS: std::ops::RangeInclusive<u16> = 4_000..=4_999;
/// Bytes of the text with an error.
const MESSAGE_BYTES_MAX: usize = 512;
/// Bytes of the reason of a disconnect: a close frame has room for no more (RFC 6455, 5.5).
const REASON_BYTES_MAX: usize = 123;

/// Why a command is not carried out.
#[derive(Debug)]
pub(crate) enum Denied {
    /// The client is told.
    Failure(Failure),
    /// The connection ends.
    Disconnect(Disconnect),
}

impl Denied {
    /// The end of a connection apart from what its client is told.
    pub(crate) fn settle<T>(outcome: Result<T, Self>) -> Result<Result<T, Failure>, Disconnect> {
        match outcome {
            Ok(done) => Ok(Ok(done)),
            Err(Self::Failure(failure)) => Ok(Err(failure)),
            Err(Self::Disconnect(disconnect)) => Err(disconnect),
        }
    }
}

impl From<Failure> for Denied {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<ErrorCode> for Denied {
    fn from(code: ErrorCode) -> Self {
        Self::Failure(code.into())
    }
}

impl From<tidewire::Error> for Denied {
    fn from(error: tidewire::Error) -> Self {
        Self::Failure(error.into())
    }
}

impl From<Disconnect> for Denied {
    fn from(disconnect: Disconnect) -> Self {
        Self::Disconnect(disconnect)
    }
}

/// An answer that can be read.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is done, or may be.
    Result(Option<Box<RawValue>>),
    /// The backend refuses.
    Denied(Denied),
}

#[derive(Deserialize)]
struct Envelope {
    result: Option<Box<RawValue>>,
    error: Option<RawError>,
    disconnect: Option<RawDisconnect>,
}

#[derive(Deserialize)]
struct RawError {
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct RawDisconnect {
    code: u16,
    #[serde(default)]
    reason: String,
}

impl Answer {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let envelope: Envelope =
            serde_json::from_slice(body).map_err(|error| format!("the answer cannot be read: {error}"))?;
        let Envelope { result, error, disconnect } = envelope;
        if let Some(disconnect) = disconnect {
            return Ok(Self::Denied(Denied::Disconnect(disconnect.read()?)));
        }
        match error {
            Some(error) => Ok(Self::Denied(Denied::Failure(error.read()?))),
            None => Ok(Self::Result(result)),
        }
    }
}

impl RawError {
    fn read(mut self) -> Result<Failure, String> {
        self.message.truncate(self.message.floor_char_boundary(MESSAGE_BYTES_MAX));
        let known = ErrorCode::ALL.iter().find(|known| known.number == self.code);
        let code = match known {
            // Those that the REST API alone has are none of a client's.
            Some(code) if code.number < 300 => {
                ErrorCode { is_temporary: code.is_temporary || self.temporary, ..*code }
            }
            None if OWN_ERRORS.contains(&self.code) => {
                ErrorCode { number: self.code, text: "", is_temporary: self.temporary }
            }
            _ => return Err(format!("the answer has error code {}; use 400 to 1999", self.code)),
        };
        let message = if self.message.is_empty() { Cow::Borrowed(code.text) } else { self.message.into() };
        Ok(Failure::new(code, message))
    }
}

impl RawDisconnect {
    fn read(mut self) -> Result<Disconnect, String> {
        self.reason.truncate(self.reason.floor_char_boundary(REASON_BYTES_MAX));
        let known = DisconnectCode::ALL.iter().find(|known| known.number == self.code);
        let code = match known {
            Some(code) if code.number >= 3_000 => *code,
            None if OWN_DISCONNECTS.contains(&self.code) => DisconnectCode { number: self.code, text: "" },
            _ => return Err(format!("the answer has disconnect code {}; use 4000 to 4999", self.code)),
        };
        let reason = if self.reason.is_empty() { Cow::Borrowed(code.text) } else { self.reason.into() };
        Ok(Disconnect::new(code, reason))
    }
}

/// A session or subscription that goes on.
#[derive(Debug, Default)]
pub(crate) struct Refreshed {
    /// Until then; for ever without a time.
    pub(crate) expires_at: Option<Timestamp>,
    /// What others see of it from now on.
    pub(crate) info: Option<Opaque<'static>>,
    /// What only servers see.
    pub(crate) meta: Option<Arc<str>>,
}

/// What is published in place of what the client sent.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) data: Option<Opaque<'static>>,
    pub(crate) skips_history: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResult {
    expired: bool,
    skip_history: bool,
    meta: Option<Box<RawValue>>,
}

impl Refreshed {
    /// # Errors
    /// It is over, as without a result, or the result cannot be used.
    pub(crate) fn read(result: Option<&RawValue>, now: Timestamp) -> Result<Self, Refusal> {
        let RawResult { expired, meta, .. } = parse(result.ok_or(Refusal::Expired)?)?;
        let SubscriptionClaims { expires_at, options } = SubscriptionClaims::of_hook(result, now)?;
        match expired {
            true => Err(Refusal::Expired),
            false => {
                Ok(Self { expires_at, info: options.info, meta: meta.map(|meta| Arc::from(meta.get())) })
            }
        }
    }
}

impl Published {
    /// # Errors
    /// The result cannot be used.
    pub(crate) fn read(result: Option<&RawValue>, now: Timestamp) -> Result<Self, Refusal> {
        let Some(some) = result else { return Ok(Self::default()) };
        let RawResult { skip_history, .. } = parse(some)?;
        Ok(Self { data: data(result, now)?, skips_history: skip_history })
    }
}

/// What a result says to the client.
///
/// # Errors
/// The result cannot be used.
pub(crate) fn data(result: Option<&RawValue>, now: Timestamp) -> Result<Option<Opaque<'static>>, Refusal> {
    Ok(SubscriptionClaims::of_hook(result, now)?.options.data)
}

fn parse<T: DeserializeOwned>(result: &RawValue) -> Result<T, Refusal> {
    serde_json::from_str(result.get())
        .map_err(|error| Refusal::invalid(format!("the result cannot be read: {error}")))
}

#[cfg(test)]
mod tests;
