//! A schema as the text of a TypeScript type.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The names of types, by the references that schemas have to them.
pub(super) type Names = BTreeMap<String, String>;

/// Writes types; what a type cannot say is left out, so that every right value is of its type.
pub(super) struct Writer<'n> {
    names: &'n Names,
    indent: String,
}

/// The text of a type.
struct Text {
    text: String,
    /// It has `|` or `&` in it that nothing holds together.
    is_compound: bool,
}

impl Text {
    fn one(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_compound: false }
    }

    /// Any of several, each once.
    fn any_of(texts: impl IntoIterator<Item = Self>) -> Self {
        let mut all: Vec<Self> = Vec::new();
        for text in texts {
            if !all.iter().any(|known| known.text == text.text) {
                all.push(text);
            }
        }
        if all.iter().any(|text| text.text == UNKNOWN) {
            return Self::one(UNKNOWN);
        }
        Self::joined(all, " | ").unwrap_or_else(|| Self::one("never"))
    }

    /// All of several at a time.
    fn all_of(texts: impl IntoIterator<Item = Self>) -> Self {
        let mut texts: Vec<_> = texts.into_iter().filter(|text| text.text != UNKNOWN).collect();
        if texts.len() > 1 {
            texts = texts.into_iter().map(|text| Self::one(text.held())).collect();
        }
        Self::joined(texts, " & ").unwrap_or_else(|| Self::one(UNKNOWN))
    }

    fn joined(mut texts: Vec<Self>, between: &str) -> Option<Self> {
        if texts.len() < 2 {
            return texts.pop();
        }
        let text = texts.into_iter().map(|text| text.text).collect::<Vec<_>>().join(between);
        Some(Self { text, is_compound: true })
    }

    fn held(self) -> String {
        if self.is_compound { format!("({})", self.text) } else { self.text }
    }
}

const UNKNOWN: &str = "unknown";
const ANY_OBJECT: &str = "{ [name: string]: unknown }";

impl<'n> Writer<'n> {
    pub(super) fn new(names: &'n Names) -> Self {
        Self { names, indent: String::new() }
    }

    pub(super) fn write(mut self, schema: &Value) -> String {
        self.schema(schema).text
    }

    fn schema(&mut self, schema: &Value) -> Text {
        let keywords = match schema {
            Value::Bool(false) => return Text::one("never"),
            Value::Object(keywords) => keywords,
            _ => return Text::one(UNKNOWN),
        };
        let mut all = vec![self.own(keywords)];
        if let Some(reference) = keywords.get("$ref").and_then(Value::as_str) {
            // What lies within a type has no name.
            all.push(Text::one(self.names.get(reference).map_or(UNKNOWN, String::as_str)));
        }
        for part in list(keywords, "allOf") {
            all.push(self.schema(part));
        }
        for union in ["anyOf", "oneOf"] {
            if keywords.contains_key(union) {
                let branches: Vec<_> = list(keywords, union).map(|branch| self.schema(branch)).collect();
                all.push(Text::any_of(branches));
            }
        }
        Text::all_of(all)
    }

    /// What a schema says by its own keywords.
    fn own(&mut self, keywords: &Map<String, Value>) -> Text {
        // JSON is the type of the one value that it is.
        if let Some(value) = keywords.get("const") {
            return Text::one(value.to_string());
        }
        if keywords.contains_key("enum") {
            return Text::any_of(list(keywords, "enum").map(|value| Text::one(value.to_string())));
        }
        match keywords.get("type") {
            Some(Value::String(kind)) => self.of_kind(kind, keywords),
            Some(Value::Array(kinds)) => {
                let kinds = kinds.iter().filter_map(Value::as_str);
                let texts: Vec<_> = kinds.map(|kind| self.of_kind(kind, keywords)).collect();
                Text::any_of(texts)
            }
            _ if keywords.contains_key("properties") => self.object(keywords),
            _ if keywords.contains_key("prefixItems") || keywords.contains_key("items") => {
                self.array(keywords)
            }
            _ => Text::one(UNKNOWN),
        }
    }

    fn of_kind(&mut self, kind: &str, keywords: &Map<String, Value>) -> Text {
        match kind {
            "integer" | "number" => Text::one("number"),
            "string" | "boolean" | "null" => Text::one(kind),
            "array" => self.array(keywords),
            // With a union beside it, the branches say what is in the object.
            "object" if !keywords.contains_key("properties") && is_elsewhere(keywords) => Text::one(UNKNOWN),
            "object" => self.object(keywords),
            _ => Text::one(UNKNOWN),
        }
    }

    fn array(&mut self, keywords: &Map<String, Value>) -> Text {
        let items = keywords.get("items").map(|items| self.schema(items));
        let first: Vec<_> = list(keywords, "prefixItems").map(|item| self.schema(item)).collect();
        if first.is_empty() {
            return Text::one(format!("{}[]", items.unwrap_or_else(|| Text::one(UNKNOWN)).held()));
        }
        let count = |keyword: &str| keywords.get(keyword).and_then(Value::as_u64);
        let (least, most) = (count("minItems").unwrap_or(0), count("maxItems").unwrap_or(u64::MAX));
        let is_ended = most <= first.len() as u64;
        let mut parts: Vec<String> = Vec::new();
        for (text, index) in first.into_iter().zip(0..most) {
            parts.push(if index < least { text.text } else { format!("{}?", text.held()) });
        }
        let rest = items.unwrap_or_else(|| Text::one(UNKNOWN));
        if !is_ended && rest.text != "never" {
            parts.push(format!("...{}[]", rest.held()));
        }
        Text::one(format!("[{}]", parts.join(", ")))
    }

    fn object(&mut self, keywords: &Map<String, Value>) -> Text {
        let properties = keywords.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty());
        let Some(properties) = properties else { return self.map(keywords) };
        let required: Vec<_> = list(keywords, "required").filter_map(Value::as_str).collect();
        let outer = self.indent.clone();
        self.indent.push_str("  ");
        let mut text = String::from("{\n");
        for (name, schema) in properties {
            let mark = if required.contains(&name.as_str()) { "" } else { "?" };
            let of = self.schema(schema).text;
            let note = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            text.push_str(&doc(note, &self.indent));
            text.push_str(&format!("{}{}{mark}: {of};\n", self.indent, property(name)));
        }
        if ["additionalProperties", "patternProperties"]
            .iter()
            .any(|others| has_schema(keywords.get(*others)))
        {
            // What is said of all names is said of those above too, so nothing narrower can be.
            text.push_str(&format!("{}[name: string]: unknown;\n", self.indent));
        }
        text.push_str(&outer);
        text.push('}');
        self.indent = outer;
        Text::one(text)
    }

    /// An object whose names are not known.
    fn map(&mut self, keywords: &Map<String, Value>) -> Text {
        let patterns = keywords.get("patternProperties").and_then(Value::as_object);
        let mut values: Vec<_> =
            patterns.into_iter().flatten().map(|(_, schema)| self.schema(schema)).collect();
        let others = keywords.get("additionalProperties").or(keywords.get("unevaluatedProperties"));
        match others {
            Some(Value::Bool(false)) if values.is_empty() => return Text::one("{ [name: string]: never }"),
            Some(Value::Bool(false)) => {}
            Some(schema) => values.push(self.schema(schema)),
            None => return Text::one(ANY_OBJECT),
        }
        Text::one(format!("{{ [name: string]: {} }}", Text::any_of(values).text))
    }
}

/// Whether other keywords than its own say what an object has.
fn is_elsewhere(keywords: &Map<String, Value>) -> bool {
    ["$ref", "allOf", "anyOf", "oneOf"].iter().any(|keyword| keywords.contains_key(*keyword))
}

fn has_schema(asked: Option<&Value>) -> bool {
    asked.is_some_and(Value::is_object)
}

fn list<'k>(keywords: &'k Map<String, Value>, keyword: &str) -> impl Iterator<Item = &'k Value> {
    keywords.get(keyword).and_then(Value::as_array).into_iter().flatten()
}

/// The name of a property, in quotes where it is no identifier.
fn property(name: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let is_identifier = name.chars().all(is_part) && name.starts_with(|c: char| !c.is_ascii_digit());
    if is_identifier { name.to_owned() } else { Value::from(name).to_string() }
}

/// A text as a comment on what follows, nothing if it is empty.
pub(super) fn doc(text: &str, indent: &str) -> String {
    let text = text.replace("*/", "*\\/");
    let mut lines = text.lines().map(str::trim_end);
    match (lines.next(), lines.next()) {
        (None, _) => String::new(),
        (Some(only), None) => format!("{indent}/** {only} */\n"),
        _ => {
            let lines: String =
                text.lines().map(|line| format!("{indent} * {line}").trim_end().to_owned() + "\n").collect();
            format!("{indent}/**\n{lines}{indent} */\n")
        }
    }
}
