//! Guarantees 4 to 7: a delivery is settled by an outcome and nothing else, comes back from whoever is gone, and ends in
//! one place.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::diary::{Diary, consume, group, number_of};
use super::scene::{Scene, append_numbered, numbered};
use crate::bus::{Consumer, DeadKind, Deliveries, Delivery, Group, Lost, Outcome, Pulled, Retries};
use crate::engine::{Announce, Append, Change, Durability, Retention, Start};
use crate::error::ErrorKind;

/// The next delivery, while time passes.
pub(super) async fn pull(scene: &Scene, deliveries: &Deliveries) -> Pulled {
    scene.pass_until("a delivery", deliveries.next()).await.expect("the consumer goes on")
}

fn numbered_attempt(pulled: &Pulled) -> (usize, u32) {
    (number_of(pulled.delivery().event()), pulled.delivery().attempt())
}

/// The kinds and attempts of the group's dead letters.
async fn dead(group: &Group) -> Vec<(DeadKind, u32)> {
    let page = group.dead_letters().list("", 100).await.expect("a page");
    page.letters.iter().map(|letter| (letter.kind, letter.attempts)).collect()
}

/// Waits until nothing of the group is with anybody.
pub(super) async fn until_settled(scene: &Scene, group: &Group, deaths: u64) {
    let is_settled = || async {
        let status = group.status().await.expect("a status");
        status.lag_events == 0 && status.dead_letters == deaths
    };
    scene.until("all is settled", is_settled).await;
}

/// Ends a consumer, while time passes.
pub(super) async fn stop(scene: &Scene, consumer: &Consumer) {
    scene.pass_until("the stop", consumer.stop()).await;
}

pub(super) async fn a_dropped_delivery_comes_back_without_an_attempt(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, [7]).await;
    let deliveries = consume(&scene, &group(&channel)).deliveries().await.expect("runs");
    for _ in 0..3 {
        let pulled = pull(&scene, &deliveries).await;
        assert_eq!(numbered_attempt(&pulled), (7, 1));
    }
    pull(&scene, &deliveries).await.settle(Outcome::Ack);
    until_settled(&scene, &group(&channel), 0).await;
    assert_eq!(deliveries.consumer().stats().handed_back, 3);
    stop(&scene, deliveries.consumer()).await;
}

pub(super) async fn a_stopped_consumer_hands_back_without_an_attempt(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..20).await;
    let diary = Diary::new();
    let noted = diary.clone();
    // A stop waits for them in vain.
    let handler = move |delivery: Delivery| {
        noted.note(&delivery);
        pending::<()>()
    };
    let consuming = consume(&scene, &group(&channel)).concurrency(4).stop_within(scene.ticks(2));
    let consumer = consuming.run(handler).await.expect("runs");
    diary.wait(4).await;
    stop(&scene, &consumer).await;
    let again = Diary::new();
    let consumer =
        consume(&scene, &group(&channel)).run(again.handler(|_, _| Outcome::Ack)).await.expect("runs");
    scene.pass_until("all of them", again.wait(20)).await;
    assert!(again.notes().iter().all(|note| note.attempt == 1), "{:?}", again.notes());
    assert_eq!(again.sorted(), (0..20).collect::<Vec<_>>());
    assert_eq!(consumer.stats().crashed, 0);
    stop(&scene, &consumer).await;
}

pub(super) async fn a_crashed_process_loses_its_deliveries_and_they_count(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..3).await;
    let consuming = consume(&scene, &group(&channel)).concurrency(3);
    let deliveries = consuming.deliveries().await.expect("runs");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pull(&scene, &deliveries).await);
    }
    let diary = Diary::new();
    let consumer =
        consume(&scene, &group(&channel)).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    deliveries.consumer().crash();
    let crashed = scene.now();
    scene.pass_until("what it held", diary.wait(3)).await;
    let took = scene.now().since(crashed);
    assert!(took <= scene.lease() + scene.late(), "{took:?}");
    let mut attempts: Vec<_> = diary.notes().iter().map(|note| (note.number, note.attempt)).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [(0, 2), (1, 2), (2, 2)]);
    assert_eq!(consumer.stats().crashed, 3);
    drop(held);
    stop(&scene, &consumer).await;
}

pub(super) async fn a_closed_node_hands_over_to_another(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let (other, others) = scene.channel().await;
    append_numbered(&channel, 0..8).await;
    let diary = Diary::new();
    let noted = diary.clone();
    let handler = move |delivery: Delivery| {
        noted.note(&delivery);
        pending::<()>()
    };
    let consuming = consume(&scene, &group(&channel)).concurrency(8).stop_within(scene.ticks(1));
    let _consumer = consuming.run(handler).await.expect("runs");
    diary.wait(8).await;
    let again = Diary::new();
    let consumer =
        consume(&scene, &group(&others)).run(again.handler(|_, _| Outcome::Ack)).await.expect("runs");
    drop(node.close(scene.ticks(8)).await);
    scene.pass_until("what it had", again.wait(8)).await;
    assert_eq!(again.sorted(), (0..8).collect::<Vec<_>>());
    stop(&scene, &consumer).await;
    drop(other);
}

pub(super) async fn a_slow_handler_keeps_its_delivery(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, [0]).await;
    let (diary, go_on) = (Diary::new(), Arc::new(Notify::new()));
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let (noted, go_on) = (diary.clone(), go_on.clone());
        let handler = move |delivery: Delivery, Lost(lost): Lost| {
            noted.note(&delivery);
            let go_on = go_on.clone();
            async move {
                go_on.notified().await;
                assert!(!lost.is_cancelled(), "it was held all the time");
            }
        };
        consumers.push(consume(&scene, &group(&channel)).run(handler).await.expect("runs"));
    }
    diary.wait(1).await;
    let clock = scene.clock();
    scene.pass_until("several leases", clock.sleep(scene.lease() * 3)).await;
    go_on.notify_one();
    until_settled(&scene, &group(&channel), 0).await;
    assert_eq!(diary.attempts_of(0), [1]);
    for consumer in &consumers {
        stop(&scene, consumer).await;
    }
}

/// A process of its own, on one thread, which can be made to stand still as by SIGSTOP.
struct Process {
    runtime: mpsc::Sender<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Process {
    fn start() -> Self {
        let (runtime, work) = mpsc::channel::<Pin<Box<dyn Future<Output = ()> + Send>>>(1);
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            let mut work = work;
            runtime.block_on(async {
                while let Some(work) = work.recv().await {
                    work.await;
                }
            });
        });
        Self { runtime }
    }

    /// Has it do something, and waits for that.
    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (done, result) = oneshot::channel();
        let work = Box::pin(async move { drop(done.send(work.await)) });
        self.runtime.send(work).await.expect("it runs");
        result.await.expect("it is done")
    }

    /// Has it stand still until what is returned is dropped.
    async fn stand_still(&self) -> std::sync::mpsc::SyncSender<()> {
        let (go_on, stopped) = std::sync::mpsc::sync_channel(1);
        let (begun, has_begun) = oneshot::channel();
        let standing = Box::pin(async move {
            begun.send(()).expect("it is waited for");
            // The end of the other side is what it waits for.
            let _ended = stopped.recv().is_err();
        });
        self.runtime.send(standing).await.expect("it runs");
        has_begun.await.expect("it stands");
        go_on
    }
}

pub(super) async fn a_process_that_stood_still_is_told_what_it_has_lost(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let handled = group(&channel);
    append_numbered(&channel, [0]).await;
    let process = Process::start();
    let consuming = consume(&scene, &handled).concurrency(1);
    let deliveries = process.run(consuming.deliveries()).await.expect("runs");
    let pulled = pull(&scene, &deliveries).await;
    let lost = pulled.delivery().lost().clone();
    let go_on = process.stand_still().await;
    let diary = Diary::new();
    let consumer = consume(&scene, &handled).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    scene.pass_until("the end of its lease", diary.wait(1)).await;
    assert_eq!(diary.attempts_of(0), [2]);
    assert!(!lost.is_cancelled(), "it stands still");
    drop(go_on);
    scene.pass_until("the word of it", lost.cancelled()).await;
    let kept = scene.pass_until("an answer", pulled.settled(Outcome::reject("too late"))).await;
    assert_eq!(kept.expect_err("it is another's").kind(), ErrorKind::LockLost);
    until_settled(&scene, &handled, 0).await;
    stop(&scene, deliveries.consumer()).await;
    stop(&scene, &consumer).await;
}

pub(super) async fn a_consumer_goes_on_after_its_links_were_cut(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    for handled in [group(&channel), channel.group("ordered", Start::Earliest).expect("valid").ordered(2)] {
        let diary = Diary::new();
        let consumer = consume(&scene, &handled).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
        for round in 0..3 {
            append_numbered(&channel, round * 10..round * 10 + 5).await;
            scene.cut_links().await;
            let numbers = (round * 10 + 5..round * 10 + 10).map(|number| (number, format!("{number}")));
            for (number, id) in numbers {
                let id = format!("{}-{id}", handled.name());
                channel.append(numbered(number)).dedup(&id).await.expect("confirmed");
            }
        }
        until_settled(&scene, &handled, 0).await;
        assert_eq!(diary.sorted(), (0..30).collect::<Vec<_>>());
        let stats = consumer.stats();
        assert_eq!((stats.missed, stats.dead), (0, 0), "{stats:?}");
        stop(&scene, &consumer).await;
    }
}

pub(super) async fn a_handler_is_told_that_its_delivery_is_lost(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, [0]).await;
    let deliveries = consume(&scene, &group(&channel)).deliveries().await.expect("runs");
    let pulled = pull(&scene, &deliveries).await;
    let lost = pulled.delivery().lost().clone();
    assert!(!lost.is_cancelled());
    let group = group(&channel);
    group.log().group_change(group.path(), Change::Delete).await.expect("deleted");
    scene.pass_until("the word of it", lost.cancelled()).await;
    pulled.settle(Outcome::Ack);
    let again = pull(&scene, &deliveries).await;
    assert_eq!(numbered_attempt(&again), (0, 1), "what is settled after the loss settles nothing");
    again.settle(Outcome::Ack);
    until_settled(&scene, &group, 0).await;
    stop(&scene, deliveries.consumer()).await;
}

pub(super) async fn a_panic_and_a_timeout_are_retries(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..4).await;
    let diary = Diary::new();
    let noted = diary.clone();
    let handler = move |delivery: Delivery| {
        let number = noted.note(&delivery);
        let is_first = delivery.attempt() == 1;
        async move {
            match number {
                1 if is_first => panic!("a handler may panic"),
                2 if is_first => pending().await,
                _ => {}
            }
        }
    };
    let consuming = consume(&scene, &group(&channel)).timeout(scene.ticks(4));
    let consumer = consuming.run(handler).await.expect("runs");
    scene.pass_until("the retries", diary.wait(6)).await;
    until_settled(&scene, &group(&channel), 0).await;
    assert_eq!((diary.attempts_of(1), diary.attempts_of(2)), (vec![1, 2], vec![1, 2]));
    let stats = consumer.stats();
    assert_eq!((stats.acked, stats.retried, stats.delivered), (4, 2, 6));
    stop(&scene, &consumer).await;
}

pub(super) async fn bytes_that_are_no_event_go_to_the_dead_letters(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let garbage = Bytes::from_static(b"no event at all");
    let append = Append {
        channel: channel.path().clone(),
        envelope: garbage.clone(),
        announce: Announce::Here,
        dedup: None,
        retention: Retention::default(),
        durability: Durability::Fast,
        version: None,
        deliver_at: None,
    };
    let ordered = group(&channel).ordered(4);
    let plain = channel.group("plain", Start::Earliest).expect("a valid name");
    append_numbered(&channel, [0]).await;
    let log = ordered.log();
    log.append(vec![append]).await.expect("appended").pop().expect("an outcome").expect("appended");
    append_numbered(&channel, [2]).await;
    for group in [ordered, plain] {
        let diary = Diary::new();
        let consumer = consume(&scene, &group).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
        scene.pass_until("those that are events", diary.wait(2)).await;
        until_settled(&scene, &group, 1).await;
        assert_eq!(diary.sorted(), [0, 2]);
        let page = group.dead_letters().list("", 9).await.expect("a page");
        let [letter] = page.letters.as_slice() else { panic!("{:?}", page.letters) };
        assert_eq!((letter.kind, &letter.envelope), (DeadKind::Undecodable, &garbage));
        assert!(letter.reason.contains("decoded"), "{}", letter.reason);
        stop(&scene, &consumer).await;
    }
}

/// Event 3 ends its process each time; `group` is to give up on it alone.
async fn crash_until_given_up(scene: &Scene, group: Group) {
    let crashes_max = 5;
    let retries = Retries { attempts_max: crashes_max, ..Retries::default() };
    let (diary, hit) = (Diary::new(), Arc::new(Notify::new()));
    let handler = {
        let (diary, hit) = (diary.clone(), hit.clone());
        move |delivery: Delivery| {
            let (number, attempt) = (diary.note(&delivery), delivery.attempt());
            let hit = hit.clone();
            async move {
                match (number, attempt) {
                    (3, _) => {
                        hit.notify_one();
                        pending().await
                    }
                    // They are at work as well when their process ends.
                    (_, 1..=2) => pending().await,
                    _ => {}
                }
            }
        }
    };
    for _ in 0..crashes_max {
        let consuming = consume(scene, &group).concurrency(10).retries(retries);
        let consumer = consuming.run(handler.clone()).await.expect("runs");
        scene.pass_until("the crash", hit.notified()).await;
        consumer.crash();
    }
    let consumer = consume(scene, &group).retries(retries).run(handler).await.expect("runs");
    until_settled(scene, &group, 1).await;
    assert_eq!(dead(&group).await, [(DeadKind::CrashedProcess, crashes_max)]);
    assert_eq!(diary.attempts_of(3), [1, 2, 3, 4, 5]);
    assert_eq!(consumer.stats().dead, 1);
    stop(scene, &consumer).await;
}

pub(super) async fn what_ends_each_process_is_a_dead_letter_alone(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..10).await;
    crash_until_given_up(&scene, group(&channel)).await;
}

pub(super) async fn what_ends_each_process_takes_its_key_not_with_it(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    for number in 0..10 {
        channel.append(numbered(number)).key("one").await.expect("confirmed");
    }
    let handled = group(&channel).ordered(2);
    let retries = Retries { attempts_max: 4, ..Retries::default() };
    let (diary, hit) = (Diary::new(), Arc::new(Notify::new()));
    let handler = {
        let (diary, hit) = (diary.clone(), hit.clone());
        move |delivery: Delivery| {
            let (number, hit) = (diary.note(&delivery), hit.clone());
            async move {
                if number == 3 {
                    hit.notify_one();
                    pending().await
                }
            }
        }
    };
    for _ in 0..4 {
        let consumer = consume(&scene, &handled).retries(retries).run(handler.clone()).await.expect("runs");
        scene.pass_until("the crash", hit.notified()).await;
        consumer.crash();
    }
    let consumer = consume(&scene, &handled).retries(retries).run(handler).await.expect("runs");
    until_settled(&scene, &handled, 1).await;
    assert_eq!(dead(&handled).await, [(DeadKind::CrashedProcess, 4)]);
    assert_eq!(diary.sorted(), (0..10).collect::<Vec<_>>());
    stop(&scene, &consumer).await;
}

pub(super) async fn a_dead_letter_is_there_once_and_is_replayed_once(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..4).await;
    let (diary, group) = (Diary::new(), group(&channel));
    let is_mended = Arc::new(Semaphore::new(0));
    for _ in 0..2 {
        let mended = is_mended.clone();
        let handler = diary.handler(move |number, _| match number {
            1 if mended.available_permits() == 0 => Outcome::reject("never"),
            2 if mended.available_permits() == 0 => Outcome::retry_now("not today"),
            _ => Outcome::Ack,
        });
        let retries = Retries { attempts_max: 3, ..Retries::default() };
        let consumer = consume(&scene, &group).retries(retries).run(handler).await.expect("runs");
        until_settled(&scene, &group, 2).await;
        stop(&scene, &consumer).await;
    }
    let mut letters = dead(&group).await;
    letters.sort_by_key(|(_, attempts)| *attempts);
    assert_eq!(letters, [(DeadKind::Rejected, 1), (DeadKind::AttemptsUsedUp, 3)]);
    is_mended.add_permits(1);
    let consumer = consume(&scene, &group).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    assert_eq!(group.dead_letters().replay().await.expect("replayed").count, 2);
    assert_eq!(group.dead_letters().replay().await.expect("replayed").count, 0);
    until_settled(&scene, &group, 0).await;
    assert_eq!((diary.attempts_of(1), diary.attempts_of(2)), (vec![1, 1], vec![1, 2, 3, 1]));
    assert_eq!(diary.numbers().len(), 8, "{:?}", diary.notes());
    stop(&scene, &consumer).await;
}

/// A consumer whose delivery waits for longer than its lease.
async fn wait_across(scene: &Scene, diary: &Diary, first: &Group) -> Consumer {
    let wait = scene.lease() * 3;
    let handler = diary.handler(move |_, attempt| match attempt {
        1 => Outcome::retry_after(wait, "later"),
        _ => Outcome::Ack,
    });
    let consumer = consume(scene, first).run(handler).await.expect("runs");
    diary.wait(1).await;
    scene
        .until("the wait to be kept", || async { first.status().await.expect("a status").waiting > 0 })
        .await;
    consumer
}

pub(super) async fn a_delayed_retry_outlives_its_process(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, [0]).await;
    let (diary, started) = (Diary::new(), scene.now());
    wait_across(&scene, &diary, &group(&channel)).await.crash();
    let consumer =
        consume(&scene, &group(&channel)).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    scene.pass_until("its time", diary.wait(1)).await;
    assert!(scene.now().since(started) >= scene.lease().mul_f64(2.9));
    assert_eq!(diary.attempts_of(0), [1, 2], "what waits has no attempt to lose");
    until_settled(&scene, &group(&channel), 0).await;
    stop(&scene, &consumer).await;
}

pub(super) async fn a_delayed_retry_survives_a_restart(scene: Scene) {
    let (node, channel) = scene.channel().await;
    append_numbered(&channel, [0]).await;
    let (diary, started) = (Diary::new(), scene.now());
    let consumer = wait_across(&scene, &diary, &group(&channel)).await;
    stop(&scene, &consumer).await;
    node.close(std::time::Duration::from_secs(10)).await.expect("closed");
    let (_node, channel) = scene.channel().await;
    let consumer =
        consume(&scene, &group(&channel)).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    scene.pass_until("its time", diary.wait(1)).await;
    assert!(scene.now().since(started) >= scene.lease().mul_f64(2.9));
    assert_eq!(diary.attempts_of(0), [1, 2]);
    until_settled(&scene, &group(&channel), 0).await;
    stop(&scene, &consumer).await;
}

pub(super) async fn a_crash_after_the_effect_gives_it_twice(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, [0]).await;
    let effects = Diary::new();
    let done = effects.clone();
    let handler = move |delivery: Delivery| {
        done.note(&delivery);
        pending::<()>()
    };
    let consumer = consume(&scene, &group(&channel)).run(handler).await.expect("runs");
    effects.wait(1).await;
    consumer.crash();
    let consumer =
        consume(&scene, &group(&channel)).run(effects.handler(|_, _| Outcome::Ack)).await.expect("runs");
    scene.pass_until("the second effect", effects.wait(1)).await;
    assert_eq!(effects.attempts_of(0), [1, 2], "at least once is not exactly once");
    until_settled(&scene, &group(&channel), 0).await;
    stop(&scene, &consumer).await;
}
