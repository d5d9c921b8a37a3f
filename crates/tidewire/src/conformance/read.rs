//! Guarantee 1, seen by a reader: ranges by position and time, both ways.

use super::scene::{Scene, append_numbered, number};
use crate::bus::History;
use crate::error::ErrorKind;
use crate::position::{Epoch, Position};

fn numbers(history: &History) -> Vec<usize> {
    history.events.iter().map(number).collect()
}

pub(super) async fn reads_a_range_forwards_and_backwards(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let empty = channel.read().await.expect("read");
    assert_eq!((empty.last, empty.events.len()), (0, 0));
    append_numbered(&channel, 1..=10).await;
    let at = |offset| Position { epoch: empty.epoch, offset };
    assert_eq!(numbers(&channel.read().after(at(3)).limit(3).await.expect("read")), [4, 5, 6]);
    assert_eq!(numbers(&channel.read().before(at(4)).await.expect("read")), [1, 2, 3]);
    assert_eq!(numbers(&channel.read().backwards().limit(2).await.expect("read")), [10, 9]);
    assert_eq!(numbers(&channel.read().before(at(5)).after(at(2)).backwards().await.expect("read")), [4, 3]);
    let end = channel.read().after(at(10)).await.expect("read");
    assert_eq!((numbers(&end).len(), end.missing_count, end.end()), (0, 0, at(10)));
}

pub(super) async fn reads_by_time(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    for n in 0..6 {
        append_numbered(&channel, [n]).await;
        scene.pass(scene.ticks(1)).await;
    }
    let times: Vec<_> =
        channel.read().await.expect("read").events.iter().map(|received| received.time).collect();
    let at = |n: usize| *times.get(n).expect("an event's time");
    assert_eq!(numbers(&channel.read().since(at(4)).await.expect("read")), [4, 5]);
    assert_eq!(numbers(&channel.read().until(at(2)).await.expect("read")), [0, 1]);
    assert_eq!(numbers(&channel.read().since(at(2)).until(at(4)).await.expect("read")), [2, 3]);
    let later = at(5).saturating_add(scene.ticks(100));
    assert!(numbers(&channel.read().since(later).await.expect("read")).is_empty());
}

pub(super) async fn refuses_a_position_of_another_epoch(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, [1]).await;
    let lost = Position { epoch: Epoch::random(), offset: 1 };
    let error = channel.read().after(lost).await.expect_err("the epoch is unknown");
    assert_eq!(error.kind(), ErrorKind::PositionLost);
    assert!(error.to_string().contains(&lost.to_string()), "{error}");
    assert_eq!(channel.trim(lost).await.expect_err("the same").kind(), ErrorKind::PositionLost);
}
