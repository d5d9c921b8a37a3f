//! The OpenAPI document, against what a server really answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidewire_server::Server;
use tidewire_server::config::DEV_API_KEY;

use crate::client::{Client, dev, dev_token, get, request, start};

/// What was asked for and answered, held against the document.
struct Checked {
    server: Server,
    document: Value,
    /// Verb and path of each operation whose answer was held against its schema.
    operations: BTreeSet<String>,
}

impl Checked {
    async fn new() -> Self {
        let server = start(dev()).await;
        let reply = get(&server, "/openapi.json").await;
        assert_eq!(reply.status, 200);
        let mut document = reply.json();
        // What the document does not name must not be answered either.
        for (_, schema) in document["components"]["schemas"].as_object_mut().unwrap() {
            if let Some(schema) = schema.as_object_mut()
                && schema.contains_key("properties")
            {
                schema.entry("additionalProperties").or_insert(false.into());
            }
        }
        Self { server, document, operations: BTreeSet::new() }
    }

    fn schema(&self, verb: &str, path: &str, status: u16) -> Value {
        let answers = &self.document["paths"][path][verb]["responses"];
        let answer = answers.get(status.to_string()).unwrap_or(&answers["default"]);
        let answer = match answer["$ref"].as_str() {
            Some(reference) => self.document.pointer(reference.trim_start_matches('#')).unwrap(),
            None => answer,
        };
        let mut schema = answer["content"]["application/json"]["schema"].clone();
        assert!(schema.is_object(), "{verb} {path} {status} is not in the document: {answers}");
        schema["components"] = self.document["components"].clone();
        schema
    }

    /// Sends a request to a path of the document, with `parts` for its parameters; the answer, which is as its schema says.
    async fn ask(
        &mut self,
        verb: &str,
        path: &str,
        parts: &[&str],
        query: &str,
        body: Value,
    ) -> (u16, Value) {
        let mut target = path.to_owned();
        for part in parts {
            let (start, end) = (target.find('{').unwrap(), target.find('}').unwrap());
            target.replace_range(start..=end, part);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut headers = vec![("X-API-Key", DEV_API_KEY)];
        if path.ends_with("/events") {
            headers.push(("Content-Type", "application/cloudevents+json"));
        }
        let verb_sent = verb.to_uppercase();
        let reply =
            request(self.server.addr(), &verb_sent, &format!("{target}{query}"), &headers, &body).await;
        let (status, answer) = (reply.status, reply.json());
        let validator = jsonschema::draft202012::new(&self.schema(verb, path, status)).unwrap();
        let wrong: Vec<_> = validator
            .iter_errors(&answer)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{verb} {target}: {wrong:?} in {answer}");
        if status < 300 && answer.get("error").is_none() {
            self.operations.insert(format!("{verb} {path}"));
        }
        (status, answer)
    }

    async fn call(&mut self, method: &str, body: Value) -> Value {
        self.ask("post", &format!("/api/{method}"), &[], "", body).await.1
    }
}

async fn call_the_server_api(checked: &mut Checked) {
    let (mut client, _) = Client::subscribed(&checked.server, "room").await;
    let mut ann = Client::with_token(&checked.server, &dev_token("ann")).await;
    client.call("publish", json!({"channel": "room", "data": 1})).await.unwrap();
    checked
        .call("publish", json!({"channel": "room", "data": {"n": 1}, "tags": {"a": "b"}, "version": 1}))
        .await;
    checked.call("broadcast", json!({"channels": ["room", "no spaces"], "data": 1})).await;
    checked.call("subscribe", json!({"user": "ann", "channel": "room", "data": 1})).await;
    ann.push().await;
    checked.call("presence", json!({"channel": "room"})).await;
    checked.call("presence_stats", json!({"channel": "room"})).await;
    checked.call("history", json!({"channel": "room", "limit": 10, "since": {"offset": 0}})).await;
    checked.call("channels", json!({})).await;
    checked.call("info", json!({})).await;
    checked.call("batch", json!({"commands": [{"info": {}}, {"publish": {"channel": "room"}}]})).await;
    let members = "/v1/channels/{channel}/presence";
    checked.ask("get", members, &["room"], "?limit=1", Value::Null).await;
    checked.call("unsubscribe", json!({"user": "ann", "channel": "room"})).await;
    checked.call("refresh", json!({"user": "ann", "expire_at": 0})).await;
    checked.call("disconnect", json!({"user": "ann"})).await;
    checked.call("history_remove", json!({"channel": "room"})).await;
    ann.closed().await;
    checked.ask("get", "/v1/connections/closed", &[], "?user=ann", Value::Null).await;
    // What is refused is in the document too.
    assert!(checked.call("publish", json!({"channel": "room"})).await.get("error").is_some());
    assert_eq!(checked.ask("get", members, &["room"], "?limit=0", Value::Null).await.0, 400);
}

async fn work_in_a_group(checked: &mut Checked) {
    let group = "/v1/channels/{channel}/groups/{group}";
    let parts = ["orders", "billing"];
    assert_eq!(checked.ask("put", group, &parts, "", json!({"start": "earliest"})).await.0, 201);
    assert_eq!(checked.ask("put", group, &parts, "", json!({"start": "earliest"})).await.0, 200);
    let event =
        json!({"specversion": "1.0", "id": "7", "source": "/test", "type": "order.placed", "data": {"n": 1}});
    let events = "/v1/channels/{channel}/events";
    checked.ask("post", events, &["orders"], "", event.clone()).await;
    let again = checked.ask("post", events, &["orders"], "", event).await.1;
    assert_eq!(again["duplicate"], true);
    let fetch = json!({"limit": 1, "wait_ms": 5_000, "lease_ms": 30_000});
    let fetched = checked.ask("post", &format!("{group}/fetch"), &parts, "", fetch).await.1;
    let (lease, id) = (&fetched["lease"], &fetched["deliveries"][0]["id"]);
    checked
        .ask("post", &format!("{group}/extend"), &parts, "", json!({"lease": lease, "lease_ms": 30_000}))
        .await;
    let outcomes = json!([{"id": id, "outcome": "reject", "reason": "no"}]);
    checked
        .ask("post", &format!("{group}/settle"), &parts, "", json!({"lease": lease, "outcomes": outcomes}))
        .await;
    checked.ask("get", group, &parts, "", Value::Null).await;
    checked.ask("get", "/v1/channels/{channel}/groups", &["orders"], "", Value::Null).await;
    let letters =
        checked.ask("get", &format!("{group}/dead-letters"), &parts, "?limit=1", Value::Null).await.1;
    let letter = letters["letters"][0]["id"].as_str().unwrap();
    let one = format!("{group}/dead-letters/{{id}}");
    checked.ask("get", &one, &["orders", "billing", letter], "", Value::Null).await;
    checked.ask("get", &format!("{group}/dead-letters/reasons"), &parts, "", Value::Null).await;
    let trace = "/v1/channels/{channel}/trace/{event}";
    let event = fetched["deliveries"][0]["event"]["id"].as_str().unwrap();
    checked.ask("get", trace, &["orders", event], "", Value::Null).await;
    let replay = json!({"filter": {"kind": "rejected"}, "dry_run": true, "by": "ann"});
    checked.ask("post", &format!("{group}/dead-letters/replay"), &parts, "", replay).await;
    checked.ask("post", &format!("{group}/dead-letters/purge"), &parts, "", json!({"all": true})).await;
    checked.ask("get", &format!("{group}/audit"), &parts, "", Value::Null).await;
    checked.ask("post", &format!("{group}/seek"), &parts, "", json!({"to": "latest"})).await;
    checked.ask("delete", group, &parts, "?by=ann", Value::Null).await;
    assert_eq!(checked.ask("get", group, &parts, "", Value::Null).await.0, 404);
}

#[tokio::test]
async fn what_a_server_answers_is_what_the_document_says() {
    let mut checked = Checked::new().await;
    call_the_server_api(&mut checked).await;
    work_in_a_group(&mut checked).await;
    for path in
        ["/ready", "/openapi.json", "/v1/webhooks", "/v1/schemas", "/v1/catalog.json", "/v1/asyncapi.json"]
    {
        checked.ask("get", path, &[], "", Value::Null).await;
    }
    let is_left = |operation: &String| !checked.operations.contains(operation);
    let left: Vec<_> = operations(&checked.document).into_iter().filter(is_left).collect();
    // Text, what has no end, and what needs a webhook or a catalog: those are tested beside them.
    let expected = [
        "get /health",
        "get /metrics",
        "get /v1/schemas/{type}",
        "get /v1/schemas/{type}/{version}",
        "get /v1/users/{user}/tap",
        "get /v1/webhooks/{name}",
        "post /emulation",
        "post /v1/webhooks/{name}/disable",
        "post /v1/webhooks/{name}/enable",
        "post /v1/webhooks/{name}/test",
    ];
    assert_eq!(left, expected);
}

const VERBS: [&str; 5] = ["delete", "get", "patch", "post", "put"];

/// Verb and path of each.
fn operations(document: &Value) -> Vec<String> {
    let paths = document["paths"].as_object().unwrap().iter();
    let mut all: Vec<_> = paths
        .flat_map(|(path, verbs)| verbs.as_object().unwrap().keys().map(move |verb| format!("{verb} {path}")))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn every_verb_of_a_path_is_in_the_document_or_refused() {
    let server = start(dev()).await;
    let document = get(&server, "/openapi.json").await.json();
    for (path, described) in document["paths"].as_object().unwrap() {
        let target: String = path.replace(['{', '}'], "");
        for verb in VERBS {
            let reply = request(server.addr(), &verb.to_uppercase(), &target, &[], "").await;
            assert_eq!(reply.status == 405, described.get(verb).is_none(), "{verb} {path} {}", reply.status);
            let is_open = described[verb]["security"] == json!([]);
            if described.get(verb).is_some() {
                assert_eq!(reply.status == 401, !is_open, "{verb} {path}: who may call it");
            }
        }
    }
}
