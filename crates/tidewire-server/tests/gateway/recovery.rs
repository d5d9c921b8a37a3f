//! Coming back: what was missed arrives once and in order, or the client is told that it cannot.

use serde_json::{Value, json};
use tidewire_server::config::{ChannelRule, Keep, RecoveryMode};
use tidewire_server::{Config, Server};

use crate::client::{Client, api, dev, dev_token, publish, start};

fn offsets(result: &Value) -> Vec<u64> {
    let publications = result.get("publications").and_then(Value::as_array).cloned().unwrap_or_default();
    publications.iter().map(|publication| publication["offset"].as_u64().unwrap()).collect()
}

async fn publish_range(server: &Server, channel: &str, offsets: std::ops::RangeInclusive<u64>) {
    for offset in offsets {
        assert_eq!(publish(server, channel, json!(offset)).await, offset);
    }
}

/// Subscribes once to learn the epoch of the channel.
async fn epoch_of(server: &Server, channel: &str) -> String {
    Client::subscribed(server, channel).await.1["epoch"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_was_missed_comes_with_the_reply_and_what_follows_after_it() {
    let server = start(dev()).await;
    let epoch = epoch_of(&server, "missed").await;
    publish_range(&server, "missed", 1..=5).await;
    let mut client = Client::anonymous(&server).await;
    let result = client.subscribe("missed", Some((&epoch, 2))).await.unwrap();
    assert_eq!(offsets(&result), [3, 4, 5]);
    for (key, expected) in [("recovered", json!(true)), ("was_recovering", json!(true)), ("offset", json!(2))]
    {
        assert_eq!(result[key], expected, "{key}");
    }
    publish(&server, "missed", json!(6)).await;
    assert_eq!(client.publication("missed").await, (json!(6), 6));
}

#[tokio::test]
async fn a_client_that_missed_nothing_is_told_so() {
    let server = start(dev()).await;
    let epoch = epoch_of(&server, "nothing").await;
    publish_range(&server, "nothing", 1..=2).await;
    let mut client = Client::anonymous(&server).await;
    let result = client.subscribe("nothing", Some((&epoch, 2))).await.unwrap();
    assert_eq!((&result["recovered"], &result["offset"]), (&json!(true), &json!(2)));
    // An empty epoch is that of a client that never saw one.
    let mut fresh = Client::anonymous(&server).await;
    let result = fresh.subscribe("nothing", Some(("", 0))).await.unwrap();
    assert_eq!((&result["recovered"], offsets(&result)), (&json!(true), vec![1, 2]));
}

#[tokio::test]
async fn a_position_that_is_lost_is_told_and_the_subscription_starts_at_the_top() {
    let mut config = dev();
    let tenant = config.tenants.get_mut("default").unwrap();
    let (age, durability) = (std::time::Duration::from_secs(60), tidewire::Durability::Fast);
    tenant.channels[0].keep = Some(Keep { events: 3, age, durability, at_bound: tidewire::AtBound::Block });
    let server = start(config).await;
    let epoch = epoch_of(&server, "lost").await;
    publish_range(&server, "lost", 1..=10).await;
    let mut client = Client::anonymous(&server).await;
    for (epoch, offset) in [(epoch.as_str(), 2), ("0000000000000001", 9), ("_", 0), (epoch.as_str(), 11)] {
        let result = client.subscribe("lost", Some((epoch, offset))).await.unwrap();
        assert_eq!(result.get("recovered"), None, "{epoch} {offset}");
        assert_eq!(
            (&result["was_recovering"], &result["offset"]),
            (&json!(true), &json!(10)),
            "{epoch} {offset}"
        );
        assert!(offsets(&result).is_empty());
        client.call("unsubscribe", json!({"channel": "lost"})).await.unwrap();
        // With flag bit 1 the client would rather load its state anew than go on after a gap.
        let request =
            json!({"channel": "lost", "recover": true, "epoch": epoch, "offset": offset, "flag": 2});
        assert_eq!(client.call("subscribe", request).await.unwrap_err()["code"], 112, "{epoch} {offset}");
    }
    let result = client.subscribe("lost", Some((&epoch, 7))).await.unwrap();
    assert_eq!((&result["recovered"], offsets(&result)), (&json!(true), vec![8, 9, 10]));
}

#[tokio::test]
async fn a_recovery_of_any_length_is_complete() {
    let server = start(dev()).await;
    let epoch = epoch_of(&server, "long").await;
    publish_range(&server, "long", 1..=1_000).await;
    let mut client = Client::anonymous(&server).await;
    let result = client.subscribe("long", Some((&epoch, 0))).await.unwrap();
    assert_eq!(result["recovered"], true);
    let mut seen = offsets(&result);
    publish(&server, "long", json!(1_001)).await;
    while seen.len() < 1_001 {
        seen.push(client.publication("long").await.1);
    }
    assert_eq!(seen, (1..=1_001).collect::<Vec<_>>());
}

/// Clients subscribe from random positions while events are appended: each gets every later event once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_and_live_events_meet_without_a_hole() {
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = start(dev()).await;
    let channel = "race";
    let epoch = epoch_of(&server, channel).await;
    publish_range(&server, channel, 1..=50).await;
    const LAST: u64 = 450;
    let appends = publish_range(&server, channel, 51..=LAST);
    let starts: Vec<u64> = (0..40).map(|_| random.u64(0..=50)).collect();
    let follow = futures_util::future::join_all(starts.into_iter().map(|from| {
        let (server, epoch) = (&server, &epoch);
        async move {
            let mut client = Client::anonymous(server).await;
            // Some come while the channel has no other subscriber, some while it has many.
            for _ in 0..from {
                tokio::task::yield_now().await;
            }
            let result = client.subscribe(channel, Some((epoch, from))).await.unwrap();
            assert_eq!(result["recovered"], true, "{result}");
            let mut seen = offsets(&result);
            while seen.last().copied().unwrap_or(from) < LAST {
                seen.push(client.publication(channel).await.1);
            }
            assert_eq!(seen, (from + 1..=LAST).collect::<Vec<_>>());
        }
    }));
    tokio::join!(appends, follow);
}

/// Every channel that begins with `now:` gives its newest event.
fn with_cache() -> Config {
    let mut config = dev();
    let rules = &mut config.tenants.get_mut("default").unwrap().channels;
    let cache = ChannelRule { pattern: "now:*".into(), recovery: RecoveryMode::Cache, ..rules[0].clone() };
    rules.insert(0, cache);
    config
}

/// What a subscriber of a cache channel is told: whether it recovered, the end, and the events.
fn newest(result: &Value) -> (bool, u64, Vec<u64>) {
    assert_eq!((&result["was_recovering"], &result["recoverable"]), (&json!(true), &json!(true)), "{result}");
    (result.get("recovered").is_some(), result["offset"].as_u64().unwrap_or_default(), offsets(result))
}

#[tokio::test]
async fn a_cache_gives_the_newest_event_whatever_was_missed() {
    let server = start(with_cache()).await;
    let mut early = Client::anonymous(&server).await;
    let result = early.subscribe("now:playing", Some(("", 0))).await.unwrap();
    assert_eq!(newest(&result), (false, 0, vec![]), "there is none");
    let epoch = result["epoch"].as_str().unwrap();
    publish_range(&server, "now:playing", 1..=5).await;
    for offset in 1..=5 {
        assert_eq!(early.publication("now:playing").await.1, offset);
    }
    let mut client = Client::anonymous(&server).await;
    for (since, expected) in [
        (("", 0), (true, 5, vec![5])),
        ((epoch, 2), (true, 5, vec![5])),
        ((epoch, 5), (true, 5, vec![])),
        // What is of another stream is not the same, whatever its number.
        (("0000000000000001", 5), (true, 5, vec![5])),
        (("", 5), (true, 5, vec![5])),
        ((epoch, 9), (true, 5, vec![5])),
    ] {
        let result = client.subscribe("now:playing", Some(since)).await.unwrap();
        assert_eq!(newest(&result), expected, "{since:?}");
        client.call("unsubscribe", json!({"channel": "now:playing"})).await.unwrap();
    }
    let result = client.subscribe("now:playing", None).await.unwrap();
    assert_eq!(
        (result.get("recovered"), offsets(&result)),
        (None, vec![]),
        "who does not ask gets what comes"
    );
    publish(&server, "now:playing", json!(6)).await;
    assert_eq!(client.publication("now:playing").await, (json!(6), 6));
}

#[tokio::test]
async fn a_cache_that_was_emptied_has_nothing_to_give() {
    let server = start(with_cache()).await;
    publish_range(&server, "now:empty", 1..=2).await;
    let mut client = Client::anonymous(&server).await;
    let result = client.subscribe("now:empty", Some(("", 0))).await.unwrap();
    assert_eq!(newest(&result), (true, 2, vec![2]));
    let epoch = result["epoch"].as_str().unwrap();
    api(&server, "history_remove", json!({"channel": "now:empty"})).await;
    let mut other = Client::anonymous(&server).await;
    let result = other.subscribe("now:empty", Some(("", 0))).await.unwrap();
    assert_eq!(newest(&result), (false, 2, vec![]));
    let mut third = Client::anonymous(&server).await;
    let result = third.subscribe("now:empty", Some((epoch, 2))).await.unwrap();
    assert_eq!(newest(&result), (true, 2, vec![]), "it has all that there was");
    let mut fourth = Client::anonymous(&server).await;
    let request = json!({"channel": "now:empty", "recover": true, "flag": 2});
    assert_eq!(fourth.call("subscribe", request).await.unwrap_err()["code"], 112);
}

#[tokio::test]
async fn a_filter_is_given_the_newest_event_that_passes_it() {
    let server = start(with_cache()).await;
    for (n, team) in [(1, "red"), (2, "blue"), (3, "red"), (4, "blue")] {
        api(&server, "publish", json!({"channel": "now:teams", "data": n, "tags": {"team": team}})).await;
    }
    let filtered = |team: &str| {
        let filter = json!({"key": "team", "cmp": "eq", "val": team});
        json!({"channel": "now:teams", "recover": true, "tf": filter})
    };
    let mut client = Client::anonymous(&server).await;
    let result = client.call("subscribe", filtered("red")).await.unwrap();
    assert_eq!(newest(&result), (true, 4, vec![3]));
    let mut other = Client::anonymous(&server).await;
    let result = other.call("subscribe", filtered("green")).await.unwrap();
    assert_eq!(newest(&result), (true, 4, vec![]), "there is an event, and none for it");
}

#[tokio::test]
async fn deltas_go_on_from_the_event_that_a_cache_gave() {
    let server = start(with_cache()).await;
    let data = |n: u64| json!({"text": "x".repeat(200), "n": n});
    publish(&server, "now:delta", data(1)).await;
    let mut client = Client::anonymous(&server).await;
    let request = |epoch: &Value, offset: u64| json!({"channel": "now:delta", "recover": true, "delta": "fossil", "epoch": epoch, "offset": offset});
    let result = client.call("subscribe", request(&json!(""), 0)).await.unwrap();
    assert_eq!(result["publications"][0]["data"], data(1).to_string());
    publish(&server, "now:delta", data(2)).await;
    let push = client.push().await;
    assert_eq!((&push["pub"]["data"], push["pub"].get("delta")), (&json!(data(2).to_string()), None));
    publish(&server, "now:delta", data(3)).await;
    let push = client.push().await;
    assert_eq!(push["pub"]["delta"], true, "{push}");
    // Who has all of it is given the base once more.
    let mut back = Client::anonymous(&server).await;
    let result = back.call("subscribe", request(&result["epoch"], 3)).await.unwrap();
    assert_eq!(newest(&result), (true, 3, vec![3]));
}

#[tokio::test]
async fn the_server_subscribes_to_the_newest_event_of_a_cache() {
    let server = start(with_cache()).await;
    publish_range(&server, "now:served", 1..=3).await;
    let mut ann = Client::with_token(&server, &dev_token("ann")).await;
    let since = json!({"offset": 0});
    api(&server, "subscribe", json!({"user": "ann", "channel": "now:served", "recover_since": since})).await;
    assert_eq!(ann.push().await["subscribe"]["offset"], 3);
    assert_eq!(ann.publication("now:served").await, (json!(3), 3));
    publish(&server, "now:served", json!(4)).await;
    assert_eq!(ann.publication("now:served").await, (json!(4), 4));
}
