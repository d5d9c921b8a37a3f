//! Data on its way through a frame, whichever encoding the frame has.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json_data::{JsonData, JsonDataError};

/// Opaque data of an application: a JSON value in a JSON frame, any bytes in a Protobuf one.
///
/// In a JSON frame bytes that are not JSON stand as a string, as [`JsonData::from_any`] says; in a Protobuf frame a JSON
/// value stands as its text.
#[derive(Clone, Debug)]
pub enum Opaque<'a> {
    /// A JSON value, on one line where it is to be written.
    Json(Cow<'a, RawValue>),
    /// Bytes of any kind.
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Opaque<'a> {
    /// The data as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Json(json) => json.get().as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// A text as a JSON string.
    pub fn text(text: &str) -> Opaque<'static> {
        // Writing a string into memory cannot fail.
        serde_json::value::to_raw_value(text)
            .map_or_else(|_| Opaque::default(), |json| Opaque::Json(Cow::Owned(json)))
    }

    /// The same, borrowed.
    pub fn borrowed(&self) -> Opaque<'_> {
        match self {
            Self::Json(json) => Opaque::Json(Cow::Borrowed(json)),
            Self::Bytes(bytes) => Opaque::Bytes(Cow::Borrowed(bytes)),
        }
    }

    /// What came from outside, ready to be kept: JSON on one line and of a bounded depth, bytes as they are.
    ///
    /// # Errors
    /// JSON that nests too deep.
    pub fn checked(&'a self) -> Result<Cow<'a, [u8]>, JsonDataError> {
        match self {
            Self::Json(json) => Ok(JsonData::from_raw(json)?.into_bytes()),
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        }
    }

    /// The same, holding its bytes itself.
    pub fn into_owned(self) -> Opaque<'static> {
        match self {
            Self::Json(json) => Opaque::Json(Cow::Owned(json.into_owned())),
            Self::Bytes(bytes) => Opaque::Bytes(Cow::Owned(bytes.into_owned())),
        }
    }
}

impl Default for Opaque<'_> {
    fn default() -> Self {
        Self::Bytes(Cow::default())
    }
}

impl PartialEq for Opaque<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl<'a> From<&'a RawValue> for Opaque<'a> {
    fn from(json: &'a RawValue) -> Self {
        Self::Json(Cow::Borrowed(json))
    }
}

impl<'a> From<JsonData<'a>> for Opaque<'a> {
    fn from(json: JsonData<'a>) -> Self {
        Self::Json(json.into_raw())
    }
}

impl<'a> From<&'a [u8]> for Opaque<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}

impl Serialize for Opaque<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(json) => json.serialize(output),
            Self::Bytes(bytes) => JsonData::from_any(bytes).as_raw().serialize(output),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Opaque<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(input).map(Self::from)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Opaque<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Data".into()
    }

    /// Any JSON value.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::Schema::default()
    }
}

/// Reads data so that `null` is the data `null`; serde's own `Option` would take it for an absent field.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(input: D) -> Result<Option<Opaque<'a>>, D::Error> {
    Opaque::deserialize(input).map(Some)
}
