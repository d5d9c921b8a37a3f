//! What a full, broken, locked or foreign disk does.

use std::path::Path;
use std::time::Duration;

use super::super::{FileOptions, Fsync, open_file};
use super::rig::{Heards, Rig, append, dedup, path, setup};
use crate::engine::{Append, Durability, Effect, Interest, Range, Version};
use crate::{Clock, Error, ErrorKind};

fn refused(directory: &Path) -> Error {
    let heard = std::sync::Arc::new(Heards::default());
    open_file(directory, &FileOptions::default(), &setup(&Clock::system(), &heard)).err().unwrap()
}

#[tokio::test]
async fn a_full_disk_keeps_what_was_confirmed_and_goes_on_when_there_is_room() {
    let rig = Rig::new();
    rig.engine.pubsub.subscribe(vec![Interest::Channel(path("orders"))]).await.unwrap();
    rig.append_all("orders", (1..=3).map(|n| n.to_string())).await;
    for room in [0, 10, 40] {
        rig.disk.files.faults.leave_room(room);
        let failing = Append { dedup: dedup("once", Duration::from_secs(60)), ..append("orders", "4") };
        let error = rig.append(failing).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Engine);
        let text = error.to_string();
        assert!(
            text.contains("disk is full") && text.contains(rig.directory.path().to_str().unwrap()),
            "{text}"
        );
        assert_eq!(rig.read_all("orders").await.len(), 3);
    }
    let error = rig.append(append("new", "1")).await.unwrap_err();
    assert!(error.to_string().contains("disk is full"), "{error}");
    rig.disk.files.faults.leave_room(usize::MAX);
    let retried = Append { dedup: dedup("once", Duration::from_secs(60)), ..append("orders", "4") };
    let appended = rig.append(retried).await.unwrap();
    assert_eq!((appended.position.unwrap().offset, appended.effect), (4, Effect::New));
    assert_eq!(rig.append(append("new", "1")).await.unwrap().position.unwrap().offset, 1);
    assert_eq!(rig.heard.0.lock().len(), 4, "what was not appended is not announced");
    let epoch = rig.disk.epoch;
    let rig = rig.reopen().await;
    assert_eq!(rig.read_all("orders").await.len(), 4);
    assert_eq!(rig.read("orders", Range::BOUNDS).await.epoch, epoch);
}

#[tokio::test]
async fn a_version_that_could_not_be_written_may_be_told_again() {
    let rig = Rig::new();
    let versioned = |number, durability| {
        let version = Some(Version { epoch: "".into(), number });
        Append { version, durability, ..append("orders", number.to_string()) }
    };
    let fast = |number| versioned(number, Durability::Fast);
    rig.append(fast(1)).await.unwrap();
    rig.disk.files.faults.leave_room(10);
    let outcomes = rig.engine.log.append(vec![fast(7), fast(6), fast(1)]).await.unwrap();
    let effects: Vec<_> = outcomes.into_iter().map(|outcome| outcome.ok().map(|done| done.effect)).collect();
    assert_eq!(effects, [None, None, None], "what made the others stale is not there");
    rig.disk.files.faults.leave_room(usize::MAX);
    assert_eq!(rig.append(fast(5)).await.unwrap().effect, Effect::New);
    rig.disk.files.faults.fail_syncs(true);
    rig.append(versioned(9, Durability::Fsynced)).await.unwrap_err();
    rig.disk.files.faults.fail_syncs(false);
    let rig = rig.reopen().await;
    assert_eq!(rig.append(fast(8)).await.unwrap().effect, Effect::New);
}

#[tokio::test]
async fn a_batch_that_does_not_fit_has_an_outcome_for_each_entry() {
    let rig = Rig::with(FileOptions { segment_bytes: 2_000, ..FileOptions::default() });
    rig.disk.files.faults.leave_room(5_000);
    let batch = (0..100).map(|_| append("orders", "x".repeat(100))).collect();
    let outcomes = rig.engine.log.append(batch).await.unwrap();
    let confirmed = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!((1..100).contains(&confirmed), "{confirmed}");
    assert!(outcomes[confirmed..].iter().all(Result::is_err));
    assert_eq!(rig.read_all("orders").await.len(), confirmed);
    rig.disk.files.faults.leave_room(usize::MAX);
    let rig = rig.reopen().await;
    assert_eq!(rig.read_all("orders").await.len(), confirmed);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_confirmed_until_it_is_opened_again() {
    let rig = Rig::new();
    rig.append(append("orders", "1")).await.unwrap();
    rig.disk.files.faults.fail_syncs(true);
    let synced = || Append { durability: Durability::Fsynced, ..append("orders", "2") };
    assert_eq!(rig.append(synced()).await.unwrap_err().kind(), ErrorKind::Engine);
    rig.disk.files.faults.fail_syncs(false);
    let probes = rig.engine.pubsub.probe().await.unwrap();
    assert!(probes.iter().any(|probe| probe.outcome.is_err()), "{probes:?}");
    assert_eq!(rig.append(synced()).await.unwrap_err().kind(), ErrorKind::Engine);
    assert_eq!(rig.append(append("other", "1")).await.unwrap_err().kind(), ErrorKind::Engine);
    assert_eq!(rig.read_all("orders").await, [(1, "1".to_owned())]);
    let epoch = rig.disk.epoch;
    let rig = rig.reopen().await;
    assert_ne!(rig.disk.epoch, epoch);
    assert_eq!(rig.append(synced()).await.unwrap().position.unwrap().offset, 2);
}

#[tokio::test]
async fn an_interval_syncs_on_the_clock() {
    let interval = Duration::from_secs(1);
    let rig = Rig::with(FileOptions { fsync: Fsync::Every(interval), ..FileOptions::default() });
    rig.append(append("orders", "1")).await.unwrap();
    rig.disk.files.faults.fail_syncs(true);
    // The sync fails once the clock comes to it, and then nothing is appended any more.
    while rig.append(append("orders", "2")).await.is_ok() {
        rig.clock.advance(interval);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_directory_that_is_in_use_says_by_whom() {
    let rig = Rig::new();
    let error = refused(rig.directory.path());
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let text = error.to_string();
    assert!(text.contains(rig.directory.path().to_str().unwrap()), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    rig.close().await;
    rig.open();
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = refused(&file.join("data"));
    assert_eq!(error.kind(), ErrorKind::Engine);
    assert!(error.to_string().contains("cannot create directory"), "{error}");
    // Even root cannot write there.
    let text = refused(Path::new("/proc/tidewire")).to_string();
    assert!(text.contains("/proc/tidewire"), "{text}");
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.txt"), "precious").unwrap();
    assert!(refused(directory.path()).to_string().contains("not empty"));
    let rig = Rig::new();
    rig.close().await;
    std::fs::write(rig.directory.path().join("FORMAT"), "tidewire file engine, format 4\n").unwrap();
    assert!(refused(rig.directory.path()).to_string().contains("format 3"));
    std::fs::remove_file(rig.directory.path().join("FORMAT")).unwrap();
    std::fs::create_dir_all(rig.disk.stream(1)).unwrap();
    assert!(refused(rig.directory.path()).to_string().contains("has streams but no FORMAT"));
}

#[tokio::test]
async fn what_an_engine_with_one_copy_cannot_promise_is_refused() {
    let rig = Rig::new();
    let batch = vec![
        Append { durability: Durability::Replicated(1), ..append("orders", "1") },
        append("orders", "2"),
        Append { dedup: dedup(&"x".repeat(256), Duration::from_secs(1)), ..append("orders", "3") },
    ];
    let outcomes = rig.engine.log.append(batch).await.unwrap();
    let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [Some(ErrorKind::Engine), None, Some(ErrorKind::TooLarge)]);
    let too_many = (0..1_001).map(|_| append("orders", "x")).collect();
    assert_eq!(rig.engine.log.append(too_many).await.unwrap_err().kind(), ErrorKind::TooLarge);
    rig.close().await;
    assert_eq!(rig.append(append("orders", "4")).await.unwrap_err().kind(), ErrorKind::Closed);
}
