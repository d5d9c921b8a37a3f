//! Guarantees 4, 6, 8, 10 and 14: what follows from a delivery, what a group gets, and what it is told that it does not.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::delivery::{pull, stop, until_settled};
use super::diary::{Diary, consume, group, number_of};
use super::scene::{Scene, append_numbered, numbered};
use crate::bus::{Channel, Delivery, Emit, Gap, GapReason, Outcome};
use crate::engine::{AtBound, Change, Retention, Shelf, ShelfItem, Start};
use crate::error::ErrorKind;
use crate::event::Event;

/// The numbers of a stream's events.
async fn kept(channel: &Channel) -> Vec<usize> {
    let history = channel.read().await.expect("read");
    history.events.iter().map(|received| number_of(&received.event)).collect()
}

/// Waits until a stream has so many events.
async fn until_kept(scene: &Scene, channel: &Channel, count: usize) {
    scene.until("the events that follow", || async { kept(channel).await.len() >= count }).await;
}

pub(super) async fn what_is_emitted_is_appended_once_with_the_ack(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let follows = scene.tenant(&node).channel("follows").expect("a valid name");
    append_numbered(&channel, 0..4).await;
    let handler = |delivery: Delivery, emit: Emit| {
        let number = number_of(delivery.event());
        emit.append("follows", numbered(number * 10)).expect("emitted");
        emit.append("follows", numbered(number * 10 + 1)).expect("emitted");
        std::future::ready(match (number, delivery.attempt()) {
            (1, 1) => Outcome::retry_now("once"),
            (2, _) => Outcome::reject("never"),
            _ => Outcome::Ack,
        })
    };
    let consumer = consume(&scene, &group(&channel)).run(handler).await.expect("runs");
    until_settled(&scene, &group(&channel), 1).await;
    until_kept(&scene, &follows, 6).await;
    stop(&scene, &consumer).await;
    let mut numbers = kept(&follows).await;
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 10, 11, 30, 31], "with an ack, and with nothing else");
    let status = group(&channel).status().await.expect("a status");
    assert_eq!(status.outbox, 0);
}

pub(super) async fn a_muted_group_emits_nothing(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let follows = scene.tenant(&node).channel("follows").expect("a valid name");
    append_numbered(&channel, 0..4).await;
    let handler = |emit: Emit| {
        emit.append("follows", numbered(1)).expect("emitted");
        std::future::ready(())
    };
    let consumer = consume(&scene, &group(&channel)).muted().run(handler).await.expect("runs");
    until_settled(&scene, &group(&channel), 0).await;
    stop(&scene, &consumer).await;
    assert!(kept(&follows).await.is_empty());
}

/// What somebody has left who died between a settlement and what follows from it.
fn left_over(key: &str, number: usize) -> Change {
    let mut event = numbered(number);
    event.stamp(Default::default(), Default::default(), &Default::default()).expect("within limits");
    let mut bytes = Vec::new();
    bytes.put_u16(7);
    bytes.put_slice(b"follows");
    bytes.put_slice(&Bytes::from(&event));
    let item = ShelfItem { shelf: Shelf::Outbox, key: key.into(), bytes: bytes.into() };
    Change::Items { removes: Vec::new(), puts: vec![item] }
}

pub(super) async fn what_was_settled_is_followed_up_after_a_crash(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let follows = scene.tenant(&node).channel("follows").expect("a valid name");
    let group = group(&channel);
    group.declare().await.expect("there");
    group.log().group_change(group.path(), left_over("1", 1)).await.expect("left");
    let diary = Diary::new();
    let consumer = consume(&scene, &group).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    until_kept(&scene, &follows, 1).await;
    // Somebody else dies while this one lives.
    group.log().group_change(group.path(), left_over("2", 2)).await.expect("left");
    until_kept(&scene, &follows, 2).await;
    scene
        .until("the outbox is empty", || async { group.status().await.expect("a status").outbox == 0 })
        .await;
    assert_eq!(kept(&follows).await, [1, 2]);
    stop(&scene, &consumer).await;
}

pub(super) async fn an_event_is_handled_once_within_its_window(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let group = group(&channel);
    let (one, two) = (numbered(1), numbered(2));
    let diary = Diary::new();
    let window = scene.lease() * 4;
    let failing = diary.handler(|number, attempt| match (number, attempt) {
        (2, 1) => Outcome::retry_now("once"),
        _ => Outcome::Ack,
    });
    let consumer = consume(&scene, &group).dedup(window).run(failing).await.expect("runs");
    for event in [&one, &one, &two, &two, &one] {
        channel.append(event.clone()).await.expect("confirmed");
    }
    until_settled(&scene, &group, 0).await;
    assert_eq!((diary.attempts_of(1), diary.attempts_of(2)), (vec![1], vec![1, 2]));
    channel.append(one.clone()).await.expect("confirmed");
    until_settled(&scene, &group, 0).await;
    assert_eq!((diary.attempts_of(1).len(), consumer.stats().duplicates), (1, 4));
    scene.pass_until("the end of the window", scene.clock().sleep(window)).await;
    channel.append(one).await.expect("confirmed");
    scene.pass_until("the third", async { diary.wait(4).await }).await;
    assert_eq!(diary.attempts_of(1).len(), 2, "its id is free again");
    until_settled(&scene, &group, 0).await;
    stop(&scene, &consumer).await;
}

/// A consumer that notes the gaps that it is told.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<Mutex<Vec<Gap>>>);

impl Told {
    pub(super) fn listener(&self) -> impl Fn(&Gap) + Send + Sync + 'static {
        let told = self.0.clone();
        move |gap| told.lock().push(gap.clone())
    }

    pub(super) fn reasons(&self) -> Vec<GapReason> {
        self.0.lock().iter().map(|gap| gap.reason).collect()
    }
}

/// A group with nothing in flight is lost by `lose`, and goes on with the next event, however it was to begin.
async fn lose(scene: &Scene, channel: &Channel, partitions: u16, lose: impl Future<Output = ()>) {
    let name = format!("group-{partitions}");
    let mut group = channel.group(&name, Start::Latest).expect("a valid name");
    if partitions > 0 {
        group = group.ordered(partitions);
    }
    let (diary, told) = (Diary::new(), Told::default());
    let consuming = consume(scene, &group).on_gap(told.listener());
    let consumer = consuming.run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    append_numbered(channel, 0..5).await;
    until_settled(scene, &group, 0).await;
    lose.await;
    append_numbered(channel, 5..10).await;
    scene.until("what came after the loss", || async { diary.sorted() == (0..10).collect::<Vec<_>>() }).await;
    assert_eq!((consumer.stats().rebuilt, told.reasons()), (1, vec![GapReason::HistoryLost]));
    until_settled(scene, &group, 0).await;
    stop(scene, &consumer).await;
}

pub(super) async fn a_group_that_is_lost_is_made_again_and_told(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    for partitions in [0, 4] {
        let group = channel.group(&format!("group-{partitions}"), Start::Latest).expect("a valid name");
        let delete = async {
            group.log().group_change(group.path(), Change::Delete).await.expect("deleted");
        };
        lose(&scene, &channel, partitions, delete).await;
    }
}

pub(super) async fn a_group_goes_on_after_all_history_is_lost(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    for partitions in [0, 4] {
        lose(&scene, &channel, partitions, scene.destroy_history()).await;
    }
}

pub(super) async fn a_loss_is_told_whoever_makes_the_group_again(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let group = group(&channel);
    let (diary, told) = (Diary::new(), Told::default());
    let consuming = consume(&scene, &group).on_gap(told.listener());
    let consumer = consuming.run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    append_numbered(&channel, 0..5).await;
    until_settled(&scene, &group, 0).await;
    scene.destroy_history().await;
    // A publisher declares its groups when it starts, and does not know what was there.
    group.declare().await.expect("declared");
    scene.until("the word of it", || async { !told.reasons().is_empty() }).await;
    assert_eq!(told.reasons(), [GapReason::HistoryLost]);
    stop(&scene, &consumer).await;
}

pub(super) async fn a_slow_group_is_waited_for_at_the_bound(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let group = group(&channel);
    group.declare().await.expect("there");
    let retention = Retention { events_max: Some(5), at_bound: AtBound::Reject, ..Retention::default() };
    for number in 0..5 {
        channel.append(numbered(number)).retention(retention).await.expect("confirmed");
    }
    let refused = channel.append(numbered(9)).retention(retention).await.expect_err("full");
    assert_eq!(refused.kind(), ErrorKind::Backpressure);
    let diary = Diary::new();
    let consumer = consume(&scene, &group).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    until_settled(&scene, &group, 0).await;
    for number in 5..10 {
        let append = || channel.append(numbered(number)).retention(retention);
        scene.until("room", || async { append().await.is_ok() }).await;
        until_settled(&scene, &group, 0).await;
    }
    assert_eq!(diary.sorted(), (0..10).collect::<Vec<_>>());
    assert_eq!(consumer.stats().missed, 0);
    stop(&scene, &consumer).await;
}

pub(super) async fn a_slow_group_is_told_what_was_dropped(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let ordered = group(&channel).ordered(2);
    let plain = channel.group("plain", Start::Earliest).expect("a valid name");
    for group in [&ordered, &plain] {
        group.declare().await.expect("there");
    }
    let retention = Retention { events_max: Some(5), at_bound: AtBound::DropOldest, ..Retention::default() };
    for number in 0..12 {
        channel.append(numbered(number)).retention(retention).await.expect("confirmed");
    }
    for group in [ordered, plain] {
        let (diary, told) = (Diary::new(), Told::default());
        let consuming = consume(&scene, &group).on_gap(told.listener());
        let consumer = consuming.run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
        scene.pass_until("those that are left", diary.wait(5)).await;
        until_settled(&scene, &group, 0).await;
        assert_eq!(diary.sorted(), [7, 8, 9, 10, 11]);
        assert_eq!(consumer.stats().missed, 7);
        let gaps = told.0.lock().clone();
        let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
        let ends = (gap.from.map(|from| from.offset), gap.to.map(|to| to.offset));
        assert_eq!((gap.reason, ends), (GapReason::Trimmed, (Some(1), Some(7))));
        stop(&scene, &consumer).await;
    }
}

pub(super) async fn a_group_begins_where_its_consumer_says(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let declared = channel.group("declared", Start::Latest).expect("a valid name");
    declared.declare().await.expect("there");
    append_numbered(&channel, 0..3).await;
    scene.pass(scene.ticks(1)).await;
    let receipt = channel.append(numbered(3)).await.expect("confirmed");
    append_numbered(&channel, 4..6).await;
    let at = receipt.position.expect("a position");
    let time = channel.read().await.expect("read").events.iter().map(|event| event.time).nth(3);
    let starts = [
        ("declared", Start::Latest, 0..7),
        ("earliest", Start::Earliest, 0..7),
        ("latest", Start::Latest, 6..7),
        ("at", Start::At(at), 3..7),
        ("since", Start::Since(time.expect("a fourth event")), 3..7),
    ];
    let mut consumers = Vec::new();
    for (name, start, expected) in starts {
        for partitions in [0, 2] {
            let name = if partitions > 0 { format!("{name}-ordered") } else { name.to_owned() };
            if name == "declared-ordered" {
                continue;
            }
            let mut group = channel.group(&name, start).expect("a valid name");
            if partitions > 0 {
                group = group.ordered(partitions);
            }
            let diary = Diary::new();
            let handler = diary.handler(|_, _| Outcome::Ack);
            consumers.push((
                consume(&scene, &group).run(handler).await.expect("runs"),
                diary,
                expected.clone(),
            ));
        }
    }
    append_numbered(&channel, [6]).await;
    for (consumer, diary, expected) in consumers {
        until_settled(&scene, consumer.group(), 0).await;
        assert_eq!(diary.sorted(), expected.collect::<Vec<_>>(), "of {:?}", consumer.group());
        stop(&scene, &consumer).await;
    }
}

pub(super) async fn each_group_of_each_tenant_gets_its_own(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let other = node.tenant(&format!("{}-2", scene.tenant_name())).expect("a valid tenant");
    let other = other.channel("orders").expect("a valid name");
    let groups = [
        group(&channel),
        channel.group("billing", Start::Earliest).expect("a valid name").ordered(2),
        group(&other),
    ];
    let mut consumers = Vec::new();
    for group in groups {
        let diary = Diary::new();
        let handler = diary.handler(|_, _| Outcome::Ack);
        consumers.push((consume(&scene, &group).run(handler).await.expect("runs"), diary));
    }
    append_numbered(&channel, 0..20).await;
    append_numbered(&other, 100..110).await;
    let expected = [0..20, 0..20, 100..110];
    for ((consumer, diary), expected) in consumers.iter().zip(expected) {
        until_settled(&scene, consumer.group(), 0).await;
        assert_eq!(diary.sorted(), expected.clone().collect::<Vec<_>>());
        assert_eq!(diary.numbers().len(), expected.len(), "each once");
    }
    for (consumer, _) in &consumers {
        stop(&scene, consumer).await;
    }
}

pub(super) async fn prefetched_deliveries_are_renewed_with_the_others(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..8).await;
    let consuming = consume(&scene, &group(&channel)).concurrency(8);
    let deliveries = consuming.deliveries().await.expect("runs");
    let first = pull(&scene, &deliveries).await;
    let diary = Diary::new();
    let rival =
        consume(&scene, &group(&channel)).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    scene.pass_until("several leases", scene.clock().sleep(scene.lease() * 3)).await;
    assert!(diary.numbers().is_empty(), "they lie in its memory, and they are its own");
    first.settle(Outcome::Ack);
    for _ in 1..8 {
        let pulled = pull(&scene, &deliveries).await;
        assert_eq!(pulled.delivery().attempt(), 1);
        pulled.settle(Outcome::Ack);
    }
    until_settled(&scene, &group(&channel), 0).await;
    stop(&scene, deliveries.consumer()).await;
    stop(&scene, &rival).await;
}

pub(super) async fn a_consumer_takes_what_it_has_room_for(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..100).await;
    let handled = group(&channel);
    let gate = Arc::new(Semaphore::new(0));
    let closed = gate.clone();
    let diary = Diary::new();
    let noted = diary.clone();
    let handler = move |delivery: Delivery, event: Event| {
        noted.note(&delivery);
        let closed = closed.clone();
        async move {
            closed.acquire().await.expect("never closed").forget();
            drop(event);
        }
    };
    let consumer = consume(&scene, &handled).concurrency(2).run(handler).await.expect("runs");
    diary.wait(2).await;
    scene.pass(scene.ticks(2)).await;
    let status = handled.status().await.expect("a status");
    // It takes ahead, up to as much again four times over while its handlers seem to keep up.
    assert!(status.in_flight <= 16, "{} in flight with two handlers", status.in_flight);
    gate.add_permits(100);
    until_settled(&scene, &handled, 0).await;
    assert_eq!(diary.sorted(), (0..100).collect::<Vec<_>>());
    stop(&scene, &consumer).await;
}
