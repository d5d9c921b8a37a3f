//! What operators do with dead letters, on letters that were put there by hand.

use std::time::Duration;

use bytes::Bytes;

use crate::bus::{AuditAction, Channel, DeadKind, DeadLetter, Group};
use crate::clock::{Clock, Timestamp};
use crate::engine::{Change, Start};
use crate::event::{Event, NodeId};
use crate::limits;
use crate::position::{Epoch, Position};
use crate::tenant::Tenant;
use crate::tidewire::Tidewire;

const START: Timestamp = Timestamp::from_millis(1_730_000_000_000);

struct Scene {
    tenant: Tenant,
    channel: Channel,
    group: Group,
    clock: Clock,
}

impl Scene {
    async fn new() -> Self {
        let clock = Clock::virtual_at(START);
        let tidewire = Tidewire::builder("memory:").clock(clock.clone()).open().await.unwrap();
        let tenant = tidewire.tenant("shop").unwrap();
        let channel = tenant.channel("orders").unwrap();
        let group = channel.group("billing", Start::Earliest).unwrap();
        group.declare().await.unwrap();
        Self { tenant, channel, group, clock }
    }

    /// A letter that dies now.
    fn letter(&self, offset: u64, kind: DeadKind, reason: &str, envelope: Bytes) -> DeadLetter {
        let now = self.clock.now();
        DeadLetter {
            group: self.group.path().clone(),
            position: Position { epoch: Epoch::from_u64(1), offset },
            appended: START,
            kind,
            reason: reason.into(),
            attempts: 3,
            crashes: 0,
            first_delivered: now,
            last_delivered: now,
            died: now,
            session: "s".into(),
            node: NodeId::default(),
            envelope,
        }
    }

    async fn put(&self, letters: impl IntoIterator<Item = DeadLetter>) {
        let puts = letters.into_iter().map(|letter| letter.to_item()).collect();
        let change = Change::Items { removes: Vec::new(), puts };
        self.group.bus.engine.log.group_change(self.group.path(), change).await.unwrap();
    }

    /// `count` letters, one each second, of orders from `first` on.
    async fn put_declined(&self, first: u64, count: u64) {
        for number in first..first + count {
            let event = Event::new("order.placed", number.to_string());
            let reason = format!("card {number} declined");
            self.put([self.letter(number, DeadKind::Rejected, &reason, Bytes::from(&event))]).await;
            self.clock.advance(Duration::from_secs(1));
        }
    }

    async fn offsets(&self) -> Vec<u64> {
        let page = self.group.dead_letters().list("", 1_000).await.unwrap();
        page.letters.iter().map(|letter| letter.position.offset).collect()
    }
}

async fn data(channel: &Channel) -> Vec<Bytes> {
    channel.read().await.unwrap().events.into_iter().map(|received| received.event.into_data()).collect()
}

#[tokio::test]
async fn pages_hold_every_letter_once_and_say_where_the_next_begins() {
    let scene = Scene::new().await;
    scene.put_declined(1, 7).await;
    let (mut after, mut offsets, mut pages) = (Box::default(), Vec::new(), 0);
    loop {
        let page = scene.group.dead_letters().list(&after, 3).await.unwrap();
        offsets.extend(page.letters.iter().map(|letter| letter.position.offset));
        pages += 1;
        let Some(next) = page.next else { break };
        after = next;
    }
    assert_eq!((offsets, pages), ((1..=7).collect(), 3));
    let all = scene.group.dead_letters().list("", 7).await.unwrap();
    assert_eq!(all.next, None, "a full page that is the last one says so");
}

#[tokio::test]
async fn a_filter_picks_by_reason_kind_type_time_and_id() {
    let scene = Scene::new().await;
    scene.put_declined(1, 3).await;
    let refund = Event::new("order.refunded", "");
    scene.put([scene.letter(4, DeadKind::AttemptsUsedUp, "timed out after 5s", Bytes::from(&refund))]).await;
    let letters = scene.group.dead_letters();
    let count = async |letters: super::DeadLetters| letters.list("", 10).await.unwrap().letters.len();
    assert_eq!(count(letters.clone().reason("card # declined")).await, 3);
    assert_eq!(count(letters.clone().kind(DeadKind::AttemptsUsedUp)).await, 1);
    assert_eq!(count(letters.clone().event_type("order.refunded")).await, 1);
    let second = START.saturating_add(Duration::from_secs(1));
    assert_eq!(count(letters.clone().since(second)).await, 3);
    assert_eq!(count(letters.clone().before(second)).await, 1);
    let id = letters.list("", 1).await.unwrap().letters[0].id();
    assert_eq!(count(letters.clone().id(&id).id("none")).await, 1);
    assert_eq!(letters.get(&id).await.unwrap().position.offset, 1);
    assert_eq!(letters.get("none").await.unwrap_err().kind(), crate::ErrorKind::NotFound);
}

#[tokio::test]
async fn letters_are_counted_by_what_their_reasons_have_in_common() {
    let scene = Scene::new().await;
    scene.put_declined(1, 3).await;
    scene.put([scene.letter(9, DeadKind::Undecodable, "cannot be decoded", Bytes::new())]).await;
    let reasons = scene.group.dead_letters().reasons().await.unwrap().reasons;
    let counts: Vec<_> = reasons.iter().map(|reason| (&*reason.fingerprint, reason.count)).collect();
    assert_eq!(counts, [("card # declined", 3), ("cannot be decoded", 1)]);
    assert_eq!(reasons[0].last.since(reasons[0].first), Duration::from_secs(2));
    assert!(reasons[0].example.ends_with(":3"), "{reasons:?}");
}

#[tokio::test]
async fn a_replay_appends_the_events_again_and_removes_their_letters() {
    let scene = Scene::new().await;
    scene.put_declined(1, 3).await;
    scene.put([scene.letter(4, DeadKind::Undecodable, "what", Bytes::from_static(b"?"))]).await;
    let dry = scene.group.dead_letters().reason("card # declined").replay().dry_run().await.unwrap();
    assert_eq!((dry.count, scene.offsets().await.len()), (3, 4));
    assert!(scene.group.audit().await.unwrap().is_empty(), "a dry run changes nothing");

    let replayed = scene.group.dead_letters().reason("card # declined").replay().by("ann").await.unwrap();
    assert_eq!((replayed.count, replayed.duplicate_count, replayed.next), (3, 0, None));
    assert_eq!(scene.offsets().await, [4]);
    assert_eq!(data(&scene.channel).await, ["1", "2", "3"]);
    let [entry] = &scene.group.audit().await.unwrap()[..] else { panic!("one entry") };
    assert_eq!((entry.action, &*entry.who, entry.count), (AuditAction::Replay, "ann", 3));
    assert!(entry.detail.contains("card # declined"), "{entry:?}");
}

#[tokio::test]
async fn a_replay_that_was_cut_short_appends_no_second_copy() {
    let scene = Scene::new().await;
    scene.put_declined(1, 2).await;
    let letters = scene.group.dead_letters().list("", 10).await.unwrap().letters;
    scene.group.dead_letters().replay().await.unwrap();
    // As if the process had ended before the letters were removed.
    scene.put(letters).await;
    let again = scene.group.dead_letters().replay().await.unwrap();
    assert_eq!((again.count, again.duplicate_count), (2, 2));
    assert_eq!(data(&scene.channel).await.len(), 2);
    assert!(scene.offsets().await.is_empty());
}

#[tokio::test]
async fn a_replay_into_another_channel_is_an_event_like_any_other_there() {
    let scene = Scene::new().await;
    scene.put_declined(1, 1).await;
    let [letter] = &scene.group.dead_letters().list("", 1).await.unwrap().letters[..] else { panic!() };
    scene.group.dead_letters().replay().to_channel("repair").await.unwrap();
    let repair = scene.tenant.channel("repair").unwrap().read().await.unwrap();
    let event = &repair.events[0].event;
    assert_eq!(event.extension("replayof"), Some(&*letter.id()));
    assert_eq!((event.extension("replayfor"), Some(event.id())), (None, letter.event_id()));
    assert!(data(&scene.channel).await.is_empty());
    let error = scene.group.dead_letters().replay().to_channel("no spaces").await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::InvalidName);
}

#[tokio::test]
async fn an_operation_goes_on_from_its_limit_and_leaves_what_was_appended_meanwhile() {
    let scene = Scene::new().await;
    scene.put_declined(1, 5).await;
    let first = scene.group.dead_letters().purge().by("ann").limit(2).await.unwrap();
    assert_eq!((first.count, scene.offsets().await), (2, vec![3, 4, 5]));
    scene.clock.advance(Duration::from_secs(1));
    let mut later = scene.letter(6, DeadKind::Rejected, "again", Bytes::new());
    later.position.epoch = scene.group.status().await.unwrap().epoch;
    scene.put([later]).await;
    let next = first.next.unwrap();
    let second = scene.group.dead_letters().purge().by("ann").resume(&next).await.unwrap();
    assert_eq!((second.count, second.next, scene.offsets().await), (3, None, vec![6]));
    let audit = scene.group.audit().await.unwrap();
    let counts: Vec<_> = audit.iter().map(|entry| (entry.action, entry.count)).collect();
    assert_eq!(counts, [(AuditAction::Purge, 5)], "one operation, one entry");
    let error = scene.group.dead_letters().purge().resume("nowhere").await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::InvalidName);
}

#[tokio::test]
async fn a_replay_keeps_to_its_rate() {
    let scene = Scene::new().await;
    scene.put_declined(1, 5).await;
    let replay = scene.group.dead_letters().replay().rate(2).into_future();
    let watch = async {
        for expected in 1..=5 {
            while data(&scene.channel).await.len() < expected {
                tokio::task::yield_now().await;
            }
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            assert_eq!(data(&scene.channel).await.len(), expected, "half a second has not passed");
            scene.clock.advance(Duration::from_millis(500));
        }
    };
    assert_eq!(tokio::join!(replay, watch).0.unwrap().count, 5);
}

#[tokio::test]
async fn the_oldest_letters_past_the_bound_are_dropped() {
    let scene = Scene::new().await;
    let at = |number: u64| {
        let mut letter = scene.letter(number, DeadKind::Rejected, "", Bytes::new());
        letter.died = START.saturating_add(Duration::from_millis(number));
        letter
    };
    scene.put((0..limits::DEAD_LETTERS_MAX + 3).map(at)).await;
    let log = &*scene.group.bus.engine.log;
    assert_eq!(super::bound_dead_letters(log, scene.group.path()).await.unwrap(), 3);
    assert_eq!(scene.group.dead_letters().list("", 1).await.unwrap().letters[0].position.offset, 3);
    assert_eq!(super::bound_dead_letters(log, scene.group.path()).await.unwrap(), 0);
}

#[tokio::test]
async fn the_trail_keeps_the_last_thousand_operations() {
    let scene = Scene::new().await;
    for _ in 0..limits::AUDIT_ENTRIES_MAX + 2 {
        scene.group.dead_letters().purge().await.unwrap();
        scene.clock.advance(Duration::from_millis(1));
    }
    // An operation that finds nothing changes nothing, and is not in the trail.
    assert!(scene.group.audit().await.unwrap().is_empty());
    for _ in 0..limits::AUDIT_ENTRIES_MAX + 2 {
        scene.group.seek(Start::Latest, "ann").await.unwrap();
        scene.clock.advance(Duration::from_millis(1));
    }
    let trail = scene.group.audit().await.unwrap();
    assert_eq!(trail.len(), limits::AUDIT_ENTRIES_MAX);
    assert_eq!(trail.last().unwrap().time, START.saturating_add(Duration::from_millis(1_004)));
}

#[tokio::test]
async fn a_seek_says_before_and_after_what_it_does() {
    let scene = Scene::new().await;
    for number in 0..10 {
        scene.channel.append(Event::new("order.placed", number.to_string())).await.unwrap();
    }
    let status = scene.group.status().await.unwrap();
    assert_eq!((status.next, status.lag_events, status.moves), (1, 10, 0));
    let preview = scene.group.preview_seek(Start::Latest).await.unwrap();
    assert_eq!((preview.again_count, preview.skipped_count, preview.to.offset), (0, 10, 11));
    assert_eq!(scene.group.status().await.unwrap().next, 1, "a preview moves nothing");
    assert_eq!(scene.group.seek(Start::Latest, "ann").await.unwrap(), preview);
    let status = scene.group.status().await.unwrap();
    assert_eq!((status.next, status.lag_events, status.moves), (11, 0, 1));

    scene.clock.advance(Duration::from_millis(1));
    let eighth = Position { epoch: status.epoch, offset: 8 };
    let back = scene.group.seek(Start::At(eighth), "bob").await.unwrap();
    assert_eq!((back.again_count, back.skipped_count), (3, 0));
    let elsewhere = Position { epoch: Epoch::from_u64(99), offset: 8 };
    assert_eq!(scene.group.preview_seek(Start::At(elsewhere)).await.unwrap().to.offset, 1);
    let past = Position { epoch: status.epoch, offset: 99 };
    assert_eq!(
        scene.group.preview_seek(Start::At(past)).await.unwrap_err().kind(),
        crate::ErrorKind::PositionLost
    );
    let who: Vec<_> = scene.group.audit().await.unwrap().into_iter().map(|entry| entry.who).collect();
    assert_eq!(who, ["bob".into(), "ann".into()]);
}

#[tokio::test]
async fn lag_is_the_age_of_the_oldest_event_that_is_not_settled() {
    let scene = Scene::new().await;
    scene.channel.append(Event::new("order.placed", "")).await.unwrap();
    scene.clock.advance(Duration::from_secs(7));
    scene.channel.append(Event::new("order.placed", "")).await.unwrap();
    assert_eq!(scene.group.status().await.unwrap().lag, Duration::from_secs(7));
}

#[tokio::test]
async fn a_deleted_group_is_gone_with_its_letters() {
    let scene = Scene::new().await;
    scene.put_declined(1, 1).await;
    assert_eq!(scene.channel.groups().await.unwrap(), ["billing".into()]);
    scene.group.delete("ann").await.unwrap();
    assert!(scene.channel.groups().await.unwrap().is_empty());
    let error = scene.group.dead_letters().list("", 1).await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::NotFound);
}
