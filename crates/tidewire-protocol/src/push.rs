//! What the server sends without being asked.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::codes::UnsubscribeCode;
use crate::omit::is_default;

/// Something that happened in a channel.
#[derive(Clone, Debug)]
pub struct Push<'a> {
    /// The channel's name.
    pub channel: Cow<'a, str>,
    /// What happened.
    pub body: PushBody<'a>,
}

/// The kinds of push.
#[derive(Clone, Debug)]
pub enum PushBody<'a> {
    /// An event.
    Publication(Publication<'a>),
    /// The server ended the subscription.
    Unsubscribe(Unsubscribe<'a>),
    /// A kind that this version does not read; clients ignore it.
    Other,
}

/// An event as subscribers see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Publication<'a> {
    /// The event's data.
    #[serde(borrow)]
    pub data: &'a RawValue,
    /// Who published it, where a client did.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub info: Option<ClientInfo<'a>>,
    /// Its offset in the channel's stream; 0 (left out) for a live event.
    #[serde(default, skip_serializing_if = "is_default")]
    pub offset: u64,
    /// Short labels given by the publisher.
    #[serde(default, borrow, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// The client that published an event.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo<'a> {
    /// The user, from the token's `sub`; empty for an anonymous one.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub user: Cow<'a, str>,
    /// The connection's id.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub client: Cow<'a, str>,
    /// The token's `info`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub conn_info: Option<&'a RawValue>,
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

impl<'a> Push<'a> {
    /// An event of `channel`.
    pub fn publication(channel: &'a str, publication: Publication<'a>) -> Self {
        Self { channel: Cow::Borrowed(channel), body: PushBody::Publication(publication) }
    }

    /// The end of the subscription to `channel`.
    pub fn unsubscribe(channel: &'a str, code: UnsubscribeCode) -> Self {
        let body = PushBody::Unsubscribe(Unsubscribe { code: code.number, reason: Cow::Borrowed(code.text) });
        Self { channel: Cow::Borrowed(channel), body }
    }

    /// The push as a frame of its own. Encode once for each event and clone the bytes for each subscriber.
    pub fn encode(&self) -> Bytes {
        // Strings, numbers and checked raw JSON into memory: there is nothing that can fail.
        Bytes::from(serde_json::to_vec(&Envelope { push: self }).unwrap_or_default())
    }
}

#[derive(Serialize)]
struct Envelope<'p, 'a> {
    push: &'p Push<'a>,
}

impl Serialize for Push<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(None)?;
        if !self.channel.is_empty() {
            map.serialize_entry("channel", &self.channel)?;
        }
        match &self.body {
            PushBody::Publication(publication) => map.serialize_entry("pub", publication)?,
            PushBody::Unsubscribe(unsubscribe) => map.serialize_entry("unsubscribe", unsubscribe)?,
            PushBody::Other => {}
        }
        map.end()
    }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(default, borrow)]
    channel: Cow<'a, str>,
    #[serde(default, borrow, rename = "pub")]
    publication: Option<Publication<'a>>,
    #[serde(default, borrow)]
    unsubscribe: Option<Unsubscribe<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Push<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(input)?;
        let body = match (fields.publication, fields.unsubscribe) {
            (Some(publication), _) => PushBody::Publication(publication),
            (None, Some(unsubscribe)) => PushBody::Unsubscribe(unsubscribe),
            (None, None) => PushBody::Other,
        };
        Ok(Self { channel: fields.channel, body })
    }
}
