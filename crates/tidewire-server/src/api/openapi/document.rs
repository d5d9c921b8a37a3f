//! The document, from the routes.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use tidewire_protocol::http::ApiError;

use super::{Access, Answer, Body, JSON, Operation, Route};

/// Where the schemas of types are.
const SCHEMAS: &str = "/components/schemas";

/// What a request is refused with.
#[derive(JsonSchema)]
#[schemars(rename = "Refusal")]
#[expect(dead_code, reason = "only its schema is needed")]
struct Refused<'a> {
    /// Why.
    error: ApiError<'a>,
}

/// The document of these routes, and of the methods of the server API, which share one.
pub(in super::super) fn document<'r>(
    routes: impl IntoIterator<Item = &'r Route>,
    methods: &[(&str, Operation)],
) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in routes {
        let operations = route.operations.iter();
        let operations =
            operations.map(|(verb, said)| ((*verb).to_owned(), said.written(route.path, &mut generator)));
        paths.insert(route.path.to_owned(), Value::Object(operations.collect()));
    }
    for (name, said) in methods {
        let path = format!("/api/{name}");
        let operation = said.written(&path, &mut generator);
        paths.insert(path, json!({ "post": operation }));
    }
    let refused = json!({
        "description": "It was refused. Under /v1 the status says whose turn it is; a method of /api that failed itself answers 200.",
        "content": { JSON: { "schema": generator.subschema_for::<Refused<'_>>() } },
    });
    let key = |name: &str, description: &str| json!({ "type": "apiKey", "in": "header", "name": name, "description": description });
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidewire",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The HTTP API of a Tidewire server: the server API, compatible with Centrifugo's, under /api, and the REST API under /v1. Every answer has an X-Request-Id, under which the log says more.",
            "license": { "name": "MIT or Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "security": [{ "ApiKey": [] }, { "Authorization": [] }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": { "Refused": refused },
            "securitySchemes": {
                "ApiKey": key("X-API-Key", "An API key of a tenant."),
                "Authorization": key("Authorization", "The word apikey, a space, and an API key of a tenant."),
            },
        },
    });
    unlink(&mut document);
    document
}

impl Operation {
    fn written(&self, path: &str, generator: &mut SchemaGenerator) -> Value {
        let mut operation = Map::new();
        operation.insert("operationId".into(), self.id.into());
        operation.insert("summary".into(), self.summary.into());
        operation.insert("tags".into(), json!([tag_of(path)]));
        if self.access == Access::Open {
            operation.insert("security".into(), json!([]));
        }
        let parameters: Vec<_> = of_path(path).chain(self.of_query(generator)).collect();
        if !parameters.is_empty() {
            operation.insert("parameters".into(), parameters.into());
        }
        if let Some(Body { media_types, shape, is_required }) = &self.body {
            let schema = shape(generator);
            let content =
                media_types.iter().map(|media_type| ((*media_type).to_owned(), json!({ "schema": schema })));
            let content: Map<_, _> = content.collect();
            operation.insert("requestBody".into(), json!({ "required": is_required, "content": content }));
        }
        let answers = self.answers.iter().map(|answer| (answer.status.to_owned(), answer.written(generator)));
        let mut responses: Map<_, _> = answers.collect();
        if self.access == Access::Key {
            responses.insert("default".into(), json!({ "$ref": "#/components/responses/Refused" }));
        }
        operation.insert("responses".into(), responses.into());
        operation.into()
    }

    fn of_query(&self, generator: &mut SchemaGenerator) -> Vec<Value> {
        let Some(shape) = self.query else { return Vec::new() };
        let schema = shape(generator);
        let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let parameter = |(name, schema): (&String, &Value)| json!({ "name": name, "in": "query", "schema": if_given(schema.clone()) });
        fields.map(parameter).collect()
    }
}

impl Answer {
    fn written(&self, generator: &mut SchemaGenerator) -> Value {
        let Some(media_type) = self.media_type else { return json!({ "description": self.said }) };
        let content = match self.shape {
            Some(shape) => json!({ "schema": shape(generator) }),
            None => json!({}),
        };
        json!({ "description": self.said, "content": { media_type: content } })
    }
}

/// The schema of a parameter that may be left out, where it is not: a query has no null.
fn if_given(mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("default");
        if let Some([kind, Value::String(null)]) =
            fields.get("type").and_then(Value::as_array).map(Vec::as_slice)
            && null == "null"
        {
            let kind = kind.clone();
            fields.insert("type".into(), kind);
        }
    }
    schema
}

fn tag_of(path: &str) -> &'static str {
    match path {
        _ if path.starts_with("/api/") => "Server API",
        _ if path.starts_with("/v1/") => "REST API",
        _ => "Node",
    }
}

/// The parameters of a path: its parts in braces.
fn of_path(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
}

/// Turns links between types, which the descriptions of types have, into names.
fn unlink(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "description" => *text = without_links(text),
                    field => unlink(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unlink),
        _ => {}
    }
}

fn without_links(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, linked)) = rest.split_once("[`") {
        let Some((name, after)) = linked.split_once("`]") else { break };
        plain.push_str(&format!("{before}`{name}`"));
        rest = match after.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    plain.push_str(rest);
    plain
}
