//! The [JSON format](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md) of CloudEvents.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::attributes::{self, CONTENT_TYPE, Incoming, fault, is_defined, shown};
use super::media_type::{is_json, is_text, is_utf8};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::event::envelope::ATTRIBUTE_HEADER_BYTES;
use crate::limits;
use crate::name::ChannelPath;

const DATA: &str = "data";
const DATA_BASE64: &str = "data_base64";
/// Members of one event: more attributes have no room in its metadata.
const MEMBERS_MAX: usize = limits::METADATA_BYTES_MAX / ATTRIBUTE_HEADER_BYTES;

/// An event as JSON, structured mode: media type [`STRUCTURED`](super::STRUCTURED).
///
/// JSON data stands there as it is, text as a string, all else in base64. An event of no source has `/TENANT/CHANNEL` as its
/// source. An extension whose name is not of `a-z 0-9` is left out.
pub fn to_json(event: &Event, channel: &ChannelPath) -> Bytes {
    encode(&Structured { event, channel })
}

/// Events of a channel as a JSON array, batched mode: media type [`BATCH`](super::BATCH). Each is as [`to_json`] has it.
pub fn to_batch<'e>(events: impl IntoIterator<Item = &'e Event>, channel: &ChannelPath) -> Bytes {
    encode(&events.into_iter().map(|event| Structured { event, channel }).collect::<Vec<_>>())
}

fn encode(json: &impl Serialize) -> Bytes {
    // Strings and checked raw JSON into memory: there is nothing that can fail.
    serde_json::to_vec(json).unwrap_or_default().into()
}

struct Structured<'e> {
    event: &'e Event,
    channel: &'e ChannelPath,
}

impl Serialize for Structured<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let Self { event, channel } = self;
        let mut map = output.serialize_map(None)?;
        for (name, value) in attributes::of(event, channel) {
            map.serialize_entry(name, &value)?;
        }
        let content_type = event.content_type().filter(|content_type| !content_type.is_empty());
        if let Some(content_type) = content_type {
            map.serialize_entry(CONTENT_TYPE, content_type)?;
        }
        let data = event.data();
        match content_type {
            _ if data.is_empty() => {}
            _ if is_json(content_type) => match serde_json::from_slice::<&RawValue>(data) {
                Ok(json) => map.serialize_entry(DATA, json)?,
                Err(_) => map.serialize_entry(DATA_BASE64, &BASE64.encode(data))?,
            },
            Some(content_type) if is_text(content_type) && is_utf8(content_type) => {
                match std::str::from_utf8(data) {
                    Ok(text) => map.serialize_entry(DATA, text)?,
                    Err(_) => map.serialize_entry(DATA_BASE64, &BASE64.encode(data))?,
                }
            }
            _ => map.serialize_entry(DATA_BASE64, &BASE64.encode(data))?,
        }
        map.end()
    }
}

/// Reads an event from JSON, structured mode. JSON data is kept byte for byte and is not looked into; `null` is data, no data
/// is none.
///
/// # Errors
/// `Codec` says what is wrong, without a value; `TooLarge` past 8 KiB of attributes. The size of data is checked when the event
/// is published.
pub fn from_json(json: &[u8]) -> Result<Event> {
    let Members { list, count } = read(json, b'{', "cloud event is no JSON object", MembersSeed)?;
    if count > MEMBERS_MAX {
        let text = format!("cloud event has {count} members, limit is {MEMBERS_MAX}");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    let (mut incoming, mut data, mut base64) = (Incoming::default(), None, None);
    for (name, value) in list {
        let slot = match &*name {
            DATA => &mut data,
            DATA_BASE64 => &mut base64,
            _ => {
                let text = text_of(&name, value)?;
                incoming.set(name, text)?;
                continue;
            }
        };
        if slot.replace(value).is_some() {
            return Err(fault(format!("member {} is there twice", shown(&name))));
        }
    }
    // Unset, as any attribute is that is null. For `data`, null is a value.
    let base64 = base64.filter(|value| value.get() != "null");
    let data = match (data, base64) {
        (None, None) => Bytes::new(),
        (Some(_), Some(_)) => return Err(fault("cloud event has both data and data_base64")),
        (Some(data), None) => data_of(data, incoming.content_type())?,
        (None, Some(text)) => {
            let text: String =
                serde_json::from_str(text.get()).map_err(|_| fault("data_base64 is no string"))?;
            BASE64.decode(text).map_err(|_| fault("data_base64 is no base64 with padding"))?.into()
        }
    };
    incoming.into_event(data)
}

/// Reads the events of a JSON array, batched mode, each by itself as [`from_json`] does: one that cannot be read does not keep
/// others from it.
///
/// # Errors
/// `Codec` if it is no array; `TooLarge` if it has more than `events_max` events.
pub fn from_batch(json: &[u8], events_max: usize) -> Result<Vec<Result<Event>>> {
    let Elements { list, count } =
        read(json, b'[', "batch of cloud events is no JSON array", ElementsSeed { events_max })?;
    if count > events_max {
        let text = format!("batch has {count} cloud events, limit is {events_max}");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    Ok(list.into_iter().map(|element| from_json(element.get().as_bytes())).collect())
}

/// Reads one JSON value that begins with `first`.
fn read<'a, S: DeserializeSeed<'a>>(
    json: &'a [u8],
    first: u8,
    other: &'static str,
    seed: S,
) -> Result<S::Value> {
    // Looked at before, because the error of the parser would show a string that is there instead.
    if json.trim_ascii_start().first() != Some(&first) {
        return Err(fault(other));
    }
    let broken = |error: serde_json::Error| fault(other).caused_by(error);
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = seed.deserialize(&mut reader).map_err(broken)?;
    reader.end().map_err(broken)?;
    Ok(read)
}

/// The text of an attribute: its canonical form in CloudEvents; none for `null`, which is unset.
fn text_of(name: &str, value: &RawValue) -> Result<Option<String>> {
    let json = value.get();
    let other = |what: &str| Err(fault(format!("attribute {} is {what}", shown(name))));
    match json.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(json) {
            Ok(text) => Ok(Some(text)),
            Err(_) => other("a string with a half of a surrogate pair"),
        },
        Some(b'n') => Ok(None),
        _ if is_defined(name) => other("no string"),
        Some(b't' | b'f') => Ok(Some(json.to_owned())),
        Some(b'[' | b'{') => other("an array or an object: attributes are strings, numbers and booleans"),
        _ => match json.parse::<i32>() {
            Ok(number) => Ok(Some(number.to_string())),
            Err(_) => other("no whole number of 32 bits: send it as a string"),
        },
    }
}

/// The data of member `data`.
fn data_of(value: &RawValue, content_type: Option<&str>) -> Result<Bytes> {
    let json = value.get();
    let Some(content_type) = content_type.filter(|_| !is_json(content_type)) else {
        return Ok(Bytes::copy_from_slice(json.as_bytes()));
    };
    if !is_utf8(content_type) {
        return Err(fault("data is text in another character set than UTF-8: send it as data_base64"));
    }
    match serde_json::from_str::<String>(json) {
        Ok(text) => Ok(text.into()),
        Err(_) => Err(fault(
            "data is no string and datacontenttype says that it is no JSON: send a string or data_base64",
        )),
    }
}

/// Members of an object, in order, at most [`MEMBERS_MAX`]; and how many there are.
struct Members<'a> {
    list: Vec<(String, &'a RawValue)>,
    count: usize,
}

struct MembersSeed;

impl<'a> DeserializeSeed<'a> for MembersSeed {
    type Value = Members<'a>;

    fn deserialize<D: serde::Deserializer<'a>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for MembersSeed {
    type Value = Members<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members { list: Vec::new(), count: 0 };
        while members.list.len() < MEMBERS_MAX {
            let Some(member) = map.next_entry()? else { break };
            members.list.push(member);
        }
        members.count = members.list.len();
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            members.count += 1;
        }
        Ok(members)
    }
}

/// Elements of an array, in order, at most as many as may be; and how many there are.
struct Elements<'a> {
    list: Vec<&'a RawValue>,
    count: usize,
}

struct ElementsSeed {
    events_max: usize,
}

impl<'a> DeserializeSeed<'a> for ElementsSeed {
    type Value = Elements<'a>;

    fn deserialize<D: serde::Deserializer<'a>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for ElementsSeed {
    type Value = Elements<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Elements { list: Vec::new(), count: 0 };
        while elements.list.len() < self.events_max {
            let Some(element) = seq.next_element()? else { break };
            elements.list.push(element);
        }
        elements.count = elements.list.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            elements.count += 1;
        }
        Ok(elements)
    }
}
