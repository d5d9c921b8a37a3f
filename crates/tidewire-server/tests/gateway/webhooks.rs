//! Webhooks against an endpoint of this process: signed, sent again, given up on, and never sent where they may not go.

use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tidewire::clock::Stopwatch;
use tidewire_server::config::{
    DEV_API_KEY, DisableAfter, WebhookBody, WebhookConfig, WebhookRetries, WebhookStart,
};
use tidewire_server::{Config, EngineUrl, Secret, Server};

use crate::client::{ACME_KEY, Reply, dev, get, publish, rest, start, strict};
use crate::receiver::{Got, Receiver, SILENCE};

const SECRET: &str = "whsec_cmVwbGFjZS1tZS1yZXBsYWNlLW1lLXJlcGxhY2UtbWU=";
const SECRET_BYTES: &[u8] = b"replace-me-replace-me-replace-me";
const OLD_SECRET: &str = "whsec_b2xkLXNlY3JldC1vbGQtc2VjcmV0LW9sZC1zZWNyZXQ=";
const OLD_SECRET_BYTES: &[u8] = b"old-secret-old-secret-old-secret";

/// A webhook of channel `orders` that fails fast.
fn webhook(url: String) -> WebhookConfig {
    WebhookConfig {
        tenant: "default".into(),
        channel: "orders".into(),
        name: "billing".into(),
        start: WebhookStart::Earliest,
        url,
        secrets: vec![Secret::from(SECRET)],
        body: WebhookBody::Standard,
        partitions: 0,
        concurrency: 1,
        timeout: Duration::from_secs(10),
        retries: WebhookRetries {
            attempts: 5,
            first_delay: Duration::from_millis(1),
            delay_max: Duration::from_millis(1),
        },
        disable_after: DisableAfter::default(),
        allow_private: true,
    }
}

fn of(receiver: &Receiver) -> WebhookConfig {
    webhook(format!("http://{}/hook?for=orders", receiver.addr))
}

fn with(mut config: Config, webhook: WebhookConfig) -> Config {
    config.webhooks = vec![webhook];
    config
}

async fn call(server: &Server, verb: &str, path: &str, body: Value) -> Value {
    let reply = try_call(server, verb, path, body).await;
    assert_eq!(reply.status, 200, "{verb} {path}: {reply:?}");
    reply.json()
}

async fn try_call(server: &Server, verb: &str, path: &str, body: Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    rest(server, verb, path, DEV_API_KEY, &body).await
}

/// Asks again until the answer is as wanted.
async fn until(server: &Server, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let watch = Stopwatch::start();
    loop {
        let answer = call(server, "GET", path, Value::Null).await;
        if is_so(&answer) {
            return answer;
        }
        assert!(watch.elapsed() < Duration::from_secs(20), "stays {answer}");
    }
}

const BILLING: &str = "/v1/webhooks/billing";
const GROUP: &str = "/v1/channels/orders/groups/billing";

/// Whether a signature of the request is made with this secret.
fn is_signed_with(got: &Got, secret: &[u8]) -> bool {
    use base64::Engine as _;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signed = format!("{}.{}.{}", got.headers["webhook-id"], got.headers["webhook-timestamp"], got.body);
    let signature = base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
    got.headers["webhook-signature"].split(' ').any(|one| one == format!("v1,{signature}"))
}

#[tokio::test]
async fn an_event_is_posted_signed_and_settled_by_a_2xx() {
    let mut receiver = Receiver::start(&["204 No Content"]).await;
    let server = start(with(dev(), of(&receiver))).await;
    publish(&server, "orders", json!({"order": 7})).await;
    let got = receiver.next().await;
    assert_eq!((&*got.path, &*got.headers["content-type"]), ("/hook?for=orders", "application/json"));
    assert_eq!(got.headers["host"], receiver.addr.to_string());
    let body = got.json();
    assert_eq!((&body["type"], &body["data"]), (&json!("tidewire.publication"), &json!({"order": 7})));
    assert!(is_signed_with(&got, SECRET_BYTES) && !is_signed_with(&got, OLD_SECRET_BYTES), "{got:?}");
    let seconds: u64 = got.headers["webhook-timestamp"].parse().unwrap();
    let now = tidewire::Clock::system().now().as_millis() / 1_000;
    assert!((now - 60..=now).contains(&seconds), "{seconds}");
    until(&server, GROUP, |status| status["lag_events"] == 0).await;
    let webhooks = call(&server, "GET", "/v1/webhooks", Value::Null).await;
    let url = format!("http://{}/hook?for=orders", receiver.addr);
    let shown =
        json!({"name": "billing", "channel": "orders", "url": url, "is_enabled": true, "failures": 0});
    assert_eq!(webhooks, json!({"webhooks": [shown]}));
}

#[tokio::test]
async fn an_event_is_posted_as_data_with_its_attributes_as_headers() {
    let mut receiver = Receiver::start(&[]).await;
    let server =
        start(with(dev(), WebhookConfig { body: WebhookBody::CloudEventsBinary, ..of(&receiver) })).await;
    publish(&server, "orders", json!({"order": 7})).await;
    let got = receiver.next().await;
    assert_eq!((got.json(), &*got.headers["content-type"]), (json!({"order": 7}), "application/json"));
    let sent = ["ce-specversion", "ce-type", "ce-source"].map(|name| &*got.headers[name]);
    assert_eq!(sent, ["1.0", "tidewire.publication", "/default/orders"]);
    assert_eq!(got.headers["ce-id"], got.headers["webhook-id"]);
    assert!(is_signed_with(&got, SECRET_BYTES), "{got:?}");
}

#[tokio::test]
async fn what_is_not_accepted_is_sent_again_under_its_id_and_redirects_are_not_followed() {
    let elsewhere = "302 Found\r\nLocation: http://127.0.0.1:1/";
    let mut receiver =
        Receiver::start(&["500 Internal Server Error", elsewhere, "404 Not Found", "200 OK"]).await;
    let server = start(with(dev(), of(&receiver))).await;
    publish(&server, "orders", json!(1)).await;
    let id = receiver.next().await.headers["webhook-id"].clone();
    for _ in 0..3 {
        assert_eq!(receiver.next().await.headers["webhook-id"], id);
    }
    let webhook = until(&server, BILLING, |webhook| webhook["failures"] == 0).await;
    assert_eq!(webhook["last_failure"], "the endpoint answered 404");
    until(&server, GROUP, |status| status["lag_events"] == 0 && status["dead_letters"] == 0).await;
    assert!(receiver.is_empty());
}

#[tokio::test]
async fn an_event_that_is_never_accepted_is_a_dead_letter_and_the_next_one_is_sent() {
    let mut receiver = Receiver::start(&["500 No"; 5]).await;
    let server = start(with(dev(), of(&receiver))).await;
    publish(&server, "orders", json!("first")).await;
    for _ in 0..5 {
        assert_eq!(receiver.next().await.json()["data"], "first");
    }
    publish(&server, "orders", json!("second")).await;
    assert_eq!(receiver.next().await.json()["data"], "second");
    until(&server, GROUP, |status| status["dead_letters"] == 1).await;
    let letters = call(&server, "GET", &format!("{GROUP}/dead-letters"), Value::Null).await;
    assert_eq!(letters["letters"][0]["reason"], "the endpoint answered 500");
}

#[tokio::test]
async fn every_secret_signs_while_a_receiver_changes_from_one_to_the_other() {
    let mut receiver = Receiver::start(&[]).await;
    let mut webhook = of(&receiver);
    webhook.secrets.push(Secret::from(OLD_SECRET));
    let server = start(with(dev(), webhook)).await;
    publish(&server, "orders", json!(1)).await;
    let got = receiver.next().await;
    assert!(is_signed_with(&got, SECRET_BYTES) && is_signed_with(&got, OLD_SECRET_BYTES), "{got:?}");
}

#[tokio::test]
async fn retry_after_says_when_an_event_is_sent_again() {
    let mut receiver = Receiver::start(&["503 Service Unavailable\r\nRetry-After: 1"]).await;
    let server = start(with(dev(), of(&receiver))).await;
    publish(&server, "orders", json!(1)).await;
    let (first, second) = (receiver.next().await, receiver.next().await);
    let waited = second.after - first.after;
    assert!(waited >= Duration::from_millis(900), "{waited:?}");
}

#[tokio::test]
async fn a_410_disables_the_endpoint_and_its_events_wait_until_it_is_enabled() {
    let mut receiver = Receiver::start(&["410 Gone"]).await;
    let server = start(with(dev(), of(&receiver))).await;
    publish(&server, "orders", json!(1)).await;
    let first = receiver.next().await;
    let webhook = until(&server, BILLING, |webhook| webhook["is_enabled"] == false).await;
    assert!(webhook["disabled_why"].as_str().unwrap().contains("410"), "{webhook}");
    publish(&server, "orders", json!(2)).await;
    // Once its consumer has stopped, nobody holds anything, and no attempt was burnt.
    let status = until(&server, GROUP, |status| status["sessions"] == json!([])).await;
    assert_eq!(
        (&status["lag_events"], &status["waiting"], &status["dead_letters"]),
        (&json!(2), &json!(0), &json!(0)),
        "{status}"
    );
    assert!(receiver.is_empty());
    let enabled = call(&server, "POST", &format!("{BILLING}/enable"), Value::Null).await;
    assert_eq!((&enabled["is_enabled"], enabled.get("disabled_why")), (&json!(true), None));
    let mut again = [receiver.next().await, receiver.next().await].map(|got| got.json()["data"].clone());
    again.sort_by_key(Value::as_u64);
    assert_eq!(again, [json!(1), json!(2)]);
    assert_eq!(first.json()["data"], 1);
}

#[tokio::test]
async fn repeated_failures_disable_the_endpoint_and_a_restart_keeps_that() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(&["500 No"; 100]).await;
    let mut config = with(dev(), of(&receiver));
    config.engine = EngineUrl::from(&*format!("file:{}", folder.path().display()));
    config.webhooks[0].retries.attempts = 100;
    config.webhooks[0].disable_after = DisableAfter { failures: 3, over: Duration::ZERO };
    let server = start(config.clone()).await;
    publish(&server, "orders", json!(1)).await;
    let webhook = until(&server, BILLING, |webhook| webhook["is_enabled"] == false).await;
    assert_eq!(
        (&webhook["failures"], &webhook["disabled_why"]),
        (&json!(3), &json!("3 failures in a row; the last: the endpoint answered 500"))
    );
    server.close(Duration::from_secs(20)).await.unwrap();
    for _ in 0..3 {
        receiver.next().await;
    }

    let server = start(config).await;
    assert_eq!(call(&server, "GET", BILLING, Value::Null).await, webhook);
    publish(&server, "orders", json!(2)).await;
    receiver.answer(&[]);
    let tested = call(&server, "POST", &format!("{BILLING}/test"), Value::Null).await;
    assert_eq!((&tested["is_accepted"], &tested["status"]), (&json!(true), &json!(200)));
    assert_eq!(receiver.next().await.json()["type"], "tidewire.test", "only the test was sent");
    call(&server, "POST", &format!("{BILLING}/enable"), Value::Null).await;
    let mut sent = [receiver.next().await, receiver.next().await].map(|got| got.json()["data"].clone());
    sent.sort_by_key(Value::as_u64);
    assert_eq!(sent, [json!(1), json!(2)]);
    server.close(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_sent_to_a_private_address_that_is_not_allowed() {
    let receiver = Receiver::start(&[]).await;
    let port = receiver.addr.port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
        let mut webhook = webhook(format!("https://{host}:{port}/hook"));
        webhook.allow_private = false;
        let server = start(with(dev(), webhook)).await;
        let tested = call(&server, "POST", &format!("{BILLING}/test"), Value::Null).await;
        assert_eq!((&tested["is_accepted"], tested.get("status")), (&json!(false), None));
        assert!(tested["problem"].as_str().unwrap().contains("private address"), "{host}: {tested}");
    }
    assert!(receiver.is_empty());
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_not_waited_for() {
    let receiver = Receiver::start(&[SILENCE]).await;
    let mut webhook = of(&receiver);
    webhook.timeout = Duration::from_millis(200);
    let server = start(with(dev(), webhook)).await;
    let tested = call(&server, "POST", &format!("{BILLING}/test"), Value::Null).await;
    assert_eq!(tested["problem"], "the endpoint did not answer within 200ms");
}

#[tokio::test]
async fn a_webhook_is_disabled_by_hand_and_unknown_to_other_tenants() {
    let receiver = Receiver::start(&[]).await;
    let mut config = with(dev(), of(&receiver));
    config.tenants.extend(strict().tenants);
    let server = start(config).await;
    let request = json!({"reason": "moving it", "by": "ann"});
    let disabled = call(&server, "POST", &format!("{BILLING}/disable"), request).await;
    assert_eq!(disabled["disabled_why"], "disabled by ann, API key 1 of default: moving it");
    for (verb, path) in [("GET", ""), ("POST", "/enable"), ("POST", "/disable"), ("POST", "/test")] {
        let reply = rest(&server, verb, &format!("{BILLING}{path}"), ACME_KEY, "").await;
        assert_eq!(reply.status, 404, "{verb} {path}: {reply:?}");
    }
    let none = rest(&server, "GET", "/v1/webhooks", ACME_KEY, "").await;
    assert_eq!(none.json(), json!({"webhooks": []}));
    assert_eq!(rest(&server, "GET", "/v1/webhooks", "no key", "").await.status, 401);
}

#[tokio::test]
async fn a_group_is_told_of_at_metrics() {
    let mut receiver = Receiver::start(&["500 No"]).await;
    let server = start(with(dev(), of(&receiver))).await;
    publish(&server, "orders", json!(1)).await;
    receiver.next().await;
    receiver.next().await;
    until(&server, GROUP, |status| status["lag_events"] == 0).await;
    let page = get(&server, "/metrics").await.body;
    let group = "tenant=\"default\",channel=\"orders\",group=\"billing\"";
    for line in [
        "tidewire_appended_total{tenant=\"default\",channel=\"orders\",outcome=\"ok\"} 1".to_owned(),
        format!("tidewire_group_delivered_total{{{group}}} 2"),
        format!("tidewire_group_settled_total{{{group},outcome=\"ack\"}} 1"),
        format!("tidewire_group_settled_total{{{group},outcome=\"retry\"}} 1"),
        format!("tidewire_group_handler_seconds_count{{{group}}} 2"),
        format!("tidewire_group_handler_seconds_bucket{{le=\"+Inf\",{group}}} 2"),
        format!("tidewire_group_consumers{{{group}}} 1"),
        format!("tidewire_group_breaker{{{group}}} 0"),
        format!("tidewire_group_lag_events{{{group}}} 0.0"),
        format!("tidewire_group_lag_seconds{{{group}}} 0.0"),
        format!("tidewire_webhook_enabled{{{group}}} 1"),
        format!("tidewire_group_dead_letters{{{group}}} 0.0"),
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
    }
    let names = page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
    let manual = include_str!("../../../../docs/metrics.md");
    for name in names {
        assert!(manual.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
    }
}
