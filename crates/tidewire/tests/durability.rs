//! Appends that are confirmed only when replicas, or the device, have them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidewire::{Channel, Durability, ErrorKind, Event, Limits, Position, Receipt, Result, Tidewire};
use tidewire_fleet::{Admin, Cluster, Persistence, Standalone, server_program};

fn program() -> std::path::PathBuf {
    server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it")
}

fn standalone(persistence: Persistence) -> Standalone {
    Standalone::start(&program(), persistence).expect("a server")
}

async fn open(url: &str, call_time_max: Duration) -> Tidewire {
    let mut limits = Limits::default();
    limits.call_time_max = call_time_max;
    Tidewire::builder(url).limits(limits).open().await.expect("the engine opens")
}

fn channel(node: &Tidewire, name: &str) -> Channel {
    node.tenant("durable").and_then(|tenant| tenant.channel(name)).expect("valid names")
}

fn event(number: usize) -> Event {
    Event::new("numbered", number.to_string())
}

async fn append(channel: &Channel, number: usize, durability: Durability) -> Result<Receipt> {
    channel.append(event(number)).dedup(&number.to_string()).durability(durability).await
}

async fn numbers(channel: &Channel) -> Vec<(Position, usize)> {
    let history = channel.read().await.expect("the stream can be read");
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let events = history.events.into_iter();
    events
        .map(|event| (event.position.expect("kept"), number(event.event.data()).expect("a number")))
        .collect()
}

/// How often a server was asked for something.
fn calls(admin: &Admin, command: &str) -> u64 {
    let stats = admin.ask(&["INFO", "commandstats"]).expect("it answers");
    let line = stats.text().lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()).map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_confirmed_outlives_the_primary() {
    let mut cluster = Cluster::start(&program()).expect("a cluster");
    let node = open(&cluster.url(), Duration::from_secs(5)).await;
    let channels: Vec<_> = (0..24).map(|n| channel(&node, &format!("load:{n}"))).collect();
    let appends = channels.iter().flat_map(|channel| {
        (0..50).map(move |number| async move {
            let receipt = append(channel, number, Durability::Replicated(1)).await.expect("confirmed");
            assert_eq!(receipt.durability, Durability::Replicated(1));
            (channel.name().to_owned(), receipt.position.expect("a position"), number)
        })
    });
    let confirmed = join_all(appends).await;
    let waits: u64 = cluster.servers.iter().map(|server| calls(&server.admin, "wait")).sum();
    cluster.servers.first_mut().expect("six servers").kill().expect("killed");
    assert!(waits < 600, "one WAIT for all that wait: {waits} for 1,200 appends");
    for channel in &channels {
        let kept = numbers(channel).await;
        for (name, position, number) in &confirmed {
            assert!(name != channel.name() || kept.contains(&(*position, *number)), "{name} lost {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_too_few_have_is_kept_and_not_confirmed() {
    let server = standalone(Persistence::Nothing);
    let node = open(&server.url(), Duration::from_millis(300)).await;
    let channel = channel(&node, "alone");
    let error = append(&channel, 1, Durability::Replicated(1)).await.expect_err("there is no replica");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("only 0 replicas"), "{error}");
    assert_eq!(numbers(&channel).await.len(), 1, "it is kept, once");
    // A replica comes: the same append is confirmed.
    let replica = standalone(Persistence::Nothing);
    let port = server.server.port().to_string();
    replica.server.admin.tell(&["REPLICAOF", "127.0.0.1", &port]).expect("it follows");
    replica.server.admin.until_in_step().expect("it is in step");
    let receipt = append(&channel, 1, Durability::Replicated(1)).await.expect("confirmed");
    assert!(receipt.is_duplicate());
    assert_eq!(receipt.durability, Durability::Replicated(1));
    assert_eq!(numbers(&channel).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_wait_for_copies_hold_up_no_others() {
    let mut replica = standalone(Persistence::Nothing);
    let server = standalone(Persistence::Nothing);
    let port = server.server.port().to_string();
    replica.server.admin.tell(&["REPLICAOF", "127.0.0.1", &port]).expect("it follows");
    replica.server.admin.until_in_step().expect("it is in step");
    let node = open(&server.url(), Duration::from_secs(30)).await;
    let channel = Arc::new(channel(&node, "held"));
    replica.server.pause().expect("paused");
    let waiting = {
        let channel = channel.clone();
        async move { append(&channel, 0, Durability::Replicated(1)).await }
    };
    let others = async {
        for number in 1..=50 {
            append(&channel, number, Durability::Fast).await.expect("confirmed");
        }
        replica.server.go_on().expect("it goes on");
    };
    let (waited, ()) = tokio::join!(waiting, others);
    assert_eq!(waited.expect("confirmed").durability, Durability::Replicated(1));
    assert_eq!(numbers(&channel).await.len(), 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_sync_refuses_and_one_that_can_confirms() {
    let server = standalone(Persistence::Nothing);
    let node = open(&server.url(), Duration::from_secs(5)).await;
    let refused = channel(&node, "refused");
    for due in [None, Some(Duration::from_secs(60))] {
        let append = refused.append(event(1)).durability(Durability::Fsynced);
        let append = match due {
            Some(due) => append.deliver_at(tidewire::Clock::system().now().saturating_add(due)),
            None => append,
        };
        let error = append.await.expect_err("nothing is synced");
        assert_eq!(error.kind(), ErrorKind::Engine);
        assert!(error.to_string().contains("appendonly yes"), "{error}");
    }
    assert_eq!(numbers(&refused).await.len(), 0, "what is refused is not appended");

    let server = standalone(Persistence::AppendOnlyFile);
    let node = open(&server.url(), Duration::from_secs(5)).await;
    let synced = channel(&node, "synced");
    let receipt = append(&synced, 1, Durability::Fsynced).await.expect("confirmed");
    assert_eq!(receipt.durability, Durability::Fsynced);
}
