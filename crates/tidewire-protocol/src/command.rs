//! What a client asks for.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::omit::{is_default, present};
use crate::reply::Empty;

/// One command of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Command<'a> {
    /// Echoed in the reply; unique among the connection's open commands. Zero where no reply is wanted.
    pub id: u32,
    /// What is asked.
    pub method: Method<'a>,
}

/// The methods of the protocol. Those without a body here are known by name, so that they are refused by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Method<'a> {
    /// Opens the connection's session; must come first and once.
    Connect(ConnectRequest<'a>),
    /// Starts a subscription.
    Subscribe(SubscribeRequest<'a>),
    /// Ends a subscription.
    Unsubscribe(UnsubscribeRequest<'a>),
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
    Presence,
    /// Counts who is in a channel.
    PresenceStats,
    /// Calls a procedure of the application.
    Rpc,
    /// Sends data without a reply.
    Send,
    /// Replaces a subscription token.
    SubRefresh,
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
    /// What tools of ours say of themselves. Applications may send any data; it says nothing to us.
    #[serde(deserialize_with = "ours", skip_serializing_if = "is_default")]
    pub data: ConnectData,
}

/// What `tidewire tail` and other tools of operators say when they connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectData {
    /// Show nothing that contracts of events mark as personal.
    pub redact: bool,
}

fn ours<'de, D: Deserializer<'de>>(data: D) -> Result<ConnectData, D::Error> {
    let data = <&RawValue>::deserialize(data)?;
    Ok(serde_json::from_str(data.get()).unwrap_or_default())
}

/// Which channel to listen to, and from where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscribeRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// The client holds the position below and wants what followed it.
    #[serde(skip_serializing_if = "is_default")]
    pub recover: bool,
    /// Epoch of the position; empty means "whatever the epoch is".
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub epoch: Cow<'a, str>,
    /// Offset of the last event that the client has.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// The client wants to be told of gaps.
    #[serde(skip_serializing_if = "is_default")]
    pub positioned: bool,
    /// The client wants to recover after a reconnect.
    #[serde(skip_serializing_if = "is_default")]
    pub recoverable: bool,
    /// Bit 0: numeric channel ids are welcome. Bit 1: fail with 112 rather than subscribe unrecovered.
    #[serde(skip_serializing_if = "is_default")]
    pub flag: u64,
    /// Kind of subscription; only 0 (stream) is offered.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: u32,
}

impl SubscribeRequest<'_> {
    const FLAG_REJECT_UNRECOVERED: u64 = 1 << 1;

    /// Whether the client prefers error 112 to a subscription that starts after a gap.
    pub fn rejects_unrecovered(&self) -> bool {
        self.flag & Self::FLAG_REJECT_UNRECOVERED != 0
    }
}

/// Which subscription to end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnsubscribeRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
}

/// What to publish, and where.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishRequest<'a> {
    /// The channel's name.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub channel: Cow<'a, str>,
    /// The event's data: any JSON value, `null` included. `None` when the field is absent.
    #[serde(borrow, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
}

impl PartialEq for PublishRequest<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.channel == other.channel && self.data.map(RawValue::get) == other.data.map(RawValue::get)
    }
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

impl Command<'_> {
    /// The command as one line of JSON, as a client sends it.
    pub fn encode(&self) -> String {
        // Strings, numbers and checked raw JSON into memory: there is nothing that can fail.
        serde_json::to_string(self).unwrap_or_default()
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
            Method::Presence => map.serialize_entry("presence", &Empty {})?,
            Method::PresenceStats => map.serialize_entry("presence_stats", &Empty {})?,
            Method::Rpc => map.serialize_entry("rpc", &Empty {})?,
            Method::Send => map.serialize_entry("send", &Empty {})?,
            Method::SubRefresh => map.serialize_entry("sub_refresh", &Empty {})?,
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
                bare => {
                    map.next_value::<IgnoredAny>()?;
                    bare.as_bare_method()
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

impl Key {
    /// The methods whose body does not matter here.
    fn as_bare_method<'a>(self) -> Method<'a> {
        match self {
            Self::Ping => Method::Ping,
            Self::Presence => Method::Presence,
            Self::PresenceStats => Method::PresenceStats,
            Self::Rpc => Method::Rpc,
            Self::Send => Method::Send,
            Self::SubRefresh => Method::SubRefresh,
            _ => Method::Unknown,
        }
    }
}
