//! Typed events: Rust types that say which events they are.

use std::any::type_name;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::contract::{Contract, Definition, version_of};
use super::json::JsonLimits;
use super::keys::Keys;
use super::sign::Untrusted;
use super::{Attribute, Event, envelope, seal, sign};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// A Rust type that is one version of an event type. Implemented by `#[derive(Event)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event",
    note = "write `#[derive(tidewire::Event, serde::Serialize, serde::Deserialize)]` and `#[event(name = \"..\", channel = \"..\")]`"
)]
pub trait EventType: EventSet + Serialize + DeserializeOwned {
    /// The type of its events, CloudEvents `type`, such as `order.placed`.
    const NAME: &'static str;
    /// Its version, from 1.
    const VERSION: u32;

    /// What is agreed of this version.
    fn contract() -> &'static Arc<Contract>;

    /// Events with the same key are ordered.
    fn key(&self) -> Option<&dyn fmt::Display> {
        None
    }

    /// What it is about.
    fn subject(&self) -> Option<&dyn fmt::Display> {
        None
    }

    /// Whose it is.
    fn tenant(&self) -> Option<&dyn fmt::Display> {
        None
    }

    /// Reads the data of this version, or of one before it, which is lifted step by step.
    ///
    /// # Errors
    /// `UnknownVersion` if there is no way from there to here; `Invalid`.
    fn lift(version: u32, data: &[u8]) -> Result<Self, Unreadable>;
}

/// What a typed channel carries: one event type, or an enum of several. Implemented by `#[derive(Event)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event",
    note = "write `#[derive(tidewire::Event, serde::Serialize, serde::Deserialize)]` and `#[event(name = \"..\", channel = \"..\")]`, \
            or `#[derive(tidewire::Event)]` on an enum with one event in each variant"
)]
pub trait EventSet: Sized + Send + Sync + 'static {
    /// Whether it has an event of this type, in any version.
    fn has(event_type: &str) -> bool;

    /// The contracts of all its types and of their earlier versions.
    fn contracts() -> Vec<&'static Arc<Contract>>;

    /// The event as it is sent.
    ///
    /// # Errors
    /// `Codec` if it does not keep to its contract; `Conflict` if it is another tenant's; `NotFound` if a key to sign or seal
    /// it with is missing.
    fn to_event(&self, sending: &Sending<'_>) -> Result<Event>;

    /// Reads an event that was received.
    ///
    /// # Errors
    /// [`Unreadable`] says why it is none of these.
    fn from_event(event: &Event, receiving: &Receiving<'_>) -> Result<Self, Unreadable>;
}

/// Events that are declared for a channel. Implemented by `#[derive(Event)]` where `#[event(channel = "..")]` says which.
#[diagnostic::on_unimplemented(
    message = "`{Self}` declares no channel",
    note = "write `#[event(name = \"..\", channel = \"..\")]`, or name the channel with `events_on`"
)]
pub trait EventChannel: EventSet {
    /// The channel that all of them are sent to.
    const CHANNEL: &'static str;
}

/// What an event is sent with.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// The tenant that it is sent in.
    pub tenant: &'a str,
    /// What it is signed and sealed with.
    pub keys: &'a Keys,
    /// When it happens.
    pub now: Timestamp,
}

/// What a received event is read with.
#[derive(Debug, Clone, Copy)]
pub struct Receiving<'a> {
    /// The tenant that it was received in.
    pub tenant: &'a str,
    /// What its signature is checked and its data opened with.
    pub keys: &'a Keys,
}

/// Why an event cannot be read as a type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreadable {
    /// It is of a type that was not asked for.
    UnknownType(Box<str>),
    /// There is no way from its version to the one that was asked for.
    UnknownVersion(Box<str>),
    /// It is signed or sealed with a key that this node does not have, or not yet.
    UnknownKey(Box<str>),
    /// It does not keep to its contract, or its signature or seal is wrong.
    Invalid(Box<str>),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::UnknownType(why) | Self::UnknownVersion(why) | Self::UnknownKey(why) | Self::Invalid(why)) =
            self;
        f.write_str(why)
    }
}

impl std::error::Error for Unreadable {}

impl From<Unreadable> for Error {
    fn from(unreadable: Unreadable) -> Self {
        Self::new(ErrorKind::Codec, unreadable.to_string())
    }
}

impl From<Untrusted> for Unreadable {
    fn from(why: Untrusted) -> Self {
        match why {
            Untrusted::UnknownKey(..) => Self::UnknownKey(why.to_string().into()),
            _ => Self::Invalid(why.to_string().into()),
        }
    }
}

/// Sends `event` as one of its type.
pub fn to_event<E: EventType>(typed: &E, sending: &Sending<'_>) -> Result<Event> {
    let contract = E::contract();
    if let Some(tenant) = typed.tenant().map(ToString::to_string)
        && tenant != sending.tenant
    {
        let text = format!("{} is of tenant {tenant:?} and is sent in tenant {:?}", E::NAME, sending.tenant);
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    let data = serde_json::to_vec(typed).map_err(|error| {
        Error::new(ErrorKind::Codec, format!("{} cannot be written as JSON", type_name::<E>()))
            .caused_by(error)
    })?;
    if contract.has_constraints() {
        contract.check(&data, &JsonLimits::default())?;
    }
    let texts = [(Attribute::Key, typed.key()), (Attribute::Subject, typed.subject())];
    let mut event = Event::typed(contract, texts, data.into());
    let definition = contract.definition();
    if definition.is_sealed {
        event = seal::seal(event, sending.tenant, sending.keys)?;
    }
    if definition.is_signed {
        event = sign::sign(event.with_time(sending.now), sending.tenant, sending.keys)?;
    }
    Ok(event)
}

/// Reads `event` as one of type `E`, whatever its version.
pub fn from_event<E: EventType>(event: &Event, receiving: &Receiving<'_>) -> Result<E, Unreadable> {
    if event.event_type() != E::NAME {
        let text = format!("event is of type {:?}, and {:?} is read here", event.event_type(), E::NAME);
        return Err(Unreadable::UnknownType(text.into()));
    }
    let Some(version) = version_of(event) else {
        let uri = event.data_schema().unwrap_or_default();
        let text = format!(
            "dataschema {uri:?} is no version of {}, which is written tidewire:{}/N",
            E::NAME,
            E::NAME
        );
        return Err(Unreadable::UnknownVersion(text.into()));
    };
    // What the newest version asks for holds for all: else a signature is left out by naming an older version.
    let definition = E::contract().definition();
    if definition.is_signed {
        sign::verify(event, receiving.tenant, receiving.keys)?;
    }
    let typed = match definition.is_sealed {
        true => E::lift(version, &seal::open(event, receiving.tenant, receiving.keys)?)?,
        false => E::lift(version, event.data())?,
    };
    match typed.tenant().map(ToString::to_string) {
        Some(tenant) if tenant != receiving.tenant => {
            let text = format!(
                "{} is of another tenant than {:?}, where it was received",
                E::NAME,
                receiving.tenant
            );
            Err(Unreadable::Invalid(text.into()))
        }
        _ => Ok(typed),
    }
}

/// The data of an event in clear; none if it is sealed and cannot be opened.
pub(crate) fn opened(event: &Event, receiving: &Receiving<'_>) -> Option<bytes::Bytes> {
    match seal::is_sealed(event) {
        true => seal::open(event, receiving.tenant, receiving.keys).ok(),
        false => Some(event.data().clone()),
    }
}

/// Reads the data of exactly this version.
pub fn read<E: EventType>(data: &[u8]) -> Result<E, Unreadable> {
    let contract = E::contract();
    let invalid = |text: String| Unreadable::Invalid(text.into());
    if contract.has_constraints() {
        contract.check(data, &JsonLimits::default()).map_err(|violation| invalid(violation.to_string()))?;
    }
    serde_json::from_slice(data).map_err(|error| invalid(why_not::<E>(data, &error)))
}

/// Why data is no `E`, without a value of it where values are hidden. Read a second time, to find the place.
fn why_not<E: EventType>(data: &[u8], error: &serde_json::Error) -> String {
    let mut json = serde_json::Deserializer::from_slice(data);
    let place = match serde_path_to_error::deserialize::<_, E>(&mut json) {
        Err(located) => place_of(located.path(), E::contract()),
        Ok(_) => String::new(),
    };
    let what = format!("data is not {} version {}{place}", E::NAME, E::VERSION);
    match E::contract().has_redactions() {
        true => what,
        false => format!("{what}: {error}"),
    }
}

/// A place in the data, without names that are hidden with what holds them.
fn place_of(path: &serde_path_to_error::Path, contract: &Contract) -> String {
    let steps: Vec<_> = path.iter().map(ToString::to_string).collect();
    let names = steps.iter().map(|step| step.trim_matches(['[', ']']));
    let steps = steps.iter().take(contract.steps_told(names));
    let mut place = String::new();
    for step in steps {
        let between = match (place.is_empty(), step.starts_with('[')) {
            (true, _) => " at ",
            (false, true) => "",
            (false, false) => ".",
        };
        place.push_str(between);
        place.push_str(step);
    }
    place
}

/// What there is no way from.
pub fn unknown_version<E: EventType>(version: u32) -> Unreadable {
    Unreadable::UnknownVersion(
        format!("event is {} version {version}, which is not read here", E::NAME).into(),
    )
}

/// What an enum of events does not have.
pub fn unknown_type(event: &Event, set: &str) -> Unreadable {
    Unreadable::UnknownType(
        format!("event is of type {:?}, which {set} does not have", event.event_type()).into(),
    )
}

impl Event {
    /// An event with the type and schema of `contract`.
    fn typed(
        contract: &Contract,
        texts: [(Attribute, Option<&dyn fmt::Display>); 2],
        data: bytes::Bytes,
    ) -> Self {
        let mut event = Self::bare(data);
        let prefix = contract.attributes();
        if texts.iter().all(|(_, text)| text.is_none()) {
            event.attributes = prefix.clone();
            return event;
        }
        let mut attributes = Vec::with_capacity(prefix.len() + TEXTS_BYTES);
        attributes.extend_from_slice(prefix);
        for (attribute, text) in texts {
            if let Some(text) = text {
                envelope::put_display(&mut attributes, attribute as u8, text);
            }
        }
        event.attributes = attributes.into();
        event
    }
}

/// Room for a key and a subject; longer ones take another allocation.
const TEXTS_BYTES: usize = 96;

/// The contract of a Rust type, from the schema of `S`, which stands for it. The derive has checked the names.
pub fn contract<S: JsonSchema>(
    event_type: &'static str,
    version: u32,
    channel: Option<&'static str>,
    is_signed: bool,
    is_sealed: bool,
) -> Arc<Contract> {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<S>().to_value();
    let description = schema.get("description").and_then(serde_json::Value::as_str).map(Box::from);
    let (event_type, channel) = (event_type.into(), channel.map(Box::from));
    Arc::new(Contract::unchecked(Definition {
        event_type,
        version,
        channel,
        description,
        is_signed,
        is_sealed,
        schema,
    }))
}

/// Whether two names are one, where the compiler asks.
#[expect(
    clippy::indexing_slicing,
    reason = "iterators do not run in constants; the index is below both lengths"
)]
pub const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}
