//! Dead letters: what one holds, and what operators do with them.

use super::scene::{Scene, append_numbered, patiently};
use crate::bus::{AuditAction, Channel, Consumer, DeadKind, Delivery, Group, Outcome, Whereabouts};
use crate::clock::Timestamp;
use crate::engine::Start;
use crate::tidewire::Tidewire;

/// A group that rejects every event but those of `is_good`.
async fn rejecting(
    group: &Group,
    is_good: impl Fn(&Delivery) -> bool + Clone + Send + Sync + 'static,
) -> Consumer {
    let handler = move |delivery: Delivery| {
        let number = String::from_utf8_lossy(delivery.event().data()).into_owned();
        let reject = || Outcome::reject(format!("number {number} is not wanted"));
        std::future::ready(if is_good(&delivery) { Outcome::Ack } else { reject() })
    };
    group.consume().run(handler).await.expect("runs")
}

fn group(channel: &Channel) -> Group {
    channel.group("shipping", Start::Earliest).expect("a valid name")
}

/// Waits until the group has so many dead letters and nothing else left.
async fn until_dead(scene: &Scene, group: &Group, count: u64) {
    let settled = async {
        loop {
            let status = group.status().await.expect("the group is there");
            if (status.dead_letters, status.lag_events) == (count, 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    scene.pass_until("dead letters", settled).await;
}

/// A channel whose group has rejected `count` events and whose consumer is stopped.
async fn with_letters(scene: &Scene, count: usize) -> (Tidewire, Channel, Group) {
    let (node, channel) = scene.channel().await;
    let group = group(&channel);
    let consumer = rejecting(&group, |_| false).await;
    append_numbered(&channel, 0..count).await;
    until_dead(scene, &group, count as u64).await;
    scene.pass_until("the stop", consumer.stop()).await;
    (node, channel, group)
}

/// Numbers of the dead letters, in the order in which they are listed, by pages of 3.
async fn numbers(group: &Group) -> Vec<usize> {
    let (mut numbers, mut after) = (Vec::new(), Box::<str>::default());
    loop {
        let page = group.dead_letters().list(&after, 3).await.expect("a page");
        let data = page.letters.iter().map(|letter| letter.event().expect("decodes").into_data());
        numbers.extend(
            data.map(|data| std::str::from_utf8(&data).expect("text").parse::<usize>().expect("a number")),
        );
        let Some(next) = page.next else { return numbers };
        after = next;
    }
}

pub(super) async fn a_rejected_event_is_one_letter_with_its_bytes_and_reason(scene: Scene) {
    let (_node, channel, group) = with_letters(&scene, 8).await;
    let mut found = numbers(&group).await;
    found.sort_unstable();
    assert_eq!(found, (0..8).collect::<Vec<_>>());
    let kept = channel.read().await.expect("reads").events;
    for letter in group.dead_letters().list("", 100).await.expect("a page").letters {
        let original = kept.iter().find(|received| received.position == Some(letter.position));
        let original = original.expect("its position is that of the event");
        assert_eq!(letter.event().expect("decodes"), original.event);
        assert_eq!((letter.kind, letter.attempts, letter.crashes), (DeadKind::Rejected, 1, 0));
        assert!(letter.died > Timestamp::default() && letter.died >= letter.appended, "{letter:?}");
        assert_eq!(&*letter.fingerprint(), "number # is not wanted");
    }
    let reasons = group.dead_letters().reasons().await.expect("reasons").reasons;
    assert_eq!(reasons.iter().map(|reason| reason.count).collect::<Vec<_>>(), [8]);
}

pub(super) async fn a_replay_is_handled_by_its_group_alone(scene: Scene) {
    let (_node, channel, group) = with_letters(&scene, 5).await;
    let other = channel.group("search", Start::Latest).expect("a valid name");
    let others = other.consume().deliveries().await.expect("runs");
    let dry = group.dead_letters().replay().dry_run().await.expect("counts");
    assert_eq!((dry.count, numbers(&group).await.len()), (5, 5));
    let first = group.dead_letters().replay().limit(2).by("ann").await.expect("replays");
    let next = first.next.expect("there are more");
    let rest = group.dead_letters().replay().resume(&next).by("ann").await.expect("replays");
    assert_eq!((first.count, rest.count, rest.next), (2, 3, None));
    assert!(numbers(&group).await.is_empty());
    let trail = group.audit().await.expect("a trail");
    assert_eq!(
        trail.iter().map(|entry| (entry.action, &*entry.who, entry.count)).collect::<Vec<_>>(),
        [(AuditAction::Replay, "ann", 5)]
    );
    let deliveries = group.consume().deliveries().await.expect("runs");
    for _ in 0..5 {
        let pulled = patiently("a replayed event", deliveries.next()).await.expect("goes on");
        assert!(pulled.delivery().event().extension("replayof").is_some());
        pulled.settle(Outcome::Ack);
    }
    until_dead(&scene, &group, 0).await;
    until_dead(&scene, &other, 0).await;
    assert!(others.try_next().is_none(), "other groups pass over it");
}

pub(super) async fn a_replay_that_was_cut_short_appends_no_second_copy(scene: Scene) {
    let (_node, channel, group) = with_letters(&scene, 3).await;
    let letters = group.dead_letters().list("", 10).await.expect("a page").letters;
    group.dead_letters().replay().await.expect("replays");
    // As if the process had ended before it removed the letters.
    group.put_back(&letters).await;
    let again = group.dead_letters().replay().await.expect("replays");
    assert_eq!((again.count, again.duplicate_count), (3, 3));
    assert_eq!(channel.read().await.expect("reads").last, 6);
}

pub(super) async fn a_purge_removes_what_its_filter_picks(scene: Scene) {
    let (_node, _channel, group) = with_letters(&scene, 4).await;
    let letters = group.dead_letters().list("", 2).await.expect("a page").letters;
    let some = letters.iter().fold(group.dead_letters(), |picked, letter| picked.id(&letter.id()));
    assert_eq!(some.purge().await.expect("purges").count, 2);
    assert_eq!(numbers(&group).await.len(), 2);
    let none = group.dead_letters().reason("something else").purge().await.expect("purges");
    assert_eq!(none.count, 0);
    assert_eq!(group.dead_letters().kind(DeadKind::Rejected).purge().await.expect("purges").count, 2);
}

pub(super) async fn letters_and_the_trail_survive_a_restart(scene: Scene) {
    let (node, _, group) = with_letters(&scene, 2).await;
    group.seek(Start::Latest, "ann").await.expect("moves");
    node.close(scene.ticks(40)).await.expect("closes");
    let (_node, channel) = scene.channel().await;
    let group = self::group(&channel);
    assert_eq!(numbers(&group).await.len(), 2);
    assert_eq!(group.audit().await.expect("a trail").len(), 1);
    assert_eq!(channel.groups().await.expect("names"), ["shipping".into()]);
}

pub(super) async fn a_move_says_what_it_does(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let group = group(&channel);
    group.declare().await.expect("declares");
    append_numbered(&channel, 0..10).await;
    assert_eq!(group.status().await.expect("a status").lag_events, 10);
    let forth = group.preview_seek(Start::Latest).await.expect("a preview");
    assert_eq!((forth.again_count, forth.skipped_count), (0, 10));
    assert_eq!(group.seek(Start::Latest, "ann").await.expect("moves"), forth);
    let back = group.seek(Start::Earliest, "ann").await.expect("moves");
    assert_eq!((back.again_count, back.skipped_count), (10, 0));
    let status = group.status().await.expect("a status");
    assert_eq!((status.lag_events, status.moves), (10, 2));
}

pub(super) async fn an_event_is_found_wherever_it_is(scene: Scene) {
    let (_node, channel, group) = with_letters(&scene, 2).await;
    let letter = group.dead_letters().list("", 1).await.expect("a page").letters.remove(0);
    let event = letter.event_id().expect("decodes");
    let whereabouts = async |event| {
        let mut trace = channel.trace(event).since(Timestamp::default()).await.expect("a trace");
        trace.groups.pop().expect("the group has it").whereabouts
    };
    assert_eq!(whereabouts(event).await, Whereabouts::Dead(Box::new(letter.clone())));
    group.dead_letters().purge().await.expect("purges");
    assert_eq!(whereabouts(event).await, Whereabouts::Settled);
    let receipt = channel.append(crate::Event::new("numbered", "9")).await.expect("appends");
    assert_eq!(whereabouts(receipt.id).await, Whereabouts::Ahead { events_before: 0 });
    let deliveries = group.consume().deliveries().await.expect("runs");
    let pulled = patiently("a delivery", deliveries.next()).await.expect("goes on");
    assert!(matches!(whereabouts(receipt.id).await, Whereabouts::InFlight { .. }));
    pulled.settle(Outcome::retry_after(scene.ticks(1_000), "no route"));
    let waits = async {
        while !matches!(whereabouts(receipt.id).await, Whereabouts::Waiting { attempts: 1, .. }) {
            tokio::task::yield_now().await;
        }
    };
    patiently("the wait", waits).await;
}
