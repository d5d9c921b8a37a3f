//! Groups at work: from append to handler, dead letters, delayed retries, and a tenant beside one that floods.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidewire::{Channel, Consumer, Delivery, Event, Outcome, Pool, Receipt, Retries, Share, Start, Tidewire};
use tokio::sync::Notify;

use crate::load::DATA_BYTES;
use crate::server::{Server, work_of};

/// Events that go to the dead letters, and that are retried later.
const MOVED: u64 = 50_000;
/// Time of one measurement of latency.
const TIME: Duration = Duration::from_secs(5);
/// Events of the tenant that floods.
const FLOOD: u64 = 1_000_000;
/// Slots that both tenants share, and how long a handler holds one.
const SLOTS: usize = 16;
const HANDLING: Duration = Duration::from_millis(1);

pub(crate) async fn measure(url: &str, server: &Server) {
    let node = Tidewire::open(url).await.expect("the node opens");
    latency(&node).await;
    moves(&node, server, "dead letters", |_| Outcome::reject("never")).await;
    moves(&node, server, "delayed retries", |delivery| match delivery.attempt() {
        1 => Outcome::retry_after(Duration::from_secs(2), "later"),
        _ => Outcome::Ack,
    })
    .await;
    fairness(&node).await;
}

/// Microseconds since `start`.
fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn channel(node: &Tidewire, tenant: &str, name: &str) -> Channel {
    node.tenant(tenant).and_then(|tenant| tenant.channel(name)).expect("valid names")
}

/// Waits between an append and its handler.
#[derive(Clone)]
struct Waits {
    base: Instant,
    micros: Arc<Mutex<Vec<u64>>>,
}

impl Waits {
    fn new() -> Self {
        Self { base: Instant::now(), micros: Arc::default() }
    }

    /// An event that says when it was made.
    fn event(&self) -> Event {
        let now = micros(self.base);
        Event::new("bench", format!("{now:0width$}", width = DATA_BYTES))
    }

    fn note(&self, delivery: &Delivery) {
        let made: u64 =
            std::str::from_utf8(delivery.event().data()).expect("text").parse().expect("a number");
        let now = micros(self.base);
        self.micros.lock().push(now.saturating_sub(made));
    }

    /// Milliseconds below which half and 99 of 100 are.
    fn quantiles(&self) -> (f64, f64) {
        let mut micros = self.micros.lock();
        micros.sort_unstable();
        let at = |percent: usize| {
            micros.get(micros.len() * percent / 100).copied().unwrap_or_default() as f64 / 1e3
        };
        (at(50), at(99))
    }
}

/// Appends at `rate` per second, each on its own, while a consumer handles them.
async fn latency(node: &Tidewire) {
    let most = most_at_once(node).await;
    for percent in [10, 50] {
        let rate = most * percent / 100;
        let (waits, channel) = (Waits::new(), channel(node, "bench", "latency"));
        let noted = waits.clone();
        let handler = move |delivery: Delivery| {
            noted.note(&delivery);
            std::future::ready(Outcome::Ack)
        };
        let consumer = run(&channel, "latency", handler).await;
        at_rate(&channel, &waits, rate).await;
        let (half, most_of_all) = waits.quantiles();
        println!(
            "append to handler at {rate:>6}/s ({percent} % of {most}/s): p50 {half:.2} ms, p99 {most_of_all:.2} ms"
        );
        consumer.stop().await;
        consumer.group().delete("bench").await.expect("deleted");
    }
}

/// Events per second that 64 tasks append one by one while a consumer handles them.
async fn most_at_once(node: &Tidewire) -> u64 {
    let channel = channel(node, "bench", "most");
    let consumer = run(&channel, "most", || std::future::ready(Outcome::Ack)).await;
    let (count, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (channel, count) = (channel.clone(), count.clone());
            tokio::spawn(async move {
                while start.elapsed() < TIME {
                    let _receipt: Receipt =
                        channel.append(Event::new("bench", vec![b'x'; DATA_BYTES])).await.expect("confirmed");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no append failed");
    }
    let rate = count.load(Ordering::Relaxed) * 1_000_000 / micros(start);
    consumer.stop().await;
    consumer.group().delete("bench").await.expect("deleted");
    rate
}

async fn at_rate(channel: &Channel, waits: &Waits, rate: u64) {
    let start = Instant::now();
    let mut sent = 0_u64;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut tasks = tokio::task::JoinSet::new();
    while start.elapsed() < TIME {
        ticks.tick().await;
        let due = micros(start) * rate / 1_000_000;
        for _ in sent..due {
            let (channel, event) = (channel.clone(), waits.event());
            tasks.spawn(async move { channel.append(event).await.map(drop) });
        }
        sent = due;
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

async fn run<Args: 'static>(
    channel: &Channel,
    name: &str,
    handler: impl tidewire::EventHandler<Args>,
) -> Consumer {
    let group = channel.group(name, Start::Latest).expect("a valid name");
    group.consume().run(handler).await.expect("runs")
}

/// How many events a second become something else than acknowledged.
async fn moves(node: &Tidewire, server: &Server, what: &str, outcome: fn(&Delivery) -> Outcome) {
    let channel = channel(node, "bench", &what.replace(' ', "-"));
    let group = channel.group("bench", Start::Earliest).expect("a valid name");
    fill(&channel, MOVED).await;
    let (done, all) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let (work, start) = (work_of(std::slice::from_ref(server)), Instant::now());
    let counted = (done.clone(), all.clone());
    let handler = move |delivery: Delivery| {
        let outcome = outcome(&delivery);
        let is_over = !matches!(outcome, Outcome::Retry { .. });
        if is_over && counted.0.fetch_add(1, Ordering::Relaxed) + 1 == MOVED {
            counted.1.notify_one();
        }
        std::future::ready(outcome)
    };
    let consumer = group.consume().retries(Retries::default()).run(handler).await.expect("runs");
    all.notified().await;
    consumer.stop().await;
    let elapsed = start.elapsed();
    let cpu = work_of(std::slice::from_ref(server)).since(&work).cpu;
    println!(
        "{what:<18}{:>10.0} per second in all; server {:.2} us each, so at most {:.0} per second on its core",
        MOVED as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / MOVED as f64,
        MOVED as f64 / cpu.as_secs_f64()
    );
    group.delete("bench").await.expect("deleted");
}

/// How long a tenant's deliveries wait for a handler: alone, and beside a tenant that has flooded.
async fn fairness(node: &Tidewire) {
    let pool = node.pool(SLOTS);
    let (quiet, loud) = (channel(node, "quiet", "work"), channel(node, "loud", "work"));
    let group = loud.group("work", Start::Earliest).expect("a valid name");
    fill(&loud, FLOOD).await;
    let alone = quiet_tenant(&quiet, &pool).await;
    let handler = || async {
        tokio::time::sleep(HANDLING).await; // tidy: a handler that takes its time
        Outcome::Ack
    };
    let consumer = group.consume().pool(&pool, Share::default()).run(handler).await.expect("runs");
    let beside = quiet_tenant(&quiet, &pool).await;
    let handled = consumer.stats().acked;
    consumer.stop().await;
    println!(
        "a tenant of 100 events/s: p99 {:.2} ms from append to handler alone, {:.2} ms beside a flood of {FLOOD}, of which \
         {handled} were handled meanwhile: {:.2} x",
        alone.1,
        beside.1,
        beside.1 / alone.1
    );
}

/// Appends so many events.
async fn fill(channel: &Channel, count: u64) {
    let batcher = channel.batcher().events_max(1_000).start();
    let mut last = None;
    for _ in 0..count {
        last = Some(batcher.push(Event::new("bench", vec![b'x'; DATA_BYTES])).await.expect("taken"));
    }
    let _appended = last.expect("there are events").await.expect("all are confirmed");
}

async fn quiet_tenant(channel: &Channel, pool: &Pool) -> (f64, f64) {
    let waits = Waits::new();
    let noted = waits.clone();
    let handler = move |delivery: Delivery| {
        noted.note(&delivery);
        async {
            tokio::time::sleep(HANDLING).await; // tidy: a handler that takes its time
            Outcome::Ack
        }
    };
    let group = channel.group("work", Start::Latest).expect("a valid name");
    let consumer = group.consume().pool(pool, Share::default()).run(handler).await.expect("runs");
    at_rate(channel, &waits, 100).await;
    consumer.stop().await;
    group.delete("bench").await.expect("deleted");
    waits.quantiles()
}
