//! Where an event is said to be, while consumers work on it.

use std::time::Duration;

use super::*;
use crate::bus::{Channel, DeadKind, Group, Outcome, Retries};
use crate::clock::Clock;
use crate::engine::Start;
use crate::tidewire::Tidewire;

const START: Timestamp = Timestamp::from_millis(1_730_000_000_000);

async fn scene() -> (Channel, Group, Clock) {
    let clock = Clock::virtual_at(START);
    let tidewire = Tidewire::builder("memory:").clock(clock.clone()).open().await.unwrap();
    let channel = tidewire.tenant("shop").unwrap().channel("orders").unwrap();
    let group = channel.group("billing", Start::Earliest).unwrap();
    group.declare().await.unwrap();
    (channel, group, clock)
}

async fn append(channel: &Channel) -> Uuid {
    channel.append(Event::new("order.placed", "")).await.unwrap().id
}

async fn trace(channel: &Channel, event: Uuid) -> Trace {
    // The clock of the scene is behind the time in the id.
    channel.trace(event).since(START).await.unwrap()
}

/// What the one group makes of the one copy.
async fn whereabouts(channel: &Channel, event: Uuid) -> Whereabouts {
    let trace = trace(channel, event).await;
    let [in_group] = &trace.groups[..] else { panic!("{trace:?}") };
    in_group.whereabouts.clone()
}

/// Waits until a turn of the consumer has made it so.
async fn settled(channel: &Channel, event: Uuid, is_so: impl Fn(&Whereabouts) -> bool) -> Whereabouts {
    for _ in 0..10_000 {
        let found = whereabouts(channel, event).await;
        if is_so(&found) {
            return found;
        }
        tokio::task::yield_now().await;
    }
    panic!("stays {:?}", whereabouts(channel, event).await)
}

/// Waits until the group has nothing left to do.
async fn settle_all(group: &Group, clock: &Clock) {
    while group.status().await.unwrap().lag_events > 0 {
        clock.advance(Duration::from_millis(2));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_event_is_ahead_then_in_flight_then_waiting_then_settled() {
    let (channel, group, clock) = scene().await;
    append(&channel).await;
    let event = append(&channel).await;
    assert_eq!(whereabouts(&channel, event).await, Whereabouts::Ahead { events_before: 1 });

    let first_delay = Duration::from_secs(60);
    let retries = Retries { first_delay, delay_max: first_delay, ..Retries::default() };
    let deliveries = group.consume().retries(retries).deliveries().await.unwrap();
    let (first, second) = (deliveries.next().await.unwrap(), deliveries.next().await.unwrap());
    let found = whereabouts(&channel, event).await;
    assert!(matches!(found, Whereabouts::InFlight { session: Some(_), attempts: 0, .. }), "{found:?}");

    first.settle(Outcome::Ack);
    second.settle(Outcome::retry("no route"));
    clock.advance(Duration::from_millis(2));
    let found = settled(&channel, event, |found| matches!(found, Whereabouts::Waiting { .. })).await;
    let Whereabouts::Waiting { due, attempts, error } = found else { unreachable!() };
    assert_eq!((attempts, &*error), (1, "no route"));
    assert!(due > START.saturating_add(Duration::from_secs(29)), "{due}");

    clock.advance(Duration::from_secs(61));
    deliveries.next().await.unwrap().settle(Outcome::Ack);
    clock.advance(Duration::from_millis(2));
    settled(&channel, event, |found| *found == Whereabouts::Settled).await;
}

#[tokio::test]
async fn a_dead_letter_is_found_with_its_reason_and_so_is_its_replay() {
    let (channel, group, clock) = scene().await;
    let search = channel.group("search", Start::Earliest).unwrap();
    search.declare().await.unwrap();
    let event = append(&channel).await;
    let deliveries = group.consume().deliveries().await.unwrap();
    deliveries.next().await.unwrap().settle(Outcome::reject("no such customer"));
    clock.advance(Duration::from_millis(2));
    let letters = group.dead_letters();
    while letters.list("", 1).await.unwrap().letters.is_empty() {
        tokio::task::yield_now().await;
    }
    let found = trace(&channel, event).await;
    let dead = found.groups.iter().find(|found| *found.group == *"billing").unwrap();
    let Whereabouts::Dead(letter) = &dead.whereabouts else { panic!("{dead:?}") };
    assert_eq!((&*letter.reason, letter.kind, letter.attempts), ("no such customer", DeadKind::Rejected, 1));

    letters.replay().await.unwrap();
    deliveries.next().await.unwrap().settle(Outcome::Ack);
    let found = trace(&channel, event).await;
    assert_eq!(found.copies.len(), 2, "{found:?}");
    assert_eq!((found.copies[0].replay_of.as_ref(), &found.copies[1].replay_of), (None, &Some(letter.id())));
    let of_search: Vec<_> = found.groups.iter().filter(|found| *found.group == *"search").collect();
    assert_eq!(of_search[1].whereabouts, Whereabouts::NotForThisGroup);
    let others = search.consume().deliveries().await.unwrap();
    others.next().await.unwrap().settle(Outcome::Ack);
    settle_all(&search, &clock).await;
    assert!(others.try_next().is_none(), "a replay is for the group whose letter it is");
}

#[tokio::test]
async fn what_came_before_a_group_is_said_to() {
    let (channel, group, _clock) = scene().await;
    group.delete("ann").await.unwrap();
    let event = append(&channel).await;
    channel.group("late", Start::Latest).unwrap().declare().await.unwrap();
    assert_eq!(whereabouts(&channel, event).await, Whereabouts::BeforeStart);
    let unknown = trace(&channel, Uuid::nil()).await;
    assert!(unknown.copies.is_empty() && unknown.groups.is_empty());
    assert_eq!((unknown.looked_at, unknown.has_more), ((1, 1), false));
}

#[tokio::test]
async fn with_order_an_event_is_where_its_partition_is() {
    let (channel, group, clock) = scene().await;
    group.delete("ann").await.unwrap();
    let group = group.ordered(4);
    group.declare().await.unwrap();
    let deliveries = group.consume().deliveries().await.unwrap();
    let mut events = Vec::new();
    for key in 0..8 {
        let event = Event::new("order.placed", "").with_key(&key.to_string());
        events.push(channel.append(event).await.unwrap().id);
    }
    assert_eq!(whereabouts(&channel, events[7]).await, Whereabouts::Ahead { events_before: 7 });
    for _ in 0..8 {
        deliveries.next().await.unwrap().settle(Outcome::Ack);
    }
    settle_all(&group, &clock).await;
    assert_eq!(whereabouts(&channel, events[0]).await, Whereabouts::Settled);
    deliveries.consumer().stop().await;
    let moved = group.seek(Start::Earliest, "ann").await.unwrap();
    assert_eq!((moved.again_count, moved.skipped_count), (8, 0));
    assert_eq!(whereabouts(&channel, events[0]).await, Whereabouts::Ahead { events_before: 0 });
    let status = group.status().await.unwrap();
    assert_eq!((status.next, status.lag_events, status.partitions), (1, 8, 4));
}
