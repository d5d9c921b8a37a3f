//! Each command, and each error that it can answer.

use serde_json::{Value, json};

use crate::client::{ACME_KEY, Client, acme_token, dev, dev_token, post, publish, start, strict};

fn code(outcome: Result<Value, Value>) -> u64 {
    outcome.map_or_else(|error| error["code"].as_u64().unwrap(), |result| panic!("no error: {result}"))
}

#[tokio::test]
async fn a_subscriber_receives_until_it_unsubscribes() {
    let server = start(dev()).await;
    let (mut client, result) = Client::subscribed(&server, "tour").await;
    assert_eq!((&result["recoverable"], &result["positioned"]), (&json!(true), &json!(true)));
    assert_eq!(result.get("offset"), None, "an empty stream ends at 0, which is left out");
    assert!(result["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()));

    assert_eq!(publish(&server, "tour", json!({"n": 1})).await, 1);
    assert_eq!(client.publication("tour").await, (json!({"n": 1}), 1));
    client.call("publish", json!({"channel": "tour", "data": null})).await.unwrap();
    assert_eq!(client.publication("tour").await, (Value::Null, 2));

    let (mut witness, _) = Client::subscribed(&server, "tour").await;
    assert_eq!(client.call("unsubscribe", json!({"channel": "tour"})).await.unwrap(), json!({}));
    client.call("unsubscribe", json!({"channel": "never"})).await.unwrap();
    publish(&server, "tour", json!(3)).await;
    assert_eq!(witness.publication("tour").await, (json!(3), 3));
    // Anything for the client would have come before this reply.
    client.call("ping", json!({})).await.unwrap();
    client.subscribe("tour", None).await.unwrap();
    publish(&server, "tour", json!(4)).await;
    assert_eq!(client.publication("tour").await, (json!(4), 4), "the third never came");
}

#[tokio::test]
async fn subscribers_see_which_user_published() {
    let server = start(dev()).await;
    let (mut client, _) = Client::subscribed(&server, "who").await;
    let info = json!({"name": "Ann"});
    let token = crate::client::token(&json!({"sub": "ann", "info": info}), "dev-token-secret");
    let mut ann = Client::open(&server).await;
    let id = ann.call("connect", json!({"token": token})).await.unwrap()["client"].take();
    ann.call("publish", json!({"channel": "who", "data": 1})).await.unwrap();
    let push = client.push().await;
    assert_eq!(push["pub"]["info"], json!({"user": "ann", "client": id, "conn_info": info}));
    let history = client.call("history", json!({"channel": "who", "limit": 1})).await.unwrap();
    assert_eq!(history["publications"][0]["info"]["user"], "ann");
}

#[tokio::test]
async fn each_refusal_has_its_code() {
    let server = start(strict()).await;
    let mut client = Client::with_token(&server, &acme_token("ann")).await;
    for (channel, expected) in [("none", 102), ("inner:a", 103), ("", 107), ("news:a b", 107)] {
        assert_eq!(code(client.subscribe(channel, None).await), expected, "{channel:?}");
    }
    let long = "n".repeat(256);
    let error = client.subscribe(&long, None).await.unwrap_err();
    assert_eq!(error["code"], 107);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("256") && message.contains("255"), "{message}");

    client.subscribe("news:a", None).await.unwrap();
    assert_eq!(code(client.subscribe("news:a", None).await), 105);
    assert_eq!(code(client.call("publish", json!({"channel": "news:a", "data": 1})).await), 103);
    assert_eq!(code(client.call("publish", json!({"channel": "live:a"})).await), 107);
    assert_eq!(code(client.call("history", json!({"channel": "live:a"})).await), 108);
    assert_eq!(code(client.call("history", json!({"channel": "inner:a"})).await), 103);
    for method in ["presence", "presence_stats", "rpc", "send"] {
        assert_eq!(code(client.call(method, json!({"channel": "news:a"})).await), 108, "{method}");
    }
    assert_eq!(code(client.call("sub_refresh", json!({"channel": "news:a"})).await), 107, "without a token");
    assert_eq!(code(client.call("subscribe", json!({"channel": "news:b", "type": 1})).await), 108);
    client.send(r#"{"id":900,"conjure":{}}"#).await;
    assert_eq!(code(client.reply(900, "conjure").await), 104);
    client.send(r#"{"send":{"data":1}}"#).await;
    client.call("ping", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_channel_open_to_users_is_closed_to_strangers() {
    let mut config = strict();
    let mut tenant = config.tenants["acme"].clone();
    (tenant.anonymous, tenant.api_keys) = (true, Vec::new());
    config.tenants.insert("default".into(), tenant);
    let server = start(config).await;
    let mut stranger = Client::anonymous(&server).await;
    assert_eq!(code(stranger.subscribe("news:a", None).await), 103);
    assert_eq!(code(stranger.call("publish", json!({"channel": "live:a", "data": 1})).await), 103);
}

#[tokio::test]
async fn tenants_do_not_hear_each_other() {
    let mut config = dev();
    config.tenants.extend(strict().tenants);
    let server = start(config).await;
    let mut ours = Client::with_token(&server, &dev_token("ann")).await;
    ours.subscribe("news:a", None).await.unwrap();
    let mut acme = Client::with_token(&server, &acme_token("ann")).await;
    acme.subscribe("news:a", None).await.unwrap();
    let body = json!({"channel": "news:a", "data": "acme's"}).to_string();
    post(&server, "publish", &[("X-API-Key", ACME_KEY)], &body).await;
    publish(&server, "news:a", json!("ours")).await;
    assert_eq!(ours.publication("news:a").await, (json!("ours"), 1));
    assert_eq!(acme.publication("news:a").await, (json!("acme's"), 1));
}

#[tokio::test]
async fn a_live_channel_remembers_nothing() {
    let server = start(strict()).await;
    let mut client = Client::with_token(&server, &acme_token("ann")).await;
    assert_eq!(client.subscribe("live:a", Some(("0000000000000001", 5))).await.unwrap(), json!({}));
    client.call("publish", json!({"channel": "live:a", "data": "now"})).await.unwrap();
    assert_eq!(client.publication("live:a").await, (json!("now"), 0));
}

#[tokio::test]
async fn subscriptions_of_a_connection_are_bounded() {
    let mut config = dev();
    config.limits.subscriptions_per_connection_max = 2;
    let server = start(config).await;
    let mut client = Client::anonymous(&server).await;
    client.subscribe("a", None).await.unwrap();
    client.subscribe("b", None).await.unwrap();
    let error = client.subscribe("c", None).await.unwrap_err();
    assert_eq!(error["code"], 106);
    assert!(
        error["message"].as_str().unwrap().contains("limits.subscriptions_per_connection_max"),
        "{error}"
    );
    client.call("unsubscribe", json!({"channel": "a"})).await.unwrap();
    client.subscribe("c", None).await.unwrap();
}

#[tokio::test]
async fn history_is_read_from_both_ends_and_from_a_position() {
    let server = start(dev()).await;
    let (mut client, subscribed) = Client::subscribed(&server, "past").await;
    let epoch = subscribed["epoch"].as_str().unwrap().to_owned();
    for n in 1..=5 {
        publish(&server, "past", json!(n)).await;
    }
    let since = |offset: u64| json!({"offset": offset, "epoch": epoch});
    for (request, expected) in [
        (json!({"limit": 0}), vec![]),
        (json!({}), vec![]),
        (json!({"limit": -1}), vec![1, 2, 3, 4, 5]),
        (json!({"limit": 2}), vec![1, 2]),
        (json!({"limit": 2, "reverse": true}), vec![5, 4]),
        (json!({"limit": 10, "since": since(3)}), vec![4, 5]),
        (json!({"limit": 10, "since": {"offset": 3}}), vec![4, 5]),
        (json!({"limit": 10, "since": since(3), "reverse": true}), vec![2, 1]),
        (json!({"limit": 10, "since": since(5)}), vec![]),
    ] {
        let mut body = request.clone();
        body["channel"] = "past".into();
        let result = client.call("history", body).await.unwrap();
        let pubs = result.get("publications").and_then(Value::as_array).cloned().unwrap_or_default();
        let offsets: Vec<u64> =
            pubs.iter().map(|publication| publication["offset"].as_u64().unwrap()).collect();
        assert_eq!(offsets, expected, "{request}");
        assert_eq!((&result["offset"], &result["epoch"]), (&json!(5), &json!(epoch)), "{request}");
    }
    for epoch in ["0000000000000001", "_"] {
        let body = json!({"channel": "past", "limit": 1, "since": {"offset": 1, "epoch": epoch}});
        assert_eq!(code(client.call("history", body).await), 112, "{epoch}");
    }
}
