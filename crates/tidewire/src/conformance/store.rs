//! The store: one step per call, one order per key.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::scene::Scene;
use crate::engine::Condition;

pub(super) async fn a_condition_decides_a_put(scene: Scene) {
    let node = scene.open().await;
    let tenant = scene.tenant(&node);
    let put = |value: &'static str, condition| tenant.put("key", value, None, condition);
    assert!(!put("a", Condition::Present).await.expect("put"));
    assert!(put("b", Condition::Absent).await.expect("put"));
    assert!(!put("c", Condition::Absent).await.expect("put"));
    assert!(!put("d", Condition::Equals(Bytes::from_static(b"c"))).await.expect("put"));
    assert!(put("e", Condition::Equals(Bytes::from_static(b"b"))).await.expect("put"));
    assert!(put("f", Condition::Present).await.expect("put"));
    assert_eq!(tenant.get("key").await.expect("get"), Some(Bytes::from_static(b"f")));
    assert!(tenant.remove("key").await.expect("remove"));
    assert!(!tenant.remove("key").await.expect("remove"));
    assert_eq!(tenant.get("key").await.expect("get"), None);
}

pub(super) async fn one_of_many_concurrent_puts_finds_the_key_absent(scene: Scene) {
    let node = scene.open().await;
    let tenant = scene.tenant(&node);
    let puts = (0..64).map(|n| tenant.put("key", n.to_string(), None, Condition::Absent));
    let winners = join_all(puts).await.into_iter().filter(|outcome| *outcome.as_ref().expect("put")).count();
    assert_eq!(winners, 1);
}

pub(super) async fn an_entry_expires(scene: Scene) {
    let node = scene.open().await;
    let tenant = scene.tenant(&node);
    let ttl = Some(scene.ticks(4));
    assert!(tenant.put("key", "a", ttl, Condition::Absent).await.expect("put"));
    assert!(!tenant.put("key", "b", ttl, Condition::Absent).await.expect("put"));
    scene.pass(scene.ticks(4)).await;
    assert_eq!(tenant.get("key").await.expect("get"), None);
    assert!(tenant.put("key", "c", ttl, Condition::Absent).await.expect("put"));
    assert!(tenant.put("key", "d", None, Condition::Always).await.expect("put"));
    scene.pass(scene.ticks(5)).await;
    assert_eq!(
        tenant.get("key").await.expect("get"),
        Some(Bytes::from_static(b"d")),
        "a put without a time to live"
    );
}

pub(super) async fn entries_survive_a_restart(scene: Scene) {
    let node = scene.open().await;
    let tenant = scene.tenant(&node);
    assert!(tenant.put("key", "a", Some(Duration::from_secs(3_600)), Condition::Always).await.expect("put"));
    node.close(Duration::from_secs(10)).await.expect("closed");
    drop((node, tenant));
    let node = scene.open().await;
    assert_eq!(scene.tenant(&node).get("key").await.expect("get"), Some(Bytes::from_static(b"a")));
}
