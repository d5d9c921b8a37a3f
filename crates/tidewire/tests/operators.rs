//! What an operator does to a Redis by hand while a group is consumed: no event is lost without a word.
//!
//! Every test has a server of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewire::{Channel, Consumer, Delivery, Event, Group, Outcome, Start, Tidewire};
use tidewire_fleet::{Admin, Persistence, Standalone, server_program};
use tokio::sync::Notify;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_millis(500);

fn start() -> Standalone {
    let program = server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it");
    Standalone::start(&program, Persistence::Nothing).expect("a server")
}

/// Numbers that were handled, or told as missing.
#[derive(Clone, Default)]
struct Seen {
    handled: Arc<Mutex<HashSet<usize>>>,
    gaps: Arc<Mutex<usize>>,
    changed: Arc<Notify>,
}

impl Seen {
    async fn consume(&self, group: &Group) -> Consumer {
        let (seen, told) = (self.clone(), self.clone());
        let handler = move |delivery: Delivery| {
            let text = std::str::from_utf8(delivery.event().data()).expect("text");
            seen.handled.lock().insert(text.parse().expect("a number"));
            seen.changed.notify_one();
            std::future::ready(Outcome::Ack)
        };
        let consuming = group.consume().lease(LEASE).on_gap(move |_| {
            *told.gaps.lock() += 1;
            told.changed.notify_one();
        });
        consuming.run(handler).await.expect("runs")
    }

    /// Waits until `is_enough` holds.
    async fn wait(&self, what: &str, is_enough: impl Fn(&HashSet<usize>, usize) -> bool) {
        let waiting = async {
            while !is_enough(&self.handled.lock(), *self.gaps.lock()) {
                self.changed.notified().await;
            }
        };
        let outcome = timeout(PATIENCE, waiting).await;
        let mut handled: Vec<usize> = self.handled.lock().iter().copied().collect();
        handled.sort_unstable();
        assert!(outcome.is_ok(), "{what}: {} gaps, handled {handled:?}", self.gaps.lock());
    }
}

async fn channel(server: &Standalone) -> (Tidewire, Channel) {
    let node = Tidewire::open(&server.server.admin.url()).await.expect("opens");
    let channel = node.tenant("operators").and_then(|tenant| tenant.channel("orders")).expect("valid names");
    (node, channel)
}

async fn append(channel: &Channel, numbers: std::ops::Range<usize>) {
    for number in numbers {
        channel.append(Event::new("numbered", number.to_string())).await.expect("confirmed");
    }
}

/// Deletes every key of a kind; says how many there were.
fn delete(admin: &Admin, kind: &str) -> usize {
    let script = "local keys = redis.call('KEYS', ARGV[1]) for _, key in ipairs(keys) do redis.call('DEL', key) end return #keys";
    let deleted = admin.ask(&["EVAL", script, "0", &format!("*:{kind}:*")]).expect("deleted");
    deleted.text().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_group_can_be_deleted_without_a_loss() {
    for (kind, partitions) in [("group", 0), ("group", 4), ("sessions", 0), ("sessions", 4), ("free", 4)] {
        let server = start();
        let (node, channel) = channel(&server).await;
        let mut group = channel.group("shipping", Start::Latest).expect("a valid name");
        if partitions > 0 {
            group = group.ordered(partitions);
        }
        let seen = Seen::default();
        let consumers = [seen.consume(&group).await, seen.consume(&group).await];
        for round in 0..3 {
            append(&channel, round * 100..round * 100 + 50).await;
            let what = format!("{kind} of {partitions}, round {round}");
            seen.wait(&what, |handled, _| handled.contains(&(round * 100))).await;
            let deleted = delete(&server.server.admin, kind);
            assert!(deleted > 0 || kind == "free", "there is no key of kind {kind}");
            append(&channel, round * 100 + 50..round * 100 + 100).await;
        }
        seen.wait(kind, |handled, _| handled.len() == 300).await;
        for consumer in &consumers {
            timeout(PATIENCE, consumer.stop()).await.expect("stops");
        }
        node.close(PATIENCE).await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_trimmed_by_hand_is_told() {
    for partitions in [0, 4] {
        let server = start();
        let (node, channel) = channel(&server).await;
        let mut group = channel.group("shipping", Start::Latest).expect("a valid name");
        if partitions > 0 {
            group = group.ordered(partitions);
        }
        group.declare().await.expect("there");
        append(&channel, 0..20).await;
        let trim =
            "local keys = redis.call('KEYS', '*:stream:*') return redis.call('XTRIM', keys[1], 'MAXLEN', 5)";
        server.server.admin.ask(&["EVAL", trim, "0"]).expect("trimmed");
        append(&channel, 20..30).await;
        let seen = Seen::default();
        let consumer = seen.consume(&group).await;
        seen.wait("what is left", |handled, gaps| handled.len() == 15 && gaps > 0).await;
        assert_eq!(consumer.stats().missed, 15);
        assert!(seen.handled.lock().iter().all(|number| *number >= 15));
        timeout(PATIENCE, consumer.stop()).await.expect("stops");
        node.close(PATIENCE).await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_server_is_told_and_consumed_on() {
    for partitions in [0, 4] {
        let server = start();
        let (node, channel) = channel(&server).await;
        let mut group = channel.group("shipping", Start::Latest).expect("a valid name");
        if partitions > 0 {
            group = group.ordered(partitions);
        }
        let seen = Seen::default();
        let consumer = seen.consume(&group).await;
        append(&channel, 0..20).await;
        seen.wait("all", |handled, _| handled.len() == 20).await;
        server.server.admin.tell(&["FLUSHALL"]).expect("flushed");
        append(&channel, 20..40).await;
        seen.wait("what came after", |handled, gaps| handled.len() == 40 && gaps > 0).await;
        timeout(PATIENCE, consumer.stop()).await.expect("stops");
        node.close(PATIENCE).await.expect("closed");
    }
}
