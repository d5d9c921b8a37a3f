//! What a Redis Cluster does to us while we work: planned failover, the death of a primary, slots that move.
//!
//! Each test starts a cluster of its own, one after the other.

#![expect(clippy::indexing_slicing, reason = "an index that is out of range fails the test, as it should")]

mod history;

use std::collections::BTreeSet;

use tidewire_fleet::{Cluster, Reply, server_program};
use tokio::sync::Mutex;

use self::history::Load;

/// Six servers at a time are enough.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Channels of a load; some in the slots of each primary.
const CHANNELS: usize = 24;

fn start() -> Cluster {
    let program = server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it");
    Cluster::start(&program).expect("a cluster")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let cluster = start();
    let load = Load::start(&cluster.url(), CHANNELS).await;
    load.go_on(500).await;
    for primary in cluster.primaries() {
        cluster.fail_over(primary).unwrap();
        load.go_on(500).await;
    }
    load.until_healthy().await;
    load.go_on(500).await;
    let outcome = load.finish().await;
    println!("planned failover of 3 primaries: {outcome:?}");
    assert_eq!(outcome.histories_lost, 0, "a planned failover waits for the replica");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_from_a_dead_primary() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut cluster = start();
    let load = Load::start(&cluster.url(), CHANNELS).await;
    load.go_on(500).await;
    let replica = cluster.replica_of(&cluster.servers[0]).unwrap().admin.clone();
    cluster.servers[0].kill().unwrap();
    replica.until_primary().unwrap();
    load.until_healthy().await;
    load.go_on(2_000).await;
    println!("kill -9 of a primary: {:?}", load.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_primary_had_confirmed_alone_is_told_as_lost() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut cluster = start();
    let load = Load::start(&cluster.url(), CHANNELS).await;
    load.go_on(500).await;
    let replica = cluster.replica_of(&cluster.servers[0]).unwrap().admin.clone();
    // Its replica is cut off and cannot come back: the primary takes orders from nobody without the password now.
    cluster.servers[0].admin.tell(&["CONFIG", "SET", "requirepass", "secret"]).unwrap();
    assert_eq!(replica.ask(&["CLIENT", "KILL", "TYPE", "master"]).unwrap().text(), "1");
    load.go_on(2_000).await;
    cluster.servers[0].kill().unwrap();
    replica.until_primary().unwrap();
    load.until_healthy().await;
    load.go_on(2_000).await;
    let outcome = load.finish().await;
    println!("kill -9 of a primary whose replica was behind: {outcome:?}");
    assert!(outcome.histories_lost > 0, "the listeners of its channels are told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_primary_holds_up_its_own_slots_only_and_comes_back_as_a_replica() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut cluster = start();
    let load = Load::start(&cluster.url(), CHANNELS).await;
    load.go_on(500).await;
    let replica = cluster.replica_of(&cluster.servers[0]).unwrap().admin.clone();
    cluster.servers[0].pause().unwrap();
    // Those of the other slots.
    load.go_on(500).await;
    replica.until_primary().unwrap();
    load.until_healthy().await;
    load.go_on(500).await;
    cluster.servers[0].go_on().unwrap();
    let is_replica = |role: &Reply| role.texts().first() == Some(&"slave");
    cluster.servers[0].admin.until("it follows", &["ROLE"], is_replica).unwrap();
    load.go_on(500).await;
    load.until_healthy().await;
    println!("SIGSTOP of a primary: {:?}", load.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_while_appends_and_subscriptions_go_on() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let cluster = start();
    let load = Load::start(&cluster.url(), CHANNELS).await;
    load.go_on(500).await;
    let mut moved = BTreeSet::new();
    for (channel, to) in load.channels().iter().zip([1, 2, 0].into_iter().cycle()) {
        let (from, slot) = slot_of(&cluster, channel.path().channel());
        let to = &cluster.servers[to];
        if cluster.servers[from].port() != to.port() && moved.insert(slot) {
            cluster.migrate(slot, &cluster.servers[from], to, || {}).unwrap();
            load.go_on(50).await;
        }
    }
    load.until_healthy().await;
    load.go_on(500).await;
    let outcome = load.finish().await;
    println!("{} slots moved: {outcome:?}", moved.len());
    assert_eq!(outcome.histories_lost, 0, "a slot that moves takes everything with it");
}

/// Which of the first servers holds the stream of a channel, and the slot that it is in.
fn slot_of(cluster: &Cluster, channel: &str) -> (usize, u32) {
    let pattern = format!("*:stream:{channel}");
    for (number, server) in cluster.servers[..3].iter().enumerate() {
        if let Some(key) = server.admin.ask(&["KEYS", &pattern]).expect("keys").texts().first() {
            let slot = server.admin.ask(&["CLUSTER", "KEYSLOT", key]).expect("a slot");
            return (number, slot.text().parse().expect("a number"));
        }
    }
    panic!("no primary has a stream of {channel}");
}
