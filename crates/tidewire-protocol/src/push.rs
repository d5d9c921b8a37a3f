//! What the server sends without being asked.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::codes::UnsubscribeCode;
use crate::encoding::Encoding;
use crate::omit::is_default;
use crate::opaque::{Opaque, present};
use crate::protobuf::{self, Protobuf as _, ProtobufError, Wire, fields};
use crate::reply::{ConnectResult, Reply, ReplyBody};

/// Something that happened in a channel, or to the connection.
#[derive(Clone, Debug, Default)]
pub struct Push<'a> {
    /// The channel's name; empty where the push is about the connection.
    pub channel: Cow<'a, str>,
    /// What happened.
    pub body: PushBody<'a>,
}

/// The kinds of push.
#[derive(Clone, Debug, Default)]
pub enum PushBody<'a> {
    /// An event.
    Publication(Publication<'a>),
    /// A subscriber came.
    Join(Membership<'a>),
    /// A subscriber went.
    Leave(Membership<'a>),
    /// The server ended the subscription.
    Unsubscribe(Unsubscribe<'a>),
    /// Data for the connection, whatever channels it listens to.
    Direct(Direct<'a>),
    /// The server subscribed the connection.
    Subscribe(Subscribe<'a>),
    /// The session is open: the first push of a unidirectional connection, which has no reply.
    Connect(Box<ConnectResult<'a>>),
    /// The connection ends: the last push where a transport has no close code.
    Disconnect(Disconnect<'a>),
    /// The token was replaced from the server's side.
    Refresh(Refresh),
    /// A kind that this version does not read; clients ignore it.
    #[default]
    Other,
}

/// An event as subscribers see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Publication<'a> {
    /// The event's data.
    #[serde(borrow)]
    pub data: Opaque<'a>,
    /// Who published it, where a client did.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub info: Option<ClientInfo<'a>>,
    /// Its offset in the channel's stream; 0 (left out) for a live event.
    #[serde(default, skip_serializing_if = "is_default")]
    pub offset: u64,
    /// Short labels given by the publisher.
    #[serde(default, borrow, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// The data is what has changed since the publication before it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delta: bool,
    /// When it was published, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "is_default")]
    pub time: i64,
}

/// A client: who published an event, or who is in a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ClientInfo<'a> {
    /// The user, from the token's `sub`; empty for an anonymous one.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub user: Cow<'a, str>,
    /// The connection's id.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub client: Cow<'a, str>,
    /// The connection token's `info`.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub conn_info: Option<Opaque<'a>>,
    /// The subscription token's `info`.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub chan_info: Option<Opaque<'a>>,
}

/// Who came or went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Membership<'a> {
    /// The subscriber.
    #[serde(borrow)]
    pub info: ClientInfo<'a>,
}

/// Why a subscription ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unsubscribe<'a> {
    /// A number of [`UnsubscribeCode`].
    pub code: u32,
    /// The reason in words.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub reason: Cow<'a, str>,
}

/// Data without a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Direct<'a> {
    /// The data.
    #[serde(borrow)]
    pub data: Opaque<'a>,
}

/// A subscription that the server made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscribe<'a> {
    /// The client may recover after a reconnect.
    #[serde(skip_serializing_if = "is_default")]
    pub recoverable: bool,
    /// Epoch of the stream.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub epoch: Cow<'a, str>,
    /// Offset of the newest event.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// The server tells of gaps.
    #[serde(skip_serializing_if = "is_default")]
    pub positioned: bool,
    /// What the application says with it.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Opaque<'a>>,
}

/// Why a connection ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disconnect<'a> {
    /// A number of [`DisconnectCode`](crate::codes::DisconnectCode).
    pub code: u32,
    /// The reason in words.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub reason: Cow<'a, str>,
    /// The client is to connect again.
    #[serde(skip_serializing_if = "is_default")]
    pub reconnect: bool,
}

/// How long the session goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refresh {
    /// It ends.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
}

fields!(Publication<'a> { 4 data, 5 info, 6 offset, 7 tags, 8 delta, 9 time });
fields!(ClientInfo<'a> { 1 user, 2 client, 3 conn_info, 4 chan_info });
fields!(Unsubscribe<'a> { 2 code, 3 reason });
fields!(Direct<'a> { 1 data });
fields!(Subscribe<'a> { 1 recoverable, 4 epoch, 5 offset, 6 positioned, 7 data });
fields!(Disconnect<'a> { 1 code, 2 reason, 3 reconnect });
fields!(Refresh { 1 expires, 2 ttl });

impl<'a> protobuf::Protobuf<'a> for Membership<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        protobuf::put_message(1, &self.info, out);
    }

    fn take(&mut self, number: u64, wire: Wire<'a>) -> Result<(), ProtobufError> {
        if number == 1 { wire.read_into(&mut self.info) } else { Ok(()) }
    }
}

impl<'a> Push<'a> {
    /// An event in `channel`.
    pub fn publication(channel: &'a str, publication: Publication<'a>) -> Self {
        Self { channel: Cow::Borrowed(channel), body: PushBody::Publication(publication) }
    }

    /// The end of the subscription to `channel`, with the code's own reason.
    pub fn unsubscribe(channel: &'a str, code: UnsubscribeCode) -> Self {
        let body = PushBody::Unsubscribe(Unsubscribe { code: code.number, reason: Cow::Borrowed(code.text) });
        Self { channel: Cow::Borrowed(channel), body }
    }

    /// The push as a reply without an id, as connections in both directions get it. Encode once for each event and clone
    /// the bytes for each subscriber.
    pub fn encode(self, encoding: Encoding) -> Bytes {
        Reply { id: 0, body: ReplyBody::Push(self) }.encode(encoding)
    }

    /// The push alone, as unidirectional connections get it.
    pub fn encode_bare(&self, encoding: Encoding) -> Bytes {
        encoding.encode(self, |out| self.write(out))
    }
}

impl<'a> protobuf::Protobuf<'a> for Push<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        protobuf::Field::put(&self.channel, 2, out);
        match &self.body {
            PushBody::Publication(publication) => protobuf::put_message(4, publication, out),
            PushBody::Join(member) => protobuf::put_message(5, member, out),
            PushBody::Leave(member) => protobuf::put_message(6, member, out),
            PushBody::Unsubscribe(unsubscribe) => protobuf::put_message(7, unsubscribe, out),
            PushBody::Direct(direct) => protobuf::put_message(8, direct, out),
            PushBody::Subscribe(subscribe) => protobuf::put_message(9, subscribe, out),
            PushBody::Connect(connect) => {
                protobuf::put_message(10, &ConnectPush(Cow::Borrowed(connect)), out);
            }
            PushBody::Disconnect(disconnect) => protobuf::put_message(11, disconnect, out),
            PushBody::Refresh(refresh) => protobuf::put_message(12, refresh, out),
            PushBody::Other => {}
        }
    }

    fn take(&mut self, number: u64, wire: Wire<'a>) -> Result<(), ProtobufError> {
        self.body = match number {
            2 => return protobuf::Field::take(&mut self.channel, wire),
            4 => PushBody::Publication(wire.message()?),
            5 => PushBody::Join(wire.message()?),
            6 => PushBody::Leave(wire.message()?),
            7 => PushBody::Unsubscribe(wire.message()?),
            8 => PushBody::Direct(wire.message()?),
            9 => PushBody::Subscribe(wire.message()?),
            10 => PushBody::Connect(Box::new(wire.message::<ConnectPush<'_, '_>>()?.0.into_owned())),
            11 => PushBody::Disconnect(wire.message()?),
            12 => PushBody::Refresh(wire.message()?),
            _ => return Ok(()),
        };
        Ok(())
    }
}

/// A connect result under the numbers that it has as a push, which differ from those that it has as a reply.
struct ConnectPush<'p, 'a>(Cow<'p, ConnectResult<'a>>);

impl Default for ConnectPush<'_, '_> {
    fn default() -> Self {
        Self(Cow::Owned(ConnectResult::default()))
    }
}

impl<'a> protobuf::Protobuf<'a> for ConnectPush<'_, 'a> {
    fn write(&self, out: &mut Vec<u8>) {
        use protobuf::Field as _;
        let result = &*self.0;
        result.client.put(1, out);
        result.version.put(2, out);
        result.data.put(3, out);
        result.subs.put(4, out);
        result.expires.put(5, out);
        result.ttl.put(6, out);
        result.ping.put(7, out);
        result.pong.put(8, out);
        result.session.put(9, out);
        result.node.put(10, out);
        result.time.put(11, out);
    }

    fn take(&mut self, number: u64, wire: Wire<'a>) -> Result<(), ProtobufError> {
        // As a reply `expires` and `ttl` come before `data` and `subs`.
        let as_reply = match number {
            3 => 5,
            4 => 6,
            5 => 3,
            6 => 4,
            other => other,
        };
        self.0.to_mut().take(as_reply, wire)
    }
}

impl Serialize for Push<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(None)?;
        if !self.channel.is_empty() {
            map.serialize_entry("channel", &self.channel)?;
        }
        match &self.body {
            PushBody::Publication(publication) => map.serialize_entry("pub", publication)?,
            PushBody::Join(member) => map.serialize_entry("join", member)?,
            PushBody::Leave(member) => map.serialize_entry("leave", member)?,
            PushBody::Unsubscribe(unsubscribe) => map.serialize_entry("unsubscribe", unsubscribe)?,
            PushBody::Direct(direct) => map.serialize_entry("message", direct)?,
            PushBody::Subscribe(subscribe) => map.serialize_entry("subscribe", subscribe)?,
            PushBody::Connect(connect) => map.serialize_entry("connect", connect)?,
            PushBody::Disconnect(disconnect) => map.serialize_entry("disconnect", disconnect)?,
            PushBody::Refresh(refresh) => map.serialize_entry("refresh", refresh)?,
            PushBody::Other => {}
        }
        map.end()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow, rename = "pub")]
    publication: Option<Publication<'a>>,
    #[serde(borrow)]
    join: Option<Membership<'a>>,
    #[serde(borrow)]
    leave: Option<Membership<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<Unsubscribe<'a>>,
    #[serde(borrow)]
    message: Option<Direct<'a>>,
    #[serde(borrow)]
    subscribe: Option<Subscribe<'a>>,
    #[serde(borrow)]
    connect: Option<Box<ConnectResult<'a>>>,
    #[serde(borrow)]
    disconnect: Option<Disconnect<'a>>,
    refresh: Option<Refresh>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Push<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(input)?;
        let body = (fields.publication.map(PushBody::Publication))
            .or(fields.join.map(PushBody::Join))
            .or(fields.leave.map(PushBody::Leave))
            .or(fields.unsubscribe.map(PushBody::Unsubscribe))
            .or(fields.message.map(PushBody::Direct))
            .or(fields.subscribe.map(PushBody::Subscribe))
            .or(fields.connect.map(PushBody::Connect))
            .or(fields.disconnect.map(PushBody::Disconnect))
            .or(fields.refresh.map(PushBody::Refresh))
            .unwrap_or_default();
        Ok(Self { channel: fields.channel, body })
    }
}
