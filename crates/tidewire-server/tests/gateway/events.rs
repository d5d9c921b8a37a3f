//! CloudEvents over HTTP, as producers of other systems send them.

use serde_json::{Value, json};
use tidewire_server::Server;
use tidewire_server::config::DEV_API_KEY;

use crate::client::{ACME_KEY, Client, Reply, acme_token, api, dev, request, rest, start, strict};

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json";

async fn send(server: &Server, channel: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let path = format!("/v1/channels/{channel}/events");
    request(server.addr(), "POST", &path, headers, body).await
}

async fn send_json(server: &Server, channel: &str, content_type: &str, body: &Value) -> Reply {
    let headers = [("X-API-Key", DEV_API_KEY), ("Content-Type", content_type)];
    send(server, channel, &headers, &body.to_string()).await
}

fn event(id: &str, data: Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/erp", "type": "order.placed", "data": data})
}

async fn history(server: &Server, channel: &str) -> Vec<Value> {
    let reply = api(server, "history", json!({"channel": channel, "limit": 1_000})).await;
    reply["result"]["publications"].as_array().unwrap().iter().map(|one| one["data"].clone()).collect()
}

#[tokio::test]
async fn an_event_is_published_with_all_of_its_attributes() {
    let server = start(dev()).await;
    let (mut client, subscribed) = Client::subscribed(&server, "orders").await;
    let group = "/v1/channels/orders/groups/billing";
    rest(&server, "PUT", group, DEV_API_KEY, r#"{"start": "earliest"}"#).await;
    let mut sent = event("7", json!({"total": 5}));
    let more = json!({"subject": "order/7", "time": "2026-01-31T12:00:00.5Z", "partitionkey": "ann", "region": "eu", "n": 3});
    sent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = send_json(&server, "orders", STRUCTURED, &sent).await;
    let position = format!("{}:1", subscribed["epoch"].as_str().unwrap());
    let answer = reply.json();
    assert_eq!((reply.status, &answer["id"], &answer["position"]), (200, &json!("7"), &json!(position)));
    assert_eq!(client.publication("orders").await, (json!({"total": 5}), 1));
    let fetched =
        rest(&server, "POST", &format!("{group}/fetch"), DEV_API_KEY, r#"{"wait_ms": 10000}"#).await;
    let expected = json!({
        "id": answer["event_id"], "type": "order.placed", "time": "2026-01-31T12:00:00.5Z",
        "attributes": {
            "source": "/erp", "subject": "order/7", "partitionkey": "ann", "region": "eu", "n": "3", "originalid": "7",
        },
        "data": {"total": 5},
    });
    assert_eq!(fetched.json()["deliveries"][0]["event"], expected);
    let trace = format!("/v1/channels/orders/trace/{}", answer["event_id"].as_str().unwrap());
    assert_eq!(rest(&server, "GET", &trace, DEV_API_KEY, "").await.json()["copies"][0]["position"], position);
}

#[tokio::test]
async fn the_same_source_and_id_is_published_once_in_whichever_mode_it_comes() {
    let server = start(dev()).await;
    let first = send_json(&server, "once", STRUCTURED, &event("a b", json!(1))).await.json();
    let mut headers = vec![
        ("X-API-Key", DEV_API_KEY),
        ("ce-specversion", "1.0"),
        ("ce-id", "a%20b"),
        ("ce-source", "/erp"),
        ("ce-type", "order.placed"),
        ("Content-Type", "application/json"),
    ];
    let again = send(&server, "once", &headers, "2").await.json();
    let mut expected = first.clone();
    expected["duplicate"] = true.into();
    assert_eq!((&first["id"], first.get("duplicate"), again), (&json!("a b"), None, expected));
    // An id is unique for its source only.
    headers[3].1 = "/crm";
    assert_eq!(send(&server, "once", &headers, "3").await.json().get("duplicate"), None);
    assert_eq!(history(&server, "once").await, [json!(1), json!(3)]);
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let known = send_json(&server, "once", STRUCTURED, &event(uuid, json!(4))).await.json();
    assert_eq!((&known["id"], known.get("event_id")), (&json!(uuid), None));
}

#[tokio::test]
async fn a_live_channel_publishes_in_the_order_of_a_batch_and_each_event_once() {
    let server = start(strict()).await;
    let mut client = Client::with_token(&server, &acme_token("ann")).await;
    client.subscribe("live:a", None).await.unwrap();
    let batch: Vec<Value> = (0..50).chain(0..10).map(|n| event(&format!("{n}"), json!(n))).collect();
    let headers = [("X-API-Key", ACME_KEY), ("Content-Type", BATCH)];
    let reply = send(&server, "live:a", &headers, &json!(batch).to_string()).await;
    for n in 0..50 {
        assert_eq!(client.publication("live:a").await, (json!(n), 0));
    }
    let answers = reply.json()["events"].take();
    for (n, answer) in answers.as_array().unwrap().iter().enumerate() {
        assert_eq!((answer.get("position"), answer.get("duplicate").is_some()), (None, n >= 50), "{answer}");
    }
}

#[tokio::test]
async fn a_batch_has_an_outcome_for_each_event_in_order() {
    let server = start(dev()).await;
    let mut wrong = event("2", json!(2));
    wrong["specversion"] = "0.3".into();
    let mut text = event("4", json!("{"));
    text["datacontenttype"] = "text/plain".into();
    let mut broken = event("5", Value::Null);
    broken.as_object_mut().unwrap().remove("data");
    broken["data_base64"] = "ew==".into();
    let batch =
        json!([event("1", json!(1)), wrong, 7, event("3", json!(3)), text, broken, event("1", json!(1))]);
    let reply = send_json(&server, "mixed", BATCH, &batch).await;
    assert_eq!(reply.status, 200);
    let answers = reply.json()["events"].take();
    let offset =
        |n: usize| answers[n]["position"].as_str().map(|text| text.rsplit(':').next().unwrap().to_owned());
    let offsets: Vec<_> = (0..7).map(offset).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(offsets, [some("1"), None, None, some("2"), some("3"), None, some("1")]);
    assert!(answers[1]["error"]["message"].as_str().unwrap().contains("specversion"), "{answers}");
    assert_eq!(answers[2]["error"]["code"], 107);
    let error =
        json!({"code": 303, "message": answers[5]["error"]["message"], "pointer": "", "rule": "syntax"});
    assert_eq!(answers[5], json!({"id": "5", "error": error}));
    assert_eq!(answers[6]["duplicate"], true);
    assert_eq!(history(&server, "mixed").await, [json!(1), json!(3), json!("{")]);

    let reply = send_json(&server, "mixed", BATCH, &json!([wrong, 7])).await;
    assert_eq!((reply.status, reply.json()["events"].as_array().unwrap().len()), (400, 2));
    let reply = send_json(&server, "mixed", BATCH, &json!([])).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"events": []})));
}

#[tokio::test]
async fn a_batch_of_a_thousand_is_appended_in_its_order() {
    let server = start(dev()).await;
    let batch = |count: u64| json!((0..count).map(|n| event(&format!("{n}"), json!(n))).collect::<Vec<_>>());
    let reply = send_json(&server, "many", BATCH, &batch(1_001)).await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("1001 cloud events, limit is 1000"), "{}", reply.body);
    let reply = send_json(&server, "many", BATCH, &batch(1_000)).await;
    assert_eq!((reply.status, reply.json()["events"].as_array().unwrap().len()), (200, 1_000));
    assert_eq!(history(&server, "many").await, (0..1_000).map(|n| json!(n)).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_with_its_status() {
    let server = start(dev()).await;
    let key = ("X-API-Key", DEV_API_KEY);
    let binary = |more: [(&'static str, &'static str); 2]| {
        let required =
            [key, ("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/erp"), ("ce-type", "a")];
        required.into_iter().chain(more).collect::<Vec<_>>()
    };
    let json_type = ("Content-Type", "application/json");
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let cases = [
        (vec![("Content-Type", STRUCTURED)], "{}", 401, 101, "X-API-Key"),
        (vec![key, json_type], "{}", 415, 107, "application/cloudevents+json"),
        (
            vec![key, ("Content-Type", "application/cloudevents+avro"), ("ce-id", "1")],
            "",
            415,
            107,
            "no cloud event",
        ),
        (vec![key, ("Content-Type", STRUCTURED)], "{", 400, 107, "no JSON object"),
        (vec![key, ("Content-Type", STRUCTURED)], "{}", 400, 107, "has no specversion"),
        (vec![key, ("Content-Type", BATCH)], "{}", 400, 107, "no JSON array"),
        (vec![key, ("ce-id", "7")], "", 400, 107, "has no specversion"),
        (binary([json_type, ("ce-Region", "100%")]), "1", 400, 107, "write %25"),
        (binary([json_type, ("ce-region", "é")]), "1", 400, 107, "percent-encoded"),
        (binary([json_type, ("ce-data", "é")]), "1", 400, 107, "percent-encoded"),
        (binary([json_type, ("X-Other", "1")]), "{\"a\"", 422, 303, "data"),
        (binary([json_type, ("X-Other", "1")]), &deep, 422, 303, "deeper"),
    ];
    for (headers, body, status, code, said) in cases {
        let reply = send(&server, "wrong", &headers, body).await;
        let error = reply.json()["error"].take();
        assert_eq!((reply.status, &error["code"]), (status, &json!(code)), "{headers:?} {error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error} does not say {said:?}");
        assert_eq!(error.get("pointer").is_some() && error.get("rule").is_some(), status == 422, "{error}");
    }
    assert_eq!(history(&server, "wrong").await, [json!(null); 0]);
    assert_eq!(rest(&server, "GET", "/v1/channels/a/events", DEV_API_KEY, "").await.status, 405);

    let server = start(strict()).await;
    let headers = [("X-API-Key", ACME_KEY), ("Content-Type", STRUCTURED)];
    let reply = send(&server, "none", &headers, &event("1", json!(1)).to_string()).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!(102)));
    let reply = send(&server, "inner:a", &headers, &event("1", json!(1)).to_string()).await;
    assert_eq!(reply.status, 200, "rules about clients do not bind the server API: {reply:?}");
}
