//! What tokens let a connection do, and what the server subscribes it to.

use std::time::Duration;

use serde_json::{Value, json};
use tidewire_server::Config;
use tidewire_server::config::{ChannelRule, DEV_TOKEN_SECRET, Who};

use crate::client::{Client, api, dev, start, token};

const FAR: u64 = 99_999_999_999;

fn signed(claims: &Value) -> String {
    token(claims, DEV_TOKEN_SECRET)
}

/// A channel `secret:*` that no client may do anything in, unless a token says so.
fn guarded() -> Config {
    let mut config = dev();
    let tenant = config.tenants.get_mut("default").unwrap();
    let open = tenant.channels.pop().unwrap();
    let secret = ChannelRule {
        pattern: "secret:*".into(),
        subscribe: Who::Nobody,
        publish: Who::Nobody,
        ..open.clone()
    };
    tenant.channels.extend([secret, open]);
    config
}

async fn connected(server: &tidewire_server::Server, claims: &Value) -> (Client, Value) {
    let mut client = Client::open(server).await;
    let connect = client.call("connect", json!({"token": signed(claims)})).await.unwrap();
    (client, connect)
}

#[tokio::test]
async fn a_subscription_token_opens_its_channel_to_its_user() {
    let server = start(guarded()).await;
    let (mut ann, connect) = connected(&server, &json!({"sub": "ann"})).await;
    let ask = |claims: Value| json!({"channel": "secret:a", "token": signed(&claims)});
    for (claims, code) in [
        (json!({"sub": "bob", "channel": "secret:a"}), 103),
        (json!({"sub": "ann", "channel": "secret:b"}), 103),
        (json!({"sub": "ann", "channel": "secret:a", "client": "another"}), 103),
        (json!({"sub": "ann", "channel": "secret:a", "exp": 1}), 109),
    ] {
        assert_eq!(ann.call("subscribe", ask(claims.clone())).await.unwrap_err()["code"], code, "{claims}");
    }
    assert_eq!(ann.call("subscribe", json!({"channel": "secret:a"})).await.unwrap_err()["code"], 103);
    let good = json!({
        "sub": "ann", "channel": "secret:a", "client": connect["client"], "exp": FAR,
        "info": {"seat": 7}, "data": {"welcome": true},
    });
    let subscribed = ann.call("subscribe", ask(good)).await.unwrap();
    assert_eq!((&subscribed["expires"], &subscribed["data"]), (&json!(true), &json!({"welcome": true})));
    let presence = api(&server, "presence", json!({"channel": "secret:a"})).await;
    let member = &presence["result"]["presence"][connect["client"].as_str().unwrap()];
    assert_eq!(member["chan_info"], json!({"seat": 7}));
}

#[tokio::test]
async fn a_subscription_ends_with_its_token_unless_that_is_refreshed() {
    let mut config = guarded();
    config.timing.expired_grace = Duration::from_millis(300);
    let server = start(config).await;
    let (mut ann, _) = connected(&server, &json!({"sub": "ann"})).await;
    let now = tidewire::Clock::system().now().as_millis() / 1_000;
    let claims = |exp: u64| signed(&json!({"sub": "ann", "channel": "secret:a", "exp": exp}));
    let short = json!({"channel": "secret:a", "token": claims(now + 1)});
    assert_eq!(ann.call("subscribe", short.clone()).await.unwrap()["ttl"], 1);
    let refresh = json!({"channel": "secret:a", "token": claims(FAR)});
    assert_eq!(ann.call("sub_refresh", refresh).await.unwrap()["expires"], true);
    ann.call("unsubscribe", json!({"channel": "secret:a"})).await.unwrap();
    let gone = json!({"channel": "secret:a", "token": claims(FAR)});
    assert_eq!(ann.call("sub_refresh", gone).await.unwrap_err()["code"], 107);

    let again = json!({"channel": "secret:a", "token": claims(now + 2)});
    ann.call("subscribe", again).await.unwrap();
    assert_eq!(ann.push().await["unsubscribe"]["code"], 2501);
    let again = json!({"channel": "secret:a", "token": claims(FAR)});
    ann.call("subscribe", again).await.unwrap();
}

#[tokio::test]
async fn a_connection_token_subscribes_from_the_server_and_recovers() {
    let server = start(guarded()).await;
    for n in 1..=2 {
        api(&server, "publish", json!({"channel": "secret:a", "data": n})).await;
    }
    let subs = json!({"news": {"data": {"hello": 1}}});
    let claims = json!({"sub": "ann", "channels": ["secret:a"], "subs": subs});
    let (mut ann, connect) = connected(&server, &claims).await;
    assert_eq!(connect["subs"]["secret:a"]["offset"], 2);
    assert_eq!(connect["subs"]["news"]["data"], json!({"hello": 1}));
    api(&server, "publish", json!({"channel": "secret:a", "data": 3})).await;
    assert_eq!(ann.publication("secret:a").await, (json!(3), 3));
    assert_eq!(ann.call("subscribe", json!({"channel": "news"})).await.unwrap_err()["code"], 105);

    let mut again = Client::open(&server).await;
    let since =
        json!({"secret:a": {"recover": true, "epoch": connect["subs"]["secret:a"]["epoch"], "offset": 1}});
    let request = json!({"token": signed(&claims), "subs": since});
    let connect = again.call("connect", request).await.unwrap();
    let recovered = &connect["subs"]["secret:a"];
    assert_eq!((&recovered["recovered"], &recovered["offset"]), (&json!(true), &json!(1)));
    assert_eq!(recovered["publications"], json!([{"data": 2, "offset": 2}, {"data": 3, "offset": 3}]));
}

#[tokio::test]
async fn a_token_for_a_channel_without_a_rule_fails_its_connect_command() {
    let mut config = guarded();
    config.tenants.get_mut("default").unwrap().channels.truncate(1);
    let server = start(config).await;
    let mut client = Client::open(&server).await;
    let nowhere = signed(&json!({"sub": "ann", "channels": ["secret:a", "nowhere"]}));
    assert_eq!(client.call("connect", json!({"token": nowhere})).await.unwrap_err()["code"], 102);
    let good = client.call("connect", json!({"token": signed(&json!({"sub": "ann"}))})).await;
    assert!(good.is_ok(), "another connect command may follow one that failed");
}

#[tokio::test]
async fn capabilities_of_a_token_decide_in_place_of_the_rules() {
    let server = start(guarded()).await;
    let caps = json!([
        {"channels": ["secret:read*"], "allow": ["sub", "hst"]},
        {"channels": ["secret:*"], "allow": ["pub"]},
    ]);
    let (mut ann, _) = connected(&server, &json!({"sub": "ann", "caps": caps})).await;
    let mut code = async |method: &str, channel: &str| {
        let body = json!({"channel": channel, "data": 1, "limit": 1});
        ann.call(method, body).await.map_or_else(|error| error["code"].clone(), |_| json!(0))
    };
    assert_eq!(code("subscribe", "secret:reading").await, 0);
    assert_eq!(code("history", "secret:reading").await, 0);
    assert_eq!(code("presence", "secret:reading").await, 103);
    assert_eq!(code("publish", "secret:reading").await, 103);
    assert_eq!(code("publish", "secret:writing").await, 0);
    assert_eq!(code("subscribe", "secret:writing").await, 103);
    assert_eq!(code("subscribe", "anything").await, 103, "what no entry has is not allowed");
}

#[tokio::test]
async fn a_personal_channel_is_its_users_alone() {
    let mut config = dev();
    config.tenants.get_mut("default").unwrap().personal_channels = Some("user:".into());
    let server = start(config).await;
    let (mut ann, connect) = connected(&server, &json!({"sub": "ann"})).await;
    assert!(connect["subs"]["user:ann"].is_object());
    api(&server, "publish", json!({"channel": "user:ann", "data": "for you"})).await;
    assert_eq!(ann.publication("user:ann").await.0, json!("for you"));
    let (mut bob, _) = connected(&server, &json!({"sub": "bob"})).await;
    assert_eq!(bob.call("subscribe", json!({"channel": "user:ann"})).await.unwrap_err()["code"], 103);
    let mut nobody = Client::anonymous(&server).await;
    assert_eq!(nobody.call("subscribe", json!({"channel": "user:"})).await.unwrap_err()["code"], 103);
}
