//! An event: CloudEvents attributes beside opaque data.

mod asyncapi;
mod catalog;
pub mod cloudevents;
mod compatibility;
mod conform;
mod contract;
mod envelope;
mod id;
mod json;
mod keys;
mod seal;
mod sign;
mod typed;
mod typescript;

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::limits::{self, Limits};

pub use catalog::Catalog;
pub use compatibility::{Change, ChangeKind};
pub(crate) use conform::{conform, verify};
pub(crate) use contract::version_of;
pub use contract::{Contract, Definition, HIDDEN, Mark, Violation};
pub(crate) use envelope::{identity_of, node_of};
pub use json::{JsonFault, JsonLimits, JsonRule, check_json};
pub use keys::Keys;
pub(crate) use typed::opened;
pub use typed::{EventChannel, EventSet, EventType, Receiving, Sending, Unreadable};
pub use typed::{contract, from_event, is_same, read, to_event, unknown_type, unknown_version};

/// A typed fact: attributes of [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md)
/// and data that is never parsed on the way.
///
/// Cheap to clone: the bytes are shared. Limits are checked when it is published: data 1 MiB, attributes 8 KiB.
///
/// ```
/// use tidewire::{Event, Priority};
/// let placed = Event::new("order.placed", r#"{"id":7}"#).with_subject("order/7").with_priority(Priority::High);
/// let shipped = Event::new("order.shipped", r#"{"id":7}"#).caused_by(&placed);
/// assert_eq!(shipped.causation_id(), Some(placed.id().to_string().as_str()));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    id: Uuid,
    time: Timestamp,
    node: NodeId,
    priority: Priority,
    is_retried: bool,
    /// Text attributes, encoded as in the envelope.
    attributes: Bytes,
    data: Bytes,
}

/// How urgent an event is to those who choose between events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// May wait.
    Low,
    /// As it comes.
    #[default]
    Normal,
    /// Before others.
    High,
}

/// One running node; random at each start. `NodeId::default()` is no node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NodeId(u64);

impl NodeId {
    /// A fresh, random id.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    /// From its number, as it is kept.
    pub(crate) const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Its number, to be kept.
    pub(crate) const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text attribute and its tag in the envelope. Tags never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Attribute {
    Type = 1,
    Source = 2,
    Subject = 3,
    ContentType = 4,
    DataSchema = 5,
    Key = 6,
    CorrelationId = 7,
    CausationId = 8,
    TraceParent = 9,
    /// `NAME=VALUE`; may stand more than once.
    Extension = 255,
}

impl Event {
    /// An event of type `event_type` (CloudEvents `type`, such as `order.placed`) with a fresh UUIDv7 as its id.
    pub fn new(event_type: &str, data: impl Into<Bytes>) -> Self {
        Self::bare(data.into()).with(Attribute::Type, event_type)
    }

    /// An event without attributes, with a fresh id.
    fn bare(data: Bytes) -> Self {
        Self {
            id: id::fresh(),
            time: Timestamp::default(),
            node: NodeId::default(),
            priority: Priority::default(),
            is_retried: false,
            attributes: Bytes::new(),
            data,
        }
    }

    /// `id`: unique per source.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Replaces the id, for an event that came with one.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// `time`: when it happened. The Unix epoch until it is set or published.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Sets the time; otherwise publishing does.
    #[must_use]
    pub fn with_time(mut self, time: Timestamp) -> Self {
        self.time = time;
        self
    }

    /// The node that published it.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Sets how urgent it is.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// `type`: what kind of fact this is.
    pub fn event_type(&self) -> &str {
        self.get(Attribute::Type).unwrap_or_default()
    }

    /// `source`: the context it happened in, a URI reference.
    pub fn source(&self) -> Option<&str> {
        self.get(Attribute::Source)
    }

    /// Sets [`source`](Self::source).
    #[must_use]
    pub fn with_source(self, source: &str) -> Self {
        self.with(Attribute::Source, source)
    }

    /// `subject`: what it is about, within its source.
    pub fn subject(&self) -> Option<&str> {
        self.get(Attribute::Subject)
    }

    /// Sets [`subject`](Self::subject).
    #[must_use]
    pub fn with_subject(self, subject: &str) -> Self {
        self.with(Attribute::Subject, subject)
    }

    /// `datacontenttype`; absent means `application/json`.
    pub fn content_type(&self) -> Option<&str> {
        self.get(Attribute::ContentType)
    }

    /// Sets [`content_type`](Self::content_type).
    #[must_use]
    pub fn with_content_type(self, content_type: &str) -> Self {
        self.with(Attribute::ContentType, content_type)
    }

    /// `dataschema`: a URI of the schema that the data follows.
    pub fn data_schema(&self) -> Option<&str> {
        self.get(Attribute::DataSchema)
    }

    /// Sets [`data_schema`](Self::data_schema).
    #[must_use]
    pub fn with_data_schema(self, uri: &str) -> Self {
        self.with(Attribute::DataSchema, uri)
    }

    /// `partitionkey`: events of one key are ordered among each other.
    pub fn key(&self) -> Option<&str> {
        self.get(Attribute::Key)
    }

    /// Sets [`key`](Self::key).
    #[must_use]
    pub fn with_key(self, key: &str) -> Self {
        self.with(Attribute::Key, key)
    }

    /// `correlationid`: what joins the events of one conversation.
    pub fn correlation_id(&self) -> Option<&str> {
        self.get(Attribute::CorrelationId)
    }

    /// Sets [`correlation_id`](Self::correlation_id).
    #[must_use]
    pub fn with_correlation_id(self, id: &str) -> Self {
        self.with(Attribute::CorrelationId, id)
    }

    /// `causationid`: the id of the event that caused this one.
    pub fn causation_id(&self) -> Option<&str> {
        self.get(Attribute::CausationId)
    }

    /// Marks this event as caused by `cause`: takes over its correlation id (its id, if it has none) and, unless this event
    /// has one of its own, its trace parent.
    #[must_use]
    pub fn caused_by(self, cause: &Self) -> Self {
        let id = cause.id.to_string();
        let event = self
            .with(Attribute::CausationId, &id)
            .with(Attribute::CorrelationId, cause.correlation_id().unwrap_or(&id));
        match cause.trace_parent() {
            Some(trace_parent) if event.trace_parent().is_none() => event.with_trace_parent(trace_parent),
            _ => event,
        }
    }

    /// `traceparent` of the [W3C trace context](https://www.w3.org/TR/trace-context/).
    pub fn trace_parent(&self) -> Option<&str> {
        self.get(Attribute::TraceParent)
    }

    /// Sets [`trace_parent`](Self::trace_parent).
    #[must_use]
    pub fn with_trace_parent(self, trace_parent: &str) -> Self {
        self.with(Attribute::TraceParent, trace_parent)
    }

    /// Another CloudEvents extension attribute.
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions().find_map(|(found, value)| (found == name).then_some(value))
    }

    /// All other extension attributes, in the order they were set.
    pub fn extensions(&self) -> impl Iterator<Item = (&str, &str)> {
        envelope::attributes(&self.attributes)
            .filter(|(tag, _)| *tag == Attribute::Extension as u8)
            .filter_map(|(_, text)| text.split_once('='))
    }

    /// The optional attributes that are set, by their CloudEvents names, and after them the other extensions.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = [
            ("source", self.source()),
            ("subject", self.subject()),
            ("datacontenttype", self.content_type()),
            ("dataschema", self.data_schema()),
            ("partitionkey", self.key()),
            ("correlationid", self.correlation_id()),
            ("causationid", self.causation_id()),
            ("traceparent", self.trace_parent()),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(self.extensions())
    }

    /// Sets an extension attribute. CloudEvents names are lower-case letters and digits.
    #[must_use]
    pub fn with_extension(self, name: &str, value: &str) -> Self {
        self.replacing(Attribute::Extension, &format!("{name}={value}"), |tag, text| {
            tag == Attribute::Extension as u8 && text.split_once('=').is_some_and(|(found, _)| found == name)
        })
    }

    /// Whether its data is sealed: `data` are bytes that only a node with the key can open.
    pub fn is_sealed(&self) -> bool {
        seal::is_sealed(self)
    }

    /// Whether it is signed. Whether the signature is right is not said here.
    pub fn is_signed(&self) -> bool {
        sign::is_signed(self)
    }

    /// The data, as it was published.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The data, taking the event apart.
    pub fn into_data(self) -> Bytes {
        self.data
    }

    fn get(&self, attribute: Attribute) -> Option<&str> {
        envelope::attributes(&self.attributes)
            .find_map(|(tag, text)| (tag == attribute as u8).then_some(text))
    }

    fn with(self, attribute: Attribute, value: &str) -> Self {
        self.replacing(attribute, value, |tag, _| tag == attribute as u8)
    }

    /// Sets an attribute in place of those that `is_replaced` picks.
    fn replacing(
        mut self,
        attribute: Attribute,
        value: &str,
        is_replaced: impl Fn(u8, &str) -> bool,
    ) -> Self {
        // Exact where nothing is replaced: then the bytes are frozen without another allocation.
        let room = self.attributes.len() + envelope::ATTRIBUTE_HEADER_BYTES + value.len();
        let mut attributes = Vec::with_capacity(room);
        for (tag, text) in
            envelope::attributes(&self.attributes).filter(|(tag, text)| !is_replaced(*tag, text))
        {
            envelope::put_attribute(&mut attributes, tag, text);
        }
        envelope::put_attribute(&mut attributes, attribute as u8, value);
        self.attributes = attributes.into();
        self
    }

    /// Fills in what publishing sets, and checks the limits.
    pub(crate) fn stamp(&mut self, node: NodeId, now: Timestamp, limits: &Limits) -> Result<()> {
        self.check(limits)?;
        self.node = node;
        if self.time == Timestamp::default() {
            self.time = now;
        }
        Ok(())
    }

    /// Checks the limits.
    pub(crate) fn check(&self, limits: &Limits) -> Result<()> {
        if self.data.len() > limits.event_bytes_max {
            return Err(Error::too_large(
                "event data",
                self.data.len(),
                limits.event_bytes_max,
                "event_bytes_max",
            ));
        }
        if self.attributes.len() > limits::METADATA_BYTES_MAX {
            return Err(Error::too_large(
                "event metadata",
                self.attributes.len(),
                limits::METADATA_BYTES_MAX,
                "METADATA_BYTES_MAX",
            ));
        }
        Ok(())
    }

    /// Bytes of its envelope.
    pub(crate) fn bytes(&self) -> usize {
        envelope::HEADER_BYTES + self.attributes.len() + self.data.len()
    }

    /// Whether its attributes are within their limit, as they are of every event that was published.
    pub(crate) fn has_room(&self) -> bool {
        self.attributes.len() <= limits::METADATA_BYTES_MAX
    }

    /// Says that this may be the second copy of a publish, so that receivers look for the first.
    pub(crate) fn mark_retried(&mut self) {
        self.is_retried = true;
    }
}

impl fmt::Debug for Event {
    /// Leaves the data out: it may be personal, and it may be large.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("type", &self.event_type())
            .field("time", &format_args!("{}", self.time))
            .field("data_bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl From<&Event> for Bytes {
    /// The event as it travels and as it is kept; see `docs/formats/envelope.md`.
    fn from(event: &Event) -> Self {
        let mut out = Vec::with_capacity(event.bytes());
        out.extend_from_slice(&envelope::header(event));
        out.extend_from_slice(&event.attributes);
        out.extend_from_slice(&event.data);
        out.into()
    }
}

impl TryFrom<Bytes> for Event {
    type Error = Error;

    /// Decodes an envelope without copying.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`](crate::ErrorKind::Codec) says what is wrong.
    fn try_from(envelope: Bytes) -> Result<Self> {
        envelope::decode(envelope)
    }
}
