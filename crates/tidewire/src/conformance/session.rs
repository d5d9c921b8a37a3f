//! Guarantees 4, 5, 6 and 9 at the seam: what sessions of a group hold, lose and commit.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::join_all;

use super::scene::Scene;
use super::seam::{Seam, commit, numbers};
use crate::engine::{Append, Change, Commit, Dedup, Listing, Shelf, ShelfItem, Turn};
use crate::error::ErrorKind;
use crate::limits;

pub(super) async fn each_event_is_claimed_once_by_concurrent_sessions(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=500).await;
    let work = (0..10).map(|number| {
        let mut session = seam.session(&scene, &format!("s{number}"));
        async move {
            let mut offsets = Vec::new();
            loop {
                let turned = session.claim(7).await;
                let Some((first, last)) = turned.claimed else { return offsets };
                assert!(last - first < 7);
                assert_eq!(numbers(&turned.events), (first..=last).collect::<Vec<_>>());
                offsets.extend(first..=last);
            }
        }
    });
    let mut claimed = join_all(work).await.concat();
    claimed.sort_unstable();
    assert_eq!(claimed, (1..=500).collect::<Vec<_>>());
    assert_eq!(seam.stats().await.next, 501);
}

pub(super) async fn a_turn_sent_again_has_no_second_effect(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=10).await;
    let mut session = seam.session(&scene, "a");
    let first = || Turn { claim: 3, ..Turn::default() };
    let answer = session.turn(first()).await.expect("a turn");
    let again = session.again(first()).await.expect("the same turn");
    assert_eq!((answer.claimed, &answer.events), (Some((1, 3)), &again.events));
    assert_eq!((answer.claimed, answer.sessions, answer.free), (again.claimed, again.sessions, again.free));
    let put = ShelfItem { shelf: Shelf::Dead, key: "1".into(), bytes: Bytes::from_static(b"dead") };
    let second = || Turn {
        commits: vec![commit("a", "1 to 3", 2)],
        puts: vec![put.clone()],
        marks: vec![Dedup { id: "id".into(), window: scene.ticks(40) }],
        lookups: vec!["id".into()],
        claim: 2,
        ..Turn::default()
    };
    let answer = session.turn(second()).await.expect("a turn");
    assert_eq!((answer.claimed, &*answer.marked), (Some((4, 5)), [false].as_slice()));
    let again = session.again(second()).await.expect("the same turn");
    assert_eq!((again.claimed, &*again.marked), (Some((4, 5)), [false].as_slice()));
    assert_eq!(numbers(&again.events), [4, 5]);
    // One that was overtaken on its way.
    let _refused = session.numbered(1, first()).await;
    let stats = seam.stats().await;
    assert_eq!((stats.next, stats.items), (6, [0, 1, 0, 0]));
    let [record] = stats.records.as_slice() else { panic!("{:?}", stats.records) };
    assert_eq!((&*record.state, &*record.claims), (b"1 to 3".as_slice(), &[(4, 5)][..]));
    assert_eq!(session.claim(1).await.claimed, Some((6, 6)));
}

pub(super) async fn a_session_over_its_lease_loses_its_records_when_another_looks(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=10).await;
    let mut dead = seam.session(&scene, "dead");
    dead.lease = scene.ticks(2);
    dead.claim(3).await;
    let mut living = seam.session(&scene, "living");
    let turned = living.adopt(10).await;
    assert!(turned.adopted.is_empty() && turned.free == 0 && turned.sessions == 2, "{turned:?}");
    assert!(turned.look_again.is_some_and(|time| time <= scene.ticks(2)), "{:?}", turned.look_again);
    scene.pass(scene.ticks(3)).await;
    let turned = living.adopt(10).await;
    let [adopted] = turned.adopted.as_slice() else { panic!("{:?}", turned.adopted) };
    assert_eq!((&*adopted.name, &*adopted.claims, adopted.was_lost), ("dead", &[(1, 3)][..], true));
    assert_eq!((turned.sessions, turned.free, turned.look_again), (1, 0, None));
    let late = dead.commit(vec![commit("dead", "too late", u64::MAX)]).await;
    assert_eq!(late.expect_err("it is over").kind(), ErrorKind::LockLost);
    let turned = living.commit(vec![commit("dead", "settled", u64::MAX)]).await.expect("a turn");
    assert_eq!(turned.sessions, 1);
    let states: Vec<_> = seam.stats().await.records.into_iter().map(|record| record.state).collect();
    assert_eq!(states, [b"settled".as_slice()]);
}

pub(super) async fn a_session_over_its_lease_renews_until_another_looks(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=10).await;
    let mut slow = seam.session(&scene, "slow");
    slow.lease = scene.ticks(2);
    slow.claim(3).await;
    scene.pass(scene.ticks(4)).await;
    slow.commit(vec![commit("slow", "settled", u64::MAX)]).await.expect("nobody has looked");
    let mut other = seam.session(&scene, "other");
    assert_eq!(other.claim(1).await.claimed, Some((4, 4)));
}

pub(super) async fn a_last_turn_frees_records_without_a_loss(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=10).await;
    let mut leaving = seam.session(&scene, "leaving");
    leaving.claim(4).await;
    let last = || Turn { commits: vec![commit("leaving", "1 is done", 2)], is_last: true, ..Turn::default() };
    leaving.turn(last()).await.expect("its last turn");
    leaving.again(last()).await.expect("the same turn");
    let mut other = seam.session(&scene, "other");
    let turned = other.adopt(1).await;
    let [adopted] = turned.adopted.as_slice() else { panic!("{:?}", turned.adopted) };
    assert_eq!(
        (&*adopted.name, &*adopted.state, adopted.was_lost),
        ("leaving", b"1 is done".as_slice(), false)
    );
    assert_eq!((&*adopted.claims, turned.sessions), (&[][..], 1), "claims before a commit are in it");
    assert_eq!(leaving.turn(Turn::default()).await.expect_err("it has left").kind(), ErrorKind::LockLost);
}

pub(super) async fn a_turn_that_commits_what_it_does_not_hold_changes_nothing(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=10).await;
    let (mut a, mut b) = (seam.session(&scene, "a"), seam.session(&scene, "b"));
    a.claim(3).await;
    b.claim(3).await;
    let foreign = Turn {
        commits: vec![commit("b", "mine", u64::MAX), commit("a", "not mine", u64::MAX)],
        puts: vec![ShelfItem { shelf: Shelf::Outbox, key: "1".into(), bytes: Bytes::new() }],
        marks: vec![Dedup { id: "id".into(), window: scene.ticks(40) }],
        claim: 3,
        ..Turn::default()
    };
    assert_eq!(b.turn(foreign).await.expect_err("a holds it").kind(), ErrorKind::LockLost);
    let stats = seam.stats().await;
    assert_eq!((stats.next, stats.items, stats.records.len()), (7, [0; 4], 2));
    assert!(stats.records.iter().all(|record| record.state.is_empty()), "{:?}", stats.records);
    let turned = a.turn(Turn { lookups: vec!["id".into()], ..Turn::default() }).await.expect("a turn");
    assert_eq!(turned.marked, [false]);
}

pub(super) async fn a_record_goes_with_a_commit_without_a_state(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=10).await;
    let mut session = seam.session(&scene, "a");
    session.claim(3).await;
    assert_eq!(seam.stats().await.floor, 1);
    session.commit(vec![commit("a", "2 is left", 2)]).await.expect("a turn");
    assert_eq!(seam.stats().await.floor, 2);
    let gone = Commit { record: "a".into(), state: None, floor: u64::MAX, is_released: false };
    session.commit(vec![gone]).await.expect("a turn");
    let stats = seam.stats().await;
    assert_eq!((stats.floor, stats.records.len()), (4, 0));
    assert_eq!(session.claim(2).await.claimed, Some((4, 5)));
}

pub(super) async fn items_change_with_a_commit_and_are_listed_in_order(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=10).await;
    let item =
        |shelf, key: &str, bytes: &'static str| ShelfItem { shelf, key: key.into(), bytes: bytes.into() };
    let mut session = seam.session(&scene, "a");
    session.claim(3).await;
    let puts = vec![
        item(Shelf::Dead, "b", "2"),
        item(Shelf::Dead, "a", "1"),
        item(Shelf::Dead, "c", "3"),
        item(Shelf::Waiting, "a", "w"),
    ];
    let turn = Turn { commits: vec![commit("a", "x", u64::MAX)], puts, ..Turn::default() };
    session.turn(turn).await.expect("a turn");
    let list = |listing| seam.log().group_items(seam.group(), Shelf::Dead, listing);
    let keys =
        |items: Vec<ShelfItem>| items.into_iter().map(|item| item.key.into_string()).collect::<Vec<_>>();
    assert_eq!(keys(list(Listing::After("".into(), 2)).await.expect("a page")), ["a", "b"]);
    assert_eq!(keys(list(Listing::After("b".into(), 2)).await.expect("a page")), ["c"]);
    assert_eq!(keys(list(Listing::After("aa".into(), 9)).await.expect("a page")), ["b", "c"]);
    let by_key = list(Listing::Keys(vec!["c".into(), "none".into(), "a".into()])).await.expect("a page");
    assert_eq!(by_key, [item(Shelf::Dead, "c", "3"), item(Shelf::Dead, "a", "1")]);
    assert_eq!(seam.stats().await.items, [1, 3, 0, 0]);
    let removes = vec![(Shelf::Dead, "a".into()), (Shelf::Dead, "none".into()), (Shelf::Waiting, "a".into())];
    let turn = Turn { removes, puts: vec![item(Shelf::Dead, "b", "new")], ..Turn::default() };
    session.turn(turn).await.expect("a turn");
    let left = list(Listing::After("".into(), 9)).await.expect("a page");
    assert_eq!(left, [item(Shelf::Dead, "b", "new"), item(Shelf::Dead, "c", "3")]);
    let change = Change::Items {
        removes: vec![(Shelf::Dead, "b".into()), (Shelf::Dead, "none".into())],
        puts: vec![item(Shelf::Audit, "1", "who")],
    };
    assert_eq!(seam.log().group_change(seam.group(), change).await.expect("changed"), 1);
    assert_eq!(seam.stats().await.items, [0, 1, 0, 1]);
}

pub(super) async fn a_page_of_items_is_bounded(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    let mebi = Bytes::from(vec![b'x'; 1024 * 1024]);
    let mut session = seam.session(&scene, "a");
    for key in 0..6 {
        let put = ShelfItem { shelf: Shelf::Dead, key: key.to_string().into(), bytes: mebi.clone() };
        session.turn(Turn { puts: vec![put], ..Turn::default() }).await.expect("a turn");
    }
    let (mut after, mut found) = (Box::from(""), 0);
    loop {
        let listing = Listing::After(after, 1_000);
        let page = seam.log().group_items(seam.group(), Shelf::Dead, listing).await.expect("a page");
        let bytes: usize = page.iter().map(|item| item.bytes.len()).sum();
        assert!(bytes <= limits::BATCH_BYTES_MAX, "{bytes} bytes in a page");
        let Some(last) = page.last() else { break };
        (after, found) = (last.key.clone(), found + page.len());
    }
    assert_eq!(found, 6);
}

pub(super) async fn a_mark_is_found_until_its_window_ends(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    let mut session = seam.session(&scene, "a");
    let marks = vec![
        Dedup { id: "short".into(), window: scene.ticks(4) },
        Dedup { id: "long".into(), window: scene.ticks(40) },
    ];
    let lookups: Vec<Box<str>> = vec!["short".into(), "never".into(), "long".into()];
    let mut look = async |marks| {
        let turn = Turn { marks, lookups: lookups.clone(), ..Turn::default() };
        session.turn(turn).await.expect("a turn").marked
    };
    assert_eq!(look(marks).await, [false; 3], "as they were before the turn");
    assert_eq!(look(Vec::new()).await, [true, false, true]);
    scene.pass(scene.ticks(4)).await;
    assert_eq!(look(Vec::new()).await, [false, false, true]);
}

pub(super) async fn each_partition_is_held_by_one_session(scene: Scene) {
    let seam = Seam::with_group(&scene, 8).await;
    seam.append_all(1..=10).await;
    let (mut a, mut b) = (seam.session(&scene, "a"), seam.session(&scene, "b"));
    let first = a.turn(Turn { adopt: 3, claim: 5, ..Turn::default() }).await.expect("a turn");
    assert_eq!((first.adopted.len(), first.free, first.claimed), (3, 5, None), "partitions are not claimed");
    let rest = b.adopt(100).await;
    assert_eq!((rest.adopted.len(), rest.free), (5, 0));
    let all: Vec<_> = first.adopted.iter().chain(&rest.adopted).collect();
    assert_eq!(all.iter().map(|record| &record.name).collect::<BTreeSet<_>>().len(), 8);
    assert!(all.is_sorted_by(|one, next| one.fence < next.fence), "{all:?}");
    assert!(all.iter().all(|record| record.state.is_empty() && !record.was_lost), "{all:?}");
    let name = first.adopted.first().expect("adopted").name.clone();
    let released = Commit { is_released: true, ..commit(&name, "up to 7", 8) };
    assert_eq!(a.commit(vec![released]).await.expect("a turn").free, 1);
    let turned = b.turn(Turn { adopt: 2, reads: vec![(8, 9)], ..Turn::default() }).await.expect("a turn");
    let [adopted] = turned.adopted.as_slice() else { panic!("{:?}", turned.adopted) };
    assert_eq!((&adopted.name, &*adopted.state, adopted.was_lost), (&name, b"up to 7".as_slice(), false));
    assert!(rest.adopted.iter().all(|record| record.fence < adopted.fence), "fences rise");
    assert_eq!(numbers(&turned.events), [8, 9]);
    let error = a.commit(vec![commit(&name, "late", 9)]).await.expect_err("b holds it");
    assert_eq!(error.kind(), ErrorKind::LockLost);
    assert_eq!(seam.stats().await.floor, 1, "the others are where they began");
}

pub(super) async fn a_page_of_a_turn_is_bounded(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    let mebi = Bytes::from(vec![b'x'; 1024 * 1024]);
    for _ in 0..3 {
        seam.append(Append { envelope: mebi.clone(), ..seam.event(0) }).await.expect("appended");
    }
    for _ in 0..3 {
        seam.append(Append { envelope: mebi.clone(), ..seam.event(0) }).await.expect("appended");
    }
    let mut session = seam.session(&scene, "a");
    let mut turned = session.claim(6).await;
    assert_eq!(turned.claimed, Some((1, 6)));
    let mut offsets = Vec::new();
    while !turned.unread.is_empty() {
        let bytes: usize = turned.events.iter().map(|event| event.envelope.len()).sum();
        assert!(bytes <= limits::BATCH_BYTES_MAX && bytes > 0, "{bytes} bytes in a page");
        offsets.extend(turned.events.iter().map(|event| event.offset));
        turned = session.turn(Turn { reads: turned.unread, ..Turn::default() }).await.expect("a turn");
    }
    offsets.extend(turned.events.iter().map(|event| event.offset));
    assert_eq!(offsets, [1, 2, 3, 4, 5, 6]);
    // Of single events too, and what is not there is in neither.
    let reads = vec![(6, 9), (5, 5), (4, 4), (3, 3), (2, 2), (1, 1)];
    let turned = session.turn(Turn { reads, ..Turn::default() }).await.expect("a turn");
    let mut offsets: Vec<u64> = turned.events.iter().map(|event| event.offset).collect();
    assert!(offsets.is_sorted() && !turned.unread.is_empty());
    assert!(offsets.len() * mebi.len() <= limits::BATCH_BYTES_MAX, "{offsets:?}");
    offsets.extend(turned.unread.iter().flat_map(|(first, last)| *first..=*last));
    assert_eq!(offsets, [1, 2, 3, 4, 5, 6]);
}
