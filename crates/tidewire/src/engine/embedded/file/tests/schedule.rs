//! Appends that wait for their time.

use std::time::Duration;

use super::rig::{Rig, append, dedup, path};
use crate::engine::{Append, Interest, Range, Retention};

/// Waits until the stream has `count` events.
async fn wait_for(rig: &Rig, channel: &str, count: u64) {
    while rig.read(channel, Range::BOUNDS).await.last < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn is_appended_when_it_is_due_also_after_a_restart() {
    let rig = Rig::new();
    let start = rig.clock.now();
    let after = |seconds| Some(start.saturating_add(Duration::from_secs(seconds)));
    let retention = Retention { events_max: Some(50), ..Retention::default() };
    let batch = vec![
        Append { deliver_at: after(20), retention, ..append("orders", "third") },
        append("orders", "first"),
        Append { deliver_at: after(10), ..append("orders", "second") },
        Append { deliver_at: after(0), ..append("other", "now") },
    ];
    let outcomes = rig.engine.log.append(batch).await.unwrap();
    let offsets: Vec<_> = outcomes.into_iter().map(|o| o.unwrap().position.map(|p| p.offset)).collect();
    assert_eq!(offsets, [None, Some(1), None, Some(1)]);
    rig.clock.advance(Duration::from_secs(10));
    wait_for(&rig, "orders", 2).await;
    let rig = rig.reopen().await;
    rig.engine.pubsub.subscribe(vec![Interest::Channel(path("orders"))]).await.unwrap();
    rig.clock.advance(Duration::from_secs(10));
    wait_for(&rig, "orders", 3).await;
    let data: Vec<_> = rig.read_all("orders").await.into_iter().map(|(_, data)| data).collect();
    assert_eq!(data, ["first", "second", "third"]);
    rig.close().await;
    assert_eq!(rig.heard.0.lock().len(), 1);
}

#[tokio::test]
async fn takes_effect_once_when_the_process_ends_between_append_and_removal() {
    let rig = Rig::new();
    rig.append(append("orders", "first")).await.unwrap();
    let due = rig.clock.now().saturating_add(Duration::from_secs(10));
    let later = |id| Append { deliver_at: Some(due), dedup: id, ..append("orders", "once") };
    rig.append(later(None)).await.unwrap();
    rig.append(later(dedup("mine", Duration::from_secs(60)))).await.unwrap();
    let database = rig.directory.path().join("state.redb");
    let before = std::fs::read(&database).unwrap();
    rig.clock.advance(Duration::from_secs(10));
    wait_for(&rig, "orders", 3).await;
    rig.close().await;
    // As if the appends had been written, and their removal had not.
    std::fs::write(&database, before).unwrap();
    let rig = rig.open();
    // The schedule is worked off before this is appended by it.
    rig.append(Append {
        deliver_at: Some(due.saturating_add(Duration::from_secs(1))),
        ..append("orders", "last")
    })
    .await
    .unwrap();
    rig.clock.advance(Duration::from_secs(1));
    wait_for(&rig, "orders", 4).await;
    let data: Vec<_> = rig.read_all("orders").await.into_iter().map(|(_, data)| data).collect();
    assert_eq!(data, ["first", "once", "once", "last"]);
}
