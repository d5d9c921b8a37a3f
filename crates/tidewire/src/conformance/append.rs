//! Guarantee 1: a confirmed append is in the stream, once, at the position returned.

use std::time::Duration;

use futures_util::future::join_all;

use super::scene::{Scene, append_numbered, next_event, number, numbered, patiently};
use super::seam::Seam;
use crate::bus::{Channel, Receipt};
use crate::clock::Timestamp;
use crate::engine::{Append, Durability, Effect, Version};
use crate::error::{ErrorKind, Result};

async fn numbers(channel: &Channel) -> Vec<usize> {
    channel.read().await.expect("the stream is read").events.iter().map(number).collect()
}

pub(super) async fn a_confirmed_append_is_in_the_stream_once_at_its_position(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut receipts = Vec::new();
    for n in 0..10 {
        receipts.push(channel.append(numbered(n).with_subject("s")).await.expect("confirmed"));
    }
    let history = channel.read().await.expect("read");
    assert_eq!(history.events.len(), 10);
    for (n, (received, receipt)) in history.events.iter().zip(&receipts).enumerate() {
        assert_eq!((received.position, number(received)), (receipt.position, n));
        assert_eq!((received.event.id(), received.event.subject()), (receipt.id, Some("s")));
        assert_eq!(received.position.map(|position| position.offset), Some(n as u64 + 1));
    }
}

pub(super) async fn offsets_of_concurrent_appends_are_contiguous(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let receipts = join_all((0..500).map(|n| channel.append(numbered(n)).into_future())).await;
    let mut offsets: Vec<_> = receipts
        .into_iter()
        .map(|receipt| receipt.expect("confirmed").position.expect("a position").offset)
        .collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (1..=500).collect::<Vec<u64>>());
    let mut found = numbers(&channel).await;
    found.sort_unstable();
    assert_eq!(found, (0..500).collect::<Vec<_>>());
}

pub(super) async fn a_batch_is_appended_in_its_order(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let batcher = channel.batcher().events_max(50).start();
    let mut confirmations = Vec::new();
    for n in 0..100 {
        confirmations.push(patiently("room in the batcher", batcher.push(numbered(n))).await.expect("taken"));
    }
    for (n, confirmation) in confirmations.into_iter().enumerate() {
        let receipt = patiently("the batch", confirmation).await.expect("confirmed");
        assert_eq!(receipt.position.map(|position| position.offset), Some(n as u64 + 1));
    }
    assert_eq!(numbers(&channel).await, (0..100).collect::<Vec<_>>());
}

pub(super) async fn a_batch_is_sent_when_its_time_is_up(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let batcher = channel.batcher().wait_max(scene.ticks(1)).start();
    let confirmation = batcher.push(numbered(7)).await.expect("taken");
    scene.pass_until("the time of the batch", confirmation).await.expect("confirmed");
    assert_eq!(numbers(&channel).await, [7]);
}

pub(super) async fn a_dedup_id_takes_effect_once(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let first = channel.append(numbered(1)).dedup("order-7").await.expect("confirmed");
    let again = channel.append(numbered(2)).dedup("order-7").await.expect("confirmed");
    assert!(!first.is_duplicate() && again.is_duplicate());
    assert_eq!(first.position, again.position);
    let racing = join_all((10..42).map(|n| channel.append(numbered(n)).dedup("race").into_future())).await;
    let effects =
        racing.into_iter().filter(|receipt| !receipt.as_ref().expect("confirmed").is_duplicate()).count();
    assert_eq!(effects, 1);
    assert_eq!(numbers(&channel).await.len(), 2);
}

pub(super) async fn a_dedup_id_is_free_again_after_its_window(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let append = |n| channel.append(numbered(n)).dedup("id").dedup_window(scene.ticks(4)).into_future();
    append(1).await.expect("confirmed");
    assert!(append(2).await.expect("confirmed").is_duplicate());
    scene.pass(scene.ticks(4)).await;
    assert!(!append(3).await.expect("confirmed").is_duplicate());
    assert_eq!(numbers(&channel).await, [1, 3]);
}

pub(super) async fn a_dedup_id_holds_over_a_restart(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let first = channel.append(numbered(1)).dedup("id").await.expect("confirmed");
    node.close(Duration::from_secs(10)).await.expect("closed");
    drop((node, channel));
    let (_node, channel) = scene.channel().await;
    let again = channel.append(numbered(1)).dedup("id").await.expect("confirmed");
    assert!(again.is_duplicate());
    assert_eq!(again.position, first.position);
}

/// What the stream has, and what each of these versions came to.
async fn versioned<'a>(
    channel: &Channel,
    versions: impl IntoIterator<Item = (&'a str, u64)>,
) -> (Vec<usize>, Vec<(Effect, u64)>) {
    let mut outcomes = Vec::new();
    for (epoch, version) in versions {
        let event = numbered(usize::try_from(version).unwrap_or(usize::MAX));
        let receipt = channel.append(event).version_in(epoch, version).await.expect("confirmed");
        outcomes.push((receipt.effect, receipt.position.expect("a position").offset));
    }
    (numbers(channel).await, outcomes)
}

pub(super) async fn a_version_takes_effect_if_it_is_above_the_last(scene: Scene) {
    use Effect::{New, Stale};
    let (_node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    let versions = [("", 5), ("", 5), ("", 4), ("", 6), ("june", 2), ("june", 1), ("june", 3), ("", 1)];
    let (kept, outcomes) = versioned(&channel, versions).await;
    assert_eq!(kept, [5, 6, 2, 3, 1]);
    let expected = [(New, 1), (Stale, 1), (Stale, 1), (New, 2), (New, 3), (Stale, 3), (New, 4), (New, 5)];
    assert_eq!(outcomes, expected);
    append_numbered(&channel, [77]).await;
    // More than a script can count exactly.
    let largest = [("", u64::MAX - 1), ("", u64::MAX - 1), ("", u64::MAX), ("", u64::MAX - 1)];
    let (_, outcomes) = versioned(&channel, largest).await;
    assert_eq!(outcomes, [(New, 7), (Stale, 7), (New, 8), (Stale, 8)]);
    // Nobody heard of what was left out.
    for expected in [5, 6, 2, 3, 1, 77] {
        assert_eq!(number(&next_event(&mut subscription).await), expected);
    }
    let append = |dedup: &str, version| channel.append(numbered(9)).dedup(dedup).version_in("july", version);
    let first = append("id", 3).await.expect("confirmed");
    let again = append("id", 9).await.expect("confirmed");
    assert!(again.is_duplicate(), "the dedup id is looked up first");
    assert_eq!((again.position, first.effect), (first.position, New));
    assert!(append("other", 3).await.expect("confirmed").is_stale());
    assert!(!append("other", 4).await.expect("confirmed").is_duplicate(), "what is left out leaves no mark");
    channel.trim(first.position.expect("a position")).await.expect("trimmed");
    assert!(append("another", 4).await.expect("confirmed").is_stale(), "it is not in the events");
    let due = scene.now().saturating_add(scene.ticks(4));
    let error = append("late", 9).deliver_at(due).await.expect_err("not both");
    assert_eq!(error.kind(), ErrorKind::InvalidName);
    let error = channel.append(numbered(1)).version_in(&"x".repeat(65), 1).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

/// Appends versions out of their order, side by side.
async fn race(here: &Channel, there: &Channel) {
    let append = |n: usize| {
        let channel = if n.is_multiple_of(2) { here } else { there };
        let version = n * 7 % 300;
        channel.append(numbered(version)).version(version as u64).into_future()
    };
    let outcomes = join_all((0..300).map(append)).await;
    let is_new = |outcome: &Result<Receipt>| outcome.as_ref().expect("confirmed").effect == Effect::New;
    let kept = numbers(here).await;
    assert!(kept.is_sorted_by(|one, next| one < next), "{kept:?}");
    assert_eq!((kept.len(), kept.last()), (outcomes.into_iter().filter(is_new).count(), Some(&299)));
}

pub(super) async fn versions_of_racing_publishers_rise_in_the_stream(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    race(&channel, &channel).await;
}

pub(super) async fn versions_of_racing_nodes_rise_in_the_stream(scene: Scene) {
    let ((_one, here), (_other, there)) = (scene.channel().await, scene.channel().await);
    race(&here, &there).await;
}

pub(super) async fn a_batch_takes_each_version_in_its_turn(scene: Scene) {
    use Effect::{New, Stale};
    let seam = Seam::open(&scene).await;
    let versioned =
        |number| Append { version: Some(Version { epoch: "".into(), number }), ..seam.event(number) };
    let batch = vec![versioned(3), seam.event(77), versioned(3), versioned(5), versioned(4), versioned(6)];
    let outcomes = seam.log().append(batch).await.expect("taken").into_iter();
    let outcomes: Vec<_> = outcomes
        .map(|outcome| outcome.expect("confirmed"))
        .map(|appended| (appended.effect, appended.position.expect("a position").offset))
        .collect();
    assert_eq!(outcomes, [(New, 1), (New, 2), (Stale, 2), (New, 3), (Stale, 3), (New, 4)]);
    seam.close().await;
}

pub(super) async fn a_version_holds_over_a_restart(scene: Scene) {
    use Effect::{New, Stale};
    let (node, channel) = scene.channel().await;
    versioned(&channel, [("june", 7)]).await;
    append_numbered(&channel, 0..50).await;
    node.close(Duration::from_secs(10)).await.expect("closed");
    drop((node, channel));
    let (_node, channel) = scene.channel().await;
    let (_, outcomes) = versioned(&channel, [("june", 7), ("june", 8), ("june", 7)]).await;
    assert_eq!(outcomes, [(Stale, 51), (New, 52), (Stale, 52)]);
}

pub(super) async fn confirmed_appends_survive_a_restart_in_the_same_epoch(scene: Scene) {
    let (node, channel) = scene.channel().await;
    append_numbered(&channel, 0..100).await;
    let before = channel.read().await.expect("read");
    node.close(Duration::from_secs(10)).await.expect("closed");
    drop((node, channel));
    let (_node, channel) = scene.channel().await;
    let after = channel.read().await.expect("read");
    assert_eq!((before.epoch, before.first, before.last), (after.epoch, after.first, after.last));
    assert_eq!(numbers(&channel).await, (0..100).collect::<Vec<_>>());
    let next = channel.append(numbered(100)).await.expect("confirmed").position.expect("a position");
    assert_eq!((next.epoch, next.offset), (before.epoch, 101));
}

pub(super) async fn a_scheduled_event_is_appended_at_its_time_and_not_before(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    let due = scene.now().saturating_add(scene.ticks(4));
    let receipt = channel.append(numbered(1)).deliver_at(due).await.expect("scheduled");
    assert_eq!(receipt.position, None);
    append_numbered(&channel, [2]).await;
    assert_eq!(number(&next_event(&mut subscription).await), 2);
    scene.pass(scene.ticks(4)).await;
    let received = next_event(&mut subscription).await;
    assert_eq!(number(&received), 1);
    assert!(received.time >= due, "due at {due}, appended at {}", received.time);
    let late = channel.append(numbered(3)).deliver_at(Timestamp::from_millis(1)).await.expect("confirmed");
    assert_eq!(late.position.map(|position| position.offset), Some(3));
}

pub(super) async fn a_scheduled_event_survives_a_restart(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let due = scene.now().saturating_add(scene.ticks(4));
    channel.append(numbered(1)).deliver_at(due).await.expect("scheduled");
    node.close(Duration::from_secs(10)).await.expect("closed");
    drop((node, channel));
    let (_node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().earliest().open().await.expect("listening");
    scene.pass(scene.ticks(4)).await;
    assert_eq!(number(&next_event(&mut subscription).await), 1);
}

pub(super) async fn nodes_share_one_stream(scene: Scene) {
    let ((_one, here), (_other, there)) = (scene.channel().await, scene.channel().await);
    join_all((0..200).map(|n| if n % 2 == 0 { &here } else { &there }.append(numbered(n)).into_future()))
        .await;
    assert_eq!(numbers(&here).await, numbers(&there).await);
    assert_eq!(numbers(&here).await.len(), 200);
}

/// Appends with this durability: alone and side by side, in batches, again, and at a later time.
async fn confirms(scene: Scene, durability: Durability, is_reached: fn(Durability) -> bool) {
    let (_node, channel) = scene.channel().await;
    let append = |n: usize| channel.append(numbered(n)).dedup(&n.to_string()).durability(durability);
    let receipts = join_all((0..100).map(|n| append(n).into_future())).await;
    for receipt in receipts {
        let receipt = receipt.expect("confirmed");
        assert!(is_reached(receipt.durability), "{receipt:?}");
    }
    let again = append(7).await.expect("confirmed");
    assert!(again.is_duplicate() && is_reached(again.durability), "{again:?}");
    let batcher = channel.batcher().durability(durability).start();
    let confirmation = batcher.push(numbered(100)).await.expect("taken");
    let receipt = scene.pass_until("the batch", confirmation).await.expect("confirmed");
    assert!(is_reached(receipt.durability), "{receipt:?}");
    let mut subscription = channel.subscribe().open().await.expect("listening");
    let due = scene.now().saturating_add(scene.ticks(1));
    let receipt = append(101).deliver_at(due).await.expect("kept until it is due");
    assert_eq!(receipt.position, None);
    let received = scene.pass_until("the scheduled event", next_event(&mut subscription)).await;
    assert_eq!(number(&received), 101);
    let mut found = numbers(&channel).await;
    found.sort_unstable();
    assert_eq!(found, (0..=101).collect::<Vec<_>>());
}

pub(super) async fn an_append_is_confirmed_when_a_replica_has_it(scene: Scene) {
    let is_reached = |reached| matches!(reached, Durability::Replicated(1..));
    confirms(scene, Durability::Replicated(1), is_reached).await;
}

pub(super) async fn an_append_is_confirmed_when_the_device_has_it(scene: Scene) {
    confirms(scene, Durability::Fsynced, |reached| reached == Durability::Fsynced).await;
}

pub(super) async fn an_append_is_not_confirmed_as_more_durable_than_it_is(scene: Scene) {
    // More copies than anybody has.
    let (_node, channel) = scene.channel().await;
    let append = channel.append(numbered(1)).durability(Durability::Replicated(200));
    let error = patiently("an answer", append.into_future()).await.expect_err("nobody has 200 replicas");
    assert!(matches!(error.kind(), ErrorKind::Engine | ErrorKind::TimedOut), "{error}");
    append_numbered(&channel, [2]).await;
}
