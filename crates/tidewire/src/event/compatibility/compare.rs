//! Two schemas, place by place.

use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

use serde_json::Value;

use super::alternative::{Alternative, Kind};
use super::expand::{Unclear, expand};
use super::place::{Place, is_same};
use super::{ChangeKind, Noted, bounds, pair};

/// Pairs of places that are compared, and levels gone down.
const COMPARED_MAX: usize = 20_000;
const DEPTH_MAX: usize = 128;

/// Keywords that are there or not, and say nothing of how much they ask for.
const PLAIN: &[&str] = &["format", "multipleOf", "pattern", "uniqueItems"];

/// Keywords of which nobody can tell whether another use of them takes what the first did.
const OPAQUE: &[&str] = &[
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
];

/// Whether a keyword is compared as it stands, beside those that hold schemas.
pub(super) fn is_known(keyword: &str) -> bool {
    bounds::is_bound(keyword) || PLAIN.contains(&keyword) || OPAQUE.contains(&keyword)
}

type Pointers = Vec<Rc<str>>;

/// What is found while two schemas are compared.
pub(super) struct Comparison {
    /// A definition may refer to itself, and many to one: each pair is compared once.
    seen: HashSet<(Pointers, Pointers, bool)>,
    noted: Vec<Noted>,
    depth: usize,
}

impl Comparison {
    /// All that is different, each once.
    pub(super) fn of(older: &Value, newer: &Value) -> Vec<Noted> {
        let mut comparison = Self { seen: HashSet::new(), noted: Vec::new(), depth: 0 };
        comparison.places(&[Place::root(older)], &[Place::root(newer)], false);
        let mut known = HashSet::new();
        comparison.noted.retain(|noted| known.insert(noted.clone()));
        comparison.noted
    }

    fn note(&mut self, pointer: &Rc<str>, what: ChangeKind, text: impl Into<Box<str>>) {
        self.noted.push((Box::from(&**pointer), what, text.into()));
    }

    /// Compares what holds for one value; `is_hidden` says that it is hidden as a whole.
    fn places(&mut self, older: &[Place<'_>], newer: &[Place<'_>], is_hidden: bool) {
        let pointers = |places: &[Place<'_>]| places.iter().map(|place| place.pointer.clone()).collect();
        let Some(here) = newer.first().map(|place| place.pointer.clone()) else { return };
        if self.seen.len() >= COMPARED_MAX || !self.seen.insert((pointers(older), pointers(newer), is_hidden))
        {
            return;
        }
        if self.seen.len() == COMPARED_MAX {
            return self.note(&"".into(), ChangeKind::Unclear, "the schema is too large to compare");
        }
        match (expand(older), expand(newer)) {
            _ if self.depth == DEPTH_MAX => self.unclear(&here, Unclear::TooDeep, older, newer),
            (Err(why), _) | (_, Err(why)) => self.unclear(&here, why, older, newer),
            (Ok(older), Ok(newer)) => {
                self.depth += 1;
                self.unions(&here, &older, &newer, is_hidden);
                self.depth -= 1;
            }
        }
    }

    fn unclear(&mut self, here: &Rc<str>, why: Unclear, older: &[Place<'_>], newer: &[Place<'_>]) {
        if !alike(older, newer) {
            self.note(here, ChangeKind::Unclear, format!("cannot be told: {}", why.text()));
        }
    }

    fn unions(
        &mut self,
        here: &Rc<str>,
        older: &[Alternative<'_>],
        newer: &[Alternative<'_>],
        is_hidden: bool,
    ) {
        // What one branch hides is hidden whichever of them a value is.
        let [was_hidden, hides] = [older, newer].map(|all| all.iter().any(|one| one.is_hidden));
        match (was_hidden, hides) {
            (true, false) if !is_hidden => self.note(here, ChangeKind::RedactionRemoved, "shown, was hidden"),
            (false, true) => self.note(here, ChangeKind::RedactionAdded, "hidden, was shown"),
            _ => {}
        }
        let is_hidden = is_hidden || hides;
        let pairs = pair::pairs(older, newer);
        let has_branches =
            |all: &[Alternative<'_>], one: &Alternative<'_>| all.iter().any(|other| is_branch(one, other));
        let (mut is_narrowed, mut is_widened) = (false, false);
        for (old, _) in older.iter().zip(&pairs).filter(|(_, pair)| pair.is_none()) {
            match has_branches(newer, old) {
                true => self.note(&old.pointer, ChangeKind::ValueRemoved, format!("{} is gone", old.label())),
                false => is_narrowed = true,
            }
        }
        for (_, new) in newer.iter().enumerate().filter(|(at, _)| !pairs.contains(&Some(*at))) {
            let takes = |old: &Alternative<'_>| match old.value {
                Some(value) => new.value == Some(value),
                None => old.kind.covers(new.kind) && !is_branch(old, new),
            };
            match (older.iter().any(takes), has_branches(older, new)) {
                (true, _) => {}
                (_, true) => {
                    self.note(&new.pointer, ChangeKind::ValueAdded, format!("{} is new", new.label()));
                }
                _ => is_widened = true,
            }
        }
        for (old, to) in older.iter().zip(pairs) {
            let Some(new) = to.and_then(|to| newer.get(to)) else { continue };
            is_widened |= old.kind != new.kind || (old.value.is_some() && new.value.is_none());
            self.alternatives(old, new, is_hidden);
        }
        if is_narrowed || is_widened {
            let what = if is_narrowed { ChangeKind::Narrowed } else { ChangeKind::Widened };
            self.note(here, what, format!("{}, was {}", labels(newer), labels(older)));
        }
    }

    fn alternatives(&mut self, older: &Alternative<'_>, newer: &Alternative<'_>, is_hidden: bool) {
        for keyword in older.notes.keys().chain(newer.notes.keys()).collect::<BTreeSet<_>>() {
            let (before, after) = (older.notes.get(keyword), newer.notes.get(keyword));
            if before.map(|place| place.value) != after.map(|place| place.value)
                && let Some(place) = after.or(before)
            {
                let holder = place.pointer.rsplit_once('/').map_or("", |(holder, _)| holder);
                self.note(&holder.into(), ChangeKind::Described, format!("another {keyword}"));
            }
        }
        for (pointer, what, text) in bounds::compare(older, newer) {
            self.note(&pointer, what, text);
        }
        for keyword in older.asked.keys().chain(newer.asked.keys()).collect::<BTreeSet<_>>() {
            self.keyword(keyword, older, newer);
        }
        self.properties(older, newer, is_hidden);
        self.other_properties(older, newer, is_hidden);
        self.items(older, newer, is_hidden);
    }

    fn keyword(&mut self, keyword: &str, older: &Alternative<'_>, newer: &Alternative<'_>) {
        if bounds::is_bound(keyword) {
            return;
        }
        let (before, after) = (asked(older, keyword), asked(newer, keyword));
        if alike(&before, &after) {
            return;
        }
        let pointer = after.first().map_or(&newer.pointer, |place| &place.pointer).clone();
        if OPAQUE.contains(&keyword) {
            let text = format!("another {keyword}: whether what was right still is cannot be told");
            return self.note(&pointer, ChangeKind::Unclear, text);
        }
        let said = |places: &[Place<'_>]| match places {
            [] => "none".to_owned(),
            places => places.iter().map(|place| place.value.to_string()).collect::<Vec<_>>().join(" and "),
        };
        let what = match (before.as_slice(), after.as_slice()) {
            (_, []) => ChangeKind::Widened,
            ([before], [after]) if keyword == "multipleOf" && divides(after.value, before.value) => {
                ChangeKind::Widened
            }
            _ => ChangeKind::Narrowed,
        };
        self.note(&pointer, what, format!("{keyword} is {}, was {}", said(&after), said(&before)));
    }

    fn properties(&mut self, older: &Alternative<'_>, newer: &Alternative<'_>, is_hidden: bool) {
        let names = older.properties.keys().chain(newer.properties.keys()).chain(&older.required);
        for &name in names.chain(&newer.required).collect::<BTreeSet<_>>() {
            let was_required = older.required.contains(name);
            let is_required = newer.required.contains(name);
            match (older.properties.get(name), newer.properties.get(name)) {
                (Some(before), None) => {
                    let pointer = before.first().map_or(&older.pointer, |place| &place.pointer);
                    self.note(pointer, ChangeKind::PropertyRemoved, format!("property {name:?} is gone"));
                }
                (None, Some(after)) => {
                    let pointer = after.first().map_or(&newer.pointer, |place| &place.pointer);
                    match is_required && !was_required {
                        true => {
                            let text = format!("property {name:?} is new and required");
                            self.note(pointer, ChangeKind::PropertyRequired, text);
                        }
                        false => {
                            self.note(pointer, ChangeKind::PropertyAdded, format!("property {name:?} is new"))
                        }
                    }
                    continue;
                }
                (Some(before), Some(after)) => self.places(before, after, is_hidden),
                (None, None) => {}
            }
            let pointer = newer.properties.get(name).and_then(|places| places.first());
            let pointer = pointer.map_or(&newer.pointer, |place| &place.pointer);
            match (was_required, is_required) {
                (false, true) => {
                    let text = format!("property {name:?} is required, was optional");
                    self.note(pointer, ChangeKind::PropertyRequired, text);
                }
                (true, false) if newer.properties.contains_key(name) => {
                    let text = format!("property {name:?} is optional, was required");
                    self.note(pointer, ChangeKind::PropertyOptional, text);
                }
                _ => {}
            }
        }
    }

    fn other_properties(&mut self, older: &Alternative<'_>, newer: &Alternative<'_>, is_hidden: bool) {
        let names = |shape: &Alternative<'_>| {
            shape.patterns.keys().map(|name| (*name).to_owned()).collect::<Vec<_>>()
        };
        if names(older) == names(newer) {
            for (before, after) in older.patterns.values().zip(newer.patterns.values()) {
                self.places(before, after, is_hidden);
            }
        } else {
            let text = "another patternProperties: whether what was right still is cannot be told";
            self.note(&newer.pointer, ChangeKind::Unclear, text);
        }
        let pointer = newer.others.first().map_or(&newer.pointer, |place| &place.pointer).clone();
        match (older.is_closed(), newer.is_closed()) {
            (true, true) => {}
            (false, true) => {
                self.note(
                    &pointer,
                    ChangeKind::Narrowed,
                    "properties without a schema are refused, were not",
                );
            }
            (true, false) => {
                self.note(
                    &pointer,
                    ChangeKind::Widened,
                    "properties without a schema are right, were refused",
                );
            }
            (false, false) => self.optional(older, &older.others, newer, &newer.others, is_hidden),
        }
    }

    fn items(&mut self, older: &Alternative<'_>, newer: &Alternative<'_>, is_hidden: bool) {
        for index in 0..older.first.len().max(newer.first.len()) {
            let before = older.first.get(index).filter(|first| !first.is_empty()).unwrap_or(&older.items);
            let after = newer.first.get(index).filter(|first| !first.is_empty()).unwrap_or(&newer.items);
            self.optional(older, before, newer, after, is_hidden);
        }
        self.optional(older, &older.items, newer, &newer.items, is_hidden);
    }

    /// Compares what may not be asked for at all.
    fn optional(
        &mut self,
        older: &Alternative<'_>,
        before: &[Place<'_>],
        newer: &Alternative<'_>,
        after: &[Place<'_>],
        is_hidden: bool,
    ) {
        match (before, after) {
            ([], []) => {}
            ([], after) => self.places(&[Place::anything(&older.pointer)], after, is_hidden),
            (before, []) => self.places(before, &[Place::anything(&newer.pointer)], is_hidden),
            (before, after) => self.places(before, after, is_hidden),
        }
    }
}

/// Whether two shapes may be branches of one union: values of an enum, objects, arrays.
fn is_branch(one: &Alternative<'_>, other: &Alternative<'_>) -> bool {
    match (one.value, other.value) {
        (Some(_), Some(_)) => true,
        (None, None) => one.kind == other.kind && matches!(one.kind, Kind::Object | Kind::Array),
        _ => false,
    }
}

/// What a shape asks for by a keyword; formats of numbers are bounds.
fn asked<'s>(shape: &Alternative<'s>, keyword: &str) -> Vec<Place<'s>> {
    let is_bound = |place: &&Place<'_>| {
        keyword == "format" && place.value.as_str().is_some_and(bounds::is_format_of_number)
    };
    let is_nothing = |place: &&Place<'_>| keyword == "uniqueItems" && place.value == &Value::Bool(false);
    let places = shape.asked.get(keyword).into_iter().flatten();
    places.filter(|place| !is_bound(place) && !is_nothing(place)).cloned().collect()
}

fn alike(older: &[Place<'_>], newer: &[Place<'_>]) -> bool {
    older.len() == newer.len() && older.iter().zip(newer).all(|(before, after)| is_same(before, after))
}

fn divides(divisor: &Value, number: &Value) -> bool {
    match (divisor.as_u64(), number.as_u64()) {
        (Some(divisor), Some(number)) => number.checked_rem(divisor) == Some(0),
        _ => false,
    }
}

/// Shapes that stand in a text before it is cut short.
const LABELS_MAX: usize = 6;

fn labels(shapes: &[Alternative<'_>]) -> String {
    let mut labels = Vec::new();
    for shape in shapes {
        let label = shape.label();
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    if labels.is_empty() {
        return "nothing".into();
    }
    let others = labels.len().saturating_sub(LABELS_MAX);
    labels.truncate(LABELS_MAX);
    if others > 0 {
        labels.push(format!("{others} others"));
    }
    labels.join(" or ")
}
