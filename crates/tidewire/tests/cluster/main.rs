//! What a Redis Cluster does to us while we work: planned failover, the death of a primary, slots that move.
//!
//! Each test starts a cluster of its own, one after the other: `TIDEWIRE_TEST_REDIS_SERVER`, or `redis-server`.

#![expect(clippy::indexing_slicing, reason = "an index that is out of range fails the test, as it should")]

mod history;
mod servers;

use std::collections::BTreeSet;

use tokio::sync::Mutex;

use self::history::Load;
use self::servers::Cluster;

/// Six servers at a time are enough.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Channels of a load; some in the slots of each primary.
const CHANNELS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let cluster = Cluster::start().await;
    let load = Load::start(&cluster.url(), CHANNELS).await;
    load.go_on(500).await;
    for primary in cluster.primaries() {
        let replica = cluster.replica_of(primary);
        replica.tell(&["CLUSTER", "FAILOVER"]);
        let is_primary = |role: &servers::Reply| role.texts().first().is_some_and(|role| role == "master");
        replica.until("the failover", &["ROLE"], is_primary).await;
        load.go_on(500).await;
    }
    load.until_healthy().await;
    load.go_on(500).await;
    let outcome = load.finish().await;
    println!("planned failover of 3 primaries: {outcome:?}");
    assert_eq!(outcome.lost_and_told, 0, "a planned failover waits for the replica");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_from_a_dead_primary() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster.url(), CHANNELS).await;
    load.go_on(500).await;
    let taker = cluster.replica_of(&cluster.servers[0]).port;
    cluster.servers[0].kill();
    let taker = cluster.servers.iter().find(|server| server.port == taker).expect("it is there");
    let is_primary = |role: &servers::Reply| role.texts().first().is_some_and(|role| role == "master");
    taker.until("the replica to take over", &["ROLE"], is_primary).await;
    load.until_healthy().await;
    load.go_on(2_000).await;
    let outcome = load.finish().await;
    println!("kill -9 of a primary: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_while_appends_and_subscriptions_go_on() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let cluster = Cluster::start().await;
    let load = Load::start(&cluster.url(), CHANNELS).await;
    load.go_on(500).await;
    let mut moved = BTreeSet::new();
    for (channel, to) in load.channels().iter().zip([1, 2, 0].into_iter().cycle()) {
        let (from, slot) = slot_of(&cluster, channel.path().channel());
        let to = &cluster.servers[to];
        if cluster.servers[from].port != to.port && moved.insert(slot) {
            cluster.migrate(slot, &cluster.servers[from], to).await;
            load.go_on(50).await;
        }
    }
    load.until_healthy().await;
    load.go_on(500).await;
    let outcome = load.finish().await;
    println!("{} slots moved: {outcome:?}", moved.len());
    assert_eq!(outcome.lost_and_told, 0, "a slot that moves takes everything with it");
}

/// Which of the first servers holds the stream of a channel, and the slot that it is in.
fn slot_of(cluster: &Cluster, channel: &str) -> (usize, u32) {
    let pattern = format!("*:stream:{channel}");
    for (number, server) in cluster.servers[..3].iter().enumerate() {
        if let Some(key) = server.ask(&["KEYS", &pattern]).expect("keys").texts().first() {
            let slot = server.ask(&["CLUSTER", "KEYSLOT", key]).expect("a slot");
            return (number, slot.text().parse().expect("a number"));
        }
    }
    panic!("no primary has a stream of {channel}");
}
