//! Disks that are really full or read-only: small file systems in memory. Mounting one needs the rights of root; without
//! them a test says so and passes, and `engine/embedded/file/tests/faults.rs` stands in with injected faults.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tidewire::engine::embedded::{FileOptions, open_file};
use tidewire::engine::{
    Announce, Append, Appended, Condition, Durability, Engine, Heard, Range, Retention, Setup, Sink,
};
use tidewire::name::{ChannelPath, EntryPath};
use tidewire::tasks::Tasks;
use tidewire::{Clock, Error, ErrorKind, Limits, Result};

/// A file system of its own, for as long as the test runs.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tidewire-test"])
            .arg(directory.path())
            .output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(directory));
        }
        println!("skipped: a small file system cannot be mounted; run the test as root");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.path().display());
    }
}

struct Nobody;

impl Sink for Nobody {
    fn hear(&self, _heard: Heard) {}
}

fn open(directory: &Path) -> Result<Engine> {
    let mut options = FileOptions::default();
    options.segment_bytes = 1024 * 1024;
    let setup = Setup {
        sink: Arc::new(Nobody),
        clock: Clock::system(),
        limits: Limits::default(),
        tasks: Tasks::new(),
    };
    open_file(directory, &options, &setup)
}

fn channel(name: &str) -> ChannelPath {
    ChannelPath::new("test", "default", name).expect("a valid name")
}

async fn append(engine: &Engine, name: &str, data: String) -> Result<Appended> {
    let append = Append {
        channel: channel(name),
        envelope: data.into(),
        announce: Announce::Here,
        dedup: None,
        retention: Retention::default(),
        durability: Durability::Fast,
        version: None,
        deliver_at: None,
    };
    engine.log.append(vec![append]).await?.pop().expect("an outcome")
}

fn assert_says_full(error: &Error, directory: &Path) {
    assert_eq!(error.kind(), ErrorKind::Engine, "{error}");
    let text = error.to_string();
    assert!(text.contains("disk is full") && text.contains(&*directory.to_string_lossy()), "{text}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_confirmed_is_lost() {
    let Some(disk) = SmallDisk::mount("size=8m") else { return };
    let directory = disk.0.path().join("engine");
    let engine = open(&directory).unwrap();
    let epoch = engine.log.read(&channel("orders"), Range::BOUNDS).await.unwrap().epoch;
    let data = |n: u64| format!("{n} {}", "x".repeat(10_000));
    let mut confirmed = 0;
    let error = loop {
        match append(&engine, "orders", data(confirmed + 1)).await {
            Ok(appended) => {
                confirmed += 1;
                assert_eq!(appended.position.unwrap().offset, confirmed);
            }
            Err(error) => break error,
        }
    };
    assert!(confirmed > 100, "{confirmed}");
    assert_says_full(&error, &directory);
    // Whatever still fits: in the end neither a stream nor an entry can be created.
    let error = loop {
        if let Err(error) = append(&engine, "orders", "x".into()).await {
            break error;
        }
        confirmed += 1;
    };
    assert_says_full(&error, &directory);
    let key = EntryPath::new("test", "default", "key").unwrap();
    let large = vec![b'v'; 2 * 1024 * 1024];
    let put = engine.store.put(&key, large.into(), None, Condition::Always).await;
    assert_says_full(&put.unwrap_err(), &directory);
    assert_eq!(engine.store.get(&key).await.unwrap(), None);

    let page = engine.log.read(&channel("orders"), Range::from(1, 1)).await.unwrap();
    assert_eq!((page.epoch, page.last), (epoch, confirmed));
    let trimmed = engine.log.trim(&channel("orders"), confirmed - 10).await.unwrap();
    assert_eq!(trimmed.first, confirmed - 10);
    for (name, offset) in [("orders", confirmed + 1), ("new", 1)] {
        let appended = append(&engine, name, "there is room again".into()).await.unwrap();
        assert_eq!(appended.position.unwrap().offset, offset);
    }
    assert!(engine.store.put(&key, "small".into(), None, Condition::Always).await.unwrap());
    assert!(engine.tasks.close(Duration::from_secs(10)).await);
    drop(engine);

    let engine = open(&directory).unwrap();
    let page = engine.log.read(&channel("orders"), Range::from(1, 1_000)).await.unwrap();
    assert_eq!((page.epoch, page.first, page.last), (epoch, confirmed - 10, confirmed + 1));
    assert_eq!(page.events.len(), 12);
    assert_eq!(engine.store.get(&key).await.unwrap().unwrap(), "small");
    assert!(engine.tasks.close(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_read_only_disk_says_what_to_change() {
    let Some(disk) = SmallDisk::mount("size=1m,ro") else { return };
    for directory in [disk.0.path().to_owned(), disk.0.path().join("engine")] {
        let error = open(&directory).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Engine);
        let text = error.to_string();
        assert!(text.contains("must be writable") && text.contains(directory.to_str().unwrap()), "{text}");
    }
}
