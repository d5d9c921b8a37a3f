//! What the server answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codes::ErrorCode;
use crate::encoding::Encoding;
use crate::omit::is_default;
use crate::opaque::{Opaque, present};
use crate::protobuf::{self, Protobuf, ProtobufError, Wire, fields};
use crate::push::{ClientInfo, Publication, Push};

/// One reply of a frame.
#[derive(Clone, Debug, Default)]
pub struct Reply<'a> {
    /// The id of the command that this answers; 0 for a push or a ping.
    pub id: u32,
    /// The answer.
    pub body: ReplyBody<'a>,
}

/// The kinds of reply.
#[derive(Clone, Debug, Default)]
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
    /// Who is in a channel.
    Presence(PresenceResult<'a>),
    /// How many are in a channel.
    PresenceStats(PresenceStatsResult),
    /// Kept events.
    History(HistoryResult<'a>),
    /// What a procedure returned.
    Rpc(RpcResult<'a>),
    /// The answer to a client's ping.
    Ping(Empty),
    /// The token is replaced.
    Refresh(RefreshResult<'a>),
    /// The subscription's token is replaced.
    SubRefresh(SubRefreshResult),
    /// Something happened in a channel.
    Push(Push<'a>),
    /// The server's ping, an empty reply.
    #[default]
    ServerPing,
}

/// Why a command failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// What the application says to the client.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Opaque<'a>>,
    /// Subscriptions that the server made.
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    pub subs: BTreeMap<Cow<'a, str>, SubscribeResult<'a>>,
    /// Seconds between the server's pings.
    #[serde(skip_serializing_if = "is_default")]
    pub ping: u32,
    /// The client must answer pings.
    #[serde(skip_serializing_if = "is_default")]
    pub pong: bool,
    /// Proves, where commands come by requests of their own, that they are of this connection.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub session: Cow<'a, str>,
    /// The id of the node that holds the connection.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub node: Cow<'a, str>,
    /// The server's time, in milliseconds since 1970.
    #[serde(skip_serializing_if = "is_default")]
    pub time: i64,
}

/// What a subscriber is told.
///
/// After a recovery `offset` is the position that the client asked from: it advances as the client takes the
/// publications. Otherwise it is the top of the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscribeResult<'a> {
    /// The subscription's token expires, so the client has to refresh it.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
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
    /// What the application says with the subscription.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Opaque<'a>>,
    /// Echo of the request's `recover`.
    #[serde(skip_serializing_if = "is_default")]
    pub was_recovering: bool,
    /// Publications may hold what has changed only; in JSON all data of the subscription is a string then.
    #[serde(skip_serializing_if = "is_default")]
    pub delta: bool,
}

/// Who is in a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PresenceResult<'a> {
    /// The subscribers, by connection id.
    #[serde(borrow)]
    pub presence: BTreeMap<Cow<'a, str>, ClientInfo<'a>>,
}

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PresenceStatsResult {
    /// Connections.
    pub num_clients: u32,
    /// Users that they are of.
    pub num_users: u32,
}

/// What a procedure returned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RpcResult<'a> {
    /// The value.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Opaque<'a>>,
}

/// A subscription after its token was replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubRefreshResult {
    /// The new token expires too.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
}

/// Kept events and the top of their stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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

fields!(ReplyError<'a> { 1 code, 2 message, 3 temporary });
fields!(Empty {});
fields!(ConnectResult<'a> {
    1 client, 2 version, 3 expires, 4 ttl, 5 data, 6 subs, 7 ping, 8 pong, 9 session, 10 node, 11 time
});
fields!(SubscribeResult<'a> {
    1 expires, 2 ttl, 3 recoverable, 6 epoch, 7 publications, 8 recovered, 9 offset, 10 positioned, 11 data,
    12 was_recovering, 13 delta
});
fields!(PresenceResult<'a> { 1 presence });
fields!(PresenceStatsResult { 1 num_clients, 2 num_users });
fields!(HistoryResult<'a> { 1 publications, 2 epoch, 3 offset });
fields!(RpcResult<'a> { 1 data });
fields!(RefreshResult<'a> { 1 client, 2 version, 3 expires, 4 ttl });
fields!(SubRefreshResult { 1 expires, 2 ttl });

impl Reply<'_> {
    /// The reply as it stands in a frame: alone, or behind other ones.
    pub fn encode(&self, encoding: Encoding) -> Bytes {
        encoding.encode(self, |out| self.write(out))
    }
}

impl<'a> Protobuf<'a> for Reply<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        protobuf::Field::put(&self.id, 1, out);
        match &self.body {
            ReplyBody::Error(error) => protobuf::put_message(2, error, out),
            ReplyBody::Push(push) => protobuf::put_message(4, push, out),
            ReplyBody::Connect(result) => protobuf::put_message(5, result, out),
            ReplyBody::Subscribe(result) => protobuf::put_message(6, result, out),
            ReplyBody::Unsubscribe(result) => protobuf::put_message(7, result, out),
            ReplyBody::Publish(result) => protobuf::put_message(8, result, out),
            ReplyBody::Presence(result) => protobuf::put_message(9, result, out),
            ReplyBody::PresenceStats(result) => protobuf::put_message(10, result, out),
            ReplyBody::History(result) => protobuf::put_message(11, result, out),
            ReplyBody::Ping(result) => protobuf::put_message(12, result, out),
            ReplyBody::Rpc(result) => protobuf::put_message(13, result, out),
            ReplyBody::Refresh(result) => protobuf::put_message(14, result, out),
            ReplyBody::SubRefresh(result) => protobuf::put_message(15, result, out),
            ReplyBody::ServerPing => {}
        }
    }

    fn take(&mut self, number: u64, wire: Wire<'a>) -> Result<(), ProtobufError> {
        self.body = match number {
            1 => return protobuf::Field::take(&mut self.id, wire),
            2 => ReplyBody::Error(wire.message()?),
            4 => ReplyBody::Push(wire.message()?),
            5 => ReplyBody::Connect(wire.message()?),
            6 => ReplyBody::Subscribe(wire.message()?),
            7 => ReplyBody::Unsubscribe(wire.message()?),
            8 => ReplyBody::Publish(wire.message()?),
            9 => ReplyBody::Presence(wire.message()?),
            10 => ReplyBody::PresenceStats(wire.message()?),
            11 => ReplyBody::History(wire.message()?),
            12 => ReplyBody::Ping(wire.message()?),
            13 => ReplyBody::Rpc(wire.message()?),
            14 => ReplyBody::Refresh(wire.message()?),
            15 => ReplyBody::SubRefresh(wire.message()?),
            _ => return Ok(()),
        };
        Ok(())
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
            ReplyBody::Presence(result) => map.serialize_entry("presence", result)?,
            ReplyBody::PresenceStats(result) => map.serialize_entry("presence_stats", result)?,
            ReplyBody::Rpc(result) => map.serialize_entry("rpc", result)?,
            ReplyBody::Ping(result) => map.serialize_entry("ping", result)?,
            ReplyBody::Refresh(result) => map.serialize_entry("refresh", result)?,
            ReplyBody::SubRefresh(result) => map.serialize_entry("sub_refresh", result)?,
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
    presence: Option<PresenceResult<'a>>,
    presence_stats: Option<PresenceStatsResult>,
    #[serde(borrow)]
    history: Option<HistoryResult<'a>>,
    #[serde(borrow)]
    rpc: Option<RpcResult<'a>>,
    ping: Option<Empty>,
    #[serde(borrow)]
    refresh: Option<RefreshResult<'a>>,
    sub_refresh: Option<SubRefreshResult>,
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
            .or(fields.presence.map(ReplyBody::Presence))
            .or(fields.presence_stats.map(ReplyBody::PresenceStats))
            .or(fields.rpc.map(ReplyBody::Rpc))
            .or(fields.ping.map(ReplyBody::Ping))
            .or(fields.refresh.map(ReplyBody::Refresh))
            .or(fields.sub_refresh.map(ReplyBody::SubRefresh))
            .or(fields.push.map(ReplyBody::Push))
            .unwrap_or(ReplyBody::ServerPing);
        Ok(Self { id: fields.id, body })
    }
}
