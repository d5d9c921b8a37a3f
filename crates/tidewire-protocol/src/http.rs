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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PublishRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// The event's data: any JSON value. This or `b64data`.
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
    /// The event's data as base64, in place of `data`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub b64data: Cow<'a, str>,
    /// Accepted, and without effect: whoever asks for deltas gets them, whatever the publisher says.
    #[serde(skip_serializing_if = "is_default")]
    pub delta: bool,
    /// Published only if it is above the channel's version; 0 for none.
    #[serde(skip_serializing_if = "is_default")]
    pub version: u64,
    /// What versions are compared within; another one starts anew.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub version_epoch: Cow<'a, str>,
}

/// `/api/broadcast`: one event to many channels.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BroadcastRequest<'a> {
    /// The channels' names.
    #[serde(borrow)]
    pub channels: Vec<Cow<'a, str>>,
    /// The event's data: any JSON value. This or `b64data`.
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
    /// The event's data as base64, in place of `data`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub b64data: Cow<'a, str>,
    /// Accepted, and without effect: whoever asks for deltas gets them, whatever the publisher says.
    #[serde(skip_serializing_if = "is_default")]
    pub delta: bool,
    /// Published only if it is above the channel's version; 0 for none.
    #[serde(skip_serializing_if = "is_default")]
    pub version: u64,
    /// What versions are compared within; another one starts anew.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub version_epoch: Cow<'a, str>,
}

/// `/api/history`: kept events of a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct BroadcastResult<'a> {
    /// The responses.
    #[serde(borrow)]
    pub responses: Vec<ApiReply<'a, PublishResult<'a>>>,
}

/// Kept events and the top of their stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct InfoResult {
    /// Those that answered in time.
    pub nodes: Vec<NodeInfo>,
}

/// One node, as the caller's tenant may see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NodeInfo {
    /// The node's id.
    pub uid: String,
    /// The node's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Connections of the caller's tenant.
    pub num_clients: u64,
    /// Subscriptions of the caller's tenant.
    pub num_subs: u64,
    /// Channels of the caller's tenant with a subscription.
    pub num_channels: u64,
    /// Seconds since the node started.
    pub uptime: u64,
}

/// `/api/subscribe`: subscribe the connections of a user to a channel, on every node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SubscribeRequest<'a> {
    /// The user.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub user: Cow<'a, str>,
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// Only the connection with this id.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub client: Cow<'a, str>,
    /// Not offered, and refused: connections are named by `client`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub session: Cow<'a, str>,
    /// What others see of it in the channel.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub info: Option<&'a RawValue>,
    /// The same as base64, in place of `info`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub b64info: Cow<'a, str>,
    /// What the client is told with it.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
    /// The same as base64, in place of `data`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub b64data: Cow<'a, str>,
    /// Begin after this position.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub recover_since: Option<StreamPosition<'a>>,
    /// What of the channel's rule is put aside, as in a subscription token.
    #[serde(borrow, rename = "override", skip_serializing_if = "Option::is_none")]
    pub overrides: Option<&'a RawValue>,
}

/// `/api/unsubscribe`: end the subscriptions of a user to a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct UnsubscribeRequest<'a> {
    /// The user.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub user: Cow<'a, str>,
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// Only the connection with this id.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub client: Cow<'a, str>,
    /// Not offered, and refused: connections are named by `client`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub session: Cow<'a, str>,
}

/// `/api/disconnect`: end the connections of a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DisconnectRequest<'a> {
    /// The user.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub user: Cow<'a, str>,
    /// Only the connection with this id.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub client: Cow<'a, str>,
    /// Not offered, and refused: connections are named by `client`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub session: Cow<'a, str>,
    /// Connections that stay, by their ids.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    pub whitelist: Vec<Cow<'a, str>>,
    /// What the client is told; 3503 "force disconnect" without it.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub disconnect: Option<DisconnectReason<'a>>,
}

/// What a client is told when its connection is ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DisconnectReason<'a> {
    /// 3000 to 4999; whether the client connects again goes by it.
    pub code: u32,
    /// The reason in words.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub reason: Cow<'a, str>,
}

/// `/api/refresh`: let the connections of a user go on until another time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RefreshRequest<'a> {
    /// The user.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub user: Cow<'a, str>,
    /// Only the connection with this id.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub client: Cow<'a, str>,
    /// Not offered, and refused: connections are named by `client`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub session: Cow<'a, str>,
    /// Not offered, and refused: it comes with the connection's token.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub info: Option<&'a RawValue>,
    /// End them now.
    #[serde(skip_serializing_if = "is_default")]
    pub expired: bool,
    /// When they end, in seconds since 1970; 0 for never.
    #[serde(skip_serializing_if = "is_default")]
    pub expire_at: u64,
}

/// `/api/channels`: channels with subscribers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ChannelsRequest<'a> {
    /// Only names that match, in which `*` stands for any characters; all without one.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub pattern: Cow<'a, str>,
}

/// Channels with subscribers, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ChannelsResult<'a> {
    /// The channels.
    #[serde(borrow)]
    pub channels: BTreeMap<Cow<'a, str>, ChannelInfo>,
}

/// A channel with subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ChannelInfo {
    /// Its subscribers, on all nodes.
    pub num_clients: u64,
}

/// `/api/batch`: several calls in one request.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BatchRequest<'a> {
    /// The calls: a method's name, and its request.
    #[serde(borrow)]
    pub commands: Vec<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    /// Make them side by side; else one after the other.
    pub parallel: bool,
}

/// One reply for each call of the request, in its order.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BatchResult<'a> {
    /// The replies.
    pub replies: Vec<BatchReply<'a>>,
}

/// What came of one call: `{"error": ...}`, or the method's name and its result.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BatchReply<'a> {
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError<'a>>,
    /// The result under the method's name.
    #[serde(flatten)]
    pub result: BTreeMap<Cow<'a, str>, Box<RawValue>>,
}

/// A result without fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EmptyResult {}

/// `{"result": ...}` or `{"error": ...}`; both come with status 200.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", schemars(rename = "ReplyOf{T}"))]
pub enum ApiReply<'a, T> {
    /// It worked.
    Result(T),
    /// It did not.
    #[serde(borrow)]
    Error(ApiError<'a>),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
