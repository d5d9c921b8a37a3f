//! Allocations per operation on Redis: how often, and how many bytes.
//!
//! `cargo xtask bench allocations`. A program of its own, because counting costs time; on one thread, because the
//! allocator counts by thread.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads its server from the environment")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tidewire::engine::{Announce, Append, Condition, Engine, Heard, Interest, Setup, Sink};
use tidewire::name::{ChannelPath, EntryPath};
use tidewire::tasks::Tasks;
use tidewire::{Channel, Clock, Durability, Event, Limits, Retention, Tidewire};
use tokio::runtime::Runtime;

const DATA: &[u8] = &[b'x'; 128];
/// Operations at once.
const TASKS: u64 = 64;
/// Of each task, before counting and while counting.
const OPERATIONS: u64 = 200;

/// An event without constraints, signature, seal or mark.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "bench.order", channel = "through", key = customer)]
struct Order {
    id: u64,
    customer: String,
    note: String,
}

#[derive(Default)]
struct Counted(AtomicU64);

impl Sink for Counted {
    fn hear(&self, heard: Heard) {
        if matches!(heard, Heard::Event { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn main() {
    let url = std::env::var("TIDEWIRE_TEST_REDIS_URL").expect(
        "TIDEWIRE_TEST_REDIS_URL is not set: run `cargo xtask bench allocations`, which starts the server",
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (engine, sink) = runtime.block_on(open(&url));
    let path = ChannelPath::new("dev", "bench", "allocations").expect("a valid name");
    let key = EntryPath::new("dev", "bench", "allocations").expect("a valid name");
    let node = runtime.block_on(Tidewire::open(&url)).expect("the node opens");
    let channel = node.tenant("bench").and_then(|tenant| tenant.channel("through")).expect("valid names");

    println!("{} bytes of data, {TASKS} tasks on one thread", DATA.len());
    println!("{:<28}{:>14}{:>10}", "", "allocations", "bytes");
    count(&runtime, "publish, engine", async || {
        engine.pubsub.publish(&path, Bytes::from_static(DATA)).await.expect("published");
    });
    count(&runtime, "publish, library", async || {
        channel.publish(Event::new("bench", Bytes::from_static(DATA))).await.expect("published");
    });
    count(&runtime, "append, engine", async || {
        let outcomes = engine.log.append(vec![plain(&path)]).await.expect("answered");
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    });
    count(&runtime, "append, library", async || append(&channel).await);
    let plain_order = Order { id: 7, customer: "customer-7".into(), note: "x".repeat(90) };
    let orders = node.tenant("bench").and_then(|tenant| tenant.events::<Order>()).expect("valid names");
    let data = Bytes::from(serde_json::to_vec(&plain_order).expect("JSON"));
    count(&runtime, "make an event, untyped", async || {
        black_box(Event::new("bench.order", data.clone()).with_key("customer-7"));
    });
    count(&runtime, "make an event, typed", async || {
        black_box(orders.event(&plain_order).expect("made"));
    });
    count(&runtime, "append, untyped, of JSON", async || {
        let event = Event::new("bench.order", data.clone()).with_key("customer-7");
        drop(channel.append(event).await.expect("confirmed"));
    });
    count(&runtime, "append, typed", async || {
        drop(orders.append(&plain_order).await.expect("confirmed"));
    });
    count(&runtime, "put, engine", async || {
        let value = Bytes::from_static(DATA);
        assert!(engine.store.put(&key, value, None, Condition::Always).await.expect("answered"));
    });
    count(&runtime, "get, engine", async || {
        assert!(engine.store.get(&key).await.expect("answered").is_some());
    });

    runtime.block_on(engine.pubsub.subscribe(vec![Interest::Channel(path.clone())])).expect("subscribed");
    count(&runtime, "publish and hear, engine", async || {
        engine.pubsub.publish(&path, Bytes::from_static(DATA)).await.expect("published");
    });
    let (published, heard) = (2 * TASKS * OPERATIONS, sink.0.load(Ordering::Relaxed));
    assert!(heard > published * 9 / 10, "{heard} of {published} events were heard");
}

async fn open(url: &str) -> (Engine, Arc<Counted>) {
    let sink = Arc::new(Counted::default());
    let (clock, limits, tasks) = (Clock::system(), Limits::default(), Tasks::new());
    let setup = Setup { sink: sink.clone(), clock, limits, tasks };
    (tidewire::engine::redis::open_redis(url, &setup).await.expect("the engine opens"), sink)
}

fn plain(channel: &ChannelPath) -> Append {
    Append {
        channel: channel.clone(),
        envelope: Bytes::from_static(DATA),
        announce: Announce::Here,
        dedup: None,
        retention: Retention { events_max: Some(10_000), ..Retention::default() },
        durability: Durability::Fast,
        version: None,
        deliver_at: None,
    }
}

async fn append(channel: &Channel) {
    let _receipt = channel.append(Event::new("bench", Bytes::from_static(DATA))).await.expect("confirmed");
}

/// Runs the operation until nothing is done for the first time any more, then counts.
fn count(runtime: &Runtime, what: &str, operation: impl AsyncFn()) {
    let run = || {
        let task = || async {
            for _ in 0..OPERATIONS {
                operation().await;
            }
        };
        runtime.block_on(join_all((0..TASKS).map(|_| task())));
    };
    run();
    let counted = allocation_counter::measure(run);
    let per_operation = |total: u64| total as f64 / (TASKS * OPERATIONS) as f64;
    let (allocations, bytes) = (per_operation(counted.count_total), per_operation(counted.bytes_total));
    println!("{what:<28}{allocations:>14.2}{bytes:>10.0}");
}
