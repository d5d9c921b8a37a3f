//! What the embedded engines do per second, beside what the device and the system do in the same run.
//!
//! `cargo bench -p tidewire --bench embedded [-- DIRECTORY]`; without a directory, in one under the target directory,
//! because a temporary directory is often in memory.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidewire::clock::Stopwatch;
use tidewire::engine::embedded::{FileOptions, open_file, open_memory};
use tidewire::engine::{
    Announce, Append, Change, Commit, Durability, Engine, Heard, Opening, Range, Retention, Setup, Sink,
    Start, Turn,
};
use tidewire::name::{ChannelPath, GroupPath};
use tidewire::tasks::Tasks;
use tidewire::{Clock, Limits};

const EVENT_BYTES: usize = 256;
const BATCH: usize = 100;
const APPENDERS: usize = 64;
/// Time of one measurement.
const TIME: Duration = Duration::from_secs(3);
/// Events that are kept: enough to read, few enough to stay off the device while nobody asks for it.
const RETENTION: Retention = Retention { bytes_max: Some(400 * 1024 * 1024), ..Retention::BOUNDED };

fn main() {
    let directory = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let directory = directory.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../target").into());
    let directory = tempfile::tempdir_in(directory).expect("a directory to measure in");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!("embedded engines, events of {EVENT_BYTES} bytes, {} threads", cores());
    println!("{:<58}{:>14}{:>10}", "", "per second", "ratio");
    let device = Device::measure(directory.path());
    for name in ["memory", "file"] {
        runtime.block_on(measure(name, directory.path(), &device));
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Prints a row: what was measured, and how it compares to its limit.
fn row(what: &str, rate: f64, limit: Option<(f64, &str)>) {
    let ratio = limit.map_or(String::new(), |(limit, of)| format!("{:>10.2}  of {of}", rate / limit));
    println!("{what:<58}{rate:>14.0}{ratio}");
}

/// What the system and the device do without an engine, in events.
struct Device {
    /// Written to the system in batches.
    written: f64,
    /// Written and synced one at a time: the syncs that the device does.
    syncs: f64,
    /// Written and synced in what 64 batches make together.
    synced: f64,
}

impl Device {
    fn measure(directory: &Path) -> Self {
        let rate = |events: usize, sync: bool| {
            let bytes = vec![b'x'; EVENT_BYTES * events];
            let mut file = File::create(directory.join("raw")).expect("a file");
            let (watch, mut count) = (Stopwatch::start(), 0);
            while watch.elapsed() < TIME {
                file.write_all(&bytes).expect("written");
                if sync {
                    file.sync_data().expect("synced");
                }
                count += events;
                // Starts over before it is more than memory takes.
                if count % (1 << 20) < events {
                    file = File::create(directory.join("raw")).expect("a file");
                }
            }
            per_second(count as u64, &watch)
        };
        let device =
            Self { written: rate(BATCH, false), syncs: rate(1, true), synced: rate(BATCH * APPENDERS, true) };
        row("raw write, 100 events each", device.written, None);
        row("raw write + fdatasync, 1 event each (the device's syncs)", device.syncs, None);
        row("raw write + fdatasync, 6,400 events each", device.synced, None);
        device
    }
}

fn per_second(count: u64, watch: &Stopwatch) -> f64 {
    count as f64 / watch.elapsed().as_secs_f64()
}

async fn measure(name: &str, directory: &Path, device: &Device) {
    let engine = open(name, directory);
    let engine = &engine;
    let written = Some((device.written, "raw write"));
    let what = |what: &str| format!("{name}: {what}");

    let rate = append(engine, "batched", 1, BATCH, Durability::Fast).await;
    row(&what("append, batches of 100, 1 caller"), rate, written);
    let rate = append(engine, "batched", 4, BATCH, Durability::Fast).await;
    row(&what("append, batches of 100, 4 callers"), rate, written);
    let rate = append(engine, "single", APPENDERS, 1, Durability::Fast).await;
    row(&what("append, 1 event each, 64 callers"), rate, written);
    row(&what("read, pages of 1,000 from the oldest"), read(engine, "batched", 0).await, None);
    row(&what("read, pages of 1,000, the newest 100,000"), read(engine, "batched", 100_000).await, None);
    row(&what("follow: one appends batches, one reads"), follow(engine).await, written);
    for sessions in [1, 4, 16] {
        let rate = consume(engine, "batched", sessions).await;
        row(&what(&format!("consume, turns of 1,000, {sessions} sessions")), rate, None);
    }
    if engine.is_durable {
        let rate = append(engine, "synced", APPENDERS, 1, Durability::Fsynced).await;
        row(&what("append fsync'd, 1 event each, 64 callers"), rate, Some((device.syncs, "one sync each")));
        let rate = append(engine, "synced", APPENDERS, BATCH, Durability::Fsynced).await;
        row(&what("append fsync'd, batches of 100, 64 callers"), rate, Some((device.synced, "raw synced")));
    }
    assert!(engine.tasks.close(Duration::from_secs(60)).await, "the engine closes");
}

fn open(name: &str, directory: &Path) -> Engine {
    let setup = Setup {
        sink: Arc::new(Nobody),
        clock: Clock::system(),
        limits: Limits::default(),
        tasks: Tasks::new(),
    };
    match name {
        "memory" => open_memory(&setup),
        _ => open_file(&directory.join("engine"), &FileOptions::default(), &setup).expect("the engine opens"),
    }
}

struct Nobody;

impl Sink for Nobody {
    fn hear(&self, _heard: Heard) {}
}

fn channel(name: &str) -> ChannelPath {
    ChannelPath::new("bench", "default", name).expect("a valid name")
}

fn batch(channel: &ChannelPath, count: usize, durability: Durability) -> Vec<Append> {
    static EVENT: [u8; EVENT_BYTES] = [b'x'; EVENT_BYTES];
    let append = Append {
        channel: channel.clone(),
        envelope: Bytes::from_static(&EVENT),
        announce: Announce::Here,
        dedup: None,
        retention: RETENTION,
        durability,
        version: None,
        deliver_at: None,
    };
    vec![append; count]
}

/// Appends for a time from so many tasks, each in batches of `events`; confirmed events per second.
async fn append(engine: &Engine, name: &str, callers: usize, events: usize, durability: Durability) -> f64 {
    let (channel, count, watch) = (channel(name), Arc::new(AtomicU64::new(0)), Stopwatch::start());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (log, channel, count) = (Arc::clone(&engine.log), channel.clone(), Arc::clone(&count));
        tasks.spawn(async move {
            while watch.elapsed() < TIME {
                let outcomes = log.append(batch(&channel, events, durability)).await.expect("appended");
                assert!(outcomes.iter().all(Result::is_ok), "appended");
                count.fetch_add(events as u64, Ordering::Relaxed);
            }
        });
    }
    tasks.join_all().await;
    per_second(count.load(Ordering::Relaxed), &watch)
}

/// Reads the newest `newest` events, or all for 0, again and again for a time; events per second.
async fn read(engine: &Engine, name: &str, newest: u64) -> f64 {
    let (channel, watch, mut count) = (channel(name), Stopwatch::start(), 0);
    while watch.elapsed() < TIME {
        let bounds = engine.log.read(&channel, Range::BOUNDS).await.expect("read");
        let mut next = if newest == 0 { bounds.first } else { bounds.last - newest };
        while next <= bounds.last {
            let page = engine.log.read(&channel, Range::from(next, 1_000)).await.expect("read");
            count += page.events.len() as u64;
            next = page.events.last().expect("an event").offset + 1;
        }
    }
    per_second(count, &watch)
}

/// Appends for a time and reads beside it; events per second that were appended and read.
async fn follow(engine: &Engine) -> f64 {
    let channel = &channel("followed");
    let (watch, mut read) = (Stopwatch::start(), 0);
    let appending = append(engine, "followed", 1, BATCH, Durability::Fast);
    let reading = async {
        while watch.elapsed() < TIME {
            let page = engine.log.read(channel, Range::from(read + 1, 1_000)).await.expect("read");
            match page.events.last() {
                Some(last) => read = last.offset,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::join!(appending, reading);
    per_second(read, &watch)
}

/// Consumes for a time in so many sessions of one group, whose turns each settle what they have and claim the next 1,000
/// events; from the oldest again after the last. Settled events per second.
async fn consume(engine: &Engine, name: &str, sessions: usize) -> f64 {
    let group = GroupPath::new(channel(name), "workers").expect("a valid name");
    let opening = Opening { start: Start::Earliest, partitions: 0 };
    engine.log.group_open(&group, opening).await.expect("opened");
    let (count, watch) = (Arc::new(AtomicU64::new(0)), Stopwatch::start());
    let mut tasks = tokio::task::JoinSet::new();
    for session in 0..sessions {
        let (log, group, count) = (Arc::clone(&engine.log), group.clone(), Arc::clone(&count));
        tasks.spawn(async move {
            let mut turn = Turn {
                session: format!("s{session}").into(),
                lease: Duration::from_secs(5),
                claim: 1_000,
                ..Turn::default()
            };
            while watch.elapsed() < TIME {
                turn.number += 1;
                let turned = log.group_turn(&group, turn.clone()).await.expect("a turn");
                let held = turned.claimed.map_or(0, |(first, last)| last + 1 - first);
                assert_eq!(held, turned.events.len() as u64, "what is claimed is read");
                count.fetch_add(held, Ordering::Relaxed);
                let record = turn.session.clone();
                let settled = Commit { record, state: None, floor: u64::MAX, is_released: false };
                turn.commits = if held > 0 { vec![settled] } else { Vec::new() };
                if held == 0 {
                    let again = Change::Seek(Start::Earliest);
                    log.group_change(&group, again).await.expect("moved");
                }
            }
        });
    }
    tasks.join_all().await;
    engine.log.group_change(&group, Change::Delete).await.expect("deleted");
    per_second(count.load(Ordering::Relaxed), &watch)
}
