//! Publish and append on Redis, at 1, 64 and 1,024 concurrent tasks, beside what the server can do: the rate that
//! `redis-benchmark` reaches with plain commands at the same depth, measured in turns in the same run.
//!
//! `cargo xtask bench redis`. Needs `redis-benchmark` in the path.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads its server from the environment and spawns its load"
)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire::engine::{Announce, Append, Engine, Heard, Setup, Sink};
use tidewire::name::ChannelPath;
use tidewire::tasks::Tasks;
use tidewire::{Clock, Durability, Event, Limits, Retention, Tidewire};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1_200);
const DATA_BYTES: usize = 128;
const STREAM_EVENTS_MAX: u64 = 10_000;

/// Concurrent tasks, and the clients and depth of `redis-benchmark` that they are measured against.
const DEPTHS: [(usize, &str, &str); 3] = [(1, "1", "1"), (64, "1", "64"), (1_024, "50", "64")];

struct Deaf;

impl Sink for Deaf {
    fn hear(&self, _heard: Heard) {}
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let url = std::env::var("TIDEWIRE_TEST_REDIS_URL")
        .expect("TIDEWIRE_TEST_REDIS_URL is not set: run `cargo xtask bench`, which starts the server");
    let setup = Setup {
        sink: Arc::new(Deaf),
        clock: Clock::system(),
        limits: Limits::default(),
        tasks: Tasks::new(),
    };
    let engine = Arc::new(tidewire::engine::redis::open_redis(&url, &setup).await.expect("the engine opens"));
    let node = Tidewire::open(&url).await.expect("the node opens");
    let channel = node.tenant("bench").and_then(|tenant| tenant.channel("live")).expect("valid names");
    println!("{DATA_BYTES} bytes of data, median of {ROUNDS} rounds of {ROUND:?}, thousands per second");
    println!("{:<28}{:>8}{:>10}{:>18}{:>8}", "", "tasks", "rate", "redis-benchmark", "ratio");
    for (tasks, clients, depth) in DEPTHS {
        let limit = |command: &[&str]| redis_benchmark(&url, clients, depth, command);
        let data = "x".repeat(DATA_BYTES);
        let plain_publish = ["PUBLISH", "bench:limit", &data];
        let plain_append = ["XADD", "bench:limit", "MAXLEN", "~", "10000", "*", "e", &data];
        let shared = engine.clone();
        compare("publish, engine", tasks, || limit(&plain_publish), move || publish(shared.clone())).await;
        let through = channel.clone();
        let publish_event = move || {
            let channel = through.clone();
            async move { channel.publish(Event::new("bench", vec![b'x'; DATA_BYTES])).await.expect("sent") }
        };
        compare("publish, library", tasks, || limit(&plain_publish), publish_event).await;
        let shared = engine.clone();
        compare("append, engine", tasks, || limit(&plain_append), move || append(shared.clone())).await;
        let through = channel.clone();
        let append_event = move || {
            let channel = through.clone();
            async move {
                let kept = Retention { events_max: Some(STREAM_EVENTS_MAX), ..Retention::default() };
                let event = Event::new("bench", vec![b'x'; DATA_BYTES]);
                let _receipt = channel.append(event).retention(kept).await.expect("confirmed");
            }
        };
        compare("append, library", tasks, || limit(&plain_append), append_event).await;
    }
}

async fn publish(engine: Arc<Engine>) {
    let path = ChannelPath::new("dev", "bench", "live").expect("a valid name");
    engine.pubsub.publish(&path, Bytes::from_static(&[b'x'; DATA_BYTES])).await.expect("published");
}

async fn append(engine: Arc<Engine>) {
    let append = Append {
        channel: ChannelPath::new("dev", "bench", "kept").expect("a valid name"),
        envelope: Bytes::from_static(&[b'x'; DATA_BYTES]),
        announce: Announce::Here,
        dedup: None,
        retention: Retention { events_max: Some(STREAM_EVENTS_MAX), ..Retention::default() },
        durability: Durability::Fast,
        deliver_at: None,
    };
    let outcomes = engine.log.append(vec![append]).await.expect("answered");
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

/// Measures ours and the limit in turns and prints the medians.
async fn compare<F, Fut>(what: &str, tasks: usize, limit: impl Fn() -> f64, operation: F)
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        limits.push(tokio::task::block_in_place(&limit));
        ours.push(rate(tasks, operation.clone()).await);
    }
    let (ours, limit) = (median(ours), median(limits));
    println!("{what:<28}{tasks:>8}{:>10.1}{:>18.1}{:>8.2}", ours / 1e3, limit / 1e3, ours / limit);
}

/// Operations per second of so many tasks that do one after the other.
async fn rate<F, Fut>(tasks: usize, operation: F) -> f64
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (done, stop, operation) = (done.clone(), stop.clone(), operation.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    operation().await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let start = Instant::now();
    tokio::time::sleep(ROUND).await; // tidy: a rate is measured over time
    let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in running {
        task.await.expect("no operation failed");
    }
    rate
}

/// Requests per second of `redis-benchmark`, for about as long as one of our rounds.
fn redis_benchmark(url: &str, clients: &str, depth: &str, command: &[&str]) -> f64 {
    let address = url.trim_start_matches("redis://").split('/').next().unwrap_or_default();
    let (host, port) = address.rsplit_once(':').expect("the URL has a port");
    let requests = match depth {
        "1" => "20000",
        _ => "1000000",
    };
    let output = Command::new("redis-benchmark")
        .args(["-h", host, "-p", port, "-c", clients, "-P", depth, "-n", requests, "--csv"])
        .args(command)
        .output()
        .expect("redis-benchmark runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    // The test's name is quoted and holds the command, which has no quotes; the rate is the next column.
    let rate = line.split("\",\"").nth(1).and_then(|field| field.trim_matches('"').parse().ok());
    rate.unwrap_or_else(|| panic!("redis-benchmark printed {text}"))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}
