use std::time::Duration;

use super::super::FileOptions;
use super::rig::{Rig, append, dedup, path};
use crate::engine::{Append, Direction, Durability, Effect, Heard, Interest, Range, Retention, Version};

fn numbers(offsets: std::ops::RangeInclusive<u64>) -> Vec<(u64, String)> {
    offsets.map(|offset| (offset, offset.to_string())).collect()
}

fn small_segments() -> FileOptions {
    FileOptions { segment_bytes: 2_000, ..FileOptions::default() }
}

#[tokio::test]
async fn goes_on_after_a_restart_under_the_same_epoch() {
    let rig = Rig::new();
    rig.append_all("orders", (1..=10).map(|n| n.to_string())).await;
    let before = rig.read("orders", Range::BOUNDS).await;
    let rig = rig.reopen().await;
    let after = rig.read("orders", Range::BOUNDS).await;
    assert_eq!((before.epoch, before.last), (after.epoch, after.last));
    let appended = rig.append(append("orders", "11")).await.unwrap();
    assert_eq!(appended.position.unwrap().offset, 11);
    assert_eq!(rig.read_all("orders").await, numbers(1..=11));
}

#[tokio::test]
async fn a_channel_without_events_has_the_epoch_of_its_first_append() {
    let rig = Rig::new();
    let page = rig.read("new", Range::from(1, 10)).await;
    assert_eq!((page.first, page.last, page.events.len()), (1, 0, 0));
    let position = rig.append(append("new", "x")).await.unwrap().position.unwrap();
    assert_eq!((position.epoch, position.offset), (page.epoch, 1));
}

#[tokio::test]
async fn reads_both_ways_from_memory_and_from_disk() {
    let mut rig = Rig::with(small_segments());
    rig.append_all("orders", (1..=500).map(|n| n.to_string())).await;
    assert!(rig.files().await.len() > 5, "{:?}", rig.files().await);
    for _ in 0..2 {
        assert_eq!(rig.read_all("orders").await, numbers(1..=500));
        let backwards = Range { last: 320, direction: Direction::Backwards, ..Range::from(0, 250) };
        let offsets = |page: crate::engine::Page| page.events.iter().map(|e| e.offset).collect::<Vec<_>>();
        assert_eq!(offsets(rig.read("orders", backwards).await), (71..=320).rev().collect::<Vec<_>>());
        let middle = Range { last: 203, ..Range::from(199, 1000) };
        assert_eq!(offsets(rig.read("orders", middle).await), (199..=203).collect::<Vec<_>>());
        rig = rig.reopen().await;
    }
}

#[tokio::test]
async fn retention_by_count_hides_events_and_gives_back_disk() {
    let rig = Rig::new();
    let retention = Retention { events_max: Some(10), ..Retention::default() };
    for batch in 0..40 {
        let batch =
            (1..=100).map(|n| Append { retention, ..append("orders", (batch * 100 + n).to_string()) });
        rig.engine.log.append(batch.collect()).await.unwrap();
    }
    assert_eq!(rig.read_all("orders").await, numbers(3991..=4000));
    assert!(rig.files().await.len() <= 2, "{:?}", rig.files().await);
    let rig = rig.reopen().await;
    assert_eq!(rig.read_all("orders").await, numbers(3991..=4000));
    let stats = rig.engine.log.stats(&path("orders")).await.unwrap();
    assert_eq!((stats.first, stats.last, stats.length, stats.removed), (3991, 4000, 10, 3990));
}

#[tokio::test]
async fn retention_by_age_holds_without_an_append_and_over_a_restart() {
    let rig = Rig::new();
    let retention = Retention { age_max: Some(Duration::from_secs(3600)), ..Retention::default() };
    for n in 1..=6 {
        rig.append(Append { retention, ..append("orders", n.to_string()) }).await.unwrap();
        rig.clock.advance(Duration::from_secs(1000));
    }
    assert_eq!(rig.read_all("orders").await, numbers(4..=6));
    let rig = rig.reopen().await;
    assert_eq!(rig.read_all("orders").await, numbers(4..=6));
    rig.clock.advance(Duration::from_secs(3600));
    let page = rig.read("orders", Range::from(0, 10)).await;
    assert_eq!((page.first, page.last, page.events.len()), (7, 6, 0));
    rig.append(Append { retention, ..append("orders", "7") }).await.unwrap();
    assert_eq!(rig.read_all("orders").await, numbers(7..=7));
    assert_eq!(rig.files().await.len(), 1, "{:?}", rig.files().await);
}

#[tokio::test]
async fn retention_by_bytes_drops_whole_segments() {
    let rig = Rig::new();
    let retention = Retention { bytes_max: Some(1_000_000), ..Retention::default() };
    for _ in 0..50 {
        let batch = (0..100).map(|_| Append { retention, ..append("orders", "x".repeat(1_000)) });
        rig.engine.log.append(batch.collect()).await.unwrap();
    }
    let stats = rig.engine.log.stats(&path("orders")).await.unwrap();
    assert!((900_000..1_400_000).contains(&stats.bytes), "{stats:?}");
    assert_eq!(stats.last, 5000);
    assert_eq!(stats.length, 5001 - stats.first);
}

#[tokio::test]
async fn a_stream_trimmed_empty_goes_on_counting() {
    let rig = Rig::with(small_segments());
    rig.append_all("orders", (1..=300).map(|n| n.to_string())).await;
    let trimmed = rig.engine.log.trim(&path("orders"), 101).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.first), (100, 101));
    let rig = rig.reopen().await;
    assert_eq!(rig.read_all("orders").await, numbers(101..=300));
    let trimmed = rig.engine.log.trim(&path("orders"), u64::MAX).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.first), (200, 301));
    assert_eq!(rig.files().await.len(), 1);
    let rig = rig.reopen().await;
    let page = rig.read("orders", Range::from(0, 10)).await;
    assert_eq!((page.first, page.last, page.events.len()), (301, 300, 0));
    assert_eq!(rig.append(append("orders", "301")).await.unwrap().position.unwrap().offset, 301);
}

#[tokio::test]
async fn a_dedup_id_holds_over_a_restart_and_over_segments() {
    let rig = Rig::with(small_segments());
    let window = Duration::from_secs(3600);
    let with_id = || Append { dedup: dedup("order-7", window), ..append("orders", "first") };
    let first = rig.append(with_id()).await.unwrap();
    rig.append_all("orders", (2..=200).map(|n| n.to_string())).await;
    for rig in [rig.reopen().await] {
        let second = rig.append(Append { durability: Durability::Fsynced, ..with_id() }).await.unwrap();
        assert_eq!((second.position, second.effect), (first.position, Effect::Duplicate));
        rig.clock.advance(window);
        let third = rig.append(with_id()).await.unwrap();
        assert_eq!((third.position.unwrap().offset, third.effect), (201, Effect::New));
    }
}

#[tokio::test]
async fn a_dedup_id_holds_within_a_batch() {
    let rig = Rig::new();
    let one = Append { dedup: dedup("a", Duration::from_secs(60)), ..append("orders", "1") };
    let outcomes = rig.engine.log.append(vec![one.clone(), append("orders", "2"), one]).await.unwrap();
    let places: Vec<_> =
        outcomes.into_iter().map(|o| o.unwrap()).map(|o| (o.position.unwrap().offset, o.effect)).collect();
    assert_eq!(places, [(1, Effect::New), (2, Effect::New), (1, Effect::Duplicate)]);
    assert_eq!(rig.read_all("orders").await, numbers(1..=2));
}

fn versioned(number: u64) -> Append {
    Append { version: Some(Version { epoch: "june".into(), number }), ..append("orders", "versioned") }
}

#[tokio::test]
async fn a_version_is_carried_from_segment_to_segment() {
    let rig = Rig::with(small_segments());
    rig.append(versioned(7)).await.unwrap();
    rig.append_all("orders", (2..=300).map(|n| n.to_string())).await;
    assert!(rig.files().await.len() > 2);
    let rig = rig.reopen().await;
    assert_eq!(rig.append(versioned(7)).await.unwrap().effect, Effect::Stale);
    // Also where nothing is left of the segment that it was in, nor of any event.
    rig.engine.log.trim(&path("orders"), u64::MAX).await.unwrap();
    assert_eq!(rig.files().await.len(), 1);
    let rig = rig.reopen().await;
    assert_eq!(rig.append(versioned(7)).await.unwrap().effect, Effect::Stale);
    assert_eq!(rig.append(versioned(8)).await.unwrap().effect, Effect::New);
}

#[tokio::test]
async fn a_version_is_found_where_the_head_of_a_segment_is_damaged() {
    let rig = Rig::with(small_segments());
    rig.append(versioned(7)).await.unwrap();
    rig.append_all("orders", (2..=300).map(|n| n.to_string())).await;
    let files = rig.files().await;
    let [.., before, last] = files.as_slice() else { panic!("{files:?}") };
    rig.close().await;
    for file in [before, last] {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[20] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    let rig = rig.open();
    assert_eq!(rig.append(versioned(7)).await.unwrap().effect, Effect::Stale);
}

#[tokio::test]
async fn a_version_goes_with_its_segment_into_a_batch_of_several() {
    let rig = Rig::with(small_segments());
    let filler = |_| append("orders", "x".repeat(500));
    let batch = [versioned(1)].into_iter().chain((0..50).map(filler)).chain([versioned(2)]);
    rig.engine.log.append(batch.chain((0..50).map(filler)).collect()).await.unwrap();
    let rig = rig.reopen().await;
    assert_eq!(rig.append(versioned(2)).await.unwrap().effect, Effect::Stale);
}

#[tokio::test]
async fn seeks_by_time_over_segments() {
    let mut rig = Rig::with(small_segments());
    let start = rig.clock.now();
    for n in 1..=300 {
        rig.append(append("orders", n.to_string())).await.unwrap();
        rig.clock.advance(Duration::from_millis(10));
    }
    for _ in 0..2 {
        for (millis, expected) in [(0, 1), (1, 2), (10, 2), (1_499, 151), (2_990, 300), (2_991, 301)] {
            let time = start.saturating_add(Duration::from_millis(millis));
            assert_eq!(rig.engine.log.seek(&path("orders"), time).await.unwrap(), expected, "{millis}");
        }
        rig = rig.reopen().await;
    }
}

#[tokio::test]
async fn announces_in_stream_order_what_can_be_read() {
    let rig = Rig::new();
    rig.engine.pubsub.subscribe(vec![Interest::Channel(path("orders"))]).await.unwrap();
    for durability in [Durability::Fast, Durability::Fsynced] {
        let batch = (0..50).map(|n| Append { durability, ..append("orders", n.to_string()) }).collect();
        rig.engine.log.append(batch).await.unwrap();
    }
    let offsets: Vec<_> = rig
        .heard
        .0
        .lock()
        .iter()
        .map(|heard| match heard {
            Heard::Event { kept: Some(kept), .. } => kept.position.offset,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(offsets, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_channels_are_created_at_once() {
    let rig = Rig::new();
    let batch = (0..600).map(|n| append(&format!("user:{n}"), n.to_string())).collect();
    for outcome in rig.engine.log.append(batch).await.unwrap() {
        assert_eq!(outcome.unwrap().position.unwrap().offset, 1);
    }
    let rig = rig.reopen().await;
    assert_eq!(rig.read_all("user:599").await, [(1, "599".to_owned())]);
    assert_eq!(rig.read_all("user:0").await, [(1, "0".to_owned())]);
}

#[tokio::test]
async fn the_disk_of_expired_streams_is_given_back_without_an_append() {
    let rig = Rig::new();
    let retention = Retention { age_max: Some(Duration::from_secs(600)), ..Retention::default() };
    let kept = Append { retention, ..append("orders", "x".repeat(10_000)) };
    rig.append(kept.clone()).await.unwrap();
    rig.append(append("for-ever", "x")).await.unwrap();
    let rig = rig.reopen().await;
    rig.clock.advance(Duration::from_secs(500));
    rig.append(kept).await.unwrap();
    let given_back = async {
        // The file goes at some moment: then there is nothing more to wait for.
        while std::fs::metadata(&rig.files().await[0]).is_ok_and(|file| file.len() > 512) {
            rig.clock.advance(Duration::from_secs(60));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), given_back).await.expect("the disk is given back");
    assert_eq!(rig.files().await.len(), 1);
    assert!(rig.clock.now().as_millis() > 1_700_001_100_000, "not before its time");
    let rig = rig.reopen().await;
    let page = rig.read("orders", Range::from(0, 10)).await;
    assert_eq!((page.first, page.last, page.events.len()), (3, 2, 0));
    assert_eq!(rig.read_all("for-ever").await.len(), 1);
}
