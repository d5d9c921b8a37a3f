//! Entries in the database.

use std::sync::Arc;
use std::time::Duration;

use redb::ReadableTableMetadata;

use super::super::state::{ENTRIES, EXPIRIES};
use super::rig::Rig;
use crate::ErrorKind;
use crate::engine::Condition::{Absent, Always, Equals, Present};
use crate::name::EntryPath;

fn key(key: &str) -> EntryPath {
    EntryPath::new("dev", "default", key).unwrap()
}

#[tokio::test]
async fn an_entry_survives_a_restart_until_it_expires() {
    let rig = Rig::new();
    let store = &rig.engine.store;
    let ttl = Duration::from_secs(60);
    assert!(store.put(&key("kept"), "1".into(), None, Always).await.unwrap());
    assert!(store.put(&key("short"), "2".into(), Some(ttl), Always).await.unwrap());
    assert!(store.put(&key("gone"), "3".into(), None, Always).await.unwrap());
    assert!(store.remove(&key("gone")).await.unwrap());
    assert!(!store.remove(&key("gone")).await.unwrap());
    let rig = rig.reopen().await;
    let store = &rig.engine.store;
    assert_eq!(store.get(&key("kept")).await.unwrap().unwrap(), "1");
    assert_eq!(store.get(&key("short")).await.unwrap().unwrap(), "2");
    assert_eq!(store.get(&key("gone")).await.unwrap(), None);
    rig.clock.advance(ttl);
    assert_eq!(store.get(&key("short")).await.unwrap(), None);
    assert!(!store.remove(&key("short")).await.unwrap());
}

#[tokio::test]
async fn a_put_takes_effect_only_if_its_condition_holds() {
    let rig = Rig::new();
    let put = async |value: &'static str, ttl: Option<u64>, condition| {
        let ttl = ttl.map(Duration::from_secs);
        rig.engine.store.put(&key("k"), value.into(), ttl, condition).await.unwrap()
    };
    assert!(!put("a", None, Present).await);
    assert!(put("b", Some(10), Absent).await);
    assert!(!put("c", None, Absent).await);
    assert!(!put("c", None, Equals("x".into())).await);
    assert!(put("d", Some(10), Equals("b".into())).await);
    rig.clock.advance(Duration::from_secs(10));
    assert!(!put("e", None, Present).await, "an expired entry is none");
    assert!(put("f", None, Absent).await);
    assert_eq!(rig.engine.store.get(&key("k")).await.unwrap().unwrap(), "f");
}

#[tokio::test]
async fn concurrent_changes_of_a_key_have_one_winner() {
    let rig = Rig::new();
    let wins = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut puts = tokio::task::JoinSet::new();
    for n in 0..64 {
        let (store, wins) = (rig.engine.store.clone(), wins.clone());
        puts.spawn(async move {
            if store.put(&key("leader"), n.to_string().into(), None, Absent).await.unwrap() {
                wins.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
    }
    puts.join_all().await;
    assert_eq!(wins.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_disk_of_expired_entries_is_given_back() {
    let rig = Rig::new();
    for n in 0..20 {
        let ttl = Some(Duration::from_secs(60));
        rig.engine.store.put(&key(&n.to_string()), "x".into(), ttl, Always).await.unwrap();
    }
    rig.engine.store.put(&key("0"), "x".into(), None, Always).await.unwrap();
    let counts = || {
        rig.disk
            .state
            .read(|transaction| {
                Ok((transaction.open_table(ENTRIES)?.len()?, transaction.open_table(EXPIRIES)?.len()?))
            })
            .unwrap()
    };
    assert_eq!(counts(), (20, 19));
    while counts() != (1, 0) {
        rig.clock.advance(Duration::from_secs(60));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_value_over_the_limit_and_a_closed_engine_are_refused() {
    let rig = Rig::new();
    let large = vec![0; crate::limits::BATCH_BYTES_MAX + 1];
    let error = rig.engine.store.put(&key("k"), large.into(), None, Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    rig.close().await;
    assert_eq!(rig.engine.store.get(&key("k")).await.unwrap_err().kind(), ErrorKind::Closed);
    let error = rig.engine.store.put(&key("k"), "x".into(), None, Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}
