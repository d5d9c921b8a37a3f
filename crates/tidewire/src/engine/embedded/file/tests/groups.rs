//! What faults and restarts do to groups: nothing is lost, nothing is settled twice.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::super::FileOptions;
use super::rig::{Rig, append, path};
use crate::engine::{
    Append, AtBound, Change, Commit, Listing, Opening, Range, Retention, Shelf, ShelfItem, Start, Turn,
    Turned,
};
use crate::name::{EntryPath, GroupPath};
use crate::{Error, ErrorKind};

const LEASE: Duration = Duration::from_secs(5);

fn group() -> GroupPath {
    GroupPath::new(path("orders"), "workers").unwrap()
}

impl Rig {
    async fn open_group(&self, partitions: u16) {
        let opening = Opening { start: Start::Earliest, partitions };
        self.engine.log.group_open(&group(), opening).await.unwrap();
    }

    async fn turn(&self, session: &str, number: u64, turn: Turn) -> crate::Result<Turned> {
        let turn = Turn { session: session.into(), number, lease: LEASE, ..turn };
        self.engine.log.group_turn(&group(), turn).await
    }

    fn fail_commits(&self, fails: bool) {
        self.disk.state.fails.store(fails, Ordering::SeqCst);
    }

    async fn items(&self, shelf: Shelf) -> Vec<String> {
        let (mut keys, mut after) = (Vec::new(), Box::from(""));
        loop {
            let listing = Listing::After(after, 1_000);
            let page = self.engine.log.group_items(&group(), shelf, listing).await.unwrap();
            let Some(last) = page.last() else { return keys };
            after = last.key.clone();
            keys.extend(page.into_iter().map(|item| item.key.into_string()));
        }
    }
}

fn claim(claim: usize) -> Turn {
    Turn { claim, ..Turn::default() }
}

fn settle(record: &str) -> Commit {
    Commit { record: record.into(), state: None, floor: u64::MAX, is_released: false }
}

fn kind<T>(outcome: crate::Result<T>) -> Option<ErrorKind> {
    outcome.err().as_ref().map(Error::kind)
}

#[tokio::test]
async fn a_failed_commit_leaves_the_group_as_it_was() {
    let rig = Rig::new();
    rig.append_all("orders", (1..=10).map(|n| n.to_string())).await;
    rig.open_group(0).await;
    rig.turn("a", 1, claim(3)).await.unwrap();
    rig.fail_commits(true);
    let put = ShelfItem { shelf: Shelf::Dead, key: "1".into(), bytes: "x".into() };
    let failing = || Turn { commits: vec![settle("a")], puts: vec![put.clone()], ..claim(3) };
    assert_eq!(kind(rig.turn("a", 2, failing()).await), Some(ErrorKind::Engine));
    assert_eq!(kind(rig.turn("b", 1, claim(3)).await), Some(ErrorKind::Engine));
    rig.fail_commits(false);
    // Its first session has lost its last turn with the memory that had taken it.
    assert_eq!(kind(rig.turn("a", 2, failing()).await), Some(ErrorKind::LockLost));
    let turned = rig.turn("b", 1, Turn { adopt: 9, ..claim(2) }).await.unwrap();
    let [adopted] = turned.adopted.as_slice() else { panic!("{:?}", turned.adopted) };
    assert_eq!((&*adopted.name, &*adopted.claims, adopted.was_lost), ("a", &[(1, 3)][..], true));
    assert_eq!(turned.claimed, Some((4, 5)));
    assert_eq!(rig.items(Shelf::Dead).await.len(), 0);
    let rig = rig.reopen().await;
    let turned = rig.turn("c", 1, Turn { adopt: 9, ..claim(9) }).await.unwrap();
    assert_eq!((turned.adopted.len(), turned.claimed), (2, Some((6, 10))));
}

#[tokio::test]
async fn a_failed_commit_of_a_creation_or_a_removal_is_undone() {
    let rig = Rig::new();
    rig.append_all("orders", ["1".to_owned()]).await;
    rig.fail_commits(true);
    let opening = Opening { start: Start::Earliest, partitions: 4 };
    assert_eq!(kind(rig.engine.log.group_open(&group(), opening).await), Some(ErrorKind::Engine));
    rig.fail_commits(false);
    assert_eq!(kind(rig.engine.log.group_stats(&group()).await), Some(ErrorKind::NotFound));
    rig.open_group(4).await;
    rig.fail_commits(true);
    let delete = || rig.engine.log.group_change(&group(), Change::Delete);
    assert_eq!(kind(delete().await), Some(ErrorKind::Engine));
    rig.fail_commits(false);
    assert_eq!(rig.engine.log.group_stats(&group()).await.unwrap().records.len(), 4);
    delete().await.unwrap();
    let rig = rig.reopen().await;
    assert_eq!(kind(rig.engine.log.group_stats(&group()).await), Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn events_are_kept_until_the_database_has_that_they_are_settled() {
    let rig = Rig::new();
    rig.append_all("orders", (1..=10).map(|n| n.to_string())).await;
    rig.open_group(0).await;
    rig.turn("a", 1, claim(10)).await.unwrap();
    rig.fail_commits(true);
    let settled = Turn { commits: vec![settle("a")], ..Turn::default() };
    assert_eq!(kind(rig.turn("a", 2, settled).await), Some(ErrorKind::Engine));
    // Age removes without an append, and the database cannot be written meanwhile.
    let retention = Retention { age_max: Some(LEASE), ..Retention::default() };
    rig.append(Append { retention, ..append("orders", "11") }).await.unwrap();
    rig.clock.advance(LEASE * 2);
    assert_eq!(rig.read("orders", Range::BOUNDS).await.first, 1);
    rig.fail_commits(false);
    let turned = rig.turn("b", 1, Turn { adopt: 1, reads: vec![(1, 10)], ..Turn::default() }).await.unwrap();
    assert_eq!((turned.adopted[0].claims.as_slice(), turned.events.len()), (&[(1, 10)][..], 10));
    let settled = Turn { commits: vec![settle("a")], ..Turn::default() };
    rig.turn("b", 2, settled).await.unwrap();
    assert_eq!(rig.read("orders", Range::BOUNDS).await.first, 11);
}

/// Sessions that settle what they claim and adopt, each event under an item of its own. A turn that fails begins a
/// new session, as a process does that is killed; how many did.
async fn work(rig: &Rig, worker: usize, turns: usize, settled: &Mutex<Vec<u64>>) -> usize {
    let (mut session, mut number, mut life) = (format!("w{worker}"), 0, 0);
    let mut held: Vec<(Box<str>, Vec<u64>)> = Vec::new();
    for _ in 0..turns {
        number += 1;
        let done = std::mem::take(&mut held);
        let offsets: Vec<u64> = done.iter().flat_map(|(_, offsets)| offsets).copied().collect();
        let key = |offset: &u64| format!("{offset:06}-{session}-{number}").into();
        let item = |offset| ShelfItem { shelf: Shelf::Audit, key: key(offset), bytes: "x".into() };
        let turn = Turn {
            commits: done.iter().map(|(record, _)| settle(record)).collect(),
            puts: offsets.iter().map(item).collect(),
            adopt: 2,
            ..claim(3)
        };
        match rig.turn(&session, number, turn).await {
            Ok(turned) => {
                settled.lock().extend(offsets);
                let range = |(first, last): (u64, u64)| first..=last;
                for adopted in turned.adopted {
                    held.push((adopted.name, adopted.claims.into_iter().flat_map(range).collect()));
                }
                if let Some(claimed) = turned.claimed {
                    held.push((session.as_str().into(), range(claimed).collect()));
                }
            }
            Err(error) => {
                let kinds = [ErrorKind::Engine, ErrorKind::Unavailable, ErrorKind::LockLost];
                assert!(kinds.contains(&error.kind()), "{error}");
                life += 1;
                (session, number) = (format!("w{worker}-{life}"), 0);
            }
        }
    }
    life
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_settled_twice_whatever_commits_fail() {
    let rig = Rig::new();
    rig.append_all("orders", (1..=600).map(|n| n.to_string())).await;
    rig.open_group(0).await;
    let settled = Mutex::new(Vec::new());
    let faults = async {
        for round in 0..60_u32 {
            rig.fail_commits(round % 3 == 1);
            tokio::task::yield_now().await;
            rig.engine.store.remove(&entry()).await.ok();
        }
        rig.fail_commits(false);
    };
    let workers = (0..4).map(|worker| work(&rig, worker, 30, &settled));
    let ((), failures) = tokio::join!(faults, join_all(workers));
    assert!(failures.iter().sum::<usize>() > 10, "{failures:?}");
    let rig = rig.reopen().await;
    // What is left is there for those who come after.
    assert_eq!(work(&rig, 9, 300, &settled).await, 0);
    let found: Vec<u64> = rig.items(Shelf::Audit).await.iter().map(|key| key[..6].parse().unwrap()).collect();
    assert_eq!(found, (1..=600).collect::<Vec<_>>(), "each event is settled once");
    let confirmed: BTreeSet<u64> = settled.lock().iter().copied().collect();
    assert_eq!(confirmed.len(), settled.lock().len());
    let stats = rig.engine.log.group_stats(&group()).await.unwrap();
    assert_eq!((stats.next, stats.floor, stats.items), (601, 601, [0, 0, 0, 600]));
}

fn entry() -> EntryPath {
    EntryPath::new("dev", "default", "key").unwrap()
}

#[tokio::test]
async fn a_group_goes_back_with_a_stream_that_has_lost_its_end() {
    let rig = Rig::new();
    rig.append_all("orders", (1..=10).map(|n| n.to_string())).await;
    rig.open_group(0).await;
    rig.turn("a", 1, claim(10)).await.unwrap();
    rig.close().await;
    let file = rig.disk.stream(1).join("00000000000000000001.log");
    let end = super::super::segment::RECORDS_START + 5 * (super::super::record::HEADER_BYTES as u64 + 1);
    OpenOptions::new().write(true).open(&file).unwrap().set_len(end).unwrap();
    let rig = rig.open();
    rig.append_all("orders", (6..=12).map(|n| format!("new {n}"))).await;
    let turned = rig.turn("b", 1, Turn { adopt: 1, ..claim(10) }).await.unwrap();
    assert_eq!(turned.claimed, Some((6, 12)), "what was appended since was never claimed");
    assert_eq!(turned.adopted[0].claims, [(1, 5)]);
}

#[tokio::test]
async fn what_a_stream_does_at_a_bound_is_known_when_it_is_opened() {
    for (at_bound, first) in [(AtBound::Reject, 1), (AtBound::Block, 1), (AtBound::DropOldest, 6)] {
        let rig = Rig::with(FileOptions::default());
        let wide = Retention { events_max: Some(1_000), at_bound, ..Retention::default() };
        let narrow = Retention { events_max: Some(5), at_bound, ..Retention::default() };
        let events = (1..=9).map(|n| Append { retention: wide, ..append("orders", n.to_string()) });
        rig.engine.log.append(events.collect()).await.unwrap();
        if at_bound == AtBound::DropOldest {
            rig.append(Append { retention: narrow, ..append("orders", "10") }).await.unwrap();
        }
        rig.open_group(0).await;
        let rig = rig.reopen().await;
        assert_eq!(rig.read("orders", Range::BOUNDS).await.first, first, "{at_bound:?}");
        let full = rig.append(Append { retention: narrow, ..append("orders", "11") }).await;
        let refused = (at_bound != AtBound::DropOldest).then_some(ErrorKind::Backpressure);
        assert_eq!(kind(full), refused);
    }
}

#[tokio::test]
async fn a_scheduled_event_waits_while_its_stream_is_full() {
    let rig = Rig::new();
    let retention = Retention { events_max: Some(1), at_bound: AtBound::Reject, ..Retention::default() };
    let event = |data: &str| Append { retention, ..append("orders", data) };
    rig.append(event("1")).await.unwrap();
    rig.open_group(0).await;
    let due = rig.clock.now().saturating_add(LEASE);
    rig.append(Append { deliver_at: Some(due), ..event("2") }).await.unwrap();
    // It survives a restart with what is done at the bound.
    let rig = rig.reopen().await;
    rig.clock.advance(LEASE);
    let turned = rig.turn("a", 1, claim(9)).await.unwrap();
    assert_eq!((turned.claimed, turned.last), (Some((1, 1)), 1));
    rig.turn("a", 2, Turn { commits: vec![settle("a")], ..Turn::default() }).await.unwrap();
    while rig.read("orders", Range::BOUNDS).await.last < 2 {
        rig.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
}
