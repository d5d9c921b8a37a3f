//! Bodies of the server API, `POST /api/<method>`: what a backend sends and gets. Compatible with Centrifugo's.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::codes::ErrorCode;
use crate::command::StreamPosition;
use crate::omit::{is_default, present};
use crate::push::Publication;

/// `/api/publish`: one event to one channel.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// The event's data: any JSON value.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// Publish live even where the channel is kept.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_history: bool,
    /// Labels that subscribers see.
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Requests with the same key have one effect.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub idempotency_key: Cow<'a, str>,
    /// Binary data in base64; not offered, and refused by name rather than dropped.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub b64data: Cow<'a, str>,
}

/// `/api/broadcast`: one event to many channels.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BroadcastRequest<'a> {
    /// The channels' names.
    #[serde(borrow)]
    pub channels: Vec<Cow<'a, str>>,
    /// The event's data: any JSON value.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// Publish live even where a channel is kept.
    #[serde(skip_serializing_if = "is_default")]
    pub skip_history: bool,
    /// Labels that subscribers see.
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Requests with the same key have one effect in each channel.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub idempotency_key: Cow<'a, str>,
    /// Binary data in base64; not offered, and refused by name rather than dropped.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub b64data: Cow<'a, str>,
}

/// `/api/history`: kept events of a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// Most events to return; 0 asks for the position only, a negative number for as many as the server gives.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: i32,
    /// Return what follows this position (what precedes it, with `reverse`).
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub since: Option<StreamPosition<'a>>,
    /// Newest first.
    #[serde(skip_serializing_if = "is_default")]
    pub reverse: bool,
}

/// Where the event stands; both fields are left out for a live event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishResult<'a> {
    /// Its offset in the channel's stream.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// Epoch of the stream.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub epoch: Cow<'a, str>,
}

/// One response for each channel of the request, in its order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BroadcastResult<'a> {
    /// The responses.
    #[serde(borrow)]
    pub responses: Vec<ApiReply<'a, PublishResult<'a>>>,
}

/// Kept events and the top of their stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryResult<'a> {
    /// The events asked for.
    #[serde(borrow)]
    pub publications: Vec<Publication<'a>>,
    /// Epoch of the stream.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub epoch: Cow<'a, str>,
    /// Offset of the newest event.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
}

/// `/api/info`: the nodes that serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InfoResult<'a> {
    /// This node.
    #[serde(borrow)]
    pub nodes: Vec<NodeInfo<'a>>,
}

/// One node, as the caller's tenant may see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeInfo<'a> {
    /// The node's id.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// The node's name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Its version.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
    /// Connections of the caller's tenant.
    pub num_clients: u64,
    /// Subscriptions of the caller's tenant.
    pub num_subs: u64,
    /// Channels of the caller's tenant with a subscription.
    pub num_channels: u64,
    /// Seconds since the node started.
    pub uptime: u64,
}

/// `{"result": ...}` or `{"error": ...}`; both come with status 200.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiReply<'a, T> {
    /// It worked.
    Result(T),
    /// It did not.
    #[serde(borrow)]
    Error(ApiError<'a>),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiError<'a> {
    /// A number of [`ErrorCode`].
    pub code: u32,
    /// What is wrong, in words.
    #[serde(borrow)]
    pub message: Cow<'a, str>,
    /// Where in the data it is wrong: a JSON pointer (RFC 6901), empty for the data as a whole.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<Cow<'a, str>>,
    /// Which rule the data breaks there, for programs.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Cow<'a, str>>,
}

impl<'a> ApiError<'a> {
    /// The code with a message of its own.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'a, str>>) -> Self {
        Self { code: code.number, message: message.into(), pointer: None, rule: None }
    }
}
