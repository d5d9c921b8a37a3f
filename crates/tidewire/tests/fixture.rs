//! Reads a directory that format 1 has written: what was stored once can be read for ever.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidewire::engine::embedded::{FileOptions, open_file};
use tidewire::engine::{
    Announce, Append, Condition, Dedup, Durability, Engine, Heard, Range, Retention, Setup, Sink,
};
use tidewire::name::{ChannelPath, EntryPath};
use tidewire::tasks::Tasks;
use tidewire::{Clock, Limits, Timestamp};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const WINDOW: Duration = Duration::from_secs(3_600);
const EPOCH_FILE: &str = "EPOCH";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/file-v1")
}

struct Nobody;

impl Sink for Nobody {
    fn hear(&self, _heard: Heard) {}
}

fn open(directory: &Path, clock: &Clock) -> Engine {
    let mut options = FileOptions::default();
    options.segment_bytes = 4 * 1024;
    let setup = Setup {
        sink: Arc::new(Nobody),
        clock: clock.clone(),
        limits: Limits::default(),
        tasks: Tasks::new(),
    };
    open_file(directory, &options, &setup).expect("the engine opens")
}

fn channel(name: &str) -> ChannelPath {
    ChannelPath::new("prod", "org-123", name).expect("a valid name")
}

fn entry() -> EntryPath {
    EntryPath::new("prod", "org-123", "session:7").expect("a valid name")
}

fn append(name: &str, data: String) -> Append {
    Append {
        channel: channel(name),
        envelope: data.into(),
        announce: Announce::Here,
        dedup: None,
        retention: Retention::default(),
        durability: Durability::Fast,
        deliver_at: None,
    }
}

fn order(n: u64) -> String {
    format!("order {n} {}", "x".repeat(60))
}

fn order_42() -> Append {
    let dedup = Some(Dedup { id: "order-42".into(), window: WINDOW });
    Append { dedup, ..append("orders", order(42)) }
}

/// When the scheduled event is due.
fn due() -> Timestamp {
    START.saturating_add(Duration::from_secs(60))
}

#[tokio::test]
async fn a_directory_of_format_1_has_all_that_was_stored() {
    let directory = tempfile::tempdir().unwrap();
    let copied = copy(&fixture(), directory.path());
    assert!(copied > 5, "{copied} files");
    let clock = Clock::virtual_at(START);
    let engine = open(directory.path(), &clock);
    let epoch = std::fs::read_to_string(fixture().join(EPOCH_FILE)).unwrap();

    let page = engine.log.read(&channel("orders"), Range::from(1, 1_000)).await.unwrap();
    assert_eq!((page.epoch.to_string().as_str(), page.first, page.last), (epoch.trim(), 1, 100));
    for (event, n) in page.events.iter().zip(1..) {
        assert_eq!((event.offset, event.time, &*event.envelope), (n, START, order(n).as_bytes()));
    }
    let again = engine.log.append(vec![order_42()]).await.unwrap().remove(0).unwrap();
    assert_eq!((again.position.unwrap().offset, again.is_duplicate), (42, true));

    let page = engine.log.read(&channel("trimmed"), Range::from(0, 10)).await.unwrap();
    assert_eq!((page.first, page.last, page.events.len()), (4, 3, 0));
    let page = engine.log.read(&channel("kept"), Range::from(0, 10)).await.unwrap();
    assert_eq!((page.first, page.last, page.events.len()), (2, 3, 2));
    assert_eq!(engine.store.get(&entry()).await.unwrap().unwrap(), "ann");

    clock.advance(Duration::from_secs(60));
    while engine.log.read(&channel("later"), Range::BOUNDS).await.unwrap().last == 0 {
        tokio::task::yield_now().await;
    }
    let page = engine.log.read(&channel("later"), Range::from(1, 10)).await.unwrap();
    assert_eq!((page.events[0].time, &*page.events[0].envelope), (due(), b"later".as_slice()));
    assert!(engine.tasks.close(Duration::from_secs(10)).await);
}

/// Copies a directory; how many files that were.
fn copy(from: &Path, to: &Path) -> usize {
    std::fs::create_dir_all(to).expect("copied");
    let mut count = 0;
    for entry in std::fs::read_dir(from).expect("copied") {
        let entry = entry.expect("copied");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("copied").is_dir() {
            count += copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copied");
            count += 1;
        }
    }
    count
}

#[tokio::test]
#[ignore = "writes the fixture of a new format: a written one does not change"]
async fn writes_the_fixture() {
    let directory = fixture();
    assert!(!directory.exists(), "{} is there: a fixture does not change", directory.display());
    let clock = Clock::virtual_at(START);
    let engine = open(&directory, &clock);
    let mut batch: Vec<_> = (1..=100).map(|n| append("orders", order(n))).collect();
    batch[41] = order_42();
    let retention = Retention {
        events_max: Some(2),
        age_max: Some(WINDOW),
        bytes_max: Some(1 << 20),
        ..Retention::default()
    };
    batch.extend((1..=3).map(|n| Append { retention, ..append("kept", n.to_string()) }));
    batch.extend((1..=3).map(|n| append("trimmed", n.to_string())));
    batch.push(Append { deliver_at: Some(due()), ..append("later", "later".into()) });
    for outcome in engine.log.append(batch).await.unwrap() {
        outcome.unwrap();
    }
    engine.log.trim(&channel("trimmed"), u64::MAX).await.unwrap();
    assert!(engine.store.put(&entry(), "ann".into(), Some(WINDOW), Condition::Always).await.unwrap());
    let epoch = engine.log.read(&channel("orders"), Range::BOUNDS).await.unwrap().epoch;
    std::fs::write(directory.join(EPOCH_FILE), format!("{epoch}\n")).unwrap();
    assert!(engine.tasks.close(Duration::from_secs(10)).await);
    std::fs::remove_file(directory.join("LOCK")).unwrap();
}
