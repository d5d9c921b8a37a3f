//! What a client asks for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::encoding::Encoding;
use crate::filter::FilterNode;
use crate::omit::is_default;
use crate::opaque::{Opaque, present};
use crate::protobuf::{self, Protobuf, ProtobufError, Wire, fields};
use crate::reply::Empty;

/// One command of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Command<'a> {
    /// Echoed in the reply; unique among the connection's open commands. Zero where no reply is wanted.
    pub id: u32,
    /// What is asked.
    pub method: Method<'a>,
}

/// The methods of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Method<'a> {
    /// Opens the connection's session; must come first and once.
    Connect(ConnectRequest<'a>),
    /// Starts a subscription.
    Subscribe(SubscribeRequest<'a>),
    /// Ends a subscription.
    Unsubscribe(ChannelRequest<'a>),
    /// Publishes to a channel.
    Publish(PublishRequest<'a>),
    /// Reads kept events.
    History(HistoryRequest<'a>),
    /// Replaces the connection token before it expires.
    Refresh(RefreshRequest<'a>),
    /// Asks for an empty reply.
    Ping,
    /// The empty command `{}`: the answer to the server's ping.
    Pong,
    /// Lists who is in a channel.
    Presence(ChannelRequest<'a>),
    /// Counts who is in a channel.
    PresenceStats(ChannelRequest<'a>),
    /// Calls a procedure of the application.
    Rpc(RpcRequest<'a>),
    /// Sends data without a reply.
    Send(SendRequest<'a>),
    /// Replaces a subscription token before it expires.
    SubRefresh(SubRefreshRequest<'a>),
    /// A command with an id and no method that the protocol has.
    Unknown,
}

/// Who connects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectRequest<'a> {
    /// JSON Web Token; empty for an anonymous connection.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub token: Cow<'a, str>,
    /// The client's name for its kind, such as `js`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub name: Cow<'a, str>,
    /// The client's version.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub version: Cow<'a, str>,
    /// What the application says of itself; tools of ours say [`ConnectData`].
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Opaque<'a>>,
    /// Server-side subscriptions that the client had, and where it was in them.
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    pub subs: BTreeMap<Cow<'a, str>, SubscribeRequest<'a>>,
    /// What a browser cannot put into the headers of its request.
    #[serde(borrow, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Features that the client has; none of them is used.
    #[serde(skip_serializing_if = "is_default")]
    pub flag: i64,
}

impl ConnectRequest<'_> {
    /// What a tool of ours says. Applications may send any data; it says nothing to us.
    pub fn ours(&self) -> ConnectData {
        let data = self.data.as_ref().and_then(|data| serde_json::from_slice(data.as_bytes()).ok());
        data.unwrap_or_default()
    }
}

/// What `tidewire tail` and other tools of operators say when they connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectData {
    /// Show nothing that contracts of events mark as personal.
    pub redact: bool,
}

impl ConnectData {
    /// As data of a connect command.
    pub fn to_data(self) -> Option<Opaque<'static>> {
        serde_json::value::to_raw_value(&self).ok().map(|json| Opaque::Json(Cow::Owned(json)))
    }
}

/// Which channel to listen to, and from where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscribeRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// Subscription token: JSON Web Token for this channel.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub token: Cow<'a, str>,
    /// The client holds the position below and wants what followed it.
    #[serde(skip_serializing_if = "is_default")]
    pub recover: bool,
    /// Epoch of the position; empty means "whatever the epoch is".
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub epoch: Cow<'a, str>,
    /// Offset of the last event that the client has.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// What the application says with its subscription.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Opaque<'a>>,
    /// The client wants to be told of gaps.
    #[serde(skip_serializing_if = "is_default")]
    pub positioned: bool,
    /// The client wants to recover after a reconnect.
    #[serde(skip_serializing_if = "is_default")]
    pub recoverable: bool,
    /// The client wants to be told who comes and goes.
    #[serde(skip_serializing_if = "is_default")]
    pub join_leave: bool,
    /// How the client can take data that has changed little: `fossil`, or empty.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub delta: Cow<'a, str>,
    /// Which events the client wants, by their tags; all without one.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub tf: Option<FilterNode<'a>>,
    /// Bit 0: numeric channel ids are welcome. Bit 1: fail with 112 rather than subscribe unrecovered.
    #[serde(skip_serializing_if = "is_default")]
    pub flag: i64,
    /// Kind of subscription; only 0 (stream) is offered.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: i32,
}

impl SubscribeRequest<'_> {
    const FLAG_REJECT_UNRECOVERED: i64 = 1 << 1;

    /// Whether the client prefers error 112 to a subscription that starts after a gap.
    pub fn rejects_unrecovered(&self) -> bool {
        self.flag & Self::FLAG_REJECT_UNRECOVERED != 0
    }
}

/// A channel: whose subscription to end, or whose members to list or count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ChannelRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
}

/// What to publish, and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// The event's data, in JSON `null` included. `None` when the field is absent.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Opaque<'a>>,
}

/// A call of a procedure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RpcRequest<'a> {
    /// Its argument.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Opaque<'a>>,
    /// Its name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub method: Cow<'a, str>,
}

/// Data for the application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SendRequest<'a> {
    /// The data.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Opaque<'a>>,
}

/// A new subscription token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubRefreshRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// JSON Web Token for it.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub token: Cow<'a, str>,
}

/// Which kept events to read.
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

/// A place in a channel's stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct StreamPosition<'a> {
    /// Offset of an event.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// Epoch of the stream; empty means "whatever the epoch is".
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub epoch: Cow<'a, str>,
}

/// A new connection token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefreshRequest<'a> {
    /// JSON Web Token of the same user.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub token: Cow<'a, str>,
}

/// Commands of a connection whose transport goes one way only, sent by a request of their own.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EmulationRequest<'a> {
    /// The node that holds the connection, from its connect result.
    pub node: Cow<'a, str>,
    /// The connection's session, from its connect result.
    pub session: Cow<'a, str>,
    /// A frame of commands.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub data: Opaque<'a>,
}

impl Command<'_> {
    /// The command as a client sends it: alone in a frame, or behind other ones.
    pub fn encode(&self, encoding: Encoding) -> Bytes {
        encoding.encode(self, |out| self.write(out))
    }

    fn write(&self, out: &mut Vec<u8>) {
        protobuf::Field::put(&self.id, 1, out);
        match &self.method {
            Method::Connect(request) => protobuf::put_message(4, request, out),
            Method::Subscribe(request) => protobuf::put_message(5, request, out),
            Method::Unsubscribe(request) => protobuf::put_message(6, request, out),
            Method::Publish(request) => protobuf::put_message(7, request, out),
            Method::Presence(request) => protobuf::put_message(8, request, out),
            Method::PresenceStats(request) => protobuf::put_message(9, request, out),
            Method::History(request) => protobuf::put_message(10, request, out),
            Method::Ping => protobuf::put_message(11, &Empty {}, out),
            Method::Send(request) => protobuf::put_message(12, request, out),
            Method::Rpc(request) => protobuf::put_message(13, request, out),
            Method::Refresh(request) => protobuf::put_message(14, request, out),
            Method::SubRefresh(request) => protobuf::put_message(15, request, out),
            Method::Pong | Method::Unknown => {}
        }
    }
}

fields!(ConnectRequest<'a> { 1 token, 2 data, 3 subs, 4 name, 5 version, 6 headers, 7 flag });
fields!(SubscribeRequest<'a> {
    1 channel, 2 token, 3 recover, 6 epoch, 7 offset, 8 data, 9 positioned, 10 recoverable, 11 join_leave, 12 delta, 13 tf, 14 flag, 15 kind
});
fields!(FilterNode<'a> { 1 op, 2 key, 3 cmp, 4 val, 5 vals, 6 nodes });
fields!(ChannelRequest<'a> { 1 channel });
fields!(PublishRequest<'a> { 1 channel, 2 data });
fields!(HistoryRequest<'a> { 1 channel, 7 limit, 8 since, 9 reverse });
fields!(StreamPosition<'a> { 1 offset, 2 epoch });
fields!(RpcRequest<'a> { 1 data, 2 method });
fields!(SendRequest<'a> { 1 data });
fields!(RefreshRequest<'a> { 1 token });
fields!(SubRefreshRequest<'a> { 1 channel, 2 token });
fields!(EmulationRequest<'a> { 1 node, 2 session, 3 data });

/// A command while it is read: one with a second method is refused, as it is in JSON.
#[derive(Default)]
pub(crate) struct Parsed<'a> {
    id: u32,
    method: Option<Method<'a>>,
    has_two: bool,
    is_filled: bool,
}

impl<'a> Parsed<'a> {
    pub(crate) fn command(self) -> Option<Command<'a>> {
        let method = self.method.unwrap_or(if self.is_filled { Method::Unknown } else { Method::Pong });
        (!self.has_two).then_some(Command { id: self.id, method })
    }
}

impl<'a> Protobuf<'a> for Parsed<'a> {
    fn write(&self, _out: &mut Vec<u8>) {}

    fn take(&mut self, number: u64, wire: Wire<'a>) -> Result<(), ProtobufError> {
        self.is_filled = true;
        let method = match number {
            1 => return protobuf::Field::take(&mut self.id, wire),
            4 => Method::Connect(wire.message()?),
            5 => Method::Subscribe(wire.message()?),
            6 => Method::Unsubscribe(wire.message()?),
            7 => Method::Publish(wire.message()?),
            8 => Method::Presence(wire.message()?),
            9 => Method::PresenceStats(wire.message()?),
            10 => Method::History(wire.message()?),
            11 => Method::Ping,
            12 => Method::Send(wire.message()?),
            13 => Method::Rpc(wire.message()?),
            14 => Method::Refresh(wire.message()?),
            15 => Method::SubRefresh(wire.message()?),
            _ => return Ok(()),
        };
        self.has_two |= self.method.replace(method).is_some();
        Ok(())
    }
}

impl Serialize for Command<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(None)?;
        if self.id != 0 {
            map.serialize_entry("id", &self.id)?;
        }
        match &self.method {
            Method::Connect(request) => map.serialize_entry("connect", request)?,
            Method::Subscribe(request) => map.serialize_entry("subscribe", request)?,
            Method::Unsubscribe(request) => map.serialize_entry("unsubscribe", request)?,
            Method::Publish(request) => map.serialize_entry("publish", request)?,
            Method::History(request) => map.serialize_entry("history", request)?,
            Method::Refresh(request) => map.serialize_entry("refresh", request)?,
            Method::Ping => map.serialize_entry("ping", &Empty {})?,
            Method::Presence(request) => map.serialize_entry("presence", request)?,
            Method::PresenceStats(request) => map.serialize_entry("presence_stats", request)?,
            Method::Rpc(request) => map.serialize_entry("rpc", request)?,
            Method::Send(request) => map.serialize_entry("send", request)?,
            Method::SubRefresh(request) => map.serialize_entry("sub_refresh", request)?,
            Method::Pong | Method::Unknown => {}
        }
        map.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Command<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(CommandVisitor(PhantomData))
    }
}

/// The keys of a command's envelope.
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Id,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Ping,
    Send,
    Rpc,
    Refresh,
    SubRefresh,
    #[serde(other)]
    Unknown,
}

struct CommandVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for CommandVisitor<'a> {
    type Value = Command<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command: an object with an id and one method")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Command<'a>, A::Error> {
        let mut id = 0;
        let mut method: Option<Method<'a>> = None;
        let mut is_empty = true;
        while let Some(key) = map.next_key::<Key>()? {
            is_empty = false;
            let found = match key {
                Key::Id => {
                    id = map.next_value()?;
                    continue;
                }
                // A field of a newer protocol beside a method that we know does not matter.
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Key::Connect => Method::Connect(map.next_value()?),
                Key::Subscribe => Method::Subscribe(map.next_value()?),
                Key::Unsubscribe => Method::Unsubscribe(map.next_value()?),
                Key::Publish => Method::Publish(map.next_value()?),
                Key::History => Method::History(map.next_value()?),
                Key::Refresh => Method::Refresh(map.next_value()?),
                Key::Presence => Method::Presence(map.next_value()?),
                Key::PresenceStats => Method::PresenceStats(map.next_value()?),
                Key::Rpc => Method::Rpc(map.next_value()?),
                Key::Send => Method::Send(map.next_value()?),
                Key::SubRefresh => Method::SubRefresh(map.next_value()?),
                Key::Ping => {
                    map.next_value::<IgnoredAny>()?;
                    Method::Ping
                }
            };
            if method.replace(found).is_some() {
                return Err(de::Error::custom("more than one method in a command"));
            }
        }
        let method = method.unwrap_or(if is_empty { Method::Pong } else { Method::Unknown });
        Ok(Command { id, method })
    }
}
