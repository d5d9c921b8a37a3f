//! Serde helpers: what is empty is left out, and a present `null` is still data.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// For `skip_serializing_if`: the protocol leaves out false, zero and the empty string.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads a raw field so that `null` is the data `null`; serde's own `Option` would take it for an absent field.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(input: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(input).map(Some)
}
