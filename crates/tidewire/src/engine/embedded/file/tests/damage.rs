//! What damage and cut-off writes do to a stream: what is whole is found, what is lost is told.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::FileOptions;
use super::super::segment::{HEADER_BYTES, RECORDS_START};
use super::rig::{Rig, append, path};
use crate::engine::{Append, Direction, Range};

fn events(count: u64) -> Vec<(u64, String)> {
    (1..=count).map(|n| (n, format!("event {n}"))).collect()
}

async fn rig_with(options: FileOptions, count: u64) -> Rig {
    let rig = Rig::with(options);
    rig.append_all("orders", events(count).into_iter().map(|(_, data)| data)).await;
    rig
}

fn flip(file: &Path, byte: u64, mask: u8) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut was = [0];
    file.read_exact_at(&mut was, byte).unwrap();
    file.write_all_at(&[was[0] ^ mask], byte).unwrap();
}

fn byte_of(file: &Path, at: Index) -> u64 {
    index_below(std::fs::metadata(file).unwrap().len(), at)
}

fn index_below(length: u64, at: Index) -> u64 {
    at.index(usize::try_from(length).unwrap()) as u64
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Every event of `found` is one of `all`, in order.
fn is_subsequence(found: &[(u64, String)], all: &[(u64, String)]) -> bool {
    let mut all = all.iter();
    found.iter().all(|event| all.any(|other| other == event))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_segment_cut_anywhere_has_all_whole_records_before_the_cut(cut in any::<Index>()) {
        in_runtime(async move {
            let rig = rig_with(FileOptions::default(), 30).await;
            rig.close().await;
            let before = rig.disk.epoch;
            let file = rig.disk.stream(1).join("00000000000000000001.log");
            let cut = byte_of(&file, cut);
            OpenOptions::new().write(true).open(&file).unwrap().set_len(cut).unwrap();
            let record = |n: u64| (super::super::record::HEADER_BYTES + format!("event {n}").len()) as u64;
            let mut end = RECORDS_START;
            let whole = (1..=30).take_while(|n| { end += record(*n); end <= cut }).count() as u64;

            let rig = rig.open();
            prop_assert_eq!(rig.read_all("orders").await, events(whole));
            let next = rig.append(append("orders", "next")).await.unwrap().position.unwrap();
            prop_assert_eq!((next.epoch, next.offset), (before, whole + 1));
            let rig = rig.reopen().await;
            let mut expected = events(whole);
            expected.push((whole + 1, "next".into()));
            prop_assert_eq!(rig.read_all("orders").await, expected);
            Ok(())
        })?;
    }

    #[test]
    fn a_flipped_byte_is_told_and_costs_one_record_at_most(at in any::<Index>(), mask in 1u8..) {
        in_runtime(async move {
            let rig = rig_with(FileOptions { segment_bytes: 1_500, ..FileOptions::default() }, 100).await;
            let files = rig.files().await;
            let bounds = rig.read("orders", Range::BOUNDS).await;
            rig.close().await;
            let lengths: Vec<u64> = files.iter().map(|file| std::fs::metadata(file).unwrap().len()).collect();
            let mut byte = index_below(lengths.iter().sum(), at);
            let damaged = lengths.iter().position(|length| {
                let is_here = byte < *length;
                if !is_here { byte -= length; }
                is_here
            });
            flip(&files[damaged.unwrap()], byte, mask);

            let rig = rig.open();
            let found = rig.read_all("orders").await;
            prop_assert!(is_subsequence(&found, &events(100)));
            let stats = rig.engine.log.stats(&path("orders")).await.unwrap();
            prop_assert_eq!(stats.length, found.len() as u64);
            if byte < RECORDS_START {
                // The segment header repeats what the directory knows.
                prop_assert_eq!(found.len(), 100);
            } else if stats.epoch == bounds.epoch {
                prop_assert_eq!((found.len(), stats.removed, stats.last), (99, 1, 100));
            } else {
                prop_assert_eq!((found.len(), stats.last), (99, 99), "the last record cannot be told from others");
            }
            let backwards = Range { direction: Direction::Backwards, ..Range::from(0, 1000) };
            let mut page = rig.read("orders", backwards).await.events;
            page.reverse();
            prop_assert_eq!(page.iter().map(|event| event.offset).collect::<Vec<_>>(), found.iter().map(|(offset, _)| *offset).collect::<Vec<_>>());
            let next = rig.append(append("orders", "next")).await.unwrap().position.unwrap();
            prop_assert_eq!(next.offset, stats.last + 1);
            Ok(())
        })?;
    }

    #[test]
    fn any_bytes_in_a_segment_are_no_panic_and_no_forged_event(
        bytes in proptest::collection::vec(any::<u8>(), 1..400),
        at in any::<Index>(),
    ) {
        in_runtime(async move {
            let rig = rig_with(FileOptions::default(), 40).await;
            rig.close().await;
            let file = rig.disk.stream(1).join("00000000000000000001.log");
            let position = byte_of(&file, at);
            OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&bytes, position).unwrap();
            let rig = rig.open();
            prop_assert!(is_subsequence(&rig.read_all("orders").await, &events(40)));
            rig.append(append("orders", "next")).await.unwrap();
            let rig = rig.reopen().await;
            prop_assert_eq!(rig.read_all("orders").await.pop().unwrap().1, "next");
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn an_event_that_spells_a_record_is_not_taken_for_one() {
    let rig = Rig::new();
    rig.append(append("orders", "one")).await.unwrap();
    rig.append(append("orders", "two")).await.unwrap();
    rig.close().await;
    let file = rig.disk.stream(1).join("00000000000000000001.log");
    let records = std::fs::read(&file).unwrap().split_off(HEADER_BYTES);
    // A copy of this stream's own records, inside of an event of another directory's stream.
    let other = Rig::new();
    other.append(Append { envelope: records.into(), ..append("orders", "") }).await.unwrap();
    other.close().await;
    flip(&other.disk.stream(1).join("00000000000000000001.log"), RECORDS_START, 1);
    let other = other.open();
    let page = other.read("orders", Range::from(0, 10)).await;
    assert!(page.events.is_empty(), "{page:?}");
    assert_ne!(page.epoch, other.disk.epoch, "the loss is told");
}

#[tokio::test]
async fn damage_at_the_end_is_kept_aside_and_told_once() {
    let rig = rig_with(FileOptions::default(), 10).await;
    let epoch = rig.disk.epoch;
    let file = rig.files().await.remove(0);
    rig.close().await;
    let last_header = std::fs::metadata(&file).unwrap().len() - 20;
    flip(&file, last_header, 0xff);
    let rig = rig.open();
    let page = rig.read("orders", Range::from(0, 100)).await;
    assert_eq!((page.events.len(), page.last), (9, 9));
    assert_ne!(page.epoch, epoch);
    assert!(rig.files().await.iter().any(|file| file.extension().unwrap() == "damaged"));
    let rig = rig.reopen().await;
    assert_eq!(rig.read("orders", Range::BOUNDS).await.epoch, page.epoch);
}

#[tokio::test]
async fn a_last_segment_that_is_gone_is_told() {
    let rig = rig_with(FileOptions { segment_bytes: 1_000, ..FileOptions::default() }, 100).await;
    rig.engine.log.trim(&path("orders"), 95).await.unwrap();
    let epoch = rig.disk.epoch;
    let files = rig.files().await;
    rig.close().await;
    files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let rig = rig.open();
    let page = rig.read("orders", Range::from(0, 100)).await;
    assert_ne!(page.epoch, epoch);
    assert_eq!((page.first, page.last), (95, 94));
    assert_eq!(rig.append(append("orders", "x")).await.unwrap().position.unwrap().offset, 95);
}

#[tokio::test]
async fn history_that_a_power_failure_may_have_taken_is_told() {
    let rig = rig_with(FileOptions::default(), 5).await;
    let epoch = rig.disk.epoch;
    // As a power failure leaves it: not closed, and another boot.
    rig.disk.state.set_unsynced_since(Some(rig.disk.opened)).unwrap();
    let not_closed = std::fs::read(rig.directory.path().join("state.redb")).unwrap();
    rig.close().await;
    std::fs::write(rig.directory.path().join("state.redb"), not_closed).unwrap();
    let same_boot = rig.open();
    assert_eq!(same_boot.disk.epoch, epoch);
    same_boot.disk.state.distrust().unwrap();
    let not_closed = std::fs::read(same_boot.directory.path().join("state.redb")).unwrap();
    same_boot.close().await;
    std::fs::write(same_boot.directory.path().join("state.redb"), not_closed).unwrap();
    let other_boot = same_boot.open();
    assert_ne!(other_boot.disk.epoch, epoch);
    assert_eq!(other_boot.read_all("orders").await, events(5), "what is there can be read");
}
