//! Guarantees 4 and 8 at the seam: where a group begins, what keeps its events, and what wakes its sessions.

use std::time::Duration;

use super::scene::{Scene, patiently};
use super::seam::{Seam, commit, numbers};
use crate::clock::Timestamp;
use crate::engine::{
    Append, Appended, AtBound, Change, Commit, Dedup, Listing, Opening, Range, Retention, Shelf, ShelfItem,
    Start, Turn,
};
use crate::error::ErrorKind;
use crate::position::{Epoch, Position};

pub(super) async fn a_group_begins_where_it_is_told(scene: Scene) {
    let seam = Seam::open(&scene).await;
    seam.append_all(1..=5).await;
    scene.pass(scene.ticks(2)).await;
    let page = seam.log().read(seam.channel(), Range::BOUNDS).await.expect("read");
    let between = page_time(&seam, 5).await;
    seam.append_all(6..=10).await;
    let at = |offset| Position { epoch: page.epoch, offset };
    let past = Opening { start: Start::At(at(12)), partitions: 0 };
    assert_eq!(seam.open_group(past).await.expect_err("past the end").kind(), ErrorKind::PositionLost);
    for (start, next) in [
        (Start::Earliest, 1),
        (Start::Latest, 11),
        (Start::At(at(4)), 4),
        (Start::At(at(11)), 11),
        (Start::At(Position { epoch: Epoch::from_u64(7), offset: 4 }), 1),
        (Start::Since(between.saturating_add(Duration::from_millis(1))), 6),
    ] {
        let opened = seam.open_group(Opening { start, partitions: 0 }).await.expect("opened");
        assert_eq!((opened.is_new, opened.next), (true, at(next)), "{start:?}");
        let again = Opening { start: Start::Earliest, partitions: 0 };
        let found = seam.open_group(again).await.expect("found");
        assert_eq!((found.is_new, found.is_rebuilt, found.next), (false, false, at(next)));
        let other = Opening { start, partitions: 2 };
        assert_eq!(seam.open_group(other).await.expect_err("has none").kind(), ErrorKind::Conflict);
        let mut session = seam.session(&scene, "a");
        let offsets = numbers(&session.claim(100).await.events);
        assert_eq!(offsets, (next..=10).collect::<Vec<_>>(), "{start:?}");
        seam.log().group_change(seam.group(), Change::Delete).await.expect("deleted");
    }
}

/// When the event was appended.
async fn page_time(seam: &Seam, offset: u64) -> Timestamp {
    let page = seam.log().read(seam.channel(), Range::from(offset, 1)).await.expect("read");
    page.events.first().expect("an event").time
}

pub(super) async fn a_group_is_there_before_the_first_append(scene: Scene) {
    let seam = Seam::open(&scene).await;
    let error = seam.log().group_stats(seam.group()).await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let names = async || seam.log().groups(seam.channel()).await.expect("names");
    assert_eq!(names().await.len(), 0);
    let opened = seam.open_group(Opening { start: Start::Latest, partitions: 0 }).await.expect("opened");
    assert_eq!((opened.is_new, opened.next.offset), (true, 1));
    assert_eq!(names().await, [seam.group().group().into()]);
    seam.append_all(1..=3).await;
    let turned = seam.session(&scene, "a").claim(10).await;
    assert_eq!((turned.claimed, turned.epoch), (Some((1, 3)), opened.next.epoch));
}

pub(super) async fn a_deleted_group_is_not_there(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=3).await;
    let mut session = seam.session(&scene, "a");
    let put = ShelfItem { shelf: Shelf::Dead, key: "1".into(), bytes: "x".into() };
    session.turn(Turn { claim: 2, puts: vec![put], ..Turn::default() }).await.expect("a turn");
    let records = seam.log().group_change(seam.group(), Change::Delete).await.expect("deleted");
    assert_eq!(records, 1);
    let errors = [
        session.turn(Turn::default()).await.map(drop),
        seam.log().group_stats(seam.group()).await.map(drop),
        seam.log().group_items(seam.group(), Shelf::Dead, Listing::After("".into(), 1)).await.map(drop),
        seam.log().group_change(seam.group(), Change::Seek(Start::Earliest)).await.map(drop),
        seam.log().group_change(seam.group(), Change::Delete).await.map(drop),
    ];
    assert!(errors.into_iter().all(|error| error.expect_err("it is gone").kind() == ErrorKind::NotFound));
    // One of the same name is another one.
    seam.open_group(Opening { start: Start::Earliest, partitions: 0 }).await.expect("opened");
    let stats = seam.stats().await;
    assert_eq!((stats.next, stats.records.len(), stats.items), (1, 0, [0; 4]));
}

pub(super) async fn a_group_is_moved_both_ways(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=10).await;
    let mut session = seam.session(&scene, "a");
    let turned = session.claim(6).await;
    assert_eq!((turned.claimed, turned.generation), (Some((1, 6)), (1, 1)));
    let seek = |start| seam.log().group_change(seam.group(), Change::Seek(start));
    let at = |offset| Start::At(Position { epoch: turned.epoch, offset });
    assert_eq!(seek(at(3)).await.expect("moved"), 4, "events that are claimed again");
    let turned = session.claim(2).await;
    assert_eq!((turned.claimed, turned.generation), (Some((3, 4)), (2, 3)));
    assert_eq!(seek(Start::Latest).await.expect("moved"), 6, "events that are left out");
    assert_eq!(seek(at(12)).await.expect_err("past the end").kind(), ErrorKind::PositionLost);
    seam.append_all([11]).await;
    let turned = session.claim(5).await;
    assert_eq!((turned.claimed, turned.generation), (Some((11, 11)), (3, 11)));
}

pub(super) async fn moving_back_keeps_the_events_of_partitions(scene: Scene) {
    let seam = Seam::with_group(&scene, 2).await;
    seam.append_all(1..=10).await;
    let mut session = seam.session(&scene, "a");
    let names: Vec<_> = session.adopt(2).await.adopted.into_iter().map(|record| record.name).collect();
    let commits = names.iter().map(|name| commit(name, "all", u64::MAX)).collect();
    session.commit(commits).await.expect("a turn");
    assert_eq!(seam.stats().await.floor, 11, "later events are still needed");
    seam.log().group_change(seam.group(), Change::Seek(Start::Earliest)).await.expect("moved");
    let stats = seam.stats().await;
    assert_eq!((stats.floor, stats.generation), (1, (2, 1)));
    let commits = || names.iter().map(|name| commit(name, "all", u64::MAX)).collect();
    let turned = session.commit(commits()).await.expect("a turn");
    assert_eq!(turned.generation, (2, 1));
    assert_eq!(seam.stats().await.floor, 1, "it did not know that it was moved");
    session.commit(commits()).await.expect("a turn");
    assert_eq!(seam.stats().await.floor, 11);
}

pub(super) async fn an_append_wakes_who_claimed_fewer_than_it_asked_for(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    let mut session = seam.session(&scene, "a");
    let work = async {
        for number in 1..=20 {
            // What was told before may only say that the session was made.
            while session.claim(5).await.claimed != Some((number, number)) {
                seam.hear_work().await;
            }
        }
    };
    let appends = async {
        for number in 1..=20 {
            seam.append_all([number]).await;
            while seam.stats().await.next == number {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::join!(work, appends);
}

pub(super) async fn a_free_record_wakes(scene: Scene) {
    let seam = Seam::with_group(&scene, 4).await;
    let (mut a, mut b) = (seam.session(&scene, "a"), seam.session(&scene, "b"));
    let mut held = a.adopt(4).await.adopted;
    for round in 0..20 {
        let give = async {
            let record = held.pop().expect("a record").name;
            let released = Commit { is_released: true, ..commit(&record, "x", 1) };
            a.commit(vec![released]).await.expect("a turn");
        };
        let take = async {
            loop {
                if let Some(adopted) = b.adopt(1).await.adopted.pop() {
                    break adopted;
                }
                seam.hear_work().await;
            }
        };
        let ((), taken) = tokio::join!(give, take);
        // And back, so that there are some left.
        let back = Commit { is_released: true, ..commit(&taken.name, "x", 1) };
        b.commit(vec![back]).await.expect("a turn");
        held.extend(a.adopt(1).await.adopted);
        assert_eq!(held.len(), 4, "round {round}");
    }
}

/// Appends, and says which events are kept then.
async fn kept(seam: &Seam, number: u64, retention: Retention) -> (u64, u64) {
    let append = Append { retention, ..seam.event(number) };
    seam.append(append).await.expect("appended");
    bounds(seam).await
}

async fn bounds(seam: &Seam) -> (u64, u64) {
    let page = seam.log().read(seam.channel(), Range::BOUNDS).await.expect("read");
    (page.first, page.last)
}

pub(super) async fn what_a_group_has_not_settled_is_kept(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    let kept_for = scene.ticks(4);
    let by_age = Retention { age_max: Some(kept_for), ..Retention::default() };
    for number in 1..=6 {
        kept(&seam, number, by_age).await;
    }
    scene.pass(scene.ticks(5)).await;
    assert_eq!(kept(&seam, 7, by_age).await, (1, 7), "nothing is claimed");
    let mut session = seam.session(&scene, "a");
    assert_eq!(numbers(&session.claim(4).await.events), [1, 2, 3, 4]);
    assert_eq!(bounds(&seam).await, (1, 7), "nothing is settled");
    let turned = session.commit(vec![commit("a", "1 and 2 are done", 3)]).await.expect("a turn");
    assert_eq!((turned.last, bounds(&seam).await), (7, (3, 7)));
    // Only what is unclaimed holds it now, and the last one is young.
    let turned = session.turn(Turn {
        commits: vec![commit("a", "done", u64::MAX)],
        reads: vec![(5, 6)],
        ..Turn::default()
    });
    assert_eq!(numbers(&turned.await.expect("a turn").events), [5, 6]);
    assert_eq!(bounds(&seam).await, (5, 7));
    let turned = session.claim(10).await;
    assert_eq!((turned.claimed, turned.skipped), (Some((5, 7)), None));
    session.commit(vec![commit("a", "done", u64::MAX)]).await.expect("a turn");
    assert_eq!(bounds(&seam).await, (7, 7));
}

pub(super) async fn an_append_is_refused_at_a_bound_of_unsettled_events(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    let mut session = seam.session(&scene, "a");
    let by_count = |at_bound| Retention { events_max: Some(5), at_bound, ..Retention::default() };
    for number in 1..=5 {
        kept(&seam, number, by_count(AtBound::Reject)).await;
    }
    for at_bound in [AtBound::Reject, AtBound::Block] {
        let append = Append { retention: by_count(at_bound), ..seam.event(6) };
        let error = seam.append(append).await.expect_err("it is full");
        assert_eq!(error.kind(), ErrorKind::Backpressure);
        assert!(error.to_string().contains("retention.at_bound"), "{error}");
    }
    assert_eq!(bounds(&seam).await, (1, 5));
    assert_eq!(numbers(&session.claim(5).await.events), [1, 2, 3, 4, 5]);
    let refused = Append { retention: by_count(AtBound::Reject), ..seam.event(6) };
    assert!(seam.append(refused).await.is_err(), "a claim settles nothing");
    session.commit(vec![commit("a", "1 is done", 2)]).await.expect("a turn");
    assert_eq!(kept(&seam, 6, by_count(AtBound::Reject)).await, (2, 6));
    session.commit(vec![commit("a", "all", u64::MAX)]).await.expect("a turn");
    // By bytes, about: full well before twice as much, and not before half.
    let by_bytes = Retention { bytes_max: Some(1 << 20), ..Retention::default() };
    let large =
        |seam: &Seam| Append { envelope: vec![b'x'; 64 << 10].into(), retention: by_bytes, ..seam.event(0) };
    let mut count = 0;
    while count < 64 && seam.append(large(&seam)).await.is_ok() {
        count += 1;
    }
    assert!((8..32).contains(&count), "{count} events of 64 KiB in 1 MiB");
    assert_eq!(bounds(&seam).await.1, 6 + count);
    let turned = session.claim(1_000).await;
    assert_eq!(turned.claimed, Some((6, 6 + count)));
    session.commit(vec![commit("a", "all", u64::MAX)]).await.expect("a turn");
    seam.append(large(&seam)).await.expect("there is room");
}

pub(super) async fn the_oldest_is_dropped_and_told_where_the_policy_says_so(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    let retention = Retention { events_max: Some(5), at_bound: AtBound::DropOldest, ..Retention::default() };
    for number in 1..=4 {
        kept(&seam, number, retention).await;
    }
    let mut session = seam.session(&scene, "a");
    assert_eq!(session.claim(2).await.claimed, Some((1, 2)));
    for number in 5..=12 {
        kept(&seam, number, retention).await;
    }
    assert_eq!(bounds(&seam).await, (8, 12));
    let turn = Turn { claim: 3, reads: vec![(1, 2)], ..Turn::default() };
    let turned = session.turn(turn).await.expect("a turn");
    assert_eq!((turned.skipped, turned.claimed, turned.first), (Some((3, 7)), Some((8, 10)), 8));
    assert_eq!((numbers(&turned.events), turned.unread.len()), (vec![8, 9, 10], 0), "1 and 2 are gone");
    assert_eq!(session.claim(3).await.skipped, None, "it is told once");
}

pub(super) async fn a_scheduled_append_is_taken_back_before_its_time(scene: Scene) {
    let seam = Seam::open(&scene).await;
    seam.append_all([1]).await;
    let due = Some(scene.now().saturating_add(scene.ticks(4)));
    let cancelled = Append { deliver_at: due, ..seam.event(7) };
    let key = |appended: Appended| appended.scheduled.expect("by what it is taken back");
    let first = key(seam.append(cancelled.clone()).await.expect("scheduled"));
    let second = key(seam.append(Append { envelope: "2".into(), ..cancelled }).await.expect("scheduled"));
    assert_ne!(first, second);
    let cancel = |key: &str| seam.log().cancel(seam.channel(), key);
    assert!(cancel(&first).await.expect("an answer"));
    assert!(!cancel(&first).await.expect("an answer"), "it is gone");
    assert!(!cancel("nothing").await.expect("an answer"));
    scene.pass(scene.ticks(5)).await;
    let appended = async {
        while bounds(&seam).await.1 < 2 {
            tokio::task::yield_now().await;
        }
    };
    patiently("the other one", appended).await;
    assert!(!cancel(&second).await.expect("an answer"), "its time has come");
    let page = seam.log().read(seam.channel(), Range::from(1, 10)).await.expect("read");
    assert_eq!(numbers(&page.events), [1, 2]);
}

pub(super) async fn a_group_survives_a_restart(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=10).await;
    let (mut held, mut left) = (seam.session(&scene, "held"), seam.session(&scene, "left"));
    held.claim(3).await;
    left.claim(3).await;
    let puts = vec![ShelfItem { shelf: Shelf::Dead, key: "k".into(), bytes: "v".into() }];
    let marks = vec![Dedup { id: "id".into(), window: scene.ticks(400) }];
    let commits = vec![commit("left", "4 is done", 5)];
    left.turn(Turn { commits, puts, marks, is_last: true, ..Turn::default() }).await.expect("a turn");
    let before = seam.stats().await;
    seam.close().await;
    let seam = Seam::open(&scene).await;
    let after = seam.stats().await;
    assert_eq!((after.next, after.floor, after.generation, after.items), (7, 1, (1, 1), [0, 1, 0, 0]));
    assert_eq!((after.epoch, after.partitions), (before.epoch, 0));
    let found = seam.open_group(Opening { start: Start::Latest, partitions: 0 }).await.expect("found");
    assert_eq!((found.is_new, found.next.offset), (false, 7));
    scene.pass(scene.ticks(90)).await;
    let mut heir = seam.session(&scene, "heir");
    let turn = Turn { adopt: 9, claim: 1, lookups: vec!["id".into()], ..Turn::default() };
    let turned = heir.turn(turn).await.expect("a turn");
    let adopted = |name: &str| turned.adopted.iter().find(|record| &*record.name == name).expect("adopted");
    assert_eq!((&*adopted("held").claims, adopted("held").was_lost), (&[(1, 3)][..], true));
    assert_eq!((&*adopted("left").state, adopted("left").was_lost), (b"4 is done".as_slice(), false));
    assert_eq!((turned.claimed, turned.marked), (Some((7, 7)), vec![true]));
    let items = seam.log().group_items(seam.group(), Shelf::Dead, Listing::After("".into(), 9)).await;
    let items = items.expect("a page");
    assert_eq!(items.iter().map(|item| &*item.bytes).collect::<Vec<_>>(), [b"v"]);
    let fences: Vec<_> = turned.adopted.iter().map(|record| record.fence).collect();
    assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
}

pub(super) async fn fences_rise_over_a_restart(scene: Scene) {
    let seam = Seam::with_group(&scene, 3).await;
    let before = seam.session(&scene, "a").adopt(3).await.adopted;
    seam.close().await;
    let seam = Seam::open(&scene).await;
    scene.pass(scene.ticks(90)).await;
    let after = seam.session(&scene, "b").adopt(3).await.adopted;
    assert_eq!(after.len(), 3);
    let highest = before.iter().map(|record| record.fence).max();
    assert!(after.iter().all(|record| record.was_lost && Some(record.fence) > highest), "{after:?}");
}
