//! Hiding what a schema marks as personal from those who only operate the system.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Map, Value};

use super::marks::REDACT;
use crate::event::Event;

/// What stands in place of what is hidden.
pub const HIDDEN: &str = "***";

/// Values shorter than this are taken out of a text only where they stand as a word.
const WORD_BYTES: usize = 4;

/// Values that are looked for in a text; where more are marked, all of the text is hidden.
const VALUES_MAX: usize = 1_000;

/// The data of an event, with what is marked hidden; all of it where it cannot be looked into.
pub(super) fn redacted(event: &Event, schema: &Value) -> Value {
    match serde_json::from_slice::<Value>(event.data()) {
        Ok(mut value) => {
            let mut hide = |value: &mut Value| *value = HIDDEN.into();
            visit(&mut value, vec![schema], schema, &mut hide);
            value
        }
        Err(_) => HIDDEN.into(),
    }
}

/// The text without the values of `data` that are marked; none if it holds none of them.
pub(super) fn scrubbed(text: &str, data: &[u8], schema: &Value) -> Option<Box<str>> {
    let mut value = serde_json::from_slice::<Value>(data).ok()?;
    let mut hidden = BTreeSet::new();
    visit(&mut value, vec![schema], schema, &mut |value| leaves(value, schema, &mut hidden));
    if hidden.len() > VALUES_MAX {
        return Some(HIDDEN.into());
    }
    let mut found: Vec<_> = hidden.iter().flat_map(|value| places(text, value)).collect();
    found.sort_unstable_by_key(|place| place.start);
    let (mut scrubbed, mut shown) = (String::new(), 0);
    for place in &found {
        // What begins within the one before it is a part of it, or goes on where it ends.
        if place.start >= shown {
            scrubbed.push_str(text.get(shown..place.start)?);
            scrubbed.push_str(HIDDEN);
        }
        shown = shown.max(place.end);
    }
    scrubbed.push_str(text.get(shown..)?);
    (!found.is_empty()).then(|| scrubbed.into())
}

/// How many of the steps from the whole data to a place in it may be told: what lies within something marked may be named by
/// the data, as the keys of a map are.
pub(super) fn told(steps: impl Iterator<Item = impl AsRef<str>>, schema: &Value) -> usize {
    let Some(mut schemas) = applied(vec![schema], schema) else { return 0 };
    let mut count = 0;
    for step in steps {
        let step = step.as_ref();
        count += 1;
        let index = step.parse().ok();
        let within = schemas.iter().flat_map(|keywords| {
            of_property(keywords, step).chain(index.into_iter().flat_map(|index| of_item(keywords, index)))
        });
        match applied(within.collect(), schema) {
            Some(within) => schemas = within,
            None => return count,
        }
    }
    count
}

/// Whether all of a property is marked.
pub(super) fn is_marked(property: &Value, root: &Value) -> bool {
    applied(vec![property], root).is_none()
}

/// Whether a schema says that it hides what it is for. What is neither yes nor no is taken for a yes.
pub(super) fn says_redact(keywords: &Map<String, Value>) -> bool {
    keywords.get(REDACT).is_some_and(|asked| *asked != Value::Bool(false))
}

/// Calls `hide` with each part of `value` that one of the schemas marks. Each part is looked at once, whatever the schemas are.
fn visit<'s>(value: &mut Value, schemas: Vec<&'s Value>, root: &'s Value, hide: &mut impl FnMut(&mut Value)) {
    let Some(schemas) = applied(schemas, root) else { return hide(value) };
    if schemas.is_empty() {
        return;
    }
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let within = schemas.iter().flat_map(|keywords| of_property(keywords, name));
                visit(value, within.collect(), root, hide);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter_mut().enumerate() {
                let within = schemas.iter().flat_map(|keywords| of_item(keywords, index));
                visit(value, within.collect(), root, hide);
            }
        }
        _ => {}
    }
}

/// The schemas and all that they apply to the same value; none if one of them hides it, or refers to what is not found.
fn applied<'s>(schemas: Vec<&'s Value>, root: &'s Value) -> Option<Vec<&'s Map<String, Value>>> {
    let (mut known, mut next) = (Vec::<&Map<String, Value>>::new(), schemas);
    while let Some(schema) = next.pop() {
        let Some(keywords) = schema.as_object() else { continue };
        if known.iter().any(|other| std::ptr::eq(*other, keywords)) {
            continue;
        }
        if says_redact(keywords) || keywords.contains_key("$dynamicRef") {
            return None;
        }
        if let Some(target) = keywords.get("$ref") {
            next.push(target.as_str().and_then(|target| root.pointer(target.strip_prefix('#')?))?);
        }
        // What any branch marks is hidden, whichever of them the data keeps to.
        for keyword in ["allOf", "anyOf", "oneOf"] {
            next.extend(keywords.get(keyword).and_then(Value::as_array).into_iter().flatten());
        }
        next.extend(["if", "then", "else"].iter().filter_map(|keyword| keywords.get(*keyword)));
        next.extend(
            keywords.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(Map::values),
        );
        known.push(keywords);
    }
    Some(known)
}

/// The schemas of a property. Patterns are not matched: what one of them marks is hidden in all.
fn of_property<'s>(keywords: &'s Map<String, Value>, name: &str) -> impl Iterator<Item = &'s Value> {
    let named = keywords.get("properties").and_then(|properties| properties.get(name));
    let patterns =
        keywords.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let others =
        ["additionalProperties", "unevaluatedProperties"].iter().filter_map(|keyword| keywords.get(*keyword));
    named.into_iter().chain(patterns).chain(others.filter(move |_| named.is_none()))
}

/// The schemas of an item.
fn of_item(keywords: &Map<String, Value>, index: usize) -> impl Iterator<Item = &Value> {
    let first = keywords.get("prefixItems").and_then(Value::as_array).and_then(|first| first.get(index));
    let others = ["items", "unevaluatedItems"].iter().filter_map(|keyword| keywords.get(*keyword));
    first.into_iter().chain(others.filter(move |_| first.is_none())).chain(keywords.get("contains"))
}

/// The texts and numbers within a value, and the names that it chose itself, as a text may hold them; a little more than are
/// looked for at most.
fn leaves(value: &Value, schema: &Value, into: &mut BTreeSet<String>) {
    if into.len() > VALUES_MAX {
        return;
    }
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => drop(into.insert(number.to_string())),
        Value::String(text) => text_leaf(text, into),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, schema, into)),
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            if !has_property(schema, name) {
                text_leaf(name, into);
            }
            leaves(value, schema, into);
        }),
    }
}

/// Whether a schema names such a property anywhere.
fn has_property(schema: &Value, name: &str) -> bool {
    match schema {
        Value::Object(keywords) => {
            let named = keywords.get("properties").and_then(|properties| properties.get(name));
            named.is_some() || keywords.values().any(|within| has_property(within, name))
        }
        Value::Array(schemas) => schemas.iter().any(|within| has_property(within, name)),
        _ => false,
    }
}

fn text_leaf(text: &str, into: &mut BTreeSet<String>) {
    if text.is_empty() {
        return;
    }
    into.insert(text.to_owned());
    let escaped = Value::from(text).to_string();
    // Without the quotes around it.
    into.extend(escaped.get(1..escaped.len() - 1).map(ToOwned::to_owned));
}

/// Where `value` stands in the text; a short one only where it is a word.
fn places<'t>(text: &'t str, value: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
    let is_part = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
    let is_word = move |start: usize| {
        let (before, after) = (text.get(..start), text.get(start + value.len()..));
        !is_part(before.and_then(|text| text.chars().next_back()))
            && !is_part(after.and_then(|text| text.chars().next()))
    };
    text.match_indices(value)
        .map(|(start, _)| start)
        .filter(move |start| value.len() >= WORD_BYTES || is_word(*start))
        .map(|start| start..start + value.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "properties": {
                "id": {"type": "integer"},
                "mail": {"type": "string", "x-redact": true},
                "people": {"type": "array", "items": {"$ref": "#/$defs/Person"}},
                "next": {"$ref": "#"},
                "codes": {"additionalProperties": {"x-redact": true}},
                "paid": {"oneOf": [{"properties": {"card": {"x-redact": true}}}, {"type": "null"}]},
            },
            "$defs": {
                "Person": {"allOf": [{"$ref": "#/$defs/Named"}]},
                "Named": {"properties": {"name": {"x-redact": true}, "age": {"type": "integer"}}},
                "Loop": {"$ref": "#/$defs/Loop"},
            },
        })
    }

    #[test]
    fn what_is_marked_is_hidden_wherever_the_schema_finds_it() {
        let data = json!({
            "id": 7, "mail": "ann@example.com", "people": [{"name": {"first": "Ann"}, "age": 30}],
            "next": {"mail": "bob@example.com", "next": {"mail": null}},
            "codes": {"a": 1}, "paid": {"card": 4111, "at": "noon"},
        });
        let event = Event::new("a", data.to_string());
        let expected = json!({
            "id": 7, "mail": "***", "people": [{"name": "***", "age": 30}],
            "next": {"mail": "***", "next": {"mail": "***"}},
            "codes": {"a": "***"}, "paid": {"card": "***", "at": "noon"},
        });
        assert_eq!(redacted(&event, &schema()), expected);
        assert_eq!(redacted(&Event::new("a", "no JSON"), &schema()), json!("***"));
    }

    #[test]
    fn a_schema_that_refers_to_itself_comes_to_an_end() {
        let root =
            json!({"$ref": "#", "anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}});
        let mut value = json!({"a": 1});
        visit(&mut value, vec![&root], &root, &mut |_| panic!("nothing is marked"));
    }

    #[test]
    fn a_text_loses_what_is_marked() {
        let data = json!({"id": 7, "mail": "ann@x.de", "people": [{"name": "O\"Neil"}], "codes": {"pin": 12, "b": ""}});
        let scrub = |text: &str| scrubbed(text, data.to_string().as_bytes(), &schema());
        assert_eq!(scrub("order 7: no mail to ann@x.de").as_deref(), Some("order 7: no mail to ***"));
        assert_eq!(scrub(r#"who is "O\"Neil"?"#).as_deref(), Some(r#"who is "***"?"#));
        assert_eq!(scrub("pin 12 of 120").as_deref(), Some("pin *** of 120"));
        assert_eq!(scrub("the carrier is closed"), None);
    }

    #[test]
    fn what_cannot_be_followed_hides_all_of_it() {
        let data = json!({"a": {"b": 1}, "c": 2});
        for marked in [
            json!({"$ref": "#marked"}),
            json!({"$ref": "https://example.com/person"}),
            json!({"$dynamicRef": "#marked"}),
            json!({"x-redact": "yes"}),
        ] {
            let schema = json!({"properties": {"a": marked}});
            let event = Event::new("a", data.to_string());
            assert_eq!(redacted(&event, &schema), json!({"a": "***", "c": 2}), "{schema}");
        }
    }

    #[test]
    fn marks_are_found_behind_every_keyword() {
        let marked = json!({"x-redact": true});
        for schema in [
            json!({"patternProperties": {"^a": marked}}),
            json!({"unevaluatedProperties": marked}),
            json!({"if": {"required": ["b"]}, "then": {"properties": {"a": marked}}}),
            json!({"dependentSchemas": {"b": {"properties": {"a": marked}}}}),
        ] {
            assert_eq!(redacted(&Event::new("a", r#"{"a":1}"#), &schema), json!({"a": "***"}), "{schema}");
        }
        let schema = json!({"contains": marked});
        assert_eq!(redacted(&Event::new("a", "[1,2]"), &schema), json!(["***", "***"]));
    }

    #[test]
    fn branches_that_recur_take_no_time_of_their_own() {
        let branch = json!({"properties": {"next": {"$ref": "#"}, "name": {"x-redact": true}}});
        let schema = json!({"anyOf": [branch, branch, branch]});
        let deep = "{\"next\":".repeat(100) + r#"{"name":"Ann"}"# + &"}".repeat(100);
        assert!(!redacted(&Event::new("a", deep), &schema).to_string().contains("Ann"));
    }

    #[test]
    fn a_text_cannot_be_made_to_grow() {
        let schema = json!({"items": {"x-redact": true}});
        let values: Vec<_> =
            (0..900).map(|number| if number % 2 == 0 { "*".into() } else { format!("a{number}") }).collect();
        let data = json!(values).to_string();
        let scrubbed = scrubbed("* of a1 and a3*", data.as_bytes(), &schema).unwrap();
        assert!(scrubbed.len() < 40 && !scrubbed.contains("a1"), "{scrubbed}");
    }

    #[test]
    fn a_text_is_hidden_where_too_much_is_marked() {
        let schema = json!({"items": {"x-redact": true}});
        let data = json!((0..5_000).collect::<Vec<_>>()).to_string();
        assert_eq!(scrubbed("is 4711 known?", data.as_bytes(), &schema).as_deref(), Some("***"));
    }

    #[test]
    fn names_within_what_is_marked_are_not_told() {
        let schema = json!({"properties": {"phones": {"x-redact": true}, "list": {"items": {"properties": {"to": {"x-redact": true}}}}}});
        let count = |pointer: &str| told(pointer.split('/').skip(1), &schema);
        assert_eq!(
            (count("/phones/ann@x.de/0"), count("/list/3/to/ann"), count("/list/3/from/x")),
            (1, 3, 4)
        );
        let data = json!({"phones": {"ann@x.de": 4711}});
        let text = scrubbed("ann@x.de has no phone", data.to_string().as_bytes(), &schema);
        assert_eq!(text.as_deref(), Some("*** has no phone"));
        let schema = json!({"properties": {"who": {"$ref": "#/$defs/who", "x-redact": true}}, "$defs": {"who": {"properties": {"name": {}}}}});
        let text = scrubbed("no name but Anna", br#"{"who":{"name":"Anna"}}"#, &schema);
        assert_eq!(text.as_deref(), Some("no name but ***"), "what the schema names is no secret");
    }
}
