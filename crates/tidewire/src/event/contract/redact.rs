//! Hiding what a schema marks as personal from those who only operate the system.

use serde_json::Value;

use super::marks::REDACT;
use crate::event::Event;

/// What stands in place of what is hidden.
pub const HIDDEN: &str = "***";

/// Values shorter than this are taken out of a text only where they stand as a word.
const WORD_BYTES: usize = 4;

/// The data of an event, with what is marked hidden; all of it where it cannot be looked into.
pub(super) fn redacted(event: &Event, schema: &Value) -> Value {
    match serde_json::from_slice::<Value>(event.data()) {
        Ok(mut value) => {
            let mut hide = |value: &mut Value| *value = HIDDEN.into();
            visit(&mut value, schema, schema, &mut Vec::new(), &mut hide);
            value
        }
        Err(_) => HIDDEN.into(),
    }
}

/// The text without the values of `data` that are marked; none if it holds none of them.
pub(super) fn scrubbed(text: &str, data: &[u8], schema: &Value) -> Option<Box<str>> {
    let mut value = serde_json::from_slice::<Value>(data).ok()?;
    let mut hidden = Vec::new();
    visit(&mut value, schema, schema, &mut Vec::new(), &mut |value| leaves(value, &mut hidden));
    // The longest first: one value may be a part of another.
    hidden.sort_by_key(|value| std::cmp::Reverse(value.len()));
    hidden.dedup();
    let mut scrubbed = text.to_owned();
    for value in hidden {
        scrubbed = without(&scrubbed, &value);
    }
    (scrubbed != text).then(|| scrubbed.into())
}

/// Calls `hide` with each part of `value` that the schema marks. `applied` are the schemas that were applied to this value:
/// a schema may refer to itself.
fn visit<'s>(
    value: &mut Value,
    schema: &'s Value,
    root: &'s Value,
    applied: &mut Vec<&'s Value>,
    hide: &mut impl FnMut(&mut Value),
) {
    let Some(keywords) = schema.as_object() else { return };
    if applied.iter().any(|known| std::ptr::eq(*known, schema)) {
        return;
    }
    applied.push(schema);
    if keywords.get(REDACT) == Some(&Value::Bool(true)) {
        return hide(value);
    }
    if let Some(target) = keywords.get("$ref").and_then(Value::as_str)
        && let Some(schema) = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer))
    {
        visit(value, schema, root, applied, hide);
    }
    // What any branch marks is hidden, whichever of them the data keeps to.
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for schema in keywords.get(keyword).and_then(Value::as_array).into_iter().flatten() {
            visit(value, schema, root, applied, hide);
        }
    }
    match value {
        Value::Object(object) => {
            let properties = keywords.get("properties");
            for (name, value) in object {
                let schema = properties.and_then(|properties| properties.get(name));
                if let Some(schema) = schema.or_else(|| keywords.get("additionalProperties")) {
                    visit(value, schema, root, &mut Vec::new(), hide);
                }
            }
        }
        Value::Array(items) => {
            let first = keywords.get("prefixItems").and_then(Value::as_array);
            for (index, value) in items.iter_mut().enumerate() {
                let schema = first.and_then(|first| first.get(index));
                if let Some(schema) = schema.or_else(|| keywords.get("items")) {
                    visit(value, schema, root, &mut Vec::new(), hide);
                }
            }
        }
        _ => {}
    }
}

/// The texts and numbers within a value, as a text may hold them.
fn leaves(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => into.push(number.to_string()),
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => {
            into.push(text.clone());
            let escaped = value.to_string();
            let escaped = escaped.trim_matches('"');
            if escaped != text {
                into.push(escaped.to_owned());
            }
        }
        Value::Array(items) => items.iter().for_each(|item| leaves(item, into)),
        Value::Object(object) => object.values().for_each(|value| leaves(value, into)),
    }
}

/// The text with `value` hidden wherever it stands.
fn without(text: &str, value: &str) -> String {
    let is_long = value.len() >= WORD_BYTES;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(value) {
        let is_word = !out.chars().chain(before.chars()).next_back().is_some_and(char::is_alphanumeric)
            && !after.chars().next().is_some_and(char::is_alphanumeric);
        out.push_str(before);
        out.push_str(if is_long || is_word { HIDDEN } else { value });
        rest = after;
    }
    out.push_str(rest);
    out
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
        visit(&mut value, &root, &root, &mut Vec::new(), &mut |_| panic!("nothing is marked"));
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
}
