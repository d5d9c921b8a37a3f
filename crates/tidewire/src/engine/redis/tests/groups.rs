//! Groups: that they are those of the engine in memory, and what only Redis can do to them.

mod failover;
mod same;

use std::time::Duration;

use super::*;
use crate::engine::redis::keys;
use crate::engine::{Change, Commit, Interest, Opening, Shelf, ShelfItem, Start, Turn, Turned};
use crate::error::{ErrorKind, Result};
use crate::name::GroupPath;
use crate::position::Position;

const LONG: Duration = Duration::from_secs(60);

fn group(channel: &ChannelPath) -> GroupPath {
    GroupPath::new(channel.clone(), "g").expect("a valid name")
}

fn turn(session: &str, number: u64) -> Turn {
    Turn { session: session.into(), number, lease: LONG, ..Turn::default() }
}

async fn opened(engine: &Engine, channel: &ChannelPath, start: Start, partitions: u16) -> GroupPath {
    let group = group(channel);
    engine.log.group_open(&group, Opening { start, partitions }).await.expect("opened");
    group
}

async fn take(engine: &Engine, group: &GroupPath, turn: Turn) -> Turned {
    engine.log.group_turn(group, turn).await.expect("a turn")
}

async fn append_many(engine: &Engine, channel: &ChannelPath, count: usize) {
    let batch = (0..count).map(|_| append(channel, "event")).collect();
    let outcomes = engine.log.append(batch).await.expect("answered");
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[tokio::test]
async fn a_group_that_was_lost_goes_on_from_where_it_needed_the_stream() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("lost-group", "c");
    append_many(&engine, &channel, 10).await;
    let group = opened(&engine, &channel, Start::Earliest, 0).await;
    take(&engine, &group, Turn { claim: 6, ..turn("a", 1) }).await;
    let commit = Commit { record: "a".into(), state: Some(Bytes::new()), floor: 4, is_released: false };
    take(&engine, &group, Turn { commits: vec![commit], ..turn("a", 2) }).await;
    ask(&spy, &[b"DEL".as_slice(), keys::group(&group)[3].as_bytes()]).await;
    let gone = engine.log.group_turn(&group, turn("a", 3)).await.expect_err("the group is gone");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let opening = Opening { start: Start::Latest, partitions: 0 };
    let again = engine.log.group_open(&group, opening).await.expect("opened");
    assert!(again.is_new && again.is_rebuilt);
    assert_eq!(again.next.offset, 4);
    let gone = engine.log.group_turn(&group, turn("a", 3)).await.expect_err("the session is gone");
    assert_eq!(gone.kind(), ErrorKind::LockLost);
}

#[tokio::test]
async fn a_group_without_the_keys_of_its_sessions_and_free_records_goes_on() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("lost-keys", "c");
    let group = opened(&engine, &channel, Start::Earliest, 3).await;
    take(&engine, &group, Turn { adopt: 1, ..turn("dead", 1) }).await;
    take(&engine, &group, Turn { adopt: 1, ..turn("a", 1) }).await;
    let [.., sessions, free, _, _] = keys::group(&group);
    ask(&spy, &[b"DEL".as_slice(), sessions.as_bytes(), free.as_bytes()]).await;
    let after =
        take(&engine, &group, Turn { adopt: 9, lease: Duration::from_millis(1), ..turn("a", 2) }).await;
    assert_eq!((after.adopted.len(), after.free), (1, 0), "what was free is");
    // What a session held that nobody heard of since is free when a lease has passed.
    let mut number = 3;
    while take(&engine, &group, Turn { adopt: 9, ..turn("a", number) }).await.adopted.is_empty() {
        number += 1;
    }
}

#[tokio::test]
async fn fences_rise_over_a_group_that_was_lost() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("lost-fences", "c");
    let group = opened(&engine, &channel, Start::Earliest, 2).await;
    let before = take(&engine, &group, Turn { adopt: 2, ..turn("a", 1) }).await;
    let mut keys = vec![b"DEL".to_vec()];
    keys.extend(keys::group(&group).map(String::into_bytes));
    ask(&spy, keys.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice()).await;
    opened(&engine, &channel, Start::Earliest, 2).await;
    let after = take(&engine, &group, Turn { adopt: 2, ..turn("b", 1) }).await;
    let highest = before.adopted.iter().map(|record| record.fence).max();
    assert!(after.adopted.iter().all(|record| Some(record.fence) > highest), "{before:?} {after:?}");
}

#[tokio::test]
async fn a_stream_that_was_lost_is_delivered_from_its_new_beginning() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("lost-stream", "c");
    append_many(&engine, &channel, 10).await;
    let group = opened(&engine, &channel, Start::Earliest, 0).await;
    let before = take(&engine, &group, Turn { claim: 10, ..turn("a", 1) }).await;
    ask(&spy, &[b"DEL".as_slice(), keys::stream(&channel).as_bytes()]).await;
    append_many(&engine, &channel, 3).await;
    let after = take(&engine, &group, Turn { claim: 10, ..turn("a", 2) }).await;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!((after.claimed, after.generation), (Some((1, 3)), (2, 1)));
    assert_eq!(after.events.len(), 3);
}

#[tokio::test]
async fn large_claims_are_read_whole_and_in_order() {
    let (engine, _) = open(&server_url()).await;
    for (name, bytes) in [("small", 200), ("large", 20_000)] {
        let channel = path("claims", name);
        let batch: Vec<_> = (0..900).map(|_| append(&channel, vec![7; bytes])).collect();
        for part in batch.chunks(100) {
            engine.log.append(part.to_vec()).await.expect("answered");
        }
        let group = opened(&engine, &channel, Start::Earliest, 0).await;
        let mut taken = take(&engine, &group, Turn { claim: 900, ..turn("a", 1) }).await;
        assert_eq!(taken.claimed, Some((1, 900)));
        let mut offsets: Vec<u64> = taken.events.iter().map(|event| event.offset).collect();
        let mut number = 1;
        while !taken.unread.is_empty() {
            let size: usize = taken.events.iter().map(|event| event.envelope.len()).sum();
            assert!(size <= crate::limits::BATCH_BYTES_MAX, "{size}");
            number += 1;
            taken = take(&engine, &group, Turn { reads: taken.unread, ..turn("a", number) }).await;
            offsets.extend(taken.events.iter().map(|event| event.offset));
        }
        assert_eq!(offsets, (1..=900).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_append_taken_back_is_never_appended() {
    let (engine, _) = open(&server_url()).await;
    let (channel, other) = (path("cancel", "c"), path("cancel", "other"));
    let later = Some(Clock::system().now().saturating_add(Duration::from_secs(3_600)));
    let outcome = engine.log.append(vec![Append { deliver_at: later, ..append(&channel, "x") }]).await;
    let key = outcome.expect("answered").remove(0).expect("kept").scheduled.expect("a key");
    assert!(!engine.log.cancel(&other, &key).await.expect("answered"), "it is of another channel");
    assert!(engine.log.cancel(&channel, &key).await.expect("answered"));
    assert!(!engine.log.cancel(&channel, &key).await.expect("answered"), "it was taken back before");
    assert!(!engine.log.cancel(&channel, "nothing").await.expect("answered"));
}

#[tokio::test]
async fn who_waits_for_work_is_told_of_the_next_append_and_of_no_other() {
    let (engine, ears) = open(&server_url()).await;
    let channel = path("work", "c");
    let group = opened(&engine, &channel, Start::Earliest, 0).await;
    take(&engine, &group, turn("a", 1)).await;
    engine.pubsub.subscribe(vec![Interest::Work(channel.clone())]).await.expect("subscribed");
    let heard = async || {
        engine.pubsub.probe().await.expect("probed");
        std::mem::take(&mut *ears.0.lock()).len()
    };
    append_many(&engine, &channel, 2).await;
    assert_eq!(heard().await, 0, "nobody waits");
    take(&engine, &group, Turn { claim: 3, ..turn("a", 2) }).await;
    let quiet = Append { announce: Announce::Quiet, ..append(&channel, "x") };
    engine.log.append(vec![quiet]).await.expect("answered").remove(0).expect("confirmed");
    append_many(&engine, &channel, 1).await;
    assert_eq!(heard().await, 1);
    take(&engine, &group, turn("b", 1)).await;
    assert_eq!(heard().await, 1, "a session was made");
}

#[tokio::test]
async fn what_groups_have_not_settled_is_kept_or_refused_as_the_stream_says() {
    use crate::engine::AtBound;
    let (engine, _) = open(&server_url()).await;
    for (name, retention, at_bound) in [
        ("count", Retention { events_max: Some(100), ..Retention::default() }, AtBound::Block),
        ("bytes", Retention { bytes_max: Some(100_000), ..Retention::default() }, AtBound::Reject),
        ("drop", Retention { events_max: Some(100), ..Retention::default() }, AtBound::DropOldest),
    ] {
        let channel = path("bound", name);
        let retention = Retention { at_bound, ..retention };
        let group = opened(&engine, &channel, Start::Earliest, 0).await;
        let mut confirmed = 0;
        for _ in 0..10 {
            let batch = (0..50).map(|_| Append { retention, ..append(&channel, vec![0; 1_000]) }).collect();
            for outcome in engine.log.append(batch).await.expect("answered") {
                match outcome {
                    Ok(_) => confirmed += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Backpressure, "{error}"),
                }
            }
        }
        let taken = take(&engine, &group, Turn { claim: 1_000, ..turn("a", 1) }).await;
        if at_bound == AtBound::DropOldest {
            assert_eq!((confirmed, taken.skipped, taken.claimed), (500, Some((1, 400)), Some((401, 500))));
            continue;
        }
        assert!((80..=150).contains(&confirmed), "{name}: {confirmed}");
        assert_eq!((taken.skipped, taken.claimed), (None, Some((1, confirmed))));
        // Settled, so that there is room again.
        let commit =
            Commit { record: "a".into(), state: Some(Bytes::new()), floor: u64::MAX, is_released: false };
        take(&engine, &group, Turn { commits: vec![commit], ..turn("a", 2) }).await;
        position(&engine, Append { retention, ..append(&channel, "x") }).await;
    }
}

#[tokio::test]
async fn appends_that_are_due_to_a_full_stream_hold_up_no_others() {
    let (engine, _) = open(&server_url()).await;
    let (full, other) = (path("due", "full"), path("due", "other"));
    opened(&engine, &full, Start::Earliest, 0).await;
    let retention = Retention { events_max: Some(1), ..Retention::default() };
    let to_full = |deliver_at| Append { retention, deliver_at, ..append(&full, "x") };
    position(&engine, to_full(None)).await;
    let soon = Some(Clock::system().now().saturating_add(Duration::from_millis(200)));
    // More than are moved at once.
    let batch = (0..150).map(|_| to_full(soon)).chain([Append { deliver_at: soon, ..append(&other, "x") }]);
    for outcome in engine.log.append(batch.collect()).await.expect("answered") {
        outcome.expect("scheduled");
    }
    let appended = async {
        while engine.log.stats(&other).await.expect("stats").last == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), appended).await.expect("appended in time");
    // So that what is left of them goes.
    engine.log.group_change(&group(&full), Change::Delete).await.expect("deleted");
}

#[tokio::test]
async fn what_a_group_needs_does_not_expire_with_its_age() {
    let ((engine, _), spy) = (open(&server_url()).await, spy().await);
    let channel = path("aged", "c");
    let retention = Retention { age_max: Some(LONG), ..Retention::default() };
    let aged = || Append { retention, ..append(&channel, "x") };
    position(&engine, aged()).await;
    let ttl = async || ask(&spy, &[b"PTTL".as_slice(), keys::stream(&channel).as_bytes()]).await.as_int();
    assert!(ttl().await > Some(0));
    let group = opened(&engine, &channel, Start::Earliest, 0).await;
    assert_eq!(ttl().await, Some(-1));
    let Position { epoch, offset } = position(&engine, aged()).await;
    assert_eq!(ttl().await, Some(-1));
    take(&engine, &group, Turn { claim: 10, ..turn("a", 1) }).await;
    assert_eq!(ttl().await, Some(-1), "nothing is settled");
    let done = Commit { record: "a".into(), state: Some(Bytes::new()), floor: u64::MAX, is_released: false };
    take(&engine, &group, Turn { commits: vec![done], ..turn("a", 2) }).await;
    assert!(ttl().await > Some(0), "nobody needs anything");
    let back = Change::Seek(Start::At(Position { epoch, offset }));
    engine.log.group_change(&group, back).await.expect("moved");
    assert_eq!(ttl().await, Some(-1));
    engine.log.group_change(&group, Change::Delete).await.expect("deleted");
    assert!(ttl().await > Some(0));
    position(&engine, aged()).await;
    assert!(ttl().await > Some(0));
}

async fn position(engine: &Engine, append: Append) -> Position {
    let outcome = engine.log.append(vec![append]).await.expect("answered").remove(0);
    outcome.expect("confirmed").position.expect("a position")
}

#[tokio::test]
async fn items_are_listed_by_shelf_and_key() {
    let (engine, _) = open(&server_url()).await;
    let channel = path("items", "c");
    let group = opened(&engine, &channel, Start::Earliest, 0).await;
    let item = |shelf, key: &str| ShelfItem { shelf, key: key.into(), bytes: Bytes::from(key.to_owned()) };
    let puts = (0..2_500).map(|n| item(Shelf::Dead, &format!("{n:04}"))).chain([item(Shelf::Waiting, "~")]);
    take(&engine, &group, Turn { puts: puts.collect(), ..turn("a", 1) }).await;
    let listing = crate::engine::Listing::After("1499".into(), 5_000);
    let page = engine.log.group_items(&group, Shelf::Dead, listing).await.expect("a page");
    let ends = (page.first().map(|item| &*item.key), page.last().map(|item| &*item.key));
    assert_eq!((page.len(), ends), (1_000, (Some("1500"), Some("2499"))));
    let stats = engine.log.group_stats(&group).await.expect("stats");
    assert_eq!(stats.items, [1, 2_500, 0, 0]);
}

/// Takes a turn, and the same again until it is answered: it takes effect once.
async fn take_patiently(engine: &Engine, group: &GroupPath, turn: Turn) -> Turned {
    loop {
        match engine.log.group_turn(group, turn.clone()).await {
            Err(error) if error.is_retryable() => {}
            outcome => break outcome.expect("a turn"),
        }
    }
}

/// Claims until everything is claimed, and settles each claim in the next turn, as one session after the other.
async fn claim_all(engine: Arc<Engine>, group: GroupPath, name: String, total: u64) -> Vec<(u64, u64)> {
    let mut claims = Vec::new();
    for life in 0.. {
        let session = format!("{name}.{life}");
        let mut commits = Vec::new();
        for number in 1..=20 {
            let next = Turn { claim: 7, commits: std::mem::take(&mut commits), ..turn(&session, number) };
            let taken = take_patiently(&engine, &group, next).await;
            if let Some(claim) = taken.claimed {
                claims.push(claim);
                let (record, state) = (session.clone().into(), Some(Bytes::from(format!("{claim:?}"))));
                commits.push(Commit { record, state, floor: u64::MAX, is_released: false });
            } else if taken.last == total {
                return claims;
            }
        }
        let last = Turn { commits, is_last: true, ..turn(&session, 21) };
        take_patiently(&engine, &group, last).await;
    }
    claims
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_over_links_that_are_cut_again_and_again_claim_each_event_once() {
    let server = tidewire_fleet::Admin::parse(&server_url()).expect("a plain server").address();
    let mut cuts = 0;
    for seed in 0..4 {
        let proxy = tidewire_fleet::Proxy::open(server, seed).expect("a port");
        let (engine, _) = open(&proxy.url()).await;
        let engine = Arc::new(engine);
        let channel = path("cut-turns", &format!("{seed}"));
        append_many(&engine, &channel, 900).await;
        let group = opened(&engine, &channel, Start::Earliest, 0).await;
        proxy.cut_next(6, 60_000);
        let sessions =
            (0..5).map(|number| claim_all(engine.clone(), group.clone(), format!("{number}"), 900));
        let claims = futures_util::future::join_all(sessions).await.concat();
        proxy.cut_next(0, 0);
        cuts += proxy.cuts();
        let mut offsets: Vec<u64> = claims.into_iter().flat_map(|(first, last)| first..=last).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, (1..=900).collect::<Vec<_>>(), "seed {seed}");
        let stats = engine.log.group_stats(&group).await.expect("stats");
        assert_eq!((stats.next, stats.floor), (901, 901));
    }
    assert!(cuts >= 4, "links were cut {cuts} times only");
}
