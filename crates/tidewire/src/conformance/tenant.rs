//! Guarantee 10: a name in one tenant cannot reach, see or count another tenant's.

use super::scene::{Scene, append_numbered, next_numbers, number, numbered};
use crate::engine::Condition;

pub(super) async fn equal_names_in_two_tenants_are_apart(scene: Scene) {
    let node = scene.open().await;
    let (one, other) =
        (scene.tenant(&node), node.tenant(&format!("{}-b", std::process::id())).expect("valid"));
    let channels = [&one, &other].map(|tenant| tenant.channel("orders").expect("a valid name"));
    let [here, there] = &channels;
    let mut subscription = here.subscribe().open().await.expect("listening");
    append_numbered(there, [1]).await;
    there.publish(numbered(2)).await.expect("sent");
    let receipt = here.append(numbered(3)).dedup("id").await.expect("confirmed");
    let elsewhere = there.append(numbered(4)).dedup("id").await.expect("confirmed");
    assert!(!elsewhere.is_duplicate(), "dedup ids are a tenant's own");
    assert_eq!(receipt.position.map(|position| position.offset), Some(1), "offsets are a tenant's own");
    assert_eq!(next_numbers(&mut subscription, 1).await, [3]);
    let stats = here.stats().await.expect("stats");
    assert_eq!((stats.stream.length, stats.published.total, stats.subscribers), (1, 1, 1));
    assert_eq!(there.stats().await.expect("stats").subscribers, 0);
    one.put("key", "one", None, Condition::Always).await.expect("put");
    assert_eq!(other.get("key").await.expect("get"), None);
    assert!(!other.remove("key").await.expect("remove"));
}

pub(super) async fn a_pattern_stays_in_its_tenant(scene: Scene) {
    let node = scene.open().await;
    let (one, other) =
        (scene.tenant(&node), node.tenant(&format!("{}-c", std::process::id())).expect("valid"));
    let mut subscription = one.subscribe("*").expect("a valid pattern").open().await.expect("listening");
    append_numbered(&other.channel("orders").expect("valid"), [1]).await;
    append_numbered(&one.channel("orders").expect("valid"), [2]).await;
    assert_eq!(next_numbers(&mut subscription, 1).await, [2]);
}

pub(super) async fn environments_are_apart(scene: Scene) {
    let node = scene.builder().environment("prod").open().await.expect("the engine opens");
    let channel = scene.tenant(&node).channel("orders").expect("valid");
    append_numbered(&channel, [1]).await;
    assert!(channel.path().as_str().starts_with("prod:tenant:"));
    node.close(std::time::Duration::from_secs(10)).await.expect("closed");
    drop((node, channel));
    let (_node, channel) = scene.channel().await;
    assert!(channel.path().as_str().starts_with("dev:tenant:"));
    let events = channel.read().await.expect("read").events;
    assert!(events.is_empty(), "{:?}", events.iter().map(number).collect::<Vec<_>>());
}

pub(super) async fn a_name_cannot_spell_another_tenants(scene: Scene) {
    let node = scene.open().await;
    let tenant = scene.tenant(&node);
    for name in ["", "a b", "a{b}", "a*", "a[b]", "\u{e9}", "a\"b", "a\\b", "a\nb"] {
        assert!(tenant.channel(name).is_err(), "channel {name:?} is refused");
    }
    for name in ["", "a:b", "a*", "../x", "a/b", "a b"] {
        assert!(node.tenant(name).is_err(), "tenant {name:?} is refused");
    }
    assert!(scene.builder().environment("a:b").open().await.is_err());
}
