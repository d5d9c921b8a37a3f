//! A place in a schema.

use std::collections::HashSet;
use std::rc::Rc;

use serde_json::Value;

static ANYTHING: Value = Value::Bool(true);

/// A value in a schema, with the way to it.
#[derive(Debug, Clone)]
pub(super) struct Place<'s> {
    root: &'s Value,
    pub(super) value: &'s Value,
    pub(super) pointer: Rc<str>,
}

impl<'s> Place<'s> {
    pub(super) fn root(root: &'s Value) -> Self {
        Self { root, value: root, pointer: "".into() }
    }

    /// What is not asked for, in what stands at `pointer`.
    pub(super) fn anything(pointer: &Rc<str>) -> Self {
        Self { root: &ANYTHING, value: &ANYTHING, pointer: pointer.clone() }
    }

    /// What is under a name, or at an index, of `value`, which stands here.
    pub(super) fn child(&self, name: &str, value: &'s Value) -> Self {
        let name = name.replace('~', "~0").replace('/', "~1");
        Self { root: self.root, value, pointer: format!("{}/{name}", self.pointer).into() }
    }

    /// What is under a keyword, if it is there.
    pub(super) fn get(&self, keyword: &str) -> Option<Self> {
        self.value.get(keyword).map(|value| self.child(keyword, value))
    }

    /// What stands in the array or object that this is.
    pub(super) fn children(&self) -> impl Iterator<Item = (Rc<str>, Self)> {
        let named = self.value.as_object().into_iter().flatten();
        let named = named.map(|(name, value)| (name.as_str().into(), self.child(name, value)));
        let listed = self.value.as_array().into_iter().flatten().enumerate();
        named.chain(listed.map(|(index, value)| {
            let index = index.to_string();
            (index.as_str().into(), self.child(&index, value))
        }))
    }

    /// What a `$ref` that stands here refers to, if it is in this schema.
    pub(super) fn target(&self) -> Option<Self> {
        let pointer = self.value.as_str()?.strip_prefix('#')?;
        let value = self.root.pointer(pointer)?;
        Some(Self { root: self.root, value, pointer: pointer.into() })
    }
}

/// References that are followed, or levels gone down, before two schemas count as not alike.
const DEPTH_MAX: usize = 32;
/// Values that are looked at before two schemas count as not alike: definitions may refer to others twice, and so on.
const STEPS_MAX: usize = 10_000;

/// Whether two schemas, or lists of them, ask for the same, whatever they say to people and however their definitions are
/// named.
pub(super) fn is_same(one: &Place<'_>, other: &Place<'_>) -> bool {
    Likeness { steps: STEPS_MAX, seen: HashSet::new() }.holds(one, other, What::Schema, DEPTH_MAX)
}

struct Likeness {
    steps: usize,
    /// References that were followed side by side: what they come back to is as alike as the rest is.
    seen: HashSet<(Rc<str>, Rc<str>)>,
}

/// What the members of an object are.
#[derive(Clone, Copy, PartialEq)]
enum What {
    /// Keywords.
    Schema,
    /// Schemas by names of their own.
    Named,
}

impl Likeness {
    fn holds(&mut self, one: &Place<'_>, other: &Place<'_>, what: What, depth: usize) -> bool {
        let (Some(depth), Some(steps)) = (depth.checked_sub(1), self.steps.checked_sub(1)) else {
            return false;
        };
        self.steps = steps;
        match (one.value, other.value) {
            (Value::Object(some), Value::Object(others)) => {
                let asked = |name: &&String| what == What::Named || !NOTES.contains(&name.as_str());
                some.keys().filter(asked).count() == others.keys().filter(asked).count()
                    && some.keys().filter(asked).all(|name| match (one.get(name), other.get(name)) {
                        (Some(one), Some(other)) if what == What::Schema => {
                            self.holds_of(name, &one, &other, depth)
                        }
                        (Some(one), Some(other)) => self.holds(&one, &other, What::Schema, depth),
                        _ => false,
                    })
            }
            (Value::Array(some), Value::Array(others)) => {
                some.len() == others.len()
                    && one
                        .children()
                        .zip(other.children())
                        .all(|((_, one), (_, other))| self.holds(&one, &other, What::Schema, depth))
            }
            (one, other) => one == other,
        }
    }

    fn holds_of(&mut self, keyword: &str, one: &Place<'_>, other: &Place<'_>, depth: usize) -> bool {
        match keyword {
            "$ref" => match (one.target(), other.target()) {
                (Some(one), Some(other)) => {
                    !self.seen.insert((one.pointer.clone(), other.pointer.clone()))
                        || self.holds(&one, &other, What::Schema, depth)
                }
                _ => one.value == other.value,
            },
            "const" | "enum" => one.value == other.value,
            "properties" | "patternProperties" | "dependentSchemas" => {
                self.holds(one, other, What::Named, depth)
            }
            _ => self.holds(one, other, What::Schema, depth),
        }
    }
}

/// Keywords that only say something, to people, or where definitions are.
pub(super) const NOTES: &[&str] = &[
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "$vocabulary",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];
