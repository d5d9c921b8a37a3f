//! Contracts: what is agreed of one version of an event type - its schema, where it belongs, which of it is personal.

mod marks;
mod redact;
mod tape;

use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::marks::Mark;
use self::marks::Marks;
pub use self::redact::HIDDEN;
use self::tape::{OnTape, Tape};
use crate::error::{Error, ErrorKind, Result};
use crate::event::json::{JsonFault, JsonLimits, check_json};
use crate::event::{Attribute, Event, envelope};
use crate::limits;
use crate::name;

/// What stands in front of the type in a `dataschema` of ours, as in `tidewire:order.placed/2`.
const SCHEME: &str = "tidewire:";

/// What is agreed of one version of an event type, as it stands in a catalog.
///
/// Marks in the schema say what its properties are for: `"x-key": true` orders the events, `"x-subject": true` is what they
/// are about, `"x-tenant": true` whose they are, `"x-redact": true` hides them from all who only operate the system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The type: 1 to 128 of `A-Z a-z 0-9 - _ .`, such as `order.placed`.
    #[serde(rename = "type")]
    pub event_type: Box<str>,
    /// The version, from 1.
    pub version: u32,
    /// The channel that its events are sent to; none for a version that is only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Box<str>>,
    /// What the event says, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Box<str>>,
    /// Every event is signed, and one without a right signature is refused.
    #[serde(default, rename = "signed", skip_serializing_if = "is_false")]
    pub is_signed: bool,
    /// The data of every event is sealed, and one whose data is not is refused.
    #[serde(default, rename = "sealed", skip_serializing_if = "is_false")]
    pub is_sealed: bool,
    /// What its data is like: [JSON Schema, draft 2020-12](https://json-schema.org/draft/2020-12/json-schema-core).
    pub schema: Value,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// A [`Definition`] that is ready to check data.
pub struct Contract {
    definition: Definition,
    uri: Box<str>,
    /// Type and schema, as they stand in an envelope.
    attributes: Bytes,
    marks: Marks,
    /// Compiled when data is checked first: that of most Rust types never is.
    validator: OnceLock<Result<Validator<OnTape>, Box<str>>>,
}

/// Data that does not keep to its contract: where, and which rule. It holds no value, for that may be personal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The place, as a [JSON pointer](https://www.rfc-editor.org/rfc/rfc6901); empty for the whole.
    pub pointer: Box<str>,
    /// The keyword of the schema, or the bound, that does not hold.
    pub rule: Box<str>,
    /// What is wrong, for people.
    pub text: Box<str>,
}

impl Contract {
    /// Makes a definition ready.
    ///
    /// # Errors
    /// `InvalidName` for its type, version or channel; `Codec` if the schema is none, refers to anything outside of it, or hides
    /// its key, subject or tenant.
    pub fn new(definition: Definition) -> Result<Self> {
        let Definition { event_type, version, channel, .. } = &definition;
        check_type(event_type)?;
        if *version == 0 {
            let text = format!("version of event type {event_type:?} is 0, the first is 1");
            return Err(Error::new(ErrorKind::InvalidName, text));
        }
        if let Some(channel) = channel {
            name::check_channel(channel)?;
        }
        let contract = Self::unchecked(definition);
        contract.prepare()?;
        Ok(contract)
    }

    /// The contract of a definition whose names are known to be valid.
    pub(crate) fn unchecked(definition: Definition) -> Self {
        let uri: Box<str> = format!("{SCHEME}{}/{}", definition.event_type, definition.version).into();
        let mut attributes = Vec::new();
        envelope::put_attribute(&mut attributes, Attribute::Type as u8, &definition.event_type);
        envelope::put_attribute(&mut attributes, Attribute::DataSchema as u8, &uri);
        let marks = Marks::of(&definition.schema);
        Self { definition, uri, attributes: attributes.into(), marks, validator: OnceLock::new() }
    }

    /// Compiles the schema, so that a mistake in it is told when a program starts.
    ///
    /// # Errors
    /// `Codec` if the schema is none, refers to anything outside of it, or hides what everybody sees.
    pub(crate) fn prepare(&self) -> Result<()> {
        let Definition { event_type, version, schema, .. } = &self.definition;
        if let Some(property) = self.marks.contradiction(schema) {
            let text = format!(
                "property {property:?} of {event_type} version {version} is hidden by x-redact, and is its key, subject or tenant, which \
                 everybody sees"
            );
            return Err(Error::new(ErrorKind::Codec, text));
        }
        self.validator().map(drop)
    }

    /// What was agreed.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The `dataschema` of its events: `tidewire:TYPE/VERSION`.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The attributes that all its events begin with.
    pub(super) fn attributes(&self) -> &Bytes {
        &self.attributes
    }

    /// The property of the data that is the event's key, subject or tenant.
    pub fn property(&self, mark: Mark) -> Option<&str> {
        self.marks.property(mark)
    }

    /// Whether anything of its data is hidden from those who only operate the system.
    pub fn has_redactions(&self) -> bool {
        self.marks.has_redactions()
    }

    /// Whether the schema asks for more than the Rust type that it was made from holds by itself.
    pub(crate) fn has_constraints(&self) -> bool {
        self.marks.has_constraints()
    }

    /// Checks data from outside: that it is JSON within `bounds`, and then against the schema.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self, data: &[u8], bounds: &JsonLimits) -> Result<(), Violation> {
        self.parse(data, bounds).map(drop)
    }

    /// As [`check`](Self::check), with what was read.
    pub(super) fn parse<'d>(&self, data: &'d [u8], bounds: &JsonLimits) -> Result<Tape<'d>, Violation> {
        check_json(data, bounds).map_err(|fault| self.told(fault.into()))?;
        let wrong = |text: String| Violation { pointer: "".into(), rule: "syntax".into(), text: text.into() };
        let tape = Tape::read(data).map_err(|error| wrong(error.to_string()))?;
        let validator = self.validator().map_err(|error| wrong(error.to_string()))?;
        let checked = validator.validate(tape.root());
        checked.map_err(|error| self.told(Violation::of_schema(&error, &self.definition.schema)))?;
        Ok(tape)
    }

    /// The violation without names that are hidden with what holds them, and with as much of its place as people read.
    fn told(&self, mut violation: Violation) -> Violation {
        let steps =
            violation.pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
        let steps_max = self.steps_told(steps);
        if let Some((end, _)) = violation.pointer.match_indices('/').nth(steps_max) {
            violation.pointer = violation.pointer.get(..end).unwrap_or_default().into();
        }
        if violation.pointer.len() > POINTER_BYTES_MAX {
            let end = violation.pointer.floor_char_boundary(POINTER_BYTES_MAX);
            violation.pointer = violation.pointer.get(..end).unwrap_or_default().into();
        }
        violation
    }

    /// How many of the steps to a place in the data may be told.
    pub(super) fn steps_told(&self, steps: impl Iterator<Item = impl AsRef<str>>) -> usize {
        match self.has_redactions() {
            true => redact::told(steps, &self.definition.schema),
            false => usize::MAX,
        }
    }

    /// The data as those may see it who only operate the system: what is marked is [`HIDDEN`], and all of it where it is no
    /// JSON or is sealed.
    pub fn redacted(&self, event: &Event) -> Value {
        redact::redacted(event, &self.definition.schema)
    }

    /// A text that was made while `data` was handled, without what is marked in it; none if it holds nothing of that.
    pub(crate) fn scrubbed(&self, text: &str, data: &[u8]) -> Option<Box<str>> {
        redact::scrubbed(text, data, &self.definition.schema)
    }

    fn validator(&self) -> Result<&Validator<OnTape>> {
        let compiled = self.validator.get_or_init(|| {
            // Patterns come from schemas, data from anywhere: an engine without backtracking takes linear time.
            jsonschema::options_for::<OnTape>()
                .should_validate_formats(true)
                .with_pattern_options(PatternOptions::regex())
                .build(&self.definition.schema)
                .map_err(|error| error.to_string().into())
        });
        compiled.as_ref().map_err(|why| {
            let Definition { event_type, version, .. } = &self.definition;
            Error::new(
                ErrorKind::Codec,
                format!("schema of {event_type} version {version} is not valid: {why}"),
            )
        })
    }
}

impl fmt::Debug for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contract({})", self.uri)
    }
}

/// Checks the name of an event type.
///
/// # Errors
/// `InvalidName`: 1 to 128 of `A-Z a-z 0-9 - _ .`.
fn check_type(event_type: &str) -> Result<()> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=limits::EVENT_TYPE_BYTES_MAX).contains(&event_type.len()) && event_type.bytes().all(is_valid) {
        return Ok(());
    }
    let max = limits::EVENT_TYPE_BYTES_MAX;
    Err(Error::new(
        ErrorKind::InvalidName,
        format!("event type {event_type:?} is not valid: 1 to {max} of A-Z a-z 0-9 - _ ."),
    ))
}

/// The version that an event was sent as: what its `dataschema` says, 1 without one, none where that is another's.
pub(crate) fn version_of(event: &Event) -> Option<u32> {
    let Some(uri) = event.data_schema() else { return Some(1) };
    let (event_type, version) = uri.strip_prefix(SCHEME)?.rsplit_once('/')?;
    // As we write it, and in no second way: `+1` and `01` are no numbers here.
    let number = version.parse::<u32>().ok().filter(|number| number.to_string() == version)?;
    (event_type == event.event_type()).then_some(number)
}

impl Violation {
    fn of_schema(error: &ValidationError<'_>, schema: &Value) -> Self {
        let rule = error.kind().keyword();
        let asked = schema.pointer(error.schema_path().as_str()).filter(|asked| !asked.is_object());
        let asked = asked.map(Value::to_string).filter(|asked| asked.len() <= ASKED_BYTES_MAX);
        let text = match (error.kind(), asked) {
            (ValidationErrorKind::Required { property }, _) => {
                format!("has no {property}, which is required")
            }
            (_, Some(asked)) => format!("does not keep to {rule} {asked}"),
            (_, None) => format!("does not keep to {rule} of its schema"),
        };
        Self { pointer: error.instance_path().as_str().into(), rule: rule.into(), text: text.into() }
    }
}

/// Bytes of a place that are told, as of a fault in JSON.
const POINTER_BYTES_MAX: usize = 256;
/// Bytes of a schema's keyword that are told with a violation of it.
const ASKED_BYTES_MAX: usize = 200;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.pointer {
            "" => write!(f, "data: {}", self.text),
            pointer => write!(f, "data at {pointer}: {}", self.text),
        }
    }
}

impl std::error::Error for Violation {}

impl From<JsonFault> for Violation {
    fn from(fault: JsonFault) -> Self {
        Self { text: fault.text().into(), rule: fault.rule.as_str().into(), pointer: fault.pointer }
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::new(ErrorKind::Codec, violation.to_string())
    }
}
