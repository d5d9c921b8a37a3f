//! What a Redis Cluster does to us while we work: planned failover, the death of a primary, slots that move.
//!
//! Each test starts a cluster of its own, one after the other.

#![expect(clippy::indexing_slicing, reason = "an index that is out of range fails the test, as it should")]

mod history;

use std::collections::BTreeSet;
use std::time::Duration;

use tidewire::{Channel, Event, GapReason, Item, Subscription, Tidewire};
use tidewire_fleet::{Admin, Cluster, Reply, server_program};
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::history::Load;

/// Six servers at a time are enough.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How long something may take that should happen.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// A channel of each node in the slots of the first primary, which then confirms alone what is appended to it.
async fn with_a_replica_that_is_behind(cluster: &Cluster, nodes: [&Tidewire; 3]) -> ([Channel; 3], Admin) {
    let channel = |node: &Tidewire, name: &str| {
        node.tenant("losses").and_then(|tenant| tenant.channel(name)).expect("a valid name")
    };
    let mut names = (0..).map(|n| format!("loss:{n}"));
    let name = loop {
        let name = names.next().expect("one of three is there");
        channel(nodes[0], &name).append(Event::new("test", "0")).await.expect("appended");
        if slot_of(cluster, &name).0 == 0 {
            break name;
        }
    };
    let replica = cluster.replica_of(&cluster.servers[0]).expect("a replica").admin.clone();
    let has_it = |keys: &Reply| !keys.texts().is_empty();
    replica.until("it has the stream", &["KEYS", &format!("*:stream:{name}")], has_it).expect("it comes");
    cluster.servers[0].admin.tell(&["CONFIG", "SET", "requirepass", "secret"]).expect("set");
    assert_eq!(replica.ask(&["CLIENT", "KILL", "TYPE", "master"]).expect("cut off").text(), "1");
    (nodes.map(|node| channel(node, &name)), replica)
}

/// The data of what is heard until `last`, and how many losses are told before it.
async fn hear_until(subscription: &mut Subscription, last: &str) -> (Vec<String>, usize) {
    let (mut heard, mut losses) = (Vec::new(), 0);
    while heard.last().is_none_or(|data| data != last) {
        match timeout(PATIENCE, subscription.next()).await.expect("in time").expect("it goes on") {
            Item::Event(received) => {
                heard.push(String::from_utf8_lossy(received.event.data()).into_owned());
            }
            Item::Gap(gap) => losses += usize::from(gap.reason == GapReason::HistoryLost),
        }
    }
    (heard, losses)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_an_idle_node_saw_confirmed_is_told_as_lost() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut cluster = start();
    let url = cluster.url();
    let (writing, listening) = (Tidewire::open(&url).await.unwrap(), Tidewire::open(&url).await.unwrap());
    let (channels, replica) =
        with_a_replica_that_is_behind(&cluster, [&writing, &listening, &listening]).await;
    let mut subscription = channels[1].subscribe().open().await.unwrap();
    for n in 1..=5 {
        // Nobody hears it, so that only who appended it knows.
        channels[0].append(Event::new("test", n.to_string())).quiet().await.unwrap();
    }
    cluster.servers[0].kill().unwrap();
    replica.until_primary().unwrap();
    // Nobody appends anything: the node that did looks at its streams on its new link.
    loop {
        match timeout(PATIENCE, subscription.next()).await.expect("in time").expect("it goes on") {
            Item::Gap(gap) if gap.reason == GapReason::HistoryLost => break,
            Item::Gap(_) => {}
            Item::Event(received) => panic!("{received:?}"),
        }
    }
    channels[2].append(Event::new("test", "new")).await.unwrap();
    assert_eq!(hear_until(&mut subscription, "new").await, (vec!["new".to_owned()], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_told_though_another_node_appends_past_it_first() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut cluster = start();
    let url = cluster.url();
    let (writing, listening) = (Tidewire::open(&url).await.unwrap(), Tidewire::open(&url).await.unwrap());
    let other = Tidewire::open(&url).await.unwrap();
    let (channels, replica) = with_a_replica_that_is_behind(&cluster, [&writing, &listening, &other]).await;
    let mut subscription = channels[1].subscribe().open().await.unwrap();
    for n in 1..=5 {
        channels[0].append(Event::new("test", n.to_string())).await.unwrap();
    }
    hear_until(&mut subscription, "5").await;
    // Who appended them is gone, and who appends next does not know of them: only the listener does.
    writing.close(PATIENCE).await.unwrap();
    cluster.servers[0].kill().unwrap();
    replica.until_primary().unwrap();
    for n in 0..10 {
        channels[2].append(Event::new("test", format!("new {n}"))).await.unwrap();
    }
    let (heard, losses) = hear_until(&mut subscription, "new 9").await;
    let expected: Vec<_> = (0..10).map(|n| format!("new {n}")).collect();
    assert_eq!(heard, expected, "offsets that were given twice are heard twice");
    assert_eq!(losses, 1);
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
