//! Bodies about events that are sent to a channel as CloudEvents.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::http::ApiError;
use crate::omit::is_default;

/// `POST /v1/channels/{channel}/events` with a batch: what became of each, in the order of the batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventOutcomes {
    /// One for each event.
    pub events: Vec<EventOutcome>,
}

/// What became of one event of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum EventOutcome {
    /// It was refused, or could not be published.
    Refused(RefusedEvent),
    /// It was published, now or before.
    Accepted(AcceptedEvent),
}

/// `POST /v1/channels/{channel}/events` with one event: it was published, now or before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AcceptedEvent {
    /// Its `id`, as it was sent.
    pub id: String,
    /// The UUID that it is known by, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Where it is in the channel's stream; left out for a live event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// An event with the same `source` and `id` was published before: this one was not, and the position is that of the first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub duplicate: bool,
}

/// An event of a batch that was refused, or could not be published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RefusedEvent {
    /// Its `id`, as it was sent, if that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why.
    pub error: EventError,
}

/// Why an event was refused; as [`ApiError`], of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventError {
    /// A number of [`ErrorCode`](crate::codes::ErrorCode).
    pub code: u32,
    /// What is wrong, in words.
    pub message: String,
    /// Where in the data it is wrong: a JSON pointer (RFC 6901), empty for the data as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Which rule the data breaks there, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl From<ApiError<'_>> for EventError {
    fn from(error: ApiError<'_>) -> Self {
        let ApiError { code, message, pointer, rule } = error;
        let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        Self { code, message: message.into_owned(), pointer: owned(pointer), rule: owned(rule) }
    }
}
