//! Guarantee 8, as far as streams without groups go: what retention removes is counted and told.

use super::scene::{Scene, append_numbered, next_gap, next_numbers, number, numbered};
use crate::bus::GapReason;
use crate::engine::Retention;
use crate::position::Position;

pub(super) async fn keeps_the_newest_and_counts_the_rest(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let retention = Retention { events_max: Some(100), ..Retention::default() };
    let mut first = None;
    for n in 1..=1_000 {
        let receipt = channel.append(numbered(n)).retention(retention).await.expect("confirmed");
        first = first.or(receipt.position);
    }
    let stream = channel.stats().await.expect("stats").stream;
    assert_eq!((stream.first, stream.last, stream.length), (901, 1_000, 100));
    assert_eq!(stream.removed, 900);
    let history = channel.read().await.expect("read");
    assert_eq!(history.events.first().map(number), Some(901));
    let first = first.expect("a position");
    let missing = channel.read().after(first).await.expect("read").missing_count;
    assert_eq!(missing, 899, "a reader is told what it missed");
    let mut subscription = channel.subscribe().after(first).open().await.expect("listening");
    let gap = next_gap(&mut subscription).await;
    assert_eq!((gap.reason, gap.to.map(|to| to.offset)), (GapReason::Trimmed, Some(900)));
    assert_eq!(next_numbers(&mut subscription, 100).await, (901..=1_000).collect::<Vec<_>>());
}

pub(super) async fn keeps_what_is_young_enough(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let retention = Retention { age_max: Some(scene.ticks(6)), ..Retention::default() };
    for n in 0..3 {
        scene.pass(scene.ticks(4)).await;
        channel.append(numbered(n)).retention(retention).await.expect("confirmed");
    }
    let kept = channel.read().await.expect("read");
    assert_eq!(kept.events.iter().map(number).collect::<Vec<_>>(), [1, 2]);
    scene.pass(scene.ticks(7)).await;
    let stream = channel.stats().await.expect("stats").stream;
    assert_eq!((stream.length, stream.last, stream.removed), (0, 3, 3), "old events go without an append");
}

pub(super) async fn a_trim_is_counted_and_told(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 1..=10).await;
    let end = channel.read().await.expect("read").end();
    let trimmed = channel.trim(Position { offset: 8, ..end }).await.expect("trimmed");
    assert_eq!((trimmed.removed, trimmed.first), (7, 8));
    let again = channel.trim(Position { offset: 8, ..end }).await.expect("trimmed");
    assert_eq!((again.removed, again.first), (0, 8));
    let stream = channel.stats().await.expect("stats").stream;
    assert_eq!((stream.first, stream.last, stream.length, stream.removed), (8, 10, 3, 7));
}

pub(super) async fn a_stream_trimmed_empty_goes_on_counting(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 1..=10).await;
    let end = channel.read().await.expect("read").end();
    let trimmed = channel.trim(Position { offset: end.offset + 1, ..end }).await.expect("trimmed");
    assert_eq!((trimmed.removed, trimmed.first), (10, 11));
    let empty = channel.read().await.expect("read");
    assert_eq!((empty.events.len(), empty.end()), (0, end));
    let next = channel.append(numbered(11)).await.expect("confirmed").position.expect("a position");
    assert_eq!((next.epoch, next.offset), (end.epoch, 11));
}
