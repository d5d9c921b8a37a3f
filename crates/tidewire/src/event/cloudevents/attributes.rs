//! The attributes of an event on their way in and out, as text by their CloudEvents names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use uuid::Uuid;

use super::{ORIGINAL_ID, derived_id, original_id};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::event::envelope::{ATTRIBUTE_HEADER_BYTES, put_attribute};
use crate::event::{Attribute, Event, NodeId, Priority};
use crate::limits;
use crate::name::ChannelPath;

pub(super) const SPEC_VERSION: &str = "specversion";
pub(super) const ID: &str = "id";
pub(super) const TIME: &str = "time";
pub(super) const CONTENT_TYPE: &str = "datacontenttype";
const TYPE: &str = "type";
const SOURCE: &str = "source";
const DATA_SCHEMA: &str = "dataschema";
/// Some event formats have it beside the attributes, so that none may have this name.
const DATA: &str = "data";
const VERSION: &str = "1.0";

/// What has a place of its own in an event, in the order in which it is kept, but for its type.
const NAMED: [(&str, Attribute); 8] = [
    (SOURCE, Attribute::Source),
    ("subject", Attribute::Subject),
    (CONTENT_TYPE, Attribute::ContentType),
    (DATA_SCHEMA, Attribute::DataSchema),
    ("partitionkey", Attribute::Key),
    ("correlationid", Attribute::CorrelationId),
    ("causationid", Attribute::CausationId),
    ("traceparent", Attribute::TraceParent),
];
/// Those that CloudEvents defines, whose values are strings that are not empty.
const DEFINED: [&str; 8] = [SPEC_VERSION, ID, TYPE, SOURCE, TIME, "subject", CONTENT_TYPE, DATA_SCHEMA];

/// The last moment that RFC 3339 can name and [`Timestamp`] writes as it does.
const TIME_MAX: Timestamp = Timestamp::from_millis(253_402_207_200_000);
/// A time, bytes: more would be fractions of a nanosecond.
const TIME_BYTES_MAX: usize = 64;
/// Name of an attribute in an error, characters; a longer one is cut.
const SHOWN_CHARACTERS_MAX: usize = 40;
/// A path of a URI has neither of these; RFC 3986, 3.3.
const NOT_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// An error about bytes that are no cloud event.
pub(super) fn fault(text: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Codec, text)
}

/// The name of an attribute in an error.
pub(super) fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}..", name.get(..end).unwrap_or_default()),
    }
}

/// Whether CloudEvents defines the attribute: its value is a string.
pub(super) fn is_defined(name: &str) -> bool {
    DEFINED.contains(&name)
}

/// Attributes as they come in, checked one by one.
#[derive(Default)]
pub(super) struct Incoming {
    /// `None` for one that is told to be unset.
    values: BTreeMap<String, Option<String>>,
    /// Of the attributes as the event will keep them.
    bytes: usize,
}

impl Incoming {
    /// Takes an attribute; it may come once.
    pub(super) fn set(&mut self, name: String, value: Option<String>) -> Result<()> {
        check_name(&name)?;
        if let Some(value) = &value {
            check_value(&name, value)?;
            self.bytes += kept_bytes(&name, value);
        }
        if self.bytes > limits::METADATA_BYTES_MAX {
            let (seen, limit) = (self.bytes, limits::METADATA_BYTES_MAX);
            return Err(Error::too_large("metadata of the cloud event", seen, limit, "METADATA_BYTES_MAX"));
        }
        if self.values.contains_key(&name) {
            return Err(fault(format!("attribute {} is there twice", shown(&name))));
        }
        self.values.insert(name, value);
        Ok(())
    }

    /// What the data is said to be.
    pub(super) fn content_type(&self) -> Option<&str> {
        self.values.get(CONTENT_TYPE)?.as_deref()
    }

    /// The event, if it has all that is required.
    pub(super) fn into_event(mut self, data: bytes::Bytes) -> Result<Event> {
        let version = self.require(SPEC_VERSION)?;
        if version != VERSION {
            return Err(fault(format!(
                "cloud event has specversion {}, known is {VERSION:?}",
                shown(&version)
            )));
        }
        let (given_id, event_type, source) = (self.require(ID)?, self.require(TYPE)?, self.require(SOURCE)?);
        let time = self.take(TIME).map_or(Ok(Timestamp::default()), |time| time_of(&time))?;
        let id = match uuid_of(&given_id) {
            Some(id) => id,
            None => {
                let id = derived_id(&source, &given_id);
                if self.values.insert(ORIGINAL_ID.into(), Some(given_id)).is_some() {
                    let why = "it keeps an id that is no UUID";
                    return Err(fault(format!("attribute {ORIGINAL_ID:?} is reserved: {why}")));
                }
                id
            }
        };
        let mut attributes = Vec::with_capacity(self.bytes);
        put_attribute(&mut attributes, Attribute::Type as u8, &event_type);
        put_attribute(&mut attributes, Attribute::Source as u8, &source);
        for (name, attribute) in NAMED {
            if let Some(value) = self.take(name) {
                put_attribute(&mut attributes, attribute as u8, &value);
            }
        }
        // By name, so that an event is the same however its attributes were sorted.
        for (name, value) in self.values {
            if let Some(value) = value {
                put_attribute(&mut attributes, Attribute::Extension as u8, &format!("{name}={value}"));
            }
        }
        let (node, priority, attributes) = (NodeId::default(), Priority::default(), attributes.into());
        Ok(Event { id, time, node, priority, is_retried: false, attributes, data })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name).flatten()
    }

    fn require(&mut self, name: &str) -> Result<String> {
        self.take(name).ok_or_else(|| fault(format!("cloud event has no {name}, which is required")))
    }
}

/// Bytes of an attribute in an event.
fn kept_bytes(name: &str, value: &str) -> usize {
    let extension = |name: &str| ATTRIBUTE_HEADER_BYTES + name.len() + 1 + value.len();
    match name {
        SPEC_VERSION | TIME => 0,
        ID if uuid_of(value).is_some() => 0,
        ID => extension(ORIGINAL_ID),
        TYPE => ATTRIBUTE_HEADER_BYTES + value.len(),
        _ if NAMED.iter().any(|(named, _)| *named == name) => ATTRIBUTE_HEADER_BYTES + value.len(),
        _ => extension(name),
    }
}

fn check_name(name: &str) -> Result<()> {
    if name == DATA {
        return Err(fault("attribute \"data\" is reserved: data is no attribute"));
    }
    if !is_name(name) {
        return Err(fault(format!(
            "attribute {} has a name with other characters than a-z 0-9",
            shown(name)
        )));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn check_value(name: &str, value: &str) -> Result<()> {
    if value.is_empty() && is_defined(name) {
        return Err(fault(format!("attribute {name:?} is empty")));
    }
    if let Some(found) = value.chars().find(|&character| !is_allowed(character)) {
        let code = u32::from(found);
        let text = format!("attribute {} has character U+{code:04X}, which CloudEvents forbids", shown(name));
        return Err(fault(text));
    }
    if (name == SOURCE || name == DATA_SCHEMA) && !is_uri(value) {
        return Err(fault(format!(
            "attribute {name:?} is no URI: it has a character that must be percent-encoded"
        )));
    }
    Ok(())
}

/// Neither a control character nor one that Unicode says is none.
fn is_allowed(character: char) -> bool {
    let code = u32::from(character);
    !character.is_control() && !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
}

/// Whether all characters can stand in a URI, each `%` before two hexadecimal digits; RFC 3986, 2.
fn is_uri(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(&byte);
    text.bytes().all(|byte| is_plain(byte) || byte == b'%') && is_percent_encoded(text)
}

/// Whether each `%` stands before two hexadecimal digits.
pub(super) fn is_percent_encoded(text: &str) -> bool {
    let is_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    text.split('%').skip(1).all(|rest| rest.as_bytes().get(..2).is_some_and(is_hex))
}

/// A UUID that is written as we write it. Ids are compared as text, so that any other spelling is another id.
fn uuid_of(id: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(id).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (*uuid.hyphenated().encode_lower(&mut buffer) == *id).then_some(uuid)
}

fn time_of(text: &str) -> Result<Timestamp> {
    if text.len() > TIME_BYTES_MAX {
        let seen = text.len();
        return Err(fault(format!(
            "attribute \"time\" is {seen} bytes, RFC 3339 needs no more than {TIME_BYTES_MAX}"
        )));
    }
    let time: Timestamp = text.parse()?;
    if time == Timestamp::default() {
        return Err(fault("attribute \"time\" is at or before 1970-01-01T00:00:00Z, which cannot be kept"));
    }
    Ok(time)
}

/// The attributes of an event by their CloudEvents names, `specversion` first; without `datacontenttype`.
///
/// An event without a source has its channel as one. Extensions are left out whose names are none for CloudEvents or mean
/// something else there; so is what is empty and may not be.
pub(super) fn of<'e>(
    event: &'e Event,
    channel: &ChannelPath,
) -> impl Iterator<Item = (&'e str, Cow<'e, str>)> {
    let original_id = original_id(event);
    let id = original_id.map_or_else(|| event.id().to_string().into(), Cow::Borrowed);
    let time = event.time();
    let is_known = time != Timestamp::default() && time <= TIME_MAX;
    let time = is_known.then(|| (TIME, time.to_string().into()));
    let source = || match event.source().filter(|source| !source.is_empty()) {
        Some(source) => source.into(),
        None => source_of(channel).into(),
    };
    let named = NAMED.into_iter().filter(|(name, _)| *name != SOURCE && *name != CONTENT_TYPE);
    let named = named.filter_map(|(name, attribute)| Some((name, event.get(attribute)?.into())));
    let extensions = event
        .extensions()
        .filter(move |(name, _)| is_extension(name) && (*name != ORIGINAL_ID || original_id.is_none()));
    [(SPEC_VERSION, VERSION.into()), (ID, id), (TYPE, event.event_type().into())]
        .into_iter()
        .chain(time)
        .chain([(SOURCE, source())])
        .chain(named.filter(|(name, value): &(_, Cow<'_, str>)| !value.is_empty() || !is_defined(name)))
        .chain(extensions.map(|(name, value)| (name, value.into())))
}

/// Whether an extension of an event is one for CloudEvents too.
fn is_extension(name: &str) -> bool {
    is_name(name) && name != DATA && !is_defined(name) && !NAMED.iter().any(|(named, _)| *named == name)
}

/// The source of events that have none: CloudEvents knows no event without.
fn source_of(channel: &ChannelPath) -> String {
    let name = utf8_percent_encode(channel.channel(), NOT_IN_PATH);
    format!("/{}/{name}", channel.tenant())
}
