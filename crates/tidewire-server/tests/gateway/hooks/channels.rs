//! What a client may subscribe to and publish, as a backend says.

use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};
use tidewire_server::config::{ChannelHooks, DEV_TOKEN_SECRET};
use tidewire_server::{Config, Server};

use super::in_millis;
use crate::backend::{App, Say, asking, tenant};
use crate::client::{Client, api, dev, dev_token, start, token};

/// `--dev`, with a backend that is asked in every channel.
fn settings(backend: &App) -> Config {
    let mut config = asking(dev(), backend.endpoint());
    let app = || Some("app".to_owned());
    tenant(&mut config).channels[0].ask =
        ChannelHooks { subscribe: app(), sub_refresh: app(), publish: app() };
    config
}

async fn ann(server: &Server) -> Client {
    Client::with_token(server, &dev_token("ann")).await
}

fn error(say: Value) -> Say {
    Say::Json(json!({"error": say}))
}

#[tokio::test]
async fn the_backend_says_whether_a_client_may_subscribe_and_how() {
    let mut backend = App::start().await;
    backend.result("subscribe", json!({"data": {"welcome": 1}, "info": {"role": "guest"}, "expire_at": 0}));
    let server = start(settings(&backend)).await;
    let claims = json!({"sub": "ann", "meta": {"plan": "pro"}});
    let mut client = Client::with_token(&server, &token(&claims, DEV_TOKEN_SECRET)).await;
    let result = client.call("subscribe", json!({"channel": "room", "data": {"with": 2}})).await.unwrap();
    assert_eq!(result["data"], json!({"welcome": 1}));
    let asked = backend.next().await;
    let mut body = asked.json();
    assert_eq!((&*asked.hook, body["client"].take().is_string()), ("subscribe", true));
    assert_eq!(
        body,
        json!({
            "client": null, "transport": "websocket", "protocol": "json", "encoding": "json", "user": "ann",
            "channel": "room", "data": {"with": 2}, "meta": {"plan": "pro"},
        })
    );
    let present = client.call("presence", json!({"channel": "room"})).await.unwrap();
    let member = present["presence"].as_object().unwrap().values().next().unwrap();
    assert_eq!(member["chan_info"], json!({"role": "guest"}), "{present}");

    backend.result("subscribe", json!({"override": {"presence": {"value": false}, "join_leave": {}}}));
    client.call("subscribe", json!({"channel": "quiet"})).await.unwrap();
    let members = api(&server, "presence", json!({"channel": "quiet"})).await;
    assert_eq!(members["result"]["presence"], json!({}));
}

#[tokio::test]
async fn the_backend_refuses_a_subscription() {
    let mut backend = App::start().await;
    let server = start(settings(&backend)).await;
    let mut client = ann(&server).await;
    for (say, code) in [
        (error(json!({"code": 403, "message": "not yours"})), 403),
        (error(json!({"code": 103})), 103),
        (Say::Status(500), 100),
    ] {
        backend.say("subscribe", say);
        let refused = client.subscribe("room", None).await.unwrap_err();
        assert_eq!(refused["code"], code, "{refused}");
        assert_eq!(backend.next().await.json()["channel"], "room");
    }
    // What it did not allow cannot be read either.
    for (method, request) in [
        ("history", json!({"channel": "room", "limit": 1})),
        ("presence", json!({"channel": "room"})),
        ("presence_stats", json!({"channel": "room"})),
    ] {
        assert_eq!(client.call(method, request).await.unwrap_err()["code"], 103, "{method}");
    }
    backend.result("subscribe", json!({}));
    client.subscribe("room", None).await.unwrap();
    client.call("history", json!({"channel": "room", "limit": 1})).await.unwrap();
    client.call("presence_stats", json!({"channel": "room"})).await.unwrap();
    // Nor once it is left again.
    client.call("unsubscribe", json!({"channel": "room"})).await.unwrap();
    assert_eq!(client.call("history", json!({"channel": "room"})).await.unwrap_err()["code"], 103);

    backend.say("subscribe", Say::Json(json!({"disconnect": {"code": 4_502, "reason": "bye"}})));
    client.send(r#"{"id":99,"subscribe":{"channel":"other"}}"#).await;
    assert_eq!(client.closed().await, (4502, "bye".into()));
}

#[tokio::test]
async fn what_denies_by_itself_is_not_asked_and_a_token_says_it_all() {
    let backend = App::start().await;
    let mut config = settings(&backend);
    let rules = &mut tenant(&mut config).channels;
    let mut closed = rules[0].clone();
    closed.pattern = "closed:*".into();
    (closed.subscribe, closed.publish) = Default::default();
    rules.insert(0, closed);
    let server = start(config).await;
    let mut client = ann(&server).await;
    assert_eq!(client.subscribe("closed:a", None).await.unwrap_err()["code"], 103);
    let publish = json!({"channel": "closed:a", "data": 1});
    assert_eq!(client.call("publish", publish).await.unwrap_err()["code"], 103);
    let claims = json!({"sub": "ann", "channel": "closed:a", "exp": get_current_timestamp() + 100});
    let request = json!({"channel": "closed:a", "token": token(&claims, DEV_TOKEN_SECRET)});
    let result = client.call("subscribe", request).await.unwrap();
    assert_eq!(result["expires"], true, "a token is refreshed by its client");
    client.call("history", json!({"channel": "closed:a"})).await.unwrap_err();
    assert!(backend.is_idle());
}

#[tokio::test]
async fn a_subscription_goes_on_as_long_as_the_backend_says() {
    let mut backend = App::start().await;
    backend.result("subscribe", json!({"expire_at": in_millis(1_000)}));
    backend.result("sub_refresh", json!({"expire_at": in_millis(2_000)}));
    let server = start(settings(&backend)).await;
    let mut client = ann(&server).await;
    let result = client.subscribe("room", None).await.unwrap();
    assert!(result.get("expires").is_none(), "{result}");
    assert_eq!(backend.next().await.hook, "subscribe");
    for _ in 0..2 {
        let asked = backend.next().await;
        assert_eq!((&*asked.hook, &asked.json()["channel"]), ("sub_refresh", &json!("room")));
        backend.result("sub_refresh", json!({"expired": true}));
    }
    let push = client.push().await;
    assert_eq!((&push["channel"], &push["unsubscribe"]["code"]), (&json!("room"), &json!(2501)));
}

#[tokio::test]
async fn the_backend_says_what_is_published() {
    let mut backend = App::start().await;
    let server = start(settings(&backend)).await;
    let mut client = ann(&server).await;
    client.subscribe("room", None).await.unwrap();
    assert_eq!(backend.next().await.hook, "subscribe");
    let publish = |data: Value| json!({"channel": "room", "data": data});

    client.call("publish", publish(json!({"text": "hi"}))).await.unwrap();
    assert_eq!(client.publication("room").await, (json!({"text": "hi"}), 1));
    let asked = backend.next().await;
    let body = asked.json();
    assert_eq!(
        (&*asked.hook, &body["channel"], &body["data"]),
        ("publish", &json!("room"), &json!({"text": "hi"}))
    );

    backend.result("publish", json!({"data": {"text": "***"}}));
    client.call("publish", publish(json!({"text": "damn"}))).await.unwrap();
    assert_eq!(client.publication("room").await, (json!({"text": "***"}), 2));
    backend.result("publish", json!({"b64data": "eyJ0IjoxfQ==", "skip_history": true}));
    client.call("publish", publish(json!(1))).await.unwrap();
    assert_eq!(client.publication("room").await, (json!({"t": 1}), 0));

    for (say, code) in [
        (error(json!({"code": 400, "message": "rude"})), 400),
        (Say::Json(json!({"result": {"b64data": "#"}})), 100),
        (Say::Text("no"), 100),
    ] {
        backend.say("publish", say);
        assert_eq!(client.call("publish", publish(json!(2))).await.unwrap_err()["code"], code);
    }
    let history = api(&server, "history", json!({"channel": "room", "limit": 10})).await;
    assert_eq!(history["result"]["publications"].as_array().map(Vec::len), Some(2), "{history}");
    backend.say("publish", Say::Json(json!({"disconnect": {"code": 4_503, "reason": "bye"}})));
    client.send(r#"{"id":99,"publish":{"channel":"room","data":3}}"#).await;
    assert_eq!(client.closed().await, (4503, "bye".into()));
}
