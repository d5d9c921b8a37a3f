//! Guarantee 3, seen by who folds a stream into a state: every event once and in order, or an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::scene::{Scene, append_numbered, number, numbered, patiently};
use crate::bus::{Channel, Folded};
use crate::engine::Condition;
use crate::error::{ErrorKind, Result};
use crate::position::{Epoch, Position};

/// Folds into the numbers of the events, and says how many of them were read for it.
async fn numbers(channel: &Channel) -> Result<(Folded<Vec<usize>>, usize)> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let fold = channel.fold("numbers", Vec::new(), move |numbers, received| {
        counted.fetch_add(1, Relaxed);
        numbers.push(number(received));
        Ok(())
    });
    let folded = fold.snapshot_every(100).await?;
    Ok((folded, count.load(Relaxed)))
}

/// Appends numbered events in batches.
async fn append_many(channel: &Channel, numbers: std::ops::Range<usize>) {
    let batcher = channel.batcher().start();
    let mut confirmations = Vec::new();
    for n in numbers {
        confirmations.push(batcher.push(numbered(n)).await.expect("taken"));
    }
    // What it still holds is sent when nobody can add to it.
    drop(batcher);
    for confirmation in confirmations {
        patiently("a confirmation", confirmation).await.expect("confirmed");
    }
}

pub(super) async fn folds_every_event_once_and_goes_on_from_its_snapshot(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let (folded, _) = numbers(&channel).await.expect("an empty stream");
    assert_eq!((folded.state.len(), folded.position.offset), (0, 0));
    append_many(&channel, 0..2_345).await;
    let (folded, read) = numbers(&channel).await.expect("folded");
    assert!(folded.state.iter().copied().eq(0..2_345), "each once and in order");
    assert_eq!((folded.position.offset, folded.lost, read), (2_345, None, 2_345));
    append_numbered(&channel, 2_345..2_350).await;
    let (folded, read) = numbers(&channel).await.expect("folded");
    assert!(folded.state.iter().copied().eq(0..2_350));
    assert!(read < 200, "{read} events were read after the snapshot");
}

pub(super) async fn a_fold_needs_only_what_is_in_no_snapshot(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..100).await;
    let (folded, _) = numbers(&channel).await.expect("folded");
    append_numbered(&channel, 100..103).await;
    let Position { epoch, offset } = folded.position;
    channel.trim(Position { epoch, offset: offset + 1 }).await.expect("trimmed up to the snapshot");
    let (folded, read) = numbers(&channel).await.expect("the snapshot has what was trimmed");
    assert!(folded.state.iter().copied().eq(0..103));
    assert_eq!(read, 3);
    channel.trim(Position { epoch, offset: offset + 2 }).await.expect("trimmed past the snapshot");
    let error = numbers(&channel).await.expect_err("one event is nowhere");
    assert_eq!(error.kind(), ErrorKind::PositionLost);
    assert!(error.to_string().contains(&format!("{epoch}:{}", offset + 1)), "{error}");
}

pub(super) async fn a_fold_begins_again_when_history_was_lost(scene: Scene) {
    let (node, channel) = scene.channel().await;
    append_numbered(&channel, 0..10).await;
    let lost = Position { epoch: Epoch::random(), offset: 5 };
    let snapshot = format!(r#"{{"version":1,"position":"{lost}","term":0,"state":[7,7,7]}}"#);
    let tenant = scene.tenant(&node);
    tenant.put("fold:orders:numbers", snapshot, None, Condition::Always).await.expect("put");
    let (folded, _) = numbers(&channel).await.expect("folded");
    assert!(folded.state.iter().copied().eq(0..10), "nothing of a history that is gone");
    assert_eq!(folded.lost, Some(lost), "and that is told");
    tenant.put("fold:orders:numbers", "not a snapshot", None, Condition::Always).await.expect("put");
    let (folded, _) = numbers(&channel).await.expect("folded");
    assert_eq!((folded.state.len(), folded.lost), (10, None));
}

pub(super) async fn an_event_that_cannot_be_folded_is_told(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..3).await;
    let fold = channel.fold("sum", 0_usize, |sum, received| {
        *sum += std::str::from_utf8(received.event.data())?.parse::<usize>()?;
        if *sum == 3 { Err("three is too much".into()) } else { Ok(()) }
    });
    let error = fold.await.expect_err("the third does not fold");
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert!(error.to_string().contains(":3") && error.to_string().contains("three is too much"), "{error}");
}
