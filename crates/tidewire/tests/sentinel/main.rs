//! What a primary that sentinels watch does to us while we work: it is handed over, dies, is paused; sentinels go.
//!
//! Each test starts servers of its own, one after the other.

#![expect(clippy::indexing_slicing, reason = "an index that is out of range fails the test, as it should")]

#[path = "../cluster/history.rs"]
#[expect(dead_code, reason = "the tests of a cluster look for the slots of its channels too")]
mod history;

use std::time::Duration;

use tidewire::{ErrorKind, Health, Tidewire};
use tidewire_fleet::{Persistence, Sentinel, Standalone, server_program};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::history::Load;

/// Six servers at a time are enough.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const CHANNELS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// The servers, and a node that only looks on.
async fn start() -> (Sentinel, Tidewire) {
    let program = server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it");
    let fleet = Sentinel::start(&program).expect("a primary with sentinels");
    let onlooker = Tidewire::open(&fleet.url()).await.expect("the engine opens");
    (fleet, onlooker)
}

/// Asks for the health until it is as wanted.
async fn until(node: &Tidewire, what: &str, is_so: impl Fn(&Health) -> bool) -> Health {
    let deadline = Instant::now() + PATIENCE;
    let mut polls = tokio::time::interval(Duration::from_millis(20));
    loop {
        let health = node.health().await;
        if is_so(&health) {
            return health;
        }
        assert!(Instant::now() < deadline, "waited for {what}: {health:?}");
        polls.tick().await;
    }
}

/// Whether both links to a server work, and are to this one.
fn is_at(health: &Health, port: u16) -> bool {
    let works = |role: &str| {
        let name = format!("{role} 127.0.0.1:{port}");
        health.links.iter().any(|link| link.link == name && link.outcome.is_ok())
    };
    works("data") && works("pub/sub") && health.is_healthy()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_is_followed() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (fleet, onlooker) = start().await;
    let load = Load::start(&fleet.url(), CHANNELS).await;
    load.go_on(500).await;
    let (_, old) = fleet.primary().unwrap();
    fleet.fail_over().unwrap();
    let new = fleet.until_other_primary(old).unwrap();
    let port = fleet.servers[new].port();
    until(&onlooker, "links to the new primary", |health| is_at(health, port)).await;
    load.until_healthy().await;
    load.go_on(500).await;
    println!("SENTINEL FAILOVER: {:?}", load.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_from_a_dead_primary() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (mut fleet, onlooker) = start().await;
    let load = Load::start(&fleet.url(), CHANNELS).await;
    load.go_on(500).await;
    let (old, old_port) = fleet.primary().unwrap();
    fleet.servers[old].kill().unwrap();
    let new = fleet.until_other_primary(old_port).unwrap();
    let port = fleet.servers[new].port();
    until(&onlooker, "links to the new primary", |health| is_at(health, port)).await;
    load.until_healthy().await;
    // It comes back as a primary, until a sentinel tells it what it is.
    fleet.servers[old].restart().unwrap();
    load.go_on(500).await;
    fleet.until_watched().unwrap();
    load.go_on(500).await;
    println!("kill -9 of the primary: {:?}", load.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_links_to_a_paused_primary_are_left_as_soon_as_another_one_is_named() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (mut fleet, onlooker) = start().await;
    let load = Load::start(&fleet.url(), CHANNELS).await;
    load.go_on(500).await;
    let (old, old_port) = fleet.primary().unwrap();
    fleet.servers[old].pause().unwrap();
    let new = fleet.until_other_primary(old_port).unwrap();
    let port = fleet.servers[new].port();
    until(&onlooker, "links to the new primary", |health| is_at(health, port)).await;
    load.until_healthy().await;
    load.go_on(500).await;
    fleet.servers[old].go_on().unwrap();
    fleet.until_watched().unwrap();
    load.go_on(500).await;
    println!("SIGSTOP of the primary: {:?}", load.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_is_enough_and_without_any_the_primary_goes_on() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (mut fleet, onlooker) = start().await;
    let load = Load::start(&fleet.url(), CHANNELS).await;
    load.go_on(200).await;
    let (_, port) = fleet.primary().unwrap();
    fleet.sentinels[0].kill().unwrap();
    fleet.sentinels[1].pause().unwrap();
    let deaf = |health: &Health| health.links.iter().filter(|link| link.outcome.is_err()).count();
    let health = until(&onlooker, "two sentinels are gone", |health| deaf(health) == 2).await;
    assert!(is_at(&health, port), "one sentinel is enough: {health:?}");

    fleet.sentinels[2].kill().unwrap();
    let health = until(&onlooker, "all sentinels are gone", |health| deaf(health) == 3).await;
    assert!(!health.is_healthy(), "nobody would tell of another primary: {health:?}");
    load.go_on(200).await;
    for kind in ["normal", "pubsub"] {
        fleet.servers[0].admin.ask(&["CLIENT", "KILL", "TYPE", kind]).unwrap();
        // The last primary that was named is one for as long as it says so.
        load.go_on(200).await;
    }
    for number in [0, 2] {
        fleet.sentinels[number].restart().unwrap();
    }
    fleet.sentinels[1].go_on().unwrap();
    until(&onlooker, "all sentinels are back", |health| deaf(health) == 0).await;
    load.go_on(200).await;
    let outcome = load.finish().await;
    println!("kill -9 of the sentinels: {outcome:?}");
    assert_eq!(outcome.histories_lost, 0, "the primary was there all the time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_primary_is_followed_while_the_old_one_lives_and_nobody_tells_of_a_switch() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (fleet, onlooker) = start().await;
    let program = server_program().expect("redis-server is on the PATH");
    let other = Standalone::start(&program, Persistence::Nothing).expect("another server");
    let port = other.server.port();
    for sentinel in &fleet.sentinels {
        sentinel.admin.tell(&["SENTINEL", "REMOVE", "tidewire"]).unwrap();
        sentinel
            .admin
            .tell(&["SENTINEL", "MONITOR", "tidewire", "127.0.0.1", &port.to_string(), "2"])
            .unwrap();
    }
    until(&onlooker, "links to the other primary", |health| is_at(health, port)).await;
    assert!(fleet.servers[0].admin.is_primary().unwrap(), "the old one would have gone on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_leads_to_no_primary_says_why() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (mut fleet, _) = start().await;
    let sentinel = fleet.sentinels[0].port();
    let server = fleet.servers[0].port();
    for (url, part) in [
        (fleet.url().replace("/tidewire", "/other"), "under the name \"other\""),
        (format!("redis-sentinel://127.0.0.1:{server}/tidewire"), "is not a sentinel"),
        (format!("redis://127.0.0.1:{sentinel}"), "redis-sentinel://"),
    ] {
        let error = Tidewire::open(&url).await.map(drop).expect_err("there is no primary");
        assert!(error.to_string().contains(part), "{url}: {error}");
        assert_eq!(error.kind(), ErrorKind::Engine, "waiting does not help: {error}");
    }
    let url = fleet.url();
    fleet.sentinels.iter_mut().for_each(|sentinel| sentinel.kill().unwrap());
    let error = Tidewire::open(&url).await.map(drop).expect_err("there is no sentinel");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.to_string().matches("Connection refused").count(), 3, "{error}");
}
