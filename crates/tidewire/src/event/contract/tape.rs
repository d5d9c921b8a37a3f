//! JSON in one piece of memory, for the schema library: what is checked and then forgotten is not worth a tree.
//!
//! Each value is a slot, in the order of the text; objects and arrays say where they end. Strings are borrowed from the text
//! unless they have escapes. Against `serde_json::Value` that saves an allocation for each string, key and map.

use std::borrow::Cow;
use std::fmt;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Slots that there is room for at the start, for each so many bytes of text.
const BYTES_PER_SLOT: usize = 12;

/// A JSON text, read.
pub(in crate::event) struct Tape<'t>(Vec<Slot<'t>>);

#[derive(Debug)]
enum Slot<'t> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'t, str>),
    /// So many slots belong to it from here on, this one included.
    Array {
        count: usize,
        end: usize,
    },
    /// As an array, with the key before each value.
    Object {
        count: usize,
        end: usize,
    },
}

/// A value on a tape.
#[derive(Clone, Copy)]
pub(in crate::event) struct Place<'t> {
    slots: &'t [Slot<'t>],
    at: usize,
}

/// The representation, for the schema library.
pub(super) struct OnTape;

impl<'t> Tape<'t> {
    /// Reads a text. It recurses, so whoever calls it has bounded its depth.
    pub(super) fn read(json: &'t [u8]) -> serde_json::Result<Self> {
        let mut slots = Vec::with_capacity(json.len() / BYTES_PER_SLOT + 1);
        let mut text = serde_json::Deserializer::from_slice(json);
        Reading(&mut slots).deserialize(&mut text)?;
        text.end()?;
        Ok(Self(slots))
    }

    /// The whole.
    pub(in crate::event) fn root(&self) -> Place<'_> {
        Place { slots: &self.0, at: 0 }
    }
}

impl<'t> Place<'t> {
    /// The value of a property of an object.
    pub(in crate::event) fn property(self, name: &str) -> Option<Self> {
        self.members().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The text of a string, number or boolean.
    pub(in crate::event) fn text(self) -> Option<String> {
        match self.slot()? {
            Slot::String(text) => Some(text.to_string()),
            Slot::Number(number) => Some(number.to_string()),
            Slot::Bool(value) => Some(value.to_string()),
            Slot::Null | Slot::Array { .. } | Slot::Object { .. } => None,
        }
    }

    fn slot(self) -> Option<&'t Slot<'t>> {
        self.slots.get(self.at)
    }

    /// The place after this value.
    fn end(self) -> usize {
        match self.slot() {
            Some(Slot::Array { end, .. } | Slot::Object { end, .. }) => *end,
            _ => self.at + 1,
        }
    }

    fn count(self) -> usize {
        match self.slot() {
            Some(Slot::Array { count, .. } | Slot::Object { count, .. }) => *count,
            _ => 0,
        }
    }

    /// What is in an array.
    fn elements(self) -> Elements<'t> {
        let end = if matches!(self.slot(), Some(Slot::Array { .. })) { self.end() } else { self.at };
        Elements { next: Place { at: self.at + 1, ..self }, end }
    }

    /// What is in an object.
    fn members(self) -> Members<'t> {
        let end = if matches!(self.slot(), Some(Slot::Object { .. })) { self.end() } else { self.at };
        Members { next: Place { at: self.at + 1, ..self }, end }
    }

    fn value(self) -> Value {
        match self.slot() {
            None | Some(Slot::Null) => Value::Null,
            Some(Slot::Bool(value)) => Value::Bool(*value),
            Some(Slot::Number(number)) => Value::Number(number.clone()),
            Some(Slot::String(text)) => Value::String(text.to_string()),
            Some(Slot::Array { .. }) => self.elements().map(Place::value).collect(),
            Some(Slot::Object { .. }) => {
                let members = self.members().map(|(key, value)| (key.to_owned(), value.value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}

pub(super) struct Elements<'t> {
    next: Place<'t>,
    end: usize,
}

impl<'t> Iterator for Elements<'t> {
    type Item = Place<'t>;

    fn next(&mut self) -> Option<Place<'t>> {
        let element = self.next;
        (element.at < self.end).then(|| {
            self.next.at = element.end();
            element
        })
    }
}

pub(super) struct Members<'t> {
    next: Place<'t>,
    end: usize,
}

impl<'t> Iterator for Members<'t> {
    type Item = (&'t str, Place<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.next;
        let Some(Slot::String(name)) = key.slot().filter(|_| key.at < self.end) else { return None };
        let value = Place { at: key.at + 1, ..key };
        self.next.at = value.end();
        Some((name, value))
    }
}

impl Json for OnTape {
    type Node<'t> = Place<'t>;
    type PreparedKey = Box<str>;
    type StringBuffer = ();

    /// A lookup walks over the members, as a pass over all of them does.
    const KEYS_PER_LOOKUP: usize = 4;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(Place<'_>) -> T) -> T {
        f(Place { slots: &[Slot::String(Cow::Borrowed(string))], at: 0 })
    }
}

impl<'t> Node<'t, OnTape> for Place<'t> {
    type Object = Self;
    type Array = Self;
    type Number = &'t Number;

    fn as_object(&self) -> Option<Self> {
        matches!(self.slot(), Some(Slot::Object { .. })).then_some(*self)
    }

    fn as_array(&self) -> Option<Self> {
        matches!(self.slot(), Some(Slot::Array { .. })).then_some(*self)
    }

    fn as_string(&self) -> Option<Cow<'t, str>> {
        match self.slot() {
            Some(Slot::String(text)) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<&'t Number> {
        match self.slot() {
            Some(Slot::Number(number)) => Some(number),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.slot() {
            Some(Slot::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self.slot(), Some(Slot::Null))
    }

    fn json_type(&self) -> JsonType {
        match self.slot() {
            None | Some(Slot::Null) => JsonType::Null,
            Some(Slot::Bool(_)) => JsonType::Boolean,
            Some(Slot::Number(_)) => JsonType::Number,
            Some(Slot::String(_)) => JsonType::String,
            Some(Slot::Array { .. }) => JsonType::Array,
            Some(Slot::Object { .. }) => JsonType::Object,
        }
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        let Some(Slot::String(text)) = self.slot() else { return None };
        // A character has one to four bytes.
        let bytes = text.len() as u64;
        if bytes < min || bytes.div_ceil(4) > max {
            return Some(false);
        }
        if min <= bytes.div_ceil(4) && bytes <= max {
            return Some(true);
        }
        Some((min..=max).contains(&(text.chars().count() as u64)))
    }

    fn to_value(&self) -> Cow<'t, Value> {
        Cow::Owned(self.value())
    }

    fn identity(&self) -> Option<NodeIdentity> {
        self.slot().map(|slot| NodeIdentity::new(std::ptr::from_ref(slot).addr()))
    }
}

impl<'t> Object<'t, OnTape> for Place<'t> {
    type Node = Self;
    type MemberName = &'t str;
    type MembersIter = Members<'t>;

    fn len(&self) -> usize {
        self.count()
    }

    fn get(&self, key: &Box<str>) -> Option<Self> {
        self.property(key)
    }

    fn members(&self) -> Members<'t> {
        (*self).members()
    }
}

impl<'t> Array<'t, OnTape> for Place<'t> {
    type Node = Self;
    type ElementsIter = Elements<'t>;

    fn len(&self) -> usize {
        self.count()
    }

    fn elements(&self) -> Elements<'t> {
        (*self).elements()
    }
}

/// Reads one value onto the end of a tape.
struct Reading<'s, 't>(&'s mut Vec<Slot<'t>>);

impl<'s, 't> Reading<'s, 't> {
    fn push(self, slot: Slot<'t>) {
        self.0.push(slot);
    }

    /// Sets the slot of a container once its end is known.
    fn close(self, at: usize, slot: impl FnOnce(usize) -> Slot<'t>) {
        let end = self.0.len();
        if let Some(open) = self.0.get_mut(at) {
            *open = slot(end);
        }
    }
}

impl<'t> DeserializeSeed<'t> for Reading<'_, 't> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Reading<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.push(Slot::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.push(Slot::Bool(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.push(Slot::Number(value.into()));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.push(Slot::Number(value.into()));
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number is not finite"))?;
        self.push(Slot::Number(number));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'t str) -> Result<(), E> {
        self.push(Slot::String(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.push(Slot::String(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut elements: A) -> Result<(), A::Error> {
        let (at, mut count) = (self.0.len(), 0);
        self.0.push(Slot::Null);
        while elements.next_element_seed(Reading(self.0))?.is_some() {
            count += 1;
        }
        self.close(at, |end| Slot::Array { count, end });
        Ok(())
    }

    fn visit_map<A: MapAccess<'t>>(self, mut members: A) -> Result<(), A::Error> {
        let (at, mut count) = (self.0.len(), 0);
        self.0.push(Slot::Null);
        while members.next_key_seed(Reading(self.0))?.is_some() {
            if !matches!(self.0.last(), Some(Slot::String(_))) {
                return Err(A::Error::custom("key is no string"));
            }
            members.next_value_seed(Reading(self.0))?;
            count += 1;
        }
        self.close(at, |end| Slot::Object { count, end });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            "[a-c\"\\\\\\n\u{e9}]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map("[a-d\"]{0,3}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Schemas that look at every part of what `any_json` makes.
    fn schemas() -> Vec<Value> {
        vec![
            json!({"type": "object", "required": ["a"], "additionalProperties": {"type": ["number", "string"]}}),
            json!({"propertyNames": {"maxLength": 1}, "minProperties": 1, "properties": {"a": {"$ref": "#"}}}),
            json!({"items": {"anyOf": [{"minimum": 0}, {"maxLength": 2}, {"const": null}]}, "uniqueItems": true}),
            json!({"type": ["array", "integer", "boolean"], "minItems": 2, "contains": {"enum": [1, "a", [], {}]}}),
            json!({"patternProperties": {"^a": {"type": "string"}}, "dependentRequired": {"b": ["a"]}, "maxProperties": 2}),
            json!({"not": {"type": "object"}, "if": {"type": "string"}, "then": {"pattern": "^[a-c]*$"}}),
        ]
    }

    #[test]
    fn a_property_is_found_and_told_as_text() {
        let tape =
            Tape::read(br#"{"a": {"b": [1, {"c": 2}]}, "d\n": "x\ty", "e": -1.5, "f": null}"#).unwrap();
        let text = |name| tape.root().property(name).and_then(Place::text);
        assert_eq!(
            ["d\n", "e", "f", "a", "b"].map(text),
            [Some("x\ty".into()), Some("-1.5".into()), None, None, None,]
        );
        assert!(Tape::read(br#"{"a": 1} 2"#).is_err() && Tape::read(b"[1").is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(value in any_json()) {
            let text = value.to_string();
            prop_assert_eq!(Tape::read(text.as_bytes()).unwrap().root().value(), value);
        }

        #[test]
        fn a_schema_says_the_same_as_of_a_tree(value in any_json()) {
            let text = value.to_string();
            let tape = Tape::read(text.as_bytes()).unwrap();
            for schema in schemas() {
                let on_tree = jsonschema::options().build(&schema).unwrap();
                let on_tape = jsonschema::options_for::<OnTape>().build(&schema).unwrap();
                let said = on_tape.validate(tape.root()).map_err(|error| error.instance_path().to_string());
                let expected = on_tree.validate(&value).map_err(|error| error.instance_path().to_string());
                prop_assert_eq!(said.is_ok(), expected.is_ok(), "{} {}", schema, value);
            }
        }
    }
}
