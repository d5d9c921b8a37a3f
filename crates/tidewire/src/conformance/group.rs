//! Groups: what consumers get, when it comes again, in which order, and where it goes in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::diary::{Diary, consume, group};
use super::scene::{Scene, append_numbered, numbered, patiently};
use crate::bus::{BreakerState, Breaking, Delivery, Outcome, Retries, Share};

pub(super) async fn each_event_is_handled_by_one_of_two_processes(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let diary = Diary::new();
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let diary = diary.clone();
        let consuming = consume(&scene, &group(&channel)).concurrency(4);
        let handler = move |delivery: Delivery| {
            diary.note(&delivery);
            std::future::ready(Outcome::Ack)
        };
        consumers.push(consuming.run(handler).await.expect("runs"));
    }
    append_numbered(&channel, 0..200).await;
    diary.wait(200).await;
    let mut numbers = diary.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    for consumer in &consumers {
        patiently("the stop", consumer.stop()).await;
    }
    drop(node);
}

pub(super) async fn what_is_acknowledged_does_not_come_again(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..10).await;
    for round in 0..2 {
        let diary = Diary::new();
        let noted = diary.clone();
        let handler = move |delivery: Delivery| {
            noted.note(&delivery);
            std::future::ready(Outcome::Ack)
        };
        let consumer = consume(&scene, &group(&channel)).run(handler).await.expect("runs");
        if round == 0 {
            diary.wait(10).await;
        } else {
            append_numbered(&channel, [10]).await;
            diary.wait(1).await;
            assert_eq!(diary.numbers(), [10]);
        }
        patiently("the stop", consumer.stop()).await;
    }
}

pub(super) async fn a_failed_delivery_comes_again_after_its_wait(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let diary = Diary::new();
    let noted = diary.clone();
    let wait = scene.ticks(6);
    let handler = move |delivery: Delivery| {
        noted.note(&delivery);
        let outcome = match delivery.attempt() {
            1 => Outcome::retry_now("at once"),
            2 => Outcome::retry_after(wait, "later"),
            _ => Outcome::Ack,
        };
        std::future::ready(outcome)
    };
    let consumer = consume(&scene, &group(&channel)).run(handler).await.expect("runs");
    append_numbered(&channel, [7]).await;
    diary.wait(2).await;
    let started = scene.now();
    scene.pass_until("the third attempt", diary.wait(1)).await;
    assert!(scene.now().since(started) >= wait.mul_f64(0.9), "{:?}", scene.now().since(started));
    assert_eq!(diary.attempts_of(7), [1, 2, 3]);
    scene.pass_until("the stop", consumer.stop()).await;
}

pub(super) async fn what_fails_too_often_is_a_dead_letter_and_others_go_on(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let diary = Diary::new();
    let noted = diary.clone();
    let handler = move |delivery: Delivery| {
        let outcome = match noted.note(&delivery) {
            3 => Outcome::retry_now("no luck"),
            5 => Outcome::reject("never"),
            _ => Outcome::Ack,
        };
        std::future::ready(outcome)
    };
    let group = group(&channel);
    let retries = Retries { attempts_max: 4, ..Retries::default() };
    let consumer = consume(&scene, &group).retries(retries).run(handler).await.expect("runs");
    append_numbered(&channel, 0..10).await;
    diary.wait(13).await;
    scene.pass_until("the stop", consumer.stop()).await;
    assert_eq!(diary.attempts_of(3), [1, 2, 3, 4]);
    assert_eq!(diary.attempts_of(5), [1]);
    let stats = consumer.stats();
    assert_eq!((stats.acked, stats.retried, stats.rejected, stats.dead), (8, 3, 1, 2));
}

pub(super) async fn events_of_a_key_are_handled_one_at_a_time_in_order(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let diary = Diary::new();
    let running: Arc<Mutex<std::collections::HashSet<String>>> = Arc::default();
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let (diary, running) = (diary.clone(), running.clone());
        let handler = move |delivery: Delivery| {
            let (diary, running) = (diary.clone(), running.clone());
            async move {
                let key = delivery.event().key().expect("a key").to_owned();
                assert!(running.lock().insert(key.clone()), "two of one key at a time");
                tokio::task::yield_now().await;
                let number = diary.note(&delivery);
                running.lock().remove(&key);
                match (number % 10, delivery.attempt()) {
                    (4, 1) => Outcome::retry_now("once"),
                    _ => Outcome::Ack,
                }
            }
        };
        let consuming = consume(&scene, &group(&channel).ordered(8)).concurrency(8);
        consumers.push(consuming.run(handler).await.expect("runs"));
    }
    for n in 0..200 {
        let key = format!("key-{}", n % 7);
        channel.append(numbered(n)).key(&key).await.expect("confirmed");
    }
    diary.wait(220).await;
    for key in 0..7 {
        let mut last = None;
        for number in diary.numbers().into_iter().filter(|number| number % 7 == key) {
            assert!(last.is_none_or(|last| last <= number), "{number} after {last:?}");
            last = Some(number);
        }
    }
    for consumer in &consumers {
        scene.pass_until("the stop", consumer.stop()).await;
    }
}

pub(super) async fn a_key_that_waits_holds_up_no_other(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let diary = Diary::new();
    let noted = diary.clone();
    // Long beside what twenty deliveries take on a busy machine.
    let wait = scene.ticks(20);
    let handler = move |delivery: Delivery| {
        let number = noted.note(&delivery);
        let is_first = number == 0 && delivery.attempt() == 1;
        std::future::ready(if is_first { Outcome::retry_after(wait, "later") } else { Outcome::Ack })
    };
    for n in 0..20 {
        channel.append(numbered(n)).key(if n % 2 == 0 { "slow" } else { "fast" }).await.expect("confirmed");
    }
    let consumer = consume(&scene, &group(&channel).ordered(1)).run(handler).await.expect("runs");
    diary.wait(11).await;
    let mut expected = vec![0];
    expected.extend((0..20).filter(|n| n % 2 == 1));
    let mut before = diary.numbers();
    before.sort_unstable();
    assert_eq!(before, expected, "only the slow key waits");
    scene.pass_until("the slow key", diary.wait(10)).await;
    let slow: Vec<usize> = diary.numbers().into_iter().skip(11).collect();
    assert_eq!(slow, (0..20).step_by(2).collect::<Vec<_>>());
    scene.pass_until("the stop", consumer.stop()).await;
}

pub(super) async fn an_open_breaker_holds_deliveries_back_without_an_attempt(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let (failed, handled) = (Diary::new(), Diary::new());
    let is_down = Arc::new(AtomicBool::new(true));
    let (down, failing, handling) = (is_down.clone(), failed.clone(), handled.clone());
    let handler = move |delivery: Delivery| {
        let outcome = if down.load(Relaxed) {
            failing.note(&delivery);
            Outcome::retry_now("down")
        } else {
            handling.note(&delivery);
            Outcome::Ack
        };
        std::future::ready(outcome)
    };
    let breaking =
        Breaking { window_count: 3, failures_min: 3, open_for: scene.ticks(2), ..Breaking::default() };
    let consuming = consume(&scene, &group(&channel)).concurrency(1).breaker(breaking);
    let consumer = consuming.run(handler).await.expect("runs");
    append_numbered(&channel, 0..10).await;
    failed.wait(3).await;
    for _ in 0..2 {
        scene.pass_until("one that is tried", failed.wait(1)).await;
    }
    is_down.store(false, Relaxed);
    scene.pass_until("all of them", handled.wait(10)).await;
    scene.pass_until("the stop", consumer.stop()).await;
    let attempts = failed.numbers().len();
    assert!(attempts < 10, "one is tried each time, the others wait: {attempts}");
    assert_eq!(consumer.breaker(), BreakerState::Closed);
    let stats = consumer.stats();
    assert_eq!((stats.acked, stats.dead), (10, 0));
}

pub(super) async fn consumers_of_two_tenants_share_a_pool(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let other = node.tenant(&format!("{}-2", scene.tenant_name())).expect("a valid tenant");
    let other = other.channel("orders").expect("a valid name");
    let (pool, diary) = (node.pool(1), Diary::new());
    let running = Arc::new(Semaphore::new(1));
    let mut consumers = Vec::new();
    for (channel, weight) in [(&channel, 1), (&other, 3)] {
        let (noted, running) = (diary.clone(), running.clone());
        let handler = move |delivery: Delivery| {
            let (noted, running) = (noted.clone(), running.clone());
            async move {
                let _alone = running.try_acquire().expect("one runs at a time, whoever it is");
                tokio::task::yield_now().await;
                noted.note(&delivery);
            }
        };
        let share = Share { weight, ..Share::default() };
        let consuming = consume(&scene, &group(channel)).concurrency(8).pool(&pool, share);
        consumers.push(consuming.run(handler).await.expect("runs"));
    }
    append_numbered(&channel, 0..50).await;
    append_numbered(&other, 50..100).await;
    diary.wait(100).await;
    let mut numbers = diary.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    for consumer in &consumers {
        patiently("the stop", consumer.stop()).await;
    }
}
