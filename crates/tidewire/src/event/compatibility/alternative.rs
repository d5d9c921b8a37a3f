//! One of the shapes that a schema lets a value have.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Number, Value};

use super::place::{NOTES, Place};

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Any,
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    const NAMES: [(&'static str, Self); 7] = [
        ("null", Self::Null),
        ("boolean", Self::Boolean),
        ("integer", Self::Integer),
        ("number", Self::Number),
        ("string", Self::String),
        ("array", Self::Array),
        ("object", Self::Object),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("anything", |(name, _)| name)
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if is_integer(number) => Self::Integer,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }

    /// Whether all that is of the other kind is of this one.
    pub(super) fn covers(self, other: Self) -> bool {
        self == other || self == Self::Any || (self == Self::Number && other == Self::Integer)
    }

    /// What is of both kinds.
    fn and(self, other: Self) -> Option<Self> {
        match (self.covers(other), other.covers(self)) {
            (true, _) => Some(other),
            (_, true) => Some(self),
            _ => None,
        }
    }

    /// Whether a keyword says anything about a value of this kind.
    fn minds(self, keyword: &str, asked: &Value) -> bool {
        let minding: &[Self] = match keyword {
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => {
                &[Self::Integer, Self::Number]
            }
            "minLength" | "maxLength" | "pattern" | "contentEncoding" | "contentMediaType"
            | "contentSchema" => &[Self::String],
            "minItems" | "maxItems" | "uniqueItems" | "contains" | "minContains" | "maxContains"
            | "unevaluatedItems" => &[Self::Array],
            "minProperties" | "maxProperties" | "propertyNames" | "dependentRequired"
            | "dependentSchemas" | "dependencies" => &[Self::Object],
            "format" if asked.as_str().is_some_and(super::bounds::is_format_of_number) => {
                &[Self::Integer, Self::Number]
            }
            "format" => &[Self::String],
            _ => return true,
        };
        self == Self::Any || minding.contains(&self)
    }
}

fn is_integer(number: &Number) -> bool {
    number.as_i128().is_some() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// One of the shapes that a schema lets a value have. Where several schemas hold for one place, it has what all of them ask.
#[derive(Debug, Clone)]
pub(super) struct Alternative<'s> {
    /// Where it stands.
    pub(super) pointer: Rc<str>,
    pub(super) kind: Kind,
    /// The one value that it can be.
    pub(super) value: Option<&'s Value>,
    pub(super) is_hidden: bool,
    /// What else is asked, by keyword.
    pub(super) asked: BTreeMap<&'s str, Vec<Place<'s>>>,
    pub(super) properties: BTreeMap<&'s str, Vec<Place<'s>>>,
    pub(super) required: BTreeSet<&'s str>,
    pub(super) patterns: BTreeMap<&'s str, Vec<Place<'s>>>,
    /// Of properties that have no schema of their own.
    pub(super) others: Vec<Place<'s>>,
    /// Of the first items, by index.
    pub(super) first: Vec<Vec<Place<'s>>>,
    /// Of all further items.
    pub(super) items: Vec<Place<'s>>,
    /// What is said to people, by keyword; the outermost schema has the word.
    pub(super) notes: BTreeMap<&'s str, Place<'s>>,
}

impl<'s> Alternative<'s> {
    /// One that can be anything.
    pub(super) fn any(place: &Place<'s>) -> Self {
        Self {
            pointer: place.pointer.clone(),
            kind: Kind::Any,
            value: None,
            is_hidden: false,
            asked: BTreeMap::new(),
            properties: BTreeMap::new(),
            required: BTreeSet::new(),
            patterns: BTreeMap::new(),
            others: Vec::new(),
            first: Vec::new(),
            items: Vec::new(),
            notes: BTreeMap::new(),
        }
    }

    /// What a schema asks by its own keywords, those apart that refer to other schemas for the same value.
    pub(super) fn own(place: &Place<'s>) -> Vec<Self> {
        let mut whole = Self::any(place);
        let mut kinds = None;
        let mut values: Option<Vec<&Value>> = None;
        for (keyword, asked) in place.value.as_object().into_iter().flatten() {
            let here = place.child(keyword, asked);
            match keyword.as_str() {
                "type" => kinds = Some(kinds_of(asked)),
                "const" | "enum" => {
                    let list = asked.as_array().filter(|_| keyword == "enum");
                    let these: Vec<_> = list.map_or_else(|| vec![asked], |list| list.iter().collect());
                    values = Some(match values {
                        Some(those) => those.into_iter().filter(|value| these.contains(value)).collect(),
                        None => these,
                    });
                }
                "$ref" | "allOf" | "anyOf" | "oneOf" => {}
                "properties" => named_into(&mut whole.properties, &here),
                "patternProperties" => named_into(&mut whole.patterns, &here),
                "additionalProperties" | "unevaluatedProperties" => whole.others.push(here),
                "required" => {
                    whole.required =
                        asked.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
                }
                "prefixItems" => whole.first = here.children().map(|(_, item)| vec![item]).collect(),
                "items" => whole.items.push(here),
                "x-redact" => whole.is_hidden = asked == &Value::Bool(true),
                _ if keyword.starts_with('$') && NOTES.contains(&keyword.as_str()) => {}
                "definitions" => {}
                _ if NOTES.contains(&keyword.as_str()) => {
                    whole.notes.insert(keyword, here);
                }
                _ if super::compare::is_known(keyword) => {
                    whole.asked.insert(keyword, vec![here]);
                }
                // What nobody knows checks nothing.
                _ => {}
            }
        }
        let kinds = kinds.unwrap_or_else(|| vec![Kind::Any]);
        let Some(values) = values else {
            return kinds.into_iter().map(|kind| whole.clone().of_kind(kind)).collect();
        };
        let admitted =
            values.into_iter().filter(|value| kinds.iter().any(|kind| kind.covers(Kind::of(value))));
        // Null has one value anyhow.
        let one = |value: &'s Value| Some(value).filter(|value| !value.is_null());
        admitted.map(|value| Self { value: one(value), ..whole.clone().of_kind(Kind::of(value)) }).collect()
    }

    /// What holds if both do; none if they cannot.
    pub(super) fn and(&self, inner: &Self) -> Option<Self> {
        let kind = self.kind.and(inner.kind)?;
        if let (Some(one), Some(other)) = (self.value, inner.value)
            && one != other
        {
            return None;
        }
        let value = self.value.or(inner.value);
        if value.is_some_and(|value| !kind.covers(Kind::of(value))) {
            return None;
        }
        let mut both = self.clone();
        both.value = value;
        both.is_hidden |= inner.is_hidden;
        for (ours, theirs) in [
            (&mut both.asked, &inner.asked),
            (&mut both.properties, &inner.properties),
            (&mut both.patterns, &inner.patterns),
        ] {
            for (&name, places) in theirs {
                ours.entry(name).or_default().extend_from_slice(places);
            }
        }
        both.required.extend(&inner.required);
        both.others.extend_from_slice(&inner.others);
        both.items.extend_from_slice(&inner.items);
        both.first.resize(self.first.len().max(inner.first.len()), Vec::new());
        for (ours, theirs) in both.first.iter_mut().zip(&inner.first) {
            ours.extend_from_slice(theirs);
        }
        for (&keyword, place) in &inner.notes {
            both.notes.entry(keyword).or_insert_with(|| place.clone());
        }
        Some(both.of_kind(kind))
    }

    fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self.asked.retain(|keyword, places| places.iter().any(|place| kind.minds(keyword, place.value)));
        if !matches!(kind, Kind::Any | Kind::Object) {
            self.properties.clear();
            self.required.clear();
            self.patterns.clear();
            self.others.clear();
        }
        if !matches!(kind, Kind::Any | Kind::Array) {
            self.first.clear();
            self.items.clear();
        }
        self
    }

    /// Whether properties are refused that have no schema of their own.
    pub(super) fn is_closed(&self) -> bool {
        self.others.iter().any(|place| place.value == &Value::Bool(false))
    }

    /// What tells it from other objects: the property that all of it is in, or those that have one value only.
    pub(super) fn tags(&self) -> Vec<(&'s str, Option<&'s Value>)> {
        let mut tags: Vec<_> = self
            .properties
            .iter()
            .filter(|(name, _)| self.required.contains(**name))
            .filter_map(|(name, places)| {
                let value = places.iter().find_map(|place| place.value.get("const"))?;
                Some((*name, Some(value)))
            })
            .collect();
        if tags.is_empty() && self.properties.len() == 1 {
            tags.extend(self.required.iter().map(|name| (*name, None)));
        }
        tags
    }

    /// A few words for it.
    pub(super) fn label(&self) -> String {
        let named = |value: &Value| {
            let text = value.to_string();
            if text.len() <= LABEL_BYTES_MAX { text } else { format!("a {}", Kind::of(value).name()) }
        };
        match (self.value, self.tags().first()) {
            (Some(value), _) => named(value),
            (None, Some((name, Some(value)))) => format!("object with {name} {}", named(value)),
            (None, Some((name, None))) => format!("object with {name}"),
            (None, None) => self.kind.name().into(),
        }
    }
}

/// Bytes of a value that stands in a label.
const LABEL_BYTES_MAX: usize = 100;

fn kinds_of(asked: &Value) -> Vec<Kind> {
    let named = |asked: &Value| asked.as_str().and_then(Kind::named);
    match asked {
        Value::Array(names) => names.iter().filter_map(named).collect(),
        name => named(name).into_iter().collect(),
    }
}

fn named_into<'s>(all: &mut BTreeMap<&'s str, Vec<Place<'s>>>, here: &Place<'s>) {
    for (name, schema) in here.value.as_object().into_iter().flatten() {
        all.insert(name, vec![here.child(name, schema)]);
    }
}
