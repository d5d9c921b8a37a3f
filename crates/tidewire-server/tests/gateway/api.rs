//! The server API, as published SDKs of Centrifugo call it.

use serde_json::{Value, json};
use tidewire_server::config::DEV_API_KEY;

use crate::client::{ACME_KEY, Client, acme_token, api, dev, get, post, start, strict};

#[tokio::test]
async fn publishing_to_a_kept_channel_answers_its_position() {
    let server = start(dev()).await;
    let (mut client, subscribed) = Client::subscribed(&server, "kept").await;
    let request = json!({"channel": "kept", "data": {"n": 1}, "tags": {"kind": "test"}});
    let reply = api(&server, "publish", request).await;
    assert_eq!(reply, json!({"result": {"offset": 1, "epoch": subscribed["epoch"]}}));
    let push = client.push().await;
    assert_eq!(push["pub"], json!({"data": {"n": 1}, "offset": 1, "tags": {"kind": "test"}}));
}

#[tokio::test]
async fn pretty_printed_data_reaches_subscribers_on_one_line() {
    let server = start(dev()).await;
    let (mut client, _) = Client::subscribed(&server, "pretty").await;
    let body = "{\n  \"channel\": \"pretty\",\n  \"data\": {\n    \"text\": \"a\\nb\"\n  }\n}";
    assert_eq!(post(&server, "publish", &[("X-API-Key", DEV_API_KEY)], body).await.status, 200);
    assert_eq!(client.publication("pretty").await.0, json!({"text": "a\nb"}));
}

#[tokio::test]
async fn a_repeated_idempotency_key_has_one_effect() {
    let server = start(dev()).await;
    let (mut client, _) = Client::subscribed(&server, "once").await;
    let request = |key: &str, n: u64| json!({"channel": "once", "data": n, "idempotency_key": key});
    let first = api(&server, "publish", request("k1", 1)).await;
    assert_eq!(api(&server, "publish", request("k1", 2)).await, first, "the position of the first");
    api(&server, "publish", request("k2", 3)).await;
    assert_eq!(client.publication("once").await, (json!(1), 1));
    assert_eq!(client.publication("once").await, (json!(3), 2));
    let long = api(&server, "publish", request(&"k".repeat(201), 4)).await;
    assert_eq!(long["error"]["code"], 107);
}

#[tokio::test]
async fn a_repeated_idempotency_key_has_one_effect_on_a_live_channel_too() {
    let server = start(strict()).await;
    let mut client = Client::with_token(&server, &acme_token("ann")).await;
    client.subscribe("live:a", None).await.unwrap();
    for (key, n) in [("{k} 1", 1), ("{k} 1", 2), ("{k} 2", 3)] {
        let body = json!({"channel": "live:a", "data": n, "idempotency_key": key}).to_string();
        let reply = post(&server, "publish", &[("X-API-Key", ACME_KEY)], &body).await;
        assert_eq!(reply.json(), json!({"result": {}}));
    }
    assert_eq!(client.publication("live:a").await.0, json!(1));
    assert_eq!(client.publication("live:a").await.0, json!(3));
}

#[tokio::test]
async fn a_version_that_is_not_above_the_last_is_left_out() {
    let server = start(dev()).await;
    let (mut client, subscribed) = Client::subscribed(&server, "price").await;
    let request = |n: u64, version: u64, epoch: &str| json!({"channel": "price", "data": n, "version": version, "version_epoch": epoch});
    for (n, version, epoch, offset) in
        [(1, 7, "", 1), (2, 7, "", 1), (3, 6, "", 1), (4, 8, "", 2), (5, 1, "june", 3)]
    {
        let reply = api(&server, "publish", request(n, version, epoch)).await;
        let expected = json!({"result": {"offset": offset, "epoch": subscribed["epoch"]}});
        assert_eq!(reply, expected, "a stale one is answered as a success, at the end of the stream");
    }
    for (n, offset) in [(1, 1), (4, 2), (5, 3)] {
        assert_eq!(client.publication("price").await, (json!(n), offset));
    }
    let many = json!({"channels": ["price", "cost"], "data": 6, "version": 1, "version_epoch": "june"});
    let reply = api(&server, "broadcast", many).await;
    let offsets: Vec<_> =
        (0..2).map(|n| reply["result"]["responses"][n]["result"]["offset"].as_u64()).collect();
    assert_eq!(offsets, [Some(3), Some(1)]);
    let live = json!({"channel": "price", "data": 7, "version": 9, "skip_history": true});
    let lonely = json!({"channel": "price", "data": 7, "version_epoch": "june"});
    for (request, said) in [(live, "kept channel"), (lonely, "version_epoch without version")] {
        let error = api(&server, "publish", request).await["error"].take();
        assert_eq!(error["code"], 107);
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_version_needs_a_kept_channel() {
    let server = start(strict()).await;
    let body = json!({"channel": "live:a", "data": 1, "version": 1}).to_string();
    let error = post(&server, "publish", &[("X-API-Key", ACME_KEY)], &body).await.json()["error"].take();
    assert_eq!(error["code"], 107, "{error}");
}

#[tokio::test]
async fn bytes_are_published_as_base64() {
    let server = start(dev()).await;
    let (mut client, _) = Client::subscribed(&server, "bytes").await;
    // JSON, text, and bytes that are neither.
    for (b64data, seen) in [("eyJuIjoxfQ==", json!({"n": 1})), ("aGk=", json!("hi")), ("//79", json!("//79"))]
    {
        let reply =
            api(&server, "publish", json!({"channel": "bytes", "b64data": b64data, "delta": true})).await;
        assert!(reply["result"]["offset"].is_u64(), "{reply}");
        assert_eq!(client.publication("bytes").await.0, seen);
    }
    let reply = api(&server, "broadcast", json!({"channels": ["bytes"], "b64data": "aGk="})).await;
    assert_eq!(reply["result"]["responses"][0]["result"]["offset"], 4);
    for (request, said) in [
        (json!({"channel": "bytes", "b64data": "?"}), "no base64"),
        (json!({"channel": "bytes", "b64data": "aGk=", "data": 1}), "one of them"),
    ] {
        let error = api(&server, "publish", request).await["error"].take();
        assert_eq!(error["code"], 107);
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
}

#[tokio::test]
async fn an_event_can_skip_history() {
    let server = start(dev()).await;
    let (mut client, _) = Client::subscribed(&server, "skip").await;
    let reply =
        api(&server, "publish", json!({"channel": "skip", "data": "live", "skip_history": true})).await;
    assert_eq!(reply, json!({"result": {}}));
    api(&server, "publish", json!({"channel": "skip", "data": "kept"})).await;
    assert_eq!(client.publication("skip").await, (json!("live"), 0));
    assert_eq!(client.publication("skip").await, (json!("kept"), 1));
}

#[tokio::test]
async fn a_broadcast_has_an_outcome_for_each_channel() {
    let server = start(dev()).await;
    let (mut client, _) = Client::subscribed(&server, "b").await;
    let request = json!({"channels": ["a", "b", "no spaces"], "data": 1, "idempotency_key": "b1"});
    let reply = api(&server, "broadcast", request.clone()).await;
    let responses = reply["result"]["responses"].as_array().unwrap();
    let outcome =
        |response: &Value| (response["result"]["offset"].as_u64(), response["error"]["code"].as_u64());
    let outcomes: Vec<_> = responses.iter().map(outcome).collect();
    assert_eq!(outcomes, [(Some(1), None), (Some(1), None), (None, Some(107))]);
    assert_eq!(client.publication("b").await, (json!(1), 1));
    assert_eq!(api(&server, "broadcast", request).await, reply, "a repetition has no second effect");
    let many: Vec<String> = (0..1_001).map(|n| format!("c{n}")).collect();
    assert_eq!(api(&server, "broadcast", json!({"channels": many, "data": 1})).await["error"]["code"], 107);
}

#[tokio::test]
async fn history_and_info_answer_as_documented() {
    let server = start(dev()).await;
    let (_client, subscribed) = Client::subscribed(&server, "past").await;
    for n in 1..=3 {
        api(&server, "publish", json!({"channel": "past", "data": n})).await;
    }
    let reply = api(&server, "history", json!({"channel": "past", "limit": 2, "reverse": true})).await;
    let publications = json!([{"data": 3, "offset": 3}, {"data": 2, "offset": 2}]);
    assert_eq!(
        reply,
        json!({"result": {"publications": publications, "epoch": subscribed["epoch"], "offset": 3}})
    );
    let node = api(&server, "info", json!({})).await["result"]["nodes"][0].take();
    assert_eq!(
        (&node["num_clients"], &node["num_subs"], &node["num_channels"]),
        (&json!(1), &json!(1), &json!(1))
    );
}

#[tokio::test]
async fn a_call_without_a_known_key_is_refused_before_its_body_is_read() {
    let server = start(dev()).await;
    let body = json!({"channel": "a", "data": 1}).to_string();
    for headers in [vec![], vec![("X-API-Key", "wrong")], vec![("Authorization", "Bearer dev-api-key")]] {
        let reply = post(&server, "publish", &headers, &body).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (401, &json!(101)), "{headers:?}");
    }
    let reply = post(&server, "publish", &[("Authorization", "apikey dev-api-key")], &body).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn bad_calls_are_told_what_is_wrong() {
    let mut config = dev();
    config.limits.api_body_bytes_max = 2_000_000;
    let server = start(config).await;
    let key = [("X-API-Key", DEV_API_KEY)];
    let cases = [
        ("publish", "{".to_owned(), 400, 107, "malformed JSON"),
        ("publish", json!({"channel": "a"}).to_string(), 200, 107, "data is missing"),
        ("publish", json!({"channel": "n".repeat(300), "data": 1}).to_string(), 200, 107, "limit is 255"),
        (
            "publish",
            json!({"channel": "a", "data": "x".repeat(1_100_000)}).to_string(),
            200,
            107,
            "event_bytes_max",
        ),
        (
            "publish",
            json!({"channel": "a", "data": "x".repeat(2_100_000)}).to_string(),
            413,
            107,
            "api_body_bytes_max",
        ),
        (
            "publish",
            json!({"channel": "a", "data": 1, "tag": {}}).to_string(),
            400,
            107,
            "unknown field `tag`",
        ),
        (
            "publish",
            format!(r#"{{"channel":"a","data":{}1{}}}"#, "[".repeat(200), "]".repeat(200)),
            200,
            107,
            "deeper",
        ),
        ("conjure", "{}".to_owned(), 404, 104, "method not found"),
    ];
    for (method, body, status, code, said) in cases {
        let reply = post(&server, method, &key, &body).await;
        let error = reply.json()["error"].take();
        assert_eq!((reply.status, error["code"].as_u64()), (status, Some(code)), "{method} {error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error} does not say {said:?}");
        assert!(reply.head.contains("x-request-id: "), "{}", reply.head);
    }
    assert_eq!(get(&server, "/api/publish").await.status, 405);
}

#[tokio::test]
async fn a_key_reaches_only_its_tenants_channels() {
    let server = start(strict()).await;
    let key = [("X-API-Key", ACME_KEY)];
    let reply = post(&server, "publish", &key, &json!({"channel": "none", "data": 1}).to_string()).await;
    assert_eq!(reply.json()["error"]["code"], 102);
    let reply = post(&server, "publish", &key, &json!({"channel": "inner:a", "data": 1}).to_string()).await;
    assert_eq!(reply.json()["result"]["offset"], 1, "rules about clients do not bind the server API");
}
