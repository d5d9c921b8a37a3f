//! What a tenant has agreed of its events, over HTTP.

use std::path::Path;

use serde_json::{Value, json};
use tidewire::Catalog;
use tidewire_server::config::DEV_API_KEY;
use tidewire_server::{Config, Server};

use crate::client::{ACME_KEY, dev, rest, start, strict};

fn catalog() -> Value {
    let event = |event_type: &str, version: u32, schema: Value| json!({"type": event_type, "version": version, "channel": "orders", "schema": schema});
    json!({"catalog": 1, "events": [
        event("order.cancelled", 1, json!({"type": "object"})),
        event("order.placed", 1, json!({"type": "object"})),
        {
            "type": "order.placed", "version": 2, "channel": "orders", "signed": true, "description": "An order.",
            "schema": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer", "x-key": true}}},
        },
    ]})
}

fn with_events(mut config: Config, tenant: &str, file: &Path) -> Config {
    config.tenants.get_mut(tenant).unwrap().events = Some(file.to_owned());
    config
}

async fn get(server: &Server, path: &str) -> (u16, Value) {
    let reply = rest(server, "GET", path, DEV_API_KEY, "").await;
    (reply.status, reply.json())
}

#[tokio::test]
async fn schemas_are_listed_and_shown_and_make_documents() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    std::fs::write(&file, catalog().to_string()).unwrap();
    let server = start(with_events(dev(), "default", &file)).await;

    let (status, list) = get(&server, "/v1/schemas").await;
    let expected = json!({"schemas": [
        {"type": "order.cancelled", "versions": [1], "channel": "orders", "signed": false, "sealed": false},
        {"type": "order.placed", "versions": [1, 2], "channel": "orders", "signed": true, "sealed": false, "description": "An order."},
    ]});
    assert_eq!((status, list), (200, expected));
    let (status, versions) = get(&server, "/v1/schemas/order.placed").await;
    assert_eq!((status, &versions["versions"][1]["uri"]), (200, &json!("tidewire:order.placed/2")));
    let (status, one) = get(&server, "/v1/schemas/order.placed/2").await;
    assert_eq!((status, &one["schema"]["properties"]["id"]["x-key"]), (200, &json!(true)));
    assert_eq!(one, versions["versions"][1]);

    let document = rest(&server, "GET", "/v1/catalog.json", DEV_API_KEY, "").await.body;
    let same = Catalog::from_json(&catalog().to_string()).unwrap();
    assert_eq!(document, same.to_json());
    let (status, document) = get(&server, "/v1/asyncapi.json?title=Shop&version=2.0.0").await;
    assert_eq!((status, document), (200, same.asyncapi("Shop", "2.0.0")));
    let (status, document) = get(&server, "/v1/asyncapi.json").await;
    assert_eq!((status, &document["info"]["title"]), (200, &json!("Events of default")));
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_is_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    std::fs::write(&file, catalog().to_string()).unwrap();
    let server = start(with_events(dev(), "default", &file)).await;
    for (path, expected_status, part) in [
        ("/v1/schemas/order.placd", 404, "did you mean \"order.placed\""),
        ("/v1/schemas/zzz/1", 404, "GET /v1/schemas lists"),
        ("/v1/schemas/order.placed/3", 404, "has no version 3; it has 1, 2"),
        ("/v1/schemas/order.placed/new", 400, "version \"new\" is no number"),
        ("/v1/asyncapi.json?titel=a", 400, "titel"),
    ] {
        let (status, body) = get(&server, path).await;
        let text = body["error"]["message"].as_str().unwrap();
        assert!(status == expected_status && text.contains(part), "{path}: {status} {body}");
    }
    assert_eq!(rest(&server, "GET", "/v1/schemas", "nobody's", "").await.status, 401);
}

#[tokio::test]
async fn a_tenant_sees_its_own_and_none_without_a_catalog() {
    let server = start(strict()).await;
    let reply = rest(&server, "GET", "/v1/schemas", ACME_KEY, "").await;
    assert_eq!((reply.status, reply.json()), (200, json!({"schemas": []})));
    let reply = rest(&server, "GET", "/v1/schemas/a", ACME_KEY, "").await;
    assert!(reply.status == 404 && reply.body.contains("tenants.NAME.events"), "{reply:?}");
}

#[tokio::test]
async fn a_wrong_catalog_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    let twice = json!({"catalog": 1, "events": [
        {"type": "a", "version": 1, "schema": true}, {"type": "a", "version": 1, "schema": false},
    ]});
    for (text, parts) in [
        (None, ["cannot be read", "No such file"]),
        (Some("{".to_owned()), ["catalog of events cannot be read", "line 1"]),
        (Some(json!({"catalog": 2, "events": []}).to_string()), ["format 2", "1"]),
        (Some(twice.to_string()), ["a version 1", "declared twice"]),
        (
            Some(
                json!({"catalog": 1, "events": [{"type": "a", "version": 1, "schema": {"type": 7}}]})
                    .to_string(),
            ),
            ["schema of a version 1", "not valid"],
        ),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let config = with_events(strict(), "acme", &file);
        let error = Server::start(config).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("tenants.acme.events: ") && error.contains("events.json"), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{parts:?} in {error}");
    }
}
