//! What the server answers.

use std::borrow::Cow;

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codes::ErrorCode;
use crate::omit::is_default;
use crate::push::{Publication, Push};

/// One reply of a frame.
#[derive(Clone, Debug)]
pub struct Reply<'a> {
    /// The id of the command that this answers; 0 for a push or a ping.
    pub id: u32,
    /// The answer.
    pub body: ReplyBody<'a>,
}

/// The kinds of reply.
#[derive(Clone, Debug)]
pub enum ReplyBody<'a> {
    /// The command failed.
    Error(ReplyError<'a>),
    /// The session is open.
    Connect(ConnectResult<'a>),
    /// The subscription stands.
    Subscribe(SubscribeResult<'a>),
    /// The subscription is gone.
    Unsubscribe(Empty),
    /// The event is published.
    Publish(Empty),
    /// Kept events.
    History(HistoryResult<'a>),
    /// The answer to a client's ping.
    Ping(Empty),
    /// The token is replaced.
    Refresh(RefreshResult<'a>),
    /// Something happened in a channel.
    Push(Push<'a>),
    /// The server's ping, `{}`.
    ServerPing,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyError<'a> {
    /// A number of [`ErrorCode`].
    pub code: u32,
    /// What is wrong, in words.
    #[serde(borrow)]
    pub message: Cow<'a, str>,
    /// The same command may succeed later.
    #[serde(default, skip_serializing_if = "is_default")]
    pub temporary: bool,
}

impl<'a> ReplyError<'a> {
    /// The code with a message of its own.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'a, str>>) -> Self {
        Self { code: code.number, message: message.into(), temporary: code.is_temporary }
    }
}

impl From<ErrorCode> for ReplyError<'_> {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.text)
    }
}

/// A result without fields, `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Empty {}

/// What an open session is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectResult<'a> {
    /// The connection's id.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub client: Cow<'a, str>,
    /// The server's version.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub version: Cow<'a, str>,
    /// The token expires, so the client has to refresh it.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until the token expires.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
    /// Seconds between the server's pings.
    #[serde(skip_serializing_if = "is_default")]
    pub ping: u32,
    /// The client must answer pings.
    #[serde(skip_serializing_if = "is_default")]
    pub pong: bool,
    /// The id of the node that holds the connection.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub node: Cow<'a, str>,
}

/// What a subscriber is told.
///
/// After a recovery `offset` is the position that the client asked from: it advances as the client takes the
/// publications. Otherwise it is the top of the stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscribeResult<'a> {
    /// The client may recover after a reconnect.
    #[serde(skip_serializing_if = "is_default")]
    pub recoverable: bool,
    /// Epoch of the stream.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub epoch: Cow<'a, str>,
    /// Events between the client's position and now, oldest first.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    pub publications: Vec<Publication<'a>>,
    /// Nothing was missed: what follows the client's position is here or comes next.
    #[serde(skip_serializing_if = "is_default")]
    pub recovered: bool,
    /// See above.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// The server tells of gaps.
    #[serde(skip_serializing_if = "is_default")]
    pub positioned: bool,
    /// Echo of the request's `recover`.
    #[serde(skip_serializing_if = "is_default")]
    pub was_recovering: bool,
}

/// Kept events and the top of their stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryResult<'a> {
    /// The events asked for.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    pub publications: Vec<Publication<'a>>,
    /// Epoch of the stream.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub epoch: Cow<'a, str>,
    /// Offset of the newest event.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
}

/// The session after its token was replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefreshResult<'a> {
    /// The connection's id.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub client: Cow<'a, str>,
    /// The server's version.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub version: Cow<'a, str>,
    /// The new token expires too.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
}

impl Reply<'_> {
    /// The reply as one line of JSON.
    pub fn encode(&self) -> Bytes {
        // Strings, numbers and checked raw JSON into memory: there is nothing that can fail.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }
}

impl Serialize for Reply<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(None)?;
        if self.id != 0 {
            map.serialize_entry("id", &self.id)?;
        }
        match &self.body {
            ReplyBody::Error(error) => map.serialize_entry("error", error)?,
            ReplyBody::Connect(result) => map.serialize_entry("connect", result)?,
            ReplyBody::Subscribe(result) => map.serialize_entry("subscribe", result)?,
            ReplyBody::Unsubscribe(result) => map.serialize_entry("unsubscribe", result)?,
            ReplyBody::Publish(result) => map.serialize_entry("publish", result)?,
            ReplyBody::History(result) => map.serialize_entry("history", result)?,
            ReplyBody::Ping(result) => map.serialize_entry("ping", result)?,
            ReplyBody::Refresh(result) => map.serialize_entry("refresh", result)?,
            ReplyBody::Push(push) => map.serialize_entry("push", push)?,
            ReplyBody::ServerPing => {}
        }
        map.end()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    id: u32,
    #[serde(borrow)]
    error: Option<ReplyError<'a>>,
    #[serde(borrow)]
    connect: Option<ConnectResult<'a>>,
    #[serde(borrow)]
    subscribe: Option<SubscribeResult<'a>>,
    unsubscribe: Option<Empty>,
    publish: Option<Empty>,
    #[serde(borrow)]
    history: Option<HistoryResult<'a>>,
    ping: Option<Empty>,
    #[serde(borrow)]
    refresh: Option<RefreshResult<'a>>,
    #[serde(borrow)]
    push: Option<Push<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Reply<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(input)?;
        let body = (fields.error.map(ReplyBody::Error))
            .or(fields.connect.map(ReplyBody::Connect))
            .or(fields.subscribe.map(ReplyBody::Subscribe))
            .or(fields.unsubscribe.map(ReplyBody::Unsubscribe))
            .or(fields.publish.map(ReplyBody::Publish))
            .or(fields.history.map(ReplyBody::History))
            .or(fields.ping.map(ReplyBody::Ping))
            .or(fields.refresh.map(ReplyBody::Refresh))
            .or(fields.push.map(ReplyBody::Push))
            .unwrap_or(ReplyBody::ServerPing);
        Ok(Self { id: fields.id, body })
    }
}
