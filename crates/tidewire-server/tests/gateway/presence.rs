//! Who is in a channel, and who comes and goes.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tidewire::Tidewire;
use tidewire_server::config::DEV_API_KEY;
use tidewire_server::{EngineUrl, Server};

use crate::client::{ACME_KEY, Client, api, dev, dev_token, rest, start, strict, token};

fn ann() -> String {
    token(&json!({"sub": "ann", "info": {"name": "Ann"}}), tidewire_server::config::DEV_TOKEN_SECRET)
}

async fn connected(server: &tidewire_server::Server, token: &str) -> (Client, String) {
    let mut client = Client::open(server).await;
    let connect = client.call("connect", json!({"token": token})).await.unwrap();
    (client, connect["client"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn who_is_in_a_channel_is_told_to_those_who_may_subscribe() {
    let server = start(dev()).await;
    let (mut first, id) = connected(&server, &ann()).await;
    let (mut second, other) = connected(&server, &dev_token("bob")).await;
    first.subscribe("room", None).await.unwrap();
    second.subscribe("room", None).await.unwrap();
    let members = json!({
        &id: {"user": "ann", "client": id, "conn_info": {"name": "Ann"}},
        &other: {"user": "bob", "client": other},
    });
    let presence = first.call("presence", json!({"channel": "room"})).await.unwrap();
    assert_eq!(presence, json!({"presence": members}));
    let stats = json!({"num_clients": 2, "num_users": 2});
    assert_eq!(first.call("presence_stats", json!({"channel": "room"})).await.unwrap(), stats);
    assert_eq!(api(&server, "presence", json!({"channel": "room"})).await["result"]["presence"], members);
    assert_eq!(api(&server, "presence_stats", json!({"channel": "room"})).await["result"], stats);

    second.call("unsubscribe", json!({"channel": "room"})).await.unwrap();
    let presence = first.call("presence", json!({"channel": "room"})).await.unwrap();
    assert_eq!(presence["presence"].as_object().unwrap().keys().collect::<Vec<_>>(), [&id]);
}

#[tokio::test]
async fn who_comes_and_goes_is_told_to_those_who_want_it() {
    let server = start(dev()).await;
    let (mut first, _) = connected(&server, &dev_token("eve")).await;
    first.call("subscribe", json!({"channel": "room", "join_leave": true})).await.unwrap();
    let own = first.push().await;
    assert_eq!(own["join"]["info"]["user"], "eve");
    let (mut quiet, _) = Client::subscribed(&server, "room").await;
    first.push().await;

    let (mut guest, id) = connected(&server, &ann()).await;
    let info = json!({"user": "ann", "client": id, "conn_info": {"name": "Ann"}});
    for _ in 0..3 {
        guest.subscribe("room", None).await.unwrap();
        let push = first.push().await;
        assert_eq!((&push["channel"], &push["join"]["info"]), (&json!("room"), &info));
        guest.call("unsubscribe", json!({"channel": "room"})).await.unwrap();
        assert_eq!(first.push().await["leave"]["info"], info);
    }
    guest.subscribe("room", None).await.unwrap();
    assert_eq!(first.push().await["join"]["info"], info);
    drop(guest);
    assert_eq!(first.push().await["leave"]["info"], info, "a connection that is gone has left");

    api(&server, "publish", json!({"channel": "room", "data": 1})).await;
    assert_eq!(quiet.publication("room").await.0, json!(1), "who did not ask for it is not told");
}

#[tokio::test]
async fn who_was_unsubscribed_from_the_server_has_left() {
    let server = start(dev()).await;
    let (mut watcher, _) = connected(&server, &dev_token("eve")).await;
    watcher.call("subscribe", json!({"channel": "room", "join_leave": true})).await.unwrap();
    watcher.push().await;
    let (mut guest, _) = connected(&server, &ann()).await;
    guest.subscribe("room", None).await.unwrap();
    watcher.push().await;
    api(&server, "unsubscribe", json!({"user": "ann", "channel": "room"})).await;
    assert_eq!(watcher.push().await["leave"]["info"]["user"], "ann");
    let stats = api(&server, "presence_stats", json!({"channel": "room"})).await;
    assert_eq!(stats["result"]["num_clients"], 1);
}

#[tokio::test]
async fn a_channel_says_who_is_in_it_only_where_its_rule_says_so() {
    let server = start(strict()).await;
    let mut client = Client::with_token(&server, &crate::client::acme_token("ann")).await;
    client.subscribe("live:a", None).await.unwrap();
    let refused: Value = client.call("presence", json!({"channel": "live:a"})).await.unwrap_err();
    assert_eq!(refused["code"], 108);
    let refused = client.call("presence", json!({"channel": "nowhere"})).await.unwrap_err();
    assert_eq!(refused["code"], 102);
}

#[tokio::test]
async fn more_members_than_fit_are_not_listed_in_one_reply() {
    let mut config = dev();
    config.limits.presence_members_max = 1;
    let server = start(config).await;
    let (mut first, _) = Client::subscribed(&server, "room").await;
    first.call("presence", json!({"channel": "room"})).await.unwrap();
    let (_second, _) = Client::subscribed(&server, "room").await;
    let refused = first.call("presence", json!({"channel": "room"})).await.unwrap_err();
    assert_eq!(refused["code"], 106);
    assert!(refused["message"].as_str().unwrap().contains("limits.presence_members_max"));
}

/// The members of a channel, page by page.
async fn pages(server: &Server, channel: &str, limit: usize) -> Vec<Vec<Value>> {
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/channels/{channel}/presence?limit={limit}{after}");
        let reply = rest(server, "GET", &path, DEV_API_KEY, "").await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let mut page = reply.json();
        pages.push(page["members"].as_array().unwrap().clone());
        match page["next"].take() {
            Value::String(next) => after = format!("&after={next}"),
            _ => return pages,
        }
    }
}

#[tokio::test]
async fn members_are_listed_page_by_page() {
    let server = start(dev()).await;
    assert_eq!(pages(&server, "room", 2).await, [Vec::<Value>::new()], "nobody is there");
    let (mut first, id) = connected(&server, &ann()).await;
    first.subscribe("room", None).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(Client::subscribed(&server, "room").await.0);
    }
    let found = pages(&server, "room", 2).await;
    assert!(found.len() > 2 && found.iter().all(|page| page.len() <= 2), "{found:?}");
    let ids: BTreeSet<_> = found.iter().flatten().map(|member| member["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), found.iter().flatten().count()), (5, 5));
    let ann = found.iter().flatten().find(|member| member["id"] == *id).unwrap();
    assert_eq!((&ann["user"], &ann["conn_info"]), (&json!("ann"), &json!({"name": "Ann"})));
    for (query, said) in
        [("limit=0", "not 1 to 1000"), ("after=*", "after is not"), ("page=2", "unknown field")]
    {
        let reply =
            rest(&server, "GET", &format!("/v1/channels/room/presence?{query}"), DEV_API_KEY, "").await;
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains(said), "{}", reply.body);
    }
    assert_eq!(rest(&server, "GET", "/v1/channels/room/presence", "wrong", "").await.status, 401);
}

#[tokio::test]
async fn pages_are_only_of_channels_whose_rule_has_presence() {
    let server = start(strict()).await;
    for channel in ["live:a", "nowhere"] {
        let path = format!("/v1/channels/{channel}/presence");
        assert_eq!(rest(&server, "GET", &path, ACME_KEY, "").await.status, 404, "{channel}");
    }
}

#[tokio::test]
async fn ten_thousand_members_of_two_nodes_are_listed_once_on_redis() {
    #[expect(clippy::disallowed_methods, reason = "where the tests' server is")]
    let url = std::env::var("TIDEWIRE_TEST_REDIS_URL").expect("run `cargo xtask test`, which starts Redis");
    let mut config = dev();
    config.engine = EngineUrl::from(&*url);
    let server = start(config).await;
    let channel = format!("crowd-{}", std::process::id());
    let open = || async { Tidewire::builder(&url).environment("dev").open().await.unwrap() };
    let nodes = [open().await, open().await];
    for (number, node) in nodes.iter().enumerate() {
        let presence = node.tenant("default").unwrap().presence(&channel).unwrap();
        let join = |n: usize| {
            let presence = presence.clone();
            async move { presence.join(&format!("{number}-{n}"), &format!("user-{}", n % 100), "").await.unwrap() }
        };
        stream::iter(0..5_000).map(join).buffer_unordered(500).collect::<Vec<_>>().await;
    }
    let found = pages(&server, &channel, 1_000).await;
    let ids: BTreeSet<_> = found.iter().flatten().map(|member| member["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), found.iter().flatten().count()), (10_000, 10_000));
    for node in nodes {
        node.close(std::time::Duration::from_secs(10)).await.unwrap();
    }
}
