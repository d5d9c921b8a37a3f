//! Groups and dead letters over HTTP, as workers of other languages and operators use them.

use std::time::Duration;

use serde_json::{Value, json};
use tidewire_server::Server;
use tidewire_server::config::DEV_API_KEY;

use crate::client::{ACME_KEY, Reply, dev, publish, rest, start, strict};

const BILLING: &str = "/v1/channels/orders/groups/billing";

/// A call with the key of [`dev`]; its answer, which has to be a success.
async fn call(server: &Server, verb: &str, path: &str, body: Value) -> Value {
    let reply = try_call(server, verb, path, body).await;
    assert!(matches!(reply.status, 200 | 201), "{verb} {path}: {reply:?}");
    reply.json()
}

async fn try_call(server: &Server, verb: &str, path: &str, body: Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    rest(server, verb, path, DEV_API_KEY, &body).await
}

/// A server whose group `billing` of `orders` has `count` events to deliver.
async fn with_events(count: u64) -> Server {
    let server = start(dev()).await;
    call(&server, "PUT", BILLING, json!({"start": "earliest"})).await;
    for number in 1..=count {
        publish(&server, "orders", json!({"order": number})).await;
    }
    server
}

/// Fetches up to `limit` deliveries, waiting for the first.
async fn fetch(server: &Server, limit: u64, lease_ms: u64) -> Value {
    let request = json!({"limit": limit, "wait_ms": 10_000, "lease_ms": lease_ms});
    let fetched = call(server, "POST", &format!("{BILLING}/fetch"), request).await;
    assert!(fetched["lease"].is_string(), "{fetched}");
    fetched
}

async fn settle(server: &Server, fetched: &Value, outcome: Value) -> Value {
    let outcomes: Vec<Value> = fetched["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| {
            let mut settlement = outcome.clone();
            settlement["id"] = delivery["id"].clone();
            settlement
        })
        .collect();
    let request = json!({"lease": fetched["lease"], "outcomes": outcomes});
    call(server, "POST", &format!("{BILLING}/settle"), request).await
}

/// Fetches and rejects `count` events one after the other, and waits until they are dead letters.
async fn kill(server: &Server, count: u64) {
    for number in 1..=count {
        let fetched = fetch(server, 1, 30_000).await;
        let reason = format!("card {number} declined");
        let settled = settle(server, &fetched, json!({"outcome": "reject", "reason": reason})).await;
        assert_eq!(settled, json!({"settled": 1, "lost": []}));
    }
    until(server, |status| status["dead_letters"] == count).await;
}

/// Waits until the group's status is as wanted.
async fn until(server: &Server, is_so: impl Fn(&Value) -> bool) -> Value {
    let watch = tidewire::clock::Stopwatch::start();
    loop {
        let status = call(server, "GET", BILLING, Value::Null).await;
        if is_so(&status) {
            return status;
        }
        assert!(watch.elapsed() < Duration::from_secs(20), "stays {status}");
    }
}

#[tokio::test]
async fn a_group_is_declared_seen_moved_and_deleted() {
    let server = with_events(3).await;
    let again = try_call(&server, "PUT", BILLING, json!({"start": "latest"})).await;
    assert_eq!((again.status, again.json()["is_new"].as_bool()), (200, Some(false)));
    let other = try_call(&server, "PUT", BILLING, json!({"start": "latest", "partitions": 4})).await;
    assert_eq!((other.status, &other.json()["error"]["code"]), (409, &json!(302)));
    let groups = call(&server, "GET", "/v1/channels/orders/groups", Value::Null).await;
    assert_eq!(groups, json!({"groups": ["billing"]}));
    let status = call(&server, "GET", BILLING, Value::Null).await;
    assert_eq!((&status["lag_events"], &status["next"]), (&json!(3), &json!(1)));

    let seek = |preview: bool| json!({"to": "latest", "preview": preview, "by": "ann"});
    let preview = call(&server, "POST", &format!("{BILLING}/seek"), seek(true)).await;
    assert_eq!((&preview["skipped_count"], &preview["again_count"]), (&json!(3), &json!(0)));
    assert_eq!(call(&server, "GET", BILLING, Value::Null).await["next"], 1);
    assert_eq!(call(&server, "POST", &format!("{BILLING}/seek"), seek(false)).await, preview);
    assert_eq!(call(&server, "GET", BILLING, Value::Null).await["lag_events"], 0);
    let entry = call(&server, "GET", &format!("{BILLING}/audit"), Value::Null).await["entries"][0].take();
    assert_eq!(
        (&entry["action"], &entry["who"]),
        (&json!("seek"), &json!("ann, API key 1 of default")),
        "{entry}"
    );
    call(&server, "DELETE", &format!("{BILLING}?by=ann"), Value::Null).await;
    let gone = try_call(&server, "GET", BILLING, Value::Null).await;
    assert_eq!((gone.status, &gone.json()["error"]["code"]), (404, &json!(301)));
}

#[tokio::test]
async fn deliveries_are_fetched_under_a_lease_and_settled() {
    let server = with_events(5).await;
    let fetched = fetch(&server, 10, 30_000).await;
    let deliveries = fetched["deliveries"].as_array().unwrap();
    let orders: Vec<_> = deliveries.iter().map(|delivery| &delivery["event"]["data"]["order"]).collect();
    assert_eq!(orders, [1, 2, 3, 4, 5]);
    assert_eq!(
        (&deliveries[0]["attempt"], &deliveries[0]["event"]["type"]),
        (&json!(1), &json!("tidewire.publication"))
    );
    let extend = json!({"lease": fetched["lease"], "lease_ms": 60_000});
    let extended = call(&server, "POST", &format!("{BILLING}/extend"), extend).await;
    assert_eq!((extended["held"].as_array().unwrap().len(), &extended["lost"]), (5, &json!([])));

    let settled = settle(&server, &fetched, json!({"outcome": "ack"})).await;
    assert_eq!(settled, json!({"settled": 5, "lost": []}));
    until(&server, |status| status["lag_events"] == 0).await;
    let request = json!({"lease": fetched["lease"], "outcomes": []});
    let again = try_call(&server, "POST", &format!("{BILLING}/settle"), request).await;
    assert_eq!((again.status, &again.json()["error"]["code"]), (409, &json!(302)));
    assert!(again.body.contains("its time is over"), "{again:?}");
    let nothing = call(&server, "POST", &format!("{BILLING}/fetch"), json!({"wait_ms": 1})).await;
    assert_eq!(nothing, json!({"deliveries": []}));
}

#[tokio::test]
async fn a_fetch_waits_for_an_event() {
    let server = with_events(0).await;
    let (fetched, _) =
        tokio::join!(fetch(&server, 1, 30_000), publish(&server, "orders", json!({"order": 1})));
    assert_eq!(fetched["deliveries"][0]["event"]["data"]["order"], 1);
}

#[tokio::test]
async fn what_a_lease_over_its_time_held_comes_again_as_another_attempt() {
    let server = with_events(1).await;
    let lost = fetch(&server, 1, 100).await;
    let again = fetch(&server, 1, 30_000).await;
    assert_eq!(
        (&again["deliveries"][0]["id"], &again["deliveries"][0]["attempt"]),
        (&lost["deliveries"][0]["id"], &json!(2))
    );
    let request =
        json!({"lease": lost["lease"], "outcomes": [{"id": lost["deliveries"][0]["id"], "outcome": "ack"}]});
    assert_eq!(try_call(&server, "POST", &format!("{BILLING}/settle"), request).await.status, 409);
    settle(&server, &again, json!({"outcome": "ack"})).await;
    until(&server, |status| status["lag_events"] == 0).await;
}

#[tokio::test]
async fn a_server_closes_at_once_though_deliveries_are_out() {
    let server = with_events(1).await;
    let held = fetch(&server, 1, 3_600_000).await;
    assert_eq!(held["deliveries"].as_array().unwrap().len(), 1);
    let watch = tidewire::clock::Stopwatch::start();
    server.close(Duration::from_secs(60)).await.unwrap();
    assert!(watch.elapsed() < Duration::from_secs(30), "waited for a lease: {:?}", watch.elapsed());
}

#[tokio::test]
async fn a_retry_comes_again_when_it_says_and_a_hand_back_is_no_attempt() {
    let server = with_events(1).await;
    let first = fetch(&server, 1, 30_000).await;
    settle(&server, &first, json!({"outcome": "hand_back"})).await;
    let second = fetch(&server, 1, 30_000).await;
    assert_eq!(second["deliveries"][0]["attempt"], 1);
    settle(&server, &second, json!({"outcome": "retry", "after_ms": 1, "reason": "no route"})).await;
    let third = fetch(&server, 1, 30_000).await;
    assert_eq!(third["deliveries"][0]["attempt"], 2);
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_grouped() {
    let server = with_events(3).await;
    kill(&server, 3).await;
    let page = call(&server, "GET", &format!("{BILLING}/dead-letters?limit=2"), Value::Null).await;
    let letters = page["letters"].as_array().unwrap();
    assert_eq!((letters.len(), &letters[0]["reason"]), (2, &json!("card 1 declined")));
    assert!(letters[0]["event"].get("data").is_none(), "a listing shows no data: {page}");
    let next = page["next"].as_str().unwrap();
    let last = call(&server, "GET", &format!("{BILLING}/dead-letters?after={next}"), Value::Null).await;
    assert_eq!((last["letters"].as_array().unwrap().len(), last.get("next")), (1, None));

    let id = letters[1]["id"].as_str().unwrap();
    let letter = call(&server, "GET", &format!("{BILLING}/dead-letters/{id}"), Value::Null).await;
    assert_eq!((&letter["event"]["data"], &letter["attempts"]), (&json!({"order": 2}), &json!(1)));
    assert_eq!(
        try_call(&server, "GET", &format!("{BILLING}/dead-letters/none"), Value::Null).await.status,
        404
    );
    let reasons = call(&server, "GET", &format!("{BILLING}/dead-letters/reasons"), Value::Null).await;
    let reason = &reasons["reasons"][0];
    assert_eq!((&reason["fingerprint"], &reason["count"]), (&json!("card # declined"), &json!(3)));
    let filtered = format!(
        "{BILLING}/dead-letters?reason=card%20%23%20declined&kind=rejected&since=2020-01-01T00:00:00Z"
    );
    assert_eq!(call(&server, "GET", &filtered, Value::Null).await["letters"].as_array().unwrap().len(), 3);
    let none = format!("{BILLING}/dead-letters?kind=undecodable");
    assert_eq!(call(&server, "GET", &none, Value::Null).await, json!({"letters": []}));
}

#[tokio::test]
async fn dead_letters_are_replayed_part_by_part_and_purged() {
    let server = with_events(3).await;
    kill(&server, 3).await;
    let replay = format!("{BILLING}/dead-letters/replay");
    let dry = call(&server, "POST", &replay, json!({"dry_run": true})).await;
    assert_eq!(dry, json!({"count": 3}));
    let first = call(&server, "POST", &replay, json!({"limit": 2, "by": "ann"})).await;
    assert_eq!(first["count"], 2);
    let rest =
        call(&server, "POST", &replay, json!({"resume": first["next"], "limit": 2, "by": "ann"})).await;
    assert_eq!(rest, json!({"count": 1}));
    let fetched = fetch(&server, 3, 30_000).await;
    let event = &fetched["deliveries"][0]["event"];
    assert_eq!((&event["data"]["order"], &event["attributes"]["replayfor"]), (&json!(1), &json!("billing")));
    let entry = call(&server, "GET", &format!("{BILLING}/audit"), Value::Null).await["entries"].take();
    assert_eq!((entry.as_array().unwrap().len(), &entry[0]["count"]), (1, &json!(3)));

    settle(&server, &fetched, json!({"outcome": "reject", "reason": "still declined"})).await;
    let mut left = 3 - fetched["deliveries"].as_array().unwrap().len();
    while left > 0 {
        let more = fetch(&server, 3, 30_000).await;
        left -= more["deliveries"].as_array().unwrap().len();
        settle(&server, &more, json!({"outcome": "reject", "reason": "still declined"})).await;
    }
    until(&server, |status| status["dead_letters"] == 3).await;
    let purge = format!("{BILLING}/dead-letters/purge");
    let unsaid = try_call(&server, "POST", &purge, json!({})).await;
    assert_eq!((unsaid.status, unsaid.body.contains("\\\"all\\\": true")), (400, true), "{unsaid:?}");
    let typo = try_call(&server, "POST", &purge, json!({"filter": {"reasons": "x"}})).await;
    assert_eq!((typo.status, typo.body.contains("reasons")), (400, true), "{typo:?}");
    let purged = call(&server, "POST", &purge, json!({"filter": {"reason": "still declined"}})).await;
    assert_eq!(purged, json!({"count": 3}));
}

#[tokio::test]
async fn an_event_is_traced_to_its_dead_letter() {
    let server = with_events(1).await;
    kill(&server, 1).await;
    let letters = call(&server, "GET", &format!("{BILLING}/dead-letters"), Value::Null).await;
    let event = letters["letters"][0]["event"]["id"].as_str().unwrap();
    let trace = call(&server, "GET", &format!("/v1/channels/orders/trace/{event}"), Value::Null).await;
    let found = &trace["groups"][0];
    assert_eq!((&found["state"], &found["letter"]["reason"]), (&json!("dead"), &json!("card 1 declined")));
    assert_eq!(trace["copies"].as_array().unwrap().len(), 1, "{trace}");
    let no_id = try_call(&server, "GET", "/v1/channels/orders/trace/first", Value::Null).await;
    assert_eq!((no_id.status, no_id.body.contains("not a UUID")), (400, true));
}

#[tokio::test]
async fn names_in_paths_are_percent_encoded() {
    let server = start(dev()).await;
    let path = "/v1/channels/shop%3Aorders%2F7/groups/billing";
    assert_eq!(try_call(&server, "PUT", path, json!({"start": "earliest"})).await.status, 201);
    let status = call(&server, "GET", path, Value::Null).await;
    assert_eq!(status["channel"], "shop:orders/7");
    let plain = call(&server, "GET", "/v1/channels/shop:orders%2F7/groups", Value::Null).await;
    assert_eq!(plain, json!({"groups": ["billing"]}));
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let server = with_events(0).await;
    for (verb, path, body, status, said) in [
        ("PUT", BILLING.to_owned(), json!({"start": "yesterday"}), 400, "write earliest, latest"),
        ("PUT", BILLING.to_owned(), json!({"start": "latest", "partition": 2}), 400, "partition"),
        ("POST", format!("{BILLING}/seek"), json!({"to": "0000000000000001:999"}), 200, "from"),
        ("POST", format!("{BILLING}/fetch"), json!({"limit": 0}), 400, "1 to 1000"),
        ("POST", format!("{BILLING}/fetch"), json!({"lease_ms": 1}), 400, "100 to 3600000"),
        ("POST", format!("{BILLING}/settle"), json!({"lease": "x", "outcomes": []}), 400, "a fetch answered"),
        ("GET", format!("{BILLING}/dead-letters?kind=odd"), Value::Null, 400, "attempts_used_up"),
        ("GET", format!("{BILLING}/dead-letters?reasons=odd"), Value::Null, 400, "reasons"),
        ("GET", format!("{BILLING}/dead-letters?since=noon"), Value::Null, 400, "RFC 3339"),
        ("POST", format!("{BILLING}/dead-letters/replay"), json!({"resume": "x"}), 400, "stopped"),
        ("GET", "/v1/channels/orders/groups/a%20b".to_owned(), Value::Null, 400, "group name"),
        ("GET", "/v1/nothing".to_owned(), Value::Null, 404, "no such path"),
        ("POST", "/v1/channels/orders/groups/none/fetch".to_owned(), Value::Null, 404, "no group"),
    ] {
        let reply = try_call(&server, verb, &path, body).await;
        assert_eq!((reply.status, reply.body.contains(said)), (status, true), "{verb} {path}: {reply:?}");
    }
}

#[tokio::test]
async fn a_key_reaches_only_its_tenants_groups() {
    let server = start(strict()).await;
    assert_eq!(rest(&server, "GET", BILLING, "wrong", "").await.status, 401);
    let declared = rest(&server, "PUT", BILLING, ACME_KEY, r#"{"start":"latest"}"#).await;
    assert_eq!(declared.status, 201, "{declared:?}");
}
