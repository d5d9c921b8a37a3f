//! Who a connection without a token is of, and whether it goes on.

use std::time::Duration;

use serde_json::{Value, json};
use tidewire::clock::Stopwatch;
use tidewire_server::{Config, Server};

use super::in_millis;
use crate::backend::{App, Say, asking, tenant};
use crate::client::{Client, Closed, acme_token, api, dev, dev_token, start, strict};

/// `--dev`, with a backend that is asked who connects and whether that goes on.
fn settings(backend: &App) -> Config {
    let mut config = asking(dev(), backend.endpoint());
    let hooks = &mut tenant(&mut config).hooks;
    (hooks.connect, hooks.refresh) = (Some("app".into()), Some("app".into()));
    config
}

async fn connect(server: &Server, request: Value) -> (Client, Result<Value, Value>) {
    let mut client = Client::open(server).await;
    let result = client.call("connect", request).await;
    (client, result)
}

async fn closed(server: &Server) -> Closed {
    let mut client = Client::open(server).await;
    client.send(r#"{"id":1,"connect":{}}"#).await;
    client.closed().await
}

#[tokio::test]
async fn the_backend_says_who_a_connection_without_a_token_is_of() {
    let mut backend = App::start().await;
    backend.result(
        "connect",
        json!({
            "user": "ann", "info": {"name": "Ann"}, "data": {"hello": 1}, "meta": {"plan": "pro"},
            "channels": ["news"], "subs": {"own": {"data": {"sub": 2}}},
        }),
    );
    let server = start(settings(&backend)).await;
    let request = json!({"name": "js", "version": "5", "data": {"who": "me"}, "subs": {"news": {}}});
    let (mut client, result) = connect(&server, request).await;
    let result = result.unwrap();
    assert_eq!((&result["data"], &result["subs"]["own"]["data"]), (&json!({"hello": 1}), &json!({"sub": 2})));
    assert!(result["subs"].get("news").is_some() && result.get("meta").is_none(), "{result}");
    let asked = backend.next().await;
    assert_eq!((&*asked.hook, &*asked.headers["content-type"]), ("connect", "application/json"));
    assert_eq!(
        asked.json(),
        json!({
            "client": result["client"], "transport": "websocket", "protocol": "json", "encoding": "json",
            "name": "js", "version": "5", "data": {"who": "me"}, "channels": ["news"],
        })
    );
    client.call("publish", json!({"channel": "own", "data": 1})).await.unwrap();
    let push = client.push().await;
    assert_eq!(push["pub"]["info"]["user"], "ann", "{push}");
    assert_eq!(push["pub"]["info"]["conn_info"], json!({"name": "Ann"}));
    // A token says it all.
    Client::with_token(&server, &dev_token("bob")).await;
    assert!(backend.is_idle());
}

#[tokio::test]
async fn a_subscription_of_the_backend_recovers_as_one_of_a_token_does() {
    let backend = App::start().await;
    backend.result("connect", json!({"user": "ann", "channels": ["news"]}));
    let server = start(settings(&backend)).await;
    let (client, result) = connect(&server, json!({})).await;
    let position = result.unwrap()["subs"]["news"].take();
    drop(client);
    api(&server, "publish", json!({"channel": "news", "data": "missed"})).await;
    let since = json!({"recover": true, "epoch": position["epoch"], "offset": 0});
    let (_, result) = connect(&server, json!({"subs": {"news": since}})).await;
    let news = &result.unwrap()["subs"]["news"];
    assert_eq!((&news["recovered"], &news["publications"][0]["data"]), (&json!(true), &json!("missed")));
}

#[tokio::test]
async fn a_backend_refuses_with_an_error_or_ends_the_connection() {
    let backend = App::start().await;
    let server = start(settings(&backend)).await;
    for (say, error) in [
        (json!({"error": {"code": 1000, "message": "custom"}}), json!({"code": 1000, "message": "custom"})),
        (
            json!({"error": {"code": 403, "message": "later", "temporary": true}}),
            json!({"code": 403, "message": "later", "temporary": true}),
        ),
        (json!({"error": {"code": 101}}), json!({"code": 101, "message": "unauthorized"})),
        (json!({"result": {"user": "ann", "expire_at": 1}}), json!({"code": 110, "message": "expired"})),
    ] {
        backend.say("connect", Say::Json(say));
        assert_eq!(connect(&server, json!({})).await.1, Err(error));
    }
    for (code, reason, told) in [(4_500, "go away", "go away"), (4_000, "", ""), (3_500, "", "invalid token")]
    {
        backend.say("connect", Say::Json(json!({"disconnect": {"code": code, "reason": reason}})));
        assert_eq!(closed(&server).await, (code, told.to_owned()));
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_that_the_client_tries_again() {
    let backend = App::start().await;
    let mut config = settings(&backend);
    let endpoint = tenant(&mut config).hooks.endpoints.get_mut("app").unwrap();
    (endpoint.answer_bytes_max, endpoint.breaker.failures) = (300, 1_000);
    let server = start(config).await;
    let mut client = Client::open(&server).await;
    let long = json!({"result": {"user": "u".repeat(300)}});
    for say in [
        Say::Status(500),
        Say::Status(404),
        Say::Status(201),
        Say::Text("<html>"),
        Say::Text("[]"),
        Say::Json(json!({})),
        Say::Json(json!({"result": {"user": 7}})),
        Say::Json(json!({"result": {"user": "ann", "channels": ["no channel"]}})),
        Say::Json(json!({"result": {"user": "ann", "b64info": "#"}})),
        Say::Json(json!({"error": {"code": 99, "message": "secret"}})),
        Say::Json(json!({"error": {"code": 303, "message": "secret"}})),
        Say::Json(json!({"disconnect": {"code": 5_000, "reason": "secret"}})),
        Say::Json(json!({"disconnect": {"code": 1_000, "reason": "secret"}})),
        Say::Json(long),
    ] {
        backend.say("connect", say);
        let error = client.call("connect", json!({})).await.unwrap_err();
        assert_eq!(error, json!({"code": 100, "message": "internal server error", "temporary": true}));
    }
    backend.result("connect", json!({"user": "ann"}));
    client.call("connect", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_backend_gets_the_headers_and_cookies_that_are_named_and_ours() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut backend = App::start().await;
    let mut config = settings(&backend);
    let secret = b"replace-me-replace-me-replace-me";
    let endpoint = tenant(&mut config).hooks.endpoints.get_mut("app").unwrap();
    endpoint.client_headers = vec!["X-Request-Id".into(), "user-agent".into()];
    endpoint.client_cookies = vec!["session".into()];
    endpoint.headers.insert("authorization".into(), "Bearer ours".into());
    endpoint.secrets = vec![format!("whsec_{}", STANDARD.encode(secret)).as_str().into()];
    let server = start(config).await;
    let headers = [
        ("x-request-id", "7"),
        ("x-other", "no"),
        ("authorization", "theirs"),
        ("cookie", "a=1; session=abc; b=2"),
        ("user-agent", "browser"),
    ];
    let mut client = Client::open_with(&server, &headers).await.unwrap();
    let given = json!({"X-REQUEST-ID": "8", "authorization": "theirs too"});
    client.call("connect", json!({"headers": given})).await.unwrap();
    let asked = backend.next().await;
    for (name, value) in [
        ("x-request-id", "8"),
        ("cookie", "session=abc"),
        ("authorization", "Bearer ours"),
        ("user-agent", "browser"),
    ] {
        assert_eq!(asked.headers[name], value, "{asked:?}");
    }
    assert!(!asked.headers.contains_key("x-other"));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let signed =
        format!("{}.{}.{}", asked.headers["webhook-id"], asked.headers["webhook-timestamp"], asked.text);
    let signature = STANDARD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
    assert_eq!(asked.headers["webhook-signature"], format!("v1,{signature}"));

    let mut client = Client::open(&server).await;
    let refused = client.call("connect", json!({"headers": {"x-request-id": "a\nb"}})).await.unwrap_err();
    assert_eq!(refused["code"], 107);
}

#[tokio::test]
async fn the_page_of_another_tenant_reaches_no_backend() {
    let backend = App::start().await;
    let mut config = settings(&backend);
    config.tenants.extend(strict().tenants);
    let server = start(config).await;
    let mut client = Client::open_from(&server, Some("https://acme.example")).await.unwrap();
    client.send(r#"{"id":1,"connect":{}}"#).await;
    assert_eq!(client.closed().await.0, 3507);
    assert!(backend.is_idle());
}

#[tokio::test]
async fn a_page_is_looked_at_again_with_the_second_attempt() {
    let backend = App::start().await;
    let mut config = settings(&backend);
    config.tenants.extend(strict().tenants);
    tenant(&mut config).channels.clear();
    let server = start(config).await;
    backend.result("connect", json!({"user": "ann", "channels": ["no-rule"]}));
    let mut client = Client::open_from(&server, Some("http://localhost:5173")).await.unwrap();
    assert_eq!(client.call("connect", json!({})).await.unwrap_err()["code"], 102);
    client.send(json!({"id": 2, "connect": {"token": acme_token("ann")}}).to_string()).await;
    assert_eq!(client.closed().await.0, 3507);
}

#[tokio::test]
async fn a_session_goes_on_as_long_as_the_backend_says() {
    let mut backend = App::start().await;
    let result = json!({"user": "ann", "meta": {"plan": "pro"}, "expire_at": in_millis(1_000)});
    backend.result("connect", result);
    backend.result(
        "refresh",
        json!({"expire_at": in_millis(2_000), "info": {"name": "Ann"}, "meta": {"plan": "max"}}),
    );
    let mut config = settings(&backend);
    config.timing.expired_grace = Duration::from_secs(15);
    let server = start(config).await;
    let (mut client, result) = connect(&server, json!({})).await;
    let result = result.unwrap();
    assert!(result.get("expires").is_none() && result.get("ttl").is_none(), "{result}");
    assert_eq!(backend.next().await.hook, "connect");
    let asked = backend.next().await;
    assert_eq!(asked.hook, "refresh");
    let told = |plan: &str| {
        json!({
            "client": result["client"], "transport": "websocket", "protocol": "json", "encoding": "json",
            "user": "ann", "meta": {"plan": plan},
        })
    };
    assert_eq!(asked.json(), told("pro"));
    backend.result("refresh", json!({"expired": true}));
    assert_eq!(backend.next().await.json(), told("max"));
    assert_eq!(client.closed().await, (3005, "connection expired".into()));
}

#[tokio::test]
async fn a_session_whose_backend_is_away_goes_on_and_one_that_it_refuses_does_not() {
    let mut backend = App::start().await;
    backend.say("refresh", Say::Status(500));
    let mut config = settings(&backend);
    config.timing.expired_grace = Duration::from_millis(100);
    let server = start(config).await;
    let expires_at = in_millis(1_000);
    backend.result("connect", json!({"user": "ann", "expire_at": expires_at}));
    let (mut client, result) = connect(&server, json!({})).await;
    result.unwrap();
    while backend.next().await.hook != "refresh" {}
    // Past the time that it had, and the grace.
    let watch = Stopwatch::start();
    while watch.elapsed() < Duration::from_secs(2) {
        client.call("ping", json!({})).await.unwrap();
    }
    for (say, code) in [
        (json!({"error": {"code": 103, "message": "banned"}}), 3507),
        (json!({"disconnect": {"code": 4_501, "reason": "bye"}}), 4501),
        (json!({}), 3005),
    ] {
        backend.say("refresh", Say::Json(say));
        backend.result("connect", json!({"user": "ann", "expire_at": in_millis(1_000)}));
        assert_eq!(closed(&server).await.0, code);
    }
}

#[tokio::test]
async fn without_a_refresh_hook_the_client_is_told_when_its_session_ends() {
    let backend = App::start().await;
    backend.result("connect", json!({"user": "ann", "expire_at": in_millis(1_000_000)}));
    let mut config = settings(&backend);
    tenant(&mut config).hooks.refresh = None;
    let server = start(config).await;
    let (mut client, result) = connect(&server, json!({})).await;
    assert_eq!(result.unwrap()["expires"], true);
    client.call("refresh", json!({"token": dev_token("ann")})).await.unwrap();
}
