//! Guarantee 9: events of a key are handled one at a time in stream order, retries included, whoever joins, leaves or dies.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::delivery::{pull, stop, until_settled};
use super::diary::{Diary, Note, consume, group, number_of};
use super::scene::{Scene, numbered};
use crate::bus::{Channel, Consumer, Delivery, EventHandler, Group, Outcome};
use crate::engine::Start;

const KEYS: usize = 7;

/// Events of several keys; the key of a number is its remainder.
async fn append_keyed(channel: &Channel, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        channel.append(numbered(number)).key(&format!("key-{}", number % KEYS)).await.expect("confirmed");
    }
}

/// What several consumers are watched by: that no two handle one key at the same time.
#[derive(Clone)]
struct Watch {
    diary: Diary,
    busy: Arc<Mutex<HashSet<usize>>>,
}

impl Watch {
    fn new() -> Self {
        Self { diary: Diary::new(), busy: Arc::default() }
    }

    /// A handler that fails the first attempt of every tenth event.
    fn handler(&self) -> impl EventHandler<(Delivery,)> {
        let watch = self.clone();
        move |delivery: Delivery| {
            let watch = watch.clone();
            async move {
                let key = number_of(delivery.event()) % KEYS;
                assert!(watch.busy.lock().insert(key), "two of one key at a time");
                tokio::task::yield_now().await;
                let number = watch.diary.note(&delivery);
                watch.busy.lock().remove(&key);
                match (number % 10, delivery.attempt()) {
                    (4, 1) => Outcome::retry_now("once"),
                    _ => Outcome::Ack,
                }
            }
        }
    }

    async fn join(&self, scene: &Scene, group: &Group) -> Consumer {
        consume(scene, group).concurrency(8).run(self.handler()).await.expect("runs")
    }
}

/// No event of a key was handled before those in front of it, and fences only rise.
fn check_order(notes: &[Note], numbers: std::ops::Range<usize>) {
    let mut keys: HashMap<usize, Vec<&Note>> = HashMap::new();
    notes.iter().for_each(|note| keys.entry(note.number % KEYS).or_default().push(note));
    for (key, notes) in keys {
        let mut seen: Vec<usize> = Vec::new();
        for note in &notes {
            if !seen.contains(&note.number) {
                assert!(seen.last().is_none_or(|last| *last < note.number), "{} in {seen:?}", note.number);
                seen.push(note.number);
            }
        }
        let expected: Vec<usize> = numbers.clone().filter(|number| number % KEYS == key).collect();
        assert_eq!(seen, expected, "of key {key}");
        assert!(notes.is_sorted_by_key(|note| note.fence), "a holder from before wrote after a later one");
    }
}

/// Waits until each of so many sessions has its share of the partitions.
async fn until_shared(scene: &Scene, group: &Group, mut shares: Vec<u64>) {
    shares.sort_unstable();
    let is_shared = || async {
        let status = group.status().await.expect("a status");
        let mut partitions: Vec<u64> = status.sessions.iter().map(|session| session.partitions).collect();
        partitions.sort_unstable();
        partitions == shares
    };
    scene.until("each has its share", is_shared).await;
}

pub(super) async fn partitions_are_shared_out_after_a_join_and_a_leave(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    share_out(&scene, &channel, &channel).await;
}

pub(super) async fn nodes_share_out_the_partitions(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let (_other, joining) = scene.channel().await;
    share_out(&scene, &channel, &joining).await;
}

async fn share_out(scene: &Scene, channel: &Channel, joining: &Channel) {
    let (watch, group, joining) = (Watch::new(), group(channel).ordered(8), group(joining).ordered(8));
    let first = watch.join(scene, &group).await;
    append_keyed(channel, 0..100).await;
    until_shared(scene, &group, vec![8]).await;
    let second = watch.join(scene, &joining).await;
    let joined = scene.now();
    until_shared(scene, &group, vec![4, 4]).await;
    let took = scene.now().since(joined);
    assert!(took <= scene.ticks(2) + scene.late(), "after a join: {took:?}");
    append_keyed(channel, 100..200).await;
    until_settled(scene, &group, 0).await;
    assert!(first.stats().acked > 0 && second.stats().acked > 0, "both have had some");
    append_keyed(channel, 200..300).await;
    stop(scene, &first).await;
    let left = scene.now();
    until_shared(scene, &group, vec![8]).await;
    let took = scene.now().since(left);
    assert!(took <= scene.ticks(2) + scene.late(), "after a leave: {took:?}");
    until_settled(scene, &group, 0).await;
    check_order(&watch.diary.notes(), 0..300);
    let stats = [first.stats(), second.stats()];
    assert_eq!(watch.diary.notes().len(), 330, "each once, and each tenth once more: {stats:?}");
    stop(scene, &second).await;
}

pub(super) async fn the_share_of_a_dead_process_goes_on_in_order(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let group = group(&channel).ordered(8);
    let (diary, stuck) = (Diary::new(), Arc::new(Notify::new()));
    let handler = {
        let (diary, stuck) = (diary.clone(), stuck.clone());
        move |delivery: Delivery| {
            let (number, stuck) = (diary.note(&delivery), stuck.clone());
            async move {
                if number >= 35 && delivery.attempt() == 1 {
                    stuck.notify_one();
                    pending().await
                }
            }
        }
    };
    append_keyed(&channel, 0..70).await;
    let dead = consume(&scene, &group).run(handler.clone()).await.expect("runs");
    scene.pass_until("the middle", stuck.notified()).await;
    dead.crash();
    // What it was at has an attempt less; the others would be stuck again.
    let living = consume(&scene, &group).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    let died = scene.now();
    until_shared(&scene, &group, vec![8]).await;
    let took = scene.now().since(died);
    assert!(took <= scene.lease() + scene.late(), "{took:?}");
    until_settled(&scene, &group, 0).await;
    check_order(&diary.notes(), 0..70);
    stop(&scene, &living).await;
}

pub(super) async fn order_survives_a_restart(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let watch = Watch::new();
    append_keyed(&channel, 0..50).await;
    let consumer = watch.join(&scene, &group(&channel).ordered(4)).await;
    watch.diary.wait(20).await;
    stop(&scene, &consumer).await;
    node.close(Duration::from_secs(10)).await.expect("closed");
    let (_node, channel) = scene.channel().await;
    append_keyed(&channel, 50..100).await;
    let group = group(&channel).ordered(4);
    let consumer = watch.join(&scene, &group).await;
    until_settled(&scene, &group, 0).await;
    check_order(&watch.diary.notes(), 0..100);
    assert_eq!(watch.diary.notes().len(), 110, "each once, and each tenth once more");
    stop(&scene, &consumer).await;
}

pub(super) async fn a_stop_begins_nothing_more_of_a_key(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let group = group(&channel).ordered(1);
    for number in 0..10 {
        channel.append(numbered(number)).key("one").await.expect("confirmed");
    }
    let (diary, go_on) = (Diary::new(), Arc::new(Notify::new()));
    let handler = {
        let (diary, go_on) = (diary.clone(), go_on.clone());
        move |delivery: Delivery| {
            let (number, go_on) = (diary.note(&delivery), go_on.clone());
            async move {
                if number == 0 {
                    go_on.notified().await;
                }
            }
        }
    };
    let consumer = consume(&scene, &group).run(handler).await.expect("runs");
    diary.wait(1).await;
    let release = async {
        tokio::task::yield_now().await;
        go_on.notify_one();
    };
    scene.pass_until("the stop", async { tokio::join!(consumer.stop(), release) }).await;
    assert_eq!(diary.numbers(), [0], "only what had begun is finished");
    let consumer = consume(&scene, &group).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    until_settled(&scene, &group, 0).await;
    assert_eq!(diary.numbers(), (0..10).collect::<Vec<_>>());
    assert!(diary.notes().iter().all(|note| note.attempt == 1), "{:?}", diary.notes());
    stop(&scene, &consumer).await;
}

pub(super) async fn a_parked_key_holds_up_no_other_and_burns_no_attempt(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let group = group(&channel).ordered(1);
    for number in 0..20 {
        let key = if number % 2 == 0 { "parked" } else { "free" };
        channel.append(numbered(number)).key(key).await.expect("confirmed");
    }
    let diary = Diary::new();
    let noted = diary.clone();
    let parked = Arc::new(Mutex::new(2));
    let handler = move |delivery: Delivery| {
        let number = noted.note(&delivery);
        let mut left = parked.lock();
        let outcome = match number {
            0 if *left > 0 => {
                *left -= 1;
                Outcome::park("its account is closed for now")
            }
            _ => Outcome::Ack,
        };
        std::future::ready(outcome)
    };
    let consuming = consume(&scene, &group).park_time(scene.ticks(4));
    let consumer = consuming.run(handler).await.expect("runs");
    diary.wait(11).await;
    assert_eq!(diary.sorted(), [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19], "the other key goes on");
    until_settled(&scene, &group, 0).await;
    assert_eq!(diary.attempts_of(0), [1, 1, 1]);
    let parked: Vec<usize> = diary.numbers().into_iter().filter(|number| number % 2 == 0).collect();
    assert_eq!(parked, [0, 0].into_iter().chain((0..20).step_by(2)).collect::<Vec<_>>());
    assert_eq!(consumer.stats().parked, 2);
    stop(&scene, &consumer).await;
}

pub(super) async fn a_move_back_gives_events_again_in_order(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let (watch, group) = (Watch::new(), group(&channel).ordered(4));
    let consumer = watch.join(&scene, &group).await;
    append_keyed(&channel, 0..60).await;
    until_settled(&scene, &group, 0).await;
    let before = watch.diary.notes().len();
    group.seek(Start::Earliest, "a test").await.expect("moved");
    append_keyed(&channel, [60]).await;
    until_settled(&scene, &group, 0).await;
    let again = watch.diary.notes().split_off(before);
    check_order(&again, 0..61);
    let preview = group.seek(Start::Latest, "a test").await.expect("moved");
    assert_eq!((preview.again_count, preview.skipped_count), (0, 0), "there is nothing to pass over");
    append_keyed(&channel, [61]).await;
    until_settled(&scene, &group, 0).await;
    assert_eq!(watch.diary.attempts_of(61).len(), 1);
    stop(&scene, &consumer).await;
}

pub(super) async fn a_move_back_while_a_key_waits_keeps_its_order(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let (watch, group) = (Watch::new(), group(&channel).ordered(1));
    for number in 0..6 {
        channel.append(numbered(number * KEYS)).key("key-0").await.expect("confirmed");
    }
    let wait = scene.ticks(8);
    let (waits, inner) = (watch.clone(), Arc::new(Mutex::new(true)));
    let is_first = inner.clone();
    let handler = move |delivery: Delivery| {
        let (watch, is_first) = (waits.clone(), is_first.clone());
        async move {
            assert!(watch.busy.lock().insert(0), "two of one key at a time");
            tokio::task::yield_now().await;
            let number = watch.diary.note(&delivery);
            watch.busy.lock().remove(&0);
            let is_to_wait = number == KEYS && std::mem::take(&mut *is_first.lock());
            if is_to_wait { Outcome::retry_after(wait, "later") } else { Outcome::Ack }
        }
    };
    let consumer = consume(&scene, &group).run(handler).await.expect("runs");
    watch.diary.wait(2).await;
    let before = watch.diary.notes().len();
    group.seek(Start::Earliest, "a test").await.expect("moved");
    channel.append(numbered(6 * KEYS)).key("key-0").await.expect("confirmed");
    until_settled(&scene, &group, 0).await;
    let again: Vec<usize> = watch.diary.numbers().split_off(before);
    assert_eq!(again, (0..7).map(|number| number * KEYS).collect::<Vec<_>>());
    scene.pass_until("the stop", consumer.stop()).await;
}

pub(super) async fn a_move_back_lets_be_what_is_in_flight(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let group = group(&channel);
    for number in 0..3 {
        channel.append(numbered(number)).await.expect("confirmed");
    }
    let consuming = consume(&scene, &group).concurrency(8);
    let deliveries = consuming.deliveries().await.expect("runs");
    let mut held = vec![pull(&scene, &deliveries).await, pull(&scene, &deliveries).await];
    held.push(pull(&scene, &deliveries).await);
    group.seek(Start::Earliest, "a test").await.expect("moved");
    channel.append(numbered(3)).await.expect("confirmed");
    let next = pull(&scene, &deliveries).await;
    assert_eq!(number_of(next.delivery().event()), 3, "the others are at work");
    held.push(next);
    held.into_iter().for_each(|pulled| pulled.settle(Outcome::Ack));
    until_settled(&scene, &group, 0).await;
    assert!(deliveries.try_next().is_none());
    // No time passes: nothing is out that a stop would have to wait for.
    super::scene::patiently("the stop", deliveries.consumer().stop()).await;
}
