//! What the server API does to the connections of a user.

use serde_json::json;

use crate::client::{Client, api, dev, dev_token, start};

#[tokio::test]
async fn a_user_is_subscribed_and_unsubscribed_from_the_server() {
    let server = start(dev()).await;
    let mut ann = Client::with_token(&server, &dev_token("ann")).await;
    let mut bob = Client::with_token(&server, &dev_token("bob")).await;
    api(&server, "publish", json!({"channel": "news", "data": 0})).await;
    let request = json!({"user": "ann", "channel": "news", "data": {"from": "us"}});
    assert_eq!(api(&server, "subscribe", request.clone()).await, json!({"result": {}}));
    let push = ann.push().await;
    let epoch = push["subscribe"]["epoch"].clone();
    let subscribe =
        json!({"recoverable": true, "epoch": epoch, "offset": 1, "positioned": true, "data": {"from": "us"}});
    assert_eq!((&push["channel"], &push["subscribe"]), (&json!("news"), &subscribe));

    // Once more is no second subscription; what follows comes once.
    api(&server, "subscribe", request).await;
    bob.subscribe("news", None).await.unwrap();
    api(&server, "publish", json!({"channel": "news", "data": 1})).await;
    assert_eq!(ann.publication("news").await, (json!(1), 2));
    assert_eq!(bob.publication("news").await, (json!(1), 2));

    api(&server, "unsubscribe", json!({"user": "ann", "channel": "news"})).await;
    let push = ann.push().await;
    assert_eq!(push["unsubscribe"], json!({"code": 2000, "reason": "server unsubscribe"}));
    api(&server, "publish", json!({"channel": "news", "data": 2})).await;
    assert_eq!(bob.publication("news").await, (json!(2), 3), "another user's stays");
    ann.subscribe("news", None).await.unwrap();
}

#[tokio::test]
async fn a_user_is_subscribed_from_a_position_on() {
    let server = start(dev()).await;
    let mut ann = Client::with_token(&server, &dev_token("ann")).await;
    for n in 1..=3 {
        api(&server, "publish", json!({"channel": "past", "data": n})).await;
    }
    let since = json!({"offset": 1});
    api(&server, "subscribe", json!({"user": "ann", "channel": "past", "recover_since": since})).await;
    assert_eq!(ann.push().await["subscribe"]["offset"], 1);
    assert_eq!(ann.publication("past").await, (json!(2), 2));
    assert_eq!(ann.publication("past").await, (json!(3), 3));
}

#[tokio::test]
async fn a_subscription_from_the_server_has_info_bytes_and_overrides() {
    let server = start(dev()).await;
    let mut eve = Client::with_token(&server, &dev_token("eve")).await;
    eve.call("subscribe", json!({"channel": "hall", "join_leave": true})).await.unwrap();
    assert_eq!(eve.push().await["join"]["info"]["user"], "eve");
    let mut ann = Client::with_token(&server, &dev_token("ann")).await;
    let overrides = json!({"force_push_join_leave": {"value": true}});
    let request = json!({"user": "ann", "channel": "hall", "info": {"seat": 7}, "b64data": "aGk=", "override": overrides});
    assert_eq!(api(&server, "subscribe", request).await, json!({"result": {}}));
    assert_eq!(ann.push().await["subscribe"]["data"], "hi");
    let join = eve.push().await["join"]["info"].take();
    assert_eq!((&join["user"], &join["chan_info"]), (&json!("ann"), &json!({"seat": 7})));
    assert_eq!(ann.push().await["join"]["info"]["user"], "ann", "by the override it is told who comes");
    let mut bob = Client::with_token(&server, &dev_token("bob")).await;
    api(&server, "subscribe", json!({"user": "bob", "channel": "hall", "b64info": "//79"})).await;
    bob.push().await;
    let presence = api(&server, "presence", json!({"channel": "hall"})).await["result"]["presence"].take();
    let members = presence.as_object().unwrap().values();
    let bobs: Vec<_> = members.filter(|member| member["user"] == "bob").collect();
    assert_eq!(bobs[0]["chan_info"], "//79");
    for (request, code, said) in [
        (json!({"user": "ann", "channel": "x", "data": 1, "b64data": "aGk="}), 107, "one of them"),
        (json!({"user": "ann", "channel": "x", "b64info": "?"}), 107, "b64info"),
        (json!({"user": "ann", "channel": "x", "override": 1}), 107, "override"),
        (json!({"user": "ann", "channel": "x", "session": "s"}), 108, "session"),
    ] {
        let error = api(&server, "subscribe", request).await["error"].take();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
}

#[tokio::test]
async fn connections_on_a_whitelist_stay() {
    let server = start(dev()).await;
    let mut first = Client::with_token(&server, &dev_token("ann")).await;
    let mut second = Client::open(&server).await;
    let connected = second.call("connect", json!({"token": dev_token("ann")})).await.unwrap();
    api(&server, "disconnect", json!({"user": "ann", "whitelist": [connected["client"]]})).await;
    assert_eq!(first.closed().await.0, 3503);
    second.subscribe("still", None).await.unwrap();
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_name() {
    let server = start(dev()).await;
    for (method, request, said) in [
        ("unsubscribe", json!({"user": "ann", "channel": "x", "session": "s"}), "session"),
        ("disconnect", json!({"user": "ann", "session": "s"}), "session"),
        ("refresh", json!({"user": "ann", "session": "s"}), "session"),
        ("refresh", json!({"user": "ann", "info": {}}), "info"),
    ] {
        let error = api(&server, method, request).await["error"].take();
        assert_eq!(error["code"], 108, "{method} {error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_user_is_disconnected_with_a_reason() {
    let server = start(dev()).await;
    let mut ann = Client::with_token(&server, &dev_token("ann")).await;
    let mut bob = Client::with_token(&server, &dev_token("bob")).await;
    let told = json!({"code": 4001, "reason": "your plan ended"});
    api(&server, "disconnect", json!({"user": "ann", "disconnect": told})).await;
    let (code, reason) = ann.closed().await;
    assert_eq!((code, &*reason), (4001, "your plan ended"));
    api(&server, "disconnect", json!({"user": "bob"})).await;
    assert_eq!(bob.closed().await.0, 3503);
    for (request, part) in [
        (json!({}), "user is missing"),
        (json!({"user": "ann", "disconnect": {"code": 1000}}), "not 3000 to 4999"),
    ] {
        let reply = api(&server, "disconnect", request).await;
        assert!(reply["error"]["message"].as_str().unwrap().contains(part), "{reply}");
    }
}

#[tokio::test]
async fn one_connection_of_a_user_is_meant_by_its_client() {
    let server = start(dev()).await;
    let mut first = Client::with_token(&server, &dev_token("ann")).await;
    let mut second = Client::open(&server).await;
    let connected = second.call("connect", json!({"token": dev_token("ann")})).await.unwrap();
    api(&server, "disconnect", json!({"user": "ann", "client": connected["client"]})).await;
    assert_eq!(second.closed().await.0, 3503);
    first.subscribe("still", None).await.unwrap();
}

#[tokio::test]
async fn a_session_is_refreshed_from_the_server() {
    let server = start(dev()).await;
    let mut ann = Client::with_token(&server, &dev_token("ann")).await;
    api(&server, "refresh", json!({"user": "ann", "expire_at": 0})).await;
    assert_eq!(ann.push().await["refresh"], json!({}));
    api(&server, "refresh", json!({"user": "ann", "expire_at": 99_999_999_999_u64})).await;
    assert_eq!(ann.push().await["refresh"]["expires"], true);
    api(&server, "refresh", json!({"user": "ann", "expired": true})).await;
    assert_eq!(ann.closed().await.0, 3005);
}

#[tokio::test]
async fn channels_are_listed_with_their_subscribers() {
    let server = start(dev()).await;
    let (mut one, _) = Client::subscribed(&server, "room:1").await;
    let (_two, _) = Client::subscribed(&server, "room:1").await;
    one.subscribe("hall", None).await.unwrap();
    let all = api(&server, "channels", json!({})).await;
    let channels = json!({"hall": {"num_clients": 1}, "room:1": {"num_clients": 2}});
    assert_eq!(all, json!({"result": {"channels": channels}}));
    let rooms = api(&server, "channels", json!({"pattern": "room:*"})).await;
    assert_eq!(rooms["result"]["channels"], json!({"room:1": {"num_clients": 2}}));
    let reply = api(&server, "channels", json!({"pattern": "a b"})).await;
    assert_eq!(reply["error"]["code"], 107);
}

#[tokio::test]
async fn a_batch_has_an_outcome_for_each_call() {
    let server = start(dev()).await;
    let (mut client, _) = Client::subscribed(&server, "batch").await;
    for parallel in [false, true] {
        let commands = json!([
            {"publish": {"channel": "batch", "data": 1}},
            {"publish": {"channel": "batch"}},
            {"nothing": {}},
            {"batch": {}},
            {"info": {}, "channels": {}},
            {"channels": {}},
        ]);
        let reply = api(&server, "batch", json!({"commands": commands, "parallel": parallel})).await;
        let replies = reply["replies"].as_array().unwrap();
        let codes: Vec<_> =
            replies.iter().map(|reply| reply["error"]["code"].as_u64().unwrap_or(0)).collect();
        assert_eq!(codes, [0, 107, 104, 107, 107, 0]);
        assert!(replies[0]["publish"]["offset"].is_u64() && replies[5]["channels"]["channels"].is_object());
        assert_eq!(client.publication("batch").await.0, json!(1));
    }
}

#[tokio::test]
async fn what_a_channel_keeps_is_removed_and_the_stream_goes_on() {
    let server = start(dev()).await;
    let (mut client, subscribed) = Client::subscribed(&server, "gone").await;
    api(&server, "publish", json!({"channel": "gone", "data": 1})).await;
    assert_eq!(api(&server, "history_remove", json!({"channel": "gone"})).await, json!({"result": {}}));
    let history = api(&server, "history", json!({"channel": "gone", "limit": 10})).await;
    let expected = json!({"publications": [], "epoch": subscribed["epoch"], "offset": 1});
    assert_eq!(history["result"], expected);
    api(&server, "publish", json!({"channel": "gone", "data": 2})).await;
    assert_eq!(client.publication("gone").await, (json!(1), 1));
    assert_eq!(client.publication("gone").await, (json!(2), 2));
}
