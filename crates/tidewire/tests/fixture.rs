//! Reads directories that this and earlier formats have written: what was stored once can be read for ever.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidewire::engine::embedded::{FileOptions, open_file};
use tidewire::engine::{
    Announce, Append, AtBound, Change, Commit, Condition, Dedup, Durability, Effect, Engine, Heard, Listing,
    Opening, Range, Retention, Setup, Shelf, ShelfItem, Sink, Start, Turn, Version,
};
use tidewire::name::{ChannelPath, EntryPath, GroupPath};
use tidewire::tasks::Tasks;
use tidewire::{Clock, ErrorKind, Limits, Position, Timestamp};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const WINDOW: Duration = Duration::from_secs(3_600);
const EPOCH_FILE: &str = "EPOCH";

fn fixture(version: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/file-v{version}"))
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
        version: None,
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

fn versioned(number: u64) -> Append {
    Append { version: Some(Version { epoch: "june".into(), number }), ..append("versions", order(number)) }
}

/// When the scheduled event is due.
fn due() -> Timestamp {
    START.saturating_add(Duration::from_secs(60))
}

fn group() -> GroupPath {
    GroupPath::new(channel("orders"), "workers").expect("a valid name")
}

#[tokio::test]
async fn a_directory_of_format_1_has_all_that_was_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, clock) = open_copy(1, directory.path());
    check_streams_and_entries(1, &engine, &clock).await;
    let none = engine.log.group_stats(&group()).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
    let opening = Opening { start: Start::Earliest, partitions: 0 };
    assert!(engine.log.group_open(&group(), opening).await.unwrap().is_new);
    assert!(engine.tasks.close(Duration::from_secs(10)).await);
    let format = std::fs::read_to_string(directory.path().join("FORMAT")).unwrap();
    assert_eq!(format, "tidewire file engine, format 3\n", "a program without groups must not open it");
    drop(engine);
    let engine = open(directory.path(), &clock);
    assert_eq!(engine.log.group_stats(&group()).await.unwrap().next, 1);
    assert!(engine.tasks.close(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_directory_of_format_2_has_all_that_was_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, clock) = open_copy(2, directory.path());
    let effect = |number| append_effect(&engine, versioned(number));
    assert_eq!((effect(1).await, effect(1).await), (Effect::New, Effect::Stale), "it had no versions");
    check_groups(&engine, 1).await;
    check_streams_and_entries(2, &engine, &clock).await;
    assert!(engine.tasks.close(Duration::from_secs(10)).await);
    let format = std::fs::read_to_string(directory.path().join("FORMAT")).unwrap();
    assert_eq!(format, "tidewire file engine, format 3\n", "to a program without versions they are damage");
}

#[tokio::test]
async fn a_directory_of_format_3_has_all_that_was_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, clock) = open_copy(3, directory.path());
    let effect = |number| append_effect(&engine, versioned(number));
    assert_eq!((effect(7).await, effect(8).await), (Effect::Stale, Effect::New));
    check_groups(&engine, 3).await;
    check_streams_and_entries(3, &engine, &clock).await;
    assert!(engine.tasks.close(Duration::from_secs(10)).await);
}

async fn append_effect(engine: &Engine, append: Append) -> Effect {
    engine.log.append(vec![append]).await.expect("taken").remove(0).expect("confirmed").effect
}

/// `fence` is that of the session which comes; the adopted records have the next ones.
async fn check_groups(engine: &Engine, fence: u64) {
    let stats = engine.log.group_stats(&group()).await.expect("it is there");
    assert_eq!((stats.next, stats.floor, stats.partitions, stats.generation), (21, 6, 0, (2, 6)));
    assert_eq!(stats.items, [1, 1, 0, 0]);
    let turn = Turn { adopt: 9, lookups: vec!["handled".into()], ..turn("later", 1) };
    let turned = engine.log.group_turn(&group(), turn).await.expect("it is there");
    let found: Vec<_> =
        turned.adopted.iter().map(|record| (&*record.name, &*record.state, record.fence)).collect();
    assert_eq!(found, [("first", b"6 to 10".as_slice(), fence + 1), ("second", b"".as_slice(), fence + 2)]);
    let lost: Vec<_> = turned.adopted.iter().map(|record| (&*record.claims, record.was_lost)).collect();
    assert_eq!(lost, [([].as_slice(), false), ([(11, 20)].as_slice(), true)]);
    assert_eq!(turned.marked, [true]);
    let items = engine
        .log
        .group_items(&group(), Shelf::Dead, Listing::After("".into(), 9))
        .await
        .expect("it is there");
    assert_eq!(items, [item(Shelf::Dead)]);
    let ordered = GroupPath::new(channel("orders"), "ordered").expect("it is there");
    let stats = engine.log.group_stats(&ordered).await.expect("it is there");
    assert_eq!((stats.partitions, stats.records.len(), stats.floor), (4, 4, 101));
    let full = Append { retention: REJECT, ..append("bounded", "3".into()) };
    let refused =
        engine.log.append(vec![full]).await.expect("it is there").remove(0).expect_err("it is full");
    assert_eq!(refused.kind(), ErrorKind::Backpressure);
}

/// Opens a copy of a fixture.
fn open_copy(version: u8, directory: &Path) -> (Engine, Clock) {
    let copied = copy(&fixture(version), directory);
    assert!(copied > 5, "{copied} files");
    let clock = Clock::virtual_at(START);
    (open(directory, &clock), clock)
}

async fn check_streams_and_entries(version: u8, engine: &Engine, clock: &Clock) {
    let epoch = std::fs::read_to_string(fixture(version).join(EPOCH_FILE)).expect("it is there");

    let page = engine.log.read(&channel("orders"), Range::from(1, 1_000)).await.expect("it is there");
    assert_eq!((page.epoch.to_string().as_str(), page.first, page.last), (epoch.trim(), 1, 100));
    for (event, n) in page.events.iter().zip(1..) {
        assert_eq!((event.offset, event.time, &*event.envelope), (n, START, order(n).as_bytes()));
    }
    let again =
        engine.log.append(vec![order_42()]).await.expect("it is there").remove(0).expect("it is there");
    assert_eq!((again.position.expect("it is there").offset, again.effect), (42, Effect::Duplicate));

    let page = engine.log.read(&channel("trimmed"), Range::from(0, 10)).await.expect("it is there");
    assert_eq!((page.first, page.last, page.events.len()), (4, 3, 0));
    let page = engine.log.read(&channel("kept"), Range::from(0, 10)).await.expect("it is there");
    assert_eq!((page.first, page.last, page.events.len()), (2, 3, 2));
    assert_eq!(engine.store.get(&entry()).await.expect("it is there").expect("it is there"), "ann");

    clock.advance(Duration::from_secs(60));
    while engine.log.read(&channel("later"), Range::BOUNDS).await.expect("it is there").last == 0 {
        tokio::task::yield_now().await;
    }
    let page = engine.log.read(&channel("later"), Range::from(1, 10)).await.expect("it is there");
    let [event] = page.events.as_slice() else { panic!("{:?}", page.events) };
    assert_eq!((event.time, &*event.envelope), (due(), b"later".as_slice()));
}

const REJECT: Retention =
    Retention { events_max: Some(2), age_max: None, bytes_max: None, at_bound: AtBound::Reject };

fn turn(session: &str, number: u64) -> Turn {
    Turn { session: session.into(), number, lease: WINDOW, ..Turn::default() }
}

fn item(shelf: Shelf) -> ShelfItem {
    ShelfItem { shelf, key: "key".into(), bytes: "bytes".into() }
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
    let directory = fixture(3);
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
    batch.push(versioned(7));
    batch.extend((1..=100).map(|n| append("versions", order(n))));
    batch.push(Append { deliver_at: Some(due()), ..append("later", "later".into()) });
    for outcome in engine.log.append(batch).await.unwrap() {
        outcome.unwrap();
    }
    engine.log.trim(&channel("trimmed"), u64::MAX).await.unwrap();
    assert!(engine.store.put(&entry(), "ann".into(), Some(WINDOW), Condition::Always).await.unwrap());
    write_groups(&engine).await;
    let epoch = engine.log.read(&channel("orders"), Range::BOUNDS).await.unwrap().epoch;
    std::fs::write(directory.join(EPOCH_FILE), format!("{epoch}\n")).unwrap();
    assert!(engine.tasks.close(Duration::from_secs(10)).await);
    std::fs::remove_file(directory.join("LOCK")).unwrap();
}

async fn write_groups(engine: &Engine) {
    let log = &engine.log;
    let (start, partitions) = (Start::Earliest, 0);
    log.group_open(&group(), Opening { start, partitions }).await.expect("written");
    let sixth = Position {
        epoch: log.read(&channel("orders"), Range::BOUNDS).await.expect("written").epoch,
        offset: 6,
    };
    log.group_change(&group(), Change::Seek(Start::At(sixth))).await.expect("written");
    log.group_turn(&group(), Turn { claim: 5, ..turn("first", 1) }).await.expect("written");
    log.group_turn(&group(), Turn { claim: 10, ..turn("second", 1) }).await.expect("written");
    let state = Some("6 to 10".into());
    let last = Turn {
        commits: vec![Commit { record: "first".into(), state, floor: 6, is_released: false }],
        puts: vec![item(Shelf::Dead), item(Shelf::Waiting)],
        marks: vec![Dedup { id: "handled".into(), window: WINDOW }],
        is_last: true,
        ..turn("first", 2)
    };
    log.group_turn(&group(), last).await.expect("written");
    let ordered = GroupPath::new(channel("orders"), "ordered").expect("written");
    log.group_open(&ordered, Opening { start: Start::Latest, partitions: 4 }).await.expect("written");
    let bounded = GroupPath::new(channel("bounded"), "workers").expect("written");
    log.group_open(&bounded, Opening { start, partitions }).await.expect("written");
    let batch = (1..=2).map(|n| Append { retention: REJECT, ..append("bounded", n.to_string()) });
    for outcome in log.append(batch.collect()).await.expect("written") {
        outcome.expect("written");
    }
}
