//! What stands in a schema beside what it checks.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::redact::{is_marked, says_redact};

/// What a property of an event's data is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Events with the same value are ordered.
    Key,
    /// What the event is about.
    Subject,
    /// Whose event it is.
    Tenant,
}

impl Mark {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Key, "x-key"), (Self::Subject, "x-subject"), (Self::Tenant, "x-tenant")];
}

/// The keyword that hides a part of the data.
pub(super) const REDACT: &str = "x-redact";

/// Keywords that reading into a Rust type checks as well, or that check nothing.
const STRUCTURAL: &[&str] = &[
    "$comment",
    "$defs",
    "$id",
    "$ref",
    "$schema",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contentEncoding",
    "contentMediaType",
    "default",
    "deprecated",
    "description",
    "enum",
    "examples",
    "format",
    "items",
    "oneOf",
    "prefixItems",
    "properties",
    "readOnly",
    "required",
    "title",
    "type",
    "unevaluatedProperties",
    "writeOnly",
];

/// What was found in a schema when its contract was made.
pub(super) struct Marks {
    properties: BTreeMap<Mark, Box<str>>,
    has_redactions: bool,
    has_constraints: bool,
}

impl Marks {
    pub(super) fn of(schema: &Value) -> Self {
        let mut marks = Self { properties: BTreeMap::new(), has_redactions: false, has_constraints: false };
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            for (mark, keyword) in Mark::ALL {
                if property.get(keyword) == Some(&Value::Bool(true)) {
                    marks.properties.entry(mark).or_insert_with(|| name.as_str().into());
                }
            }
        }
        marks.visit(schema);
        marks
    }

    pub(super) fn property(&self, mark: Mark) -> Option<&str> {
        self.properties.get(&mark).map(|name| &**name)
    }

    /// The first property that is marked both to be seen by everybody and to be hidden.
    pub(super) fn contradiction(&self, schema: &Value) -> Option<&str> {
        let property = |name: &str| schema.get("properties")?.get(name);
        let mut names = self.properties.values().map(|name| &**name);
        names.find(|name| property(name).is_some_and(|property| is_marked(property, schema)))
    }

    pub(super) fn has_redactions(&self) -> bool {
        self.has_redactions
    }

    pub(super) fn has_constraints(&self) -> bool {
        self.has_constraints
    }

    fn visit(&mut self, schema: &Value) {
        let Some(schema) = schema.as_object() else { return };
        for (keyword, asked) in schema {
            match keyword.as_str() {
                REDACT => self.has_redactions |= says_redact(schema),
                // Names of ours to choose, and not keywords, stand here.
                "properties" | "$defs" | "patternProperties" => {
                    asked.as_object().into_iter().flatten().for_each(|(_, schema)| self.visit(schema));
                }
                "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                    asked.as_array().into_iter().flatten().for_each(|schema| self.visit(schema));
                }
                _ => self.visit(asked),
            }
            self.has_constraints |= is_constraint(keyword, schema);
        }
    }
}

/// Whether a keyword refuses what the Rust type that the schema was made from would take.
fn is_constraint(keyword: &str, schema: &Map<String, Value>) -> bool {
    if keyword.starts_with("x-") || STRUCTURAL.contains(&keyword) {
        return false;
    }
    // An unsigned or small integer says its range, which its type holds by itself.
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    let is_bound_of_type = match (keyword, format) {
        ("minimum", "uint" | "uint8" | "uint16" | "uint32" | "uint64" | "uint128") => {
            schema.get(keyword).is_some_and(|min| *min == 0)
        }
        ("minimum", "int8") => schema.get(keyword).is_some_and(|min| *min == i8::MIN),
        ("minimum", "int16") => schema.get(keyword).is_some_and(|min| *min == i16::MIN),
        ("maximum", "int8") => schema.get(keyword).is_some_and(|max| *max == i8::MAX),
        ("maximum", "int16") => schema.get(keyword).is_some_and(|max| *max == i16::MAX),
        ("maximum", "uint8") => schema.get(keyword).is_some_and(|max| *max == u8::MAX),
        ("maximum", "uint16") => schema.get(keyword).is_some_and(|max| *max == u16::MAX),
        _ => false,
    };
    !is_bound_of_type
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn constrained(schema: &Value) -> bool {
        Marks::of(schema).has_constraints()
    }

    #[test]
    fn what_a_rust_type_holds_by_itself_is_no_constraint() {
        assert!(!constrained(&json!({
            "type": "object", "required": ["minimum"],
            "properties": {
                "minimum": {"type": "integer", "format": "uint32", "minimum": 0},
                "size": {"type": "integer", "format": "uint8", "minimum": 0, "maximum": 255},
                "state": {"oneOf": [{"const": "open"}, {"enum": ["done", "lost"]}]},
                "id": {"type": "string", "format": "uuid", "x-key": true},
            },
        })));
    }

    #[test]
    fn what_it_would_take_and_the_schema_does_not_is_one() {
        for (keyword, asked) in [
            ("minimum", json!(1)),
            ("maxLength", json!(3)),
            ("pattern", json!("^a")),
            ("uniqueItems", json!(true)),
            ("not", json!({"const": 1})),
            ("if", json!({})),
        ] {
            let schema = json!({"properties": {"list": {"items": {keyword: asked, "format": "uint32"}}}});
            assert!(constrained(&schema), "{schema}");
            assert!(constrained(&json!({"$defs": {"x": schema}})));
        }
    }

    #[test]
    fn marks_are_found_by_the_names_of_properties() {
        let marks = Marks::of(&json!({
            "properties": {"orderId": {"type": "string", "x-key": true, "x-subject": true}, "card": {"$ref": "#/$defs/Card"}},
            "$defs": {"Card": {"properties": {"number": {"x-redact": true}}}},
        }));
        assert_eq!(
            (marks.property(Mark::Key), marks.property(Mark::Subject)),
            (Some("orderId"), Some("orderId"))
        );
        assert_eq!(marks.property(Mark::Tenant), None);
        assert!(marks.has_redactions());
    }
}
