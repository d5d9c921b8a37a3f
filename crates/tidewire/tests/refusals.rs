//! Servers that refuse: each error by its name, with what to change; and that we go on when it was changed.
//!
//! Every test has a server of its own.

use std::path::PathBuf;
use std::time::Duration;

use tidewire::{
    Channel, Error, ErrorKind, Event, GapReason, Item, Limits, RetryPolicy, Subscription, Tidewire,
};
use tidewire_fleet::{Admin, Persistence, Reply, Server, Standalone, server_program};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// Long beside what a refusal takes, short beside a test.
const CALL_TIME_MAX: Duration = Duration::from_millis(500);

fn program() -> PathBuf {
    server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it")
}

fn start() -> Standalone {
    Standalone::start(&program(), Persistence::Nothing).expect("a server")
}

/// A node that shows every refusal: nothing above the engine tries again.
async fn open(url: &str, call_time_max: Duration) -> Tidewire {
    let mut limits = Limits::default();
    limits.call_time_max = call_time_max;
    let builder = Tidewire::builder(url).limits(limits).retry(RetryPolicy::NEVER);
    builder.open().await.expect("the engine opens")
}

fn channel(node: &Tidewire) -> Channel {
    node.tenant("refusals").and_then(|tenant| tenant.channel("feed")).expect("valid names")
}

async fn append(channel: &Channel, text: &'static str) -> Result<u64, Error> {
    let receipt = channel.append(Event::new("text", text)).await?;
    Ok(receipt.position.expect("it is appended now").offset)
}

#[track_caller]
fn check(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    }
}

fn set(admin: &Admin, setting: &str, value: &str) {
    admin.tell(&["CONFIG", "SET", setting, value]).expect("a setting");
}

/// The next item that is not a gap of live events alone.
async fn next(subscription: &mut Subscription) -> Item {
    loop {
        let item = timeout(PATIENCE, subscription.next()).await.expect("in time").expect("it goes on");
        match item {
            Item::Gap(gap) if gap.reason == GapReason::LinkLost => {}
            item => return item,
        }
    }
}

#[track_caller]
fn check_event(item: &Item, text: &str) {
    match item {
        Item::Event(received) => assert_eq!(received.event.data(), text.as_bytes()),
        Item::Gap(gap) => panic!("{gap:?} in place of {text:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_told_at_once_and_used_again_when_it_has_room() {
    let server = start().server;
    let node = open(&server.admin.url(), CALL_TIME_MAX).await;
    let channel = channel(&node);
    assert_eq!(append(&channel, "one").await.unwrap(), 1);
    set(&server.admin, "maxmemory", "1");
    let error = append(&channel, "refused").await.expect_err("it is full");
    check(&error, ErrorKind::Backpressure, &["OOM", "raise its maxmemory"]);
    set(&server.admin, "maxmemory", "0");
    assert_eq!(append(&channel, "two").await.unwrap(), 2, "nothing was done before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_write_to_its_disk_is_told_at_once() {
    let server = start().server;
    let node = open(&server.admin.url(), CALL_TIME_MAX).await;
    let channel = channel(&node);
    append(&channel, "one").await.unwrap();
    // The file that it would write is a folder with something in it.
    let dump = server.place().folder.join("dump.rdb");
    std::fs::create_dir_all(dump.join("in-the-way")).expect("a folder");
    set(&server.admin, "save", "3600 1");
    server.admin.ask(&["BGSAVE"]).expect("it begins");
    let has_failed = |reply: &Reply| reply.text().contains("rdb_last_bgsave_status:err");
    server.admin.until("it fails to save", &["INFO", "persistence"], has_failed).expect("it fails");
    let error = append(&channel, "refused").await.expect_err("it cannot persist");
    check(
        &error,
        ErrorKind::Unavailable,
        &["MISCONF", "cannot write to its disk", "stop-writes-on-bgsave-error"],
    );
    set(&server.admin, "stop-writes-on-bgsave-error", "no");
    assert_eq!(append(&channel, "two").await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_missing_are_waited_for() {
    let server = start().server;
    let hasty = open(&server.admin.url(), CALL_TIME_MAX).await;
    let patient = open(&server.admin.url(), PATIENCE).await;
    append(&channel(&hasty), "one").await.unwrap();
    set(&server.admin, "min-replicas-to-write", "1");
    let error = append(&channel(&hasty), "refused").await.expect_err("there is no replica");
    check(&error, ErrorKind::Unavailable, &["NOREPLICAS", "min-replicas-to-write"]);
    let (channel, refused) = (channel(&patient), refusals(&server.admin, "NOREPLICAS"));
    let (appended, ()) = tokio::join!(append(&channel, "two"), async {
        // Only when it has refused twice: the append waits then.
        until_refused(&server.admin, "NOREPLICAS", refused + 2).await;
        set(&server.admin, "min-replicas-to-write", "0");
    });
    assert_eq!(appended.unwrap(), 2);
}

/// How often a server has answered with an error.
fn refusals(admin: &Admin, name: &str) -> u64 {
    let reply = admin.ask(&["INFO", "errorstats"]).expect("it answers");
    let start = format!("errorstat_{name}:count=");
    let line = reply.text().lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |count| count.trim().parse().expect("a number"))
}

async fn until_refused(admin: &Admin, name: &str, times: u64) {
    let mut polls = tokio::time::interval(POLL);
    let refused = async {
        while refusals(admin, name) < times {
            polls.tick().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("it refuses");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_became_a_replica_is_left_until_it_is_a_primary_again() {
    let server = start().server;
    let hasty = open(&server.admin.url(), CALL_TIME_MAX).await;
    let patient = open(&server.admin.url(), PATIENCE).await;
    // READONLY, and MASTERDOWN.
    for stale in ["yes", "no"] {
        set(&server.admin, "replica-serve-stale-data", stale);
        // Nobody listens on that port.
        server.admin.tell(&["REPLICAOF", "127.0.0.1", "1"]).expect("a replica");
        let error = append(&channel(&hasty), "refused").await.expect_err("a replica takes no writes");
        check(&error, ErrorKind::Unavailable, &["replica"]);
        let health = hasty.health().await;
        assert!(!health.is_healthy(), "{health:?}");
        let channel = channel(&patient);
        let (appended, ()) = tokio::join!(append(&channel, "kept"), async {
            // A probe would wait for a link that there is not.
            let is_used =
                async || timeout(POLL, patient.health()).await.is_ok_and(|health| health.is_healthy());
            timeout(PATIENCE, async { while is_used().await {} })
                .await
                .expect("the link to a replica is left");
            server.admin.tell(&["REPLICAOF", "NO", "ONE"]).expect("a primary");
        });
        appended.expect("it waits for a primary");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_reads_its_data_is_waited_for() {
    let mut server = Server::start(&program(), &[], None, |_| {
        let kept = ["save \"\"", "rdbcompression no", "appendonly yes", "appendfsync always"];
        // 10 ms per key, when it reads them; it answers in between.
        let slow = ["key-load-delay 10000", "loading-process-events-interval-bytes 1024"];
        Ok(kept.into_iter().chain(slow).map(str::to_owned).collect())
    })
    .expect("a server");
    let node = open(&server.admin.url(), PATIENCE).await;
    let channel = channel(&node);
    assert_eq!(append(&channel, "one").await.unwrap(), 1);
    for number in 0..100 {
        server.admin.tell(&["SET", &format!("key:{number}"), &"x".repeat(200)]).expect("set");
    }
    server.admin.ask(&["BGREWRITEAOF"]).expect("it begins");
    let is_rewritten = |reply: &Reply| {
        let text = reply.text();
        text.contains("aof_rewrite_in_progress:0") && !text.contains("aof_rewrites:0")
    };
    server.admin.until("its file holds keys", &["INFO", "persistence"], is_rewritten).unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    let is_loading = |reply: &Reply| reply.text().contains("loading:1");
    server.admin.until("it reads its data", &["INFO", "persistence"], is_loading).unwrap();
    let error = Tidewire::open(&server.admin.url()).await.map(drop).expect_err("it reads its data");
    check(&error, ErrorKind::Unavailable, &["LOADING"]);
    assert_eq!(append(&channel, "two").await.unwrap(), 2, "nothing was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_of_somebody_else_that_takes_long_is_waited_out() {
    let server = start().server;
    let hasty = open(&server.admin.url(), CALL_TIME_MAX).await;
    let patient = open(&server.admin.url(), PATIENCE).await;
    set(&server.admin, "busy-reply-threshold", "20");
    let admin = server.admin.clone();
    let script = tokio::task::spawn_blocking(move || admin.ask(&["EVAL", "while true do end", "0"]));
    let is_busy = async {
        let admin = &server.admin;
        while !admin.ask(&["PING"]).is_err_and(|error| format!("{error:#}").contains("BUSY")) {}
    };
    timeout(PATIENCE, is_busy).await.expect("it is busy");
    // One whose time is up before it could be sent does not know why; on a busy machine that may be the first.
    let is_told_why = async {
        loop {
            let error = append(&channel(&hasty), "refused").await.expect_err("it is busy");
            if error.kind() != ErrorKind::Unavailable || error.to_string().contains("BUSY") {
                break error;
            }
        }
    };
    let error = timeout(PATIENCE, is_told_why).await.expect("it is told why");
    check(&error, ErrorKind::Unavailable, &["BUSY", "SCRIPT KILL"]);
    let channel = channel(&patient);
    let (appended, ()) = tokio::join!(append(&channel, "kept"), async {
        server.admin.tell(&["SCRIPT", "KILL"]).expect("it ends");
    });
    appended.expect("it waits for the end of the script");
    assert!(script.await.expect("no panic").is_err(), "it was killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_acl_forbids_is_told_at_once_with_the_user_to_change() {
    let server = start().server;
    let user = |rule: &str| {
        let words = ["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"];
        server
            .admin
            .tell(&[words.as_slice(), &rule.split(' ').collect::<Vec<_>>()].concat())
            .expect("a user");
    };
    let url = server.admin.url().replace("redis://", "redis://app:secret@");
    for (rule, command) in [("-evalsha", "evalsha"), ("-xadd", "script"), ("resetchannels", "channel")] {
        user("+evalsha");
        let node = open(&url, CALL_TIME_MAX).await;
        let channel = channel(&node);
        user(rule);
        let error = match rule {
            "resetchannels" => channel.subscribe().open().await.map(drop).expect_err(rule),
            _ => append(&channel, "refused").await.map(drop).expect_err(rule),
        };
        check(&error, ErrorKind::Engine, &[command, "ACL user of the engine's URL"]);
        user("+evalsha");
        append(&channel, "kept").await.expect("it is allowed now");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_missing_wrong_or_changed_is_told() {
    let server = start().server;
    server.admin.tell(&["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"]).expect("a user");
    let url = |user: &str| server.admin.url().replace("redis://", &format!("redis://{user}"));
    let node = open(&url("app:secret@"), CALL_TIME_MAX).await;
    let channel = channel(&node);
    append(&channel, "one").await.unwrap();

    let wrong = Tidewire::open(&url("app:wrong@")).await.map(drop).expect_err("a wrong password");
    check(&wrong, ErrorKind::Engine, &["WRONGPASS", "correct user and password"]);
    server.admin.tell(&["ACL", "SETUSER", "app", "resetpass", ">changed"]).expect("a password");
    server.admin.ask(&["CLIENT", "KILL", "USER", "app"]).expect("its links end");
    let error = append(&channel, "refused").await.expect_err("the password is another one now");
    check(&error, ErrorKind::Unavailable, &["WRONGPASS", "correct user and password"]);
    server.admin.tell(&["ACL", "SETUSER", "app", ">secret"]).expect("a second password");
    let again = open(&url("app:secret@"), CALL_TIME_MAX).await;
    again.close(PATIENCE).await.unwrap();
    timeout(PATIENCE, async { while append(&channel, "kept").await.is_err() {} })
        .await
        .expect("it is back by itself");

    server.admin.tell(&["ACL", "SETUSER", "default", "resetpass", ">secret"]).expect("a password");
    let none = Tidewire::open(&url("")).await.map(drop).expect_err("no password");
    check(&none, ErrorKind::Engine, &["NOAUTH", "give user and password"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_room_for_links_is_told_with_the_setting() {
    let server = start().server;
    let node = open(&server.admin.url(), CALL_TIME_MAX).await;
    // Two links of ours, and the one that sets this.
    set(&server.admin, "maxclients", "3");
    let _third = std::net::TcpStream::connect(server.admin.address()).expect("a link");
    let error = Tidewire::open(&server.admin.url()).await.map(drop).expect_err("there is no room");
    check(&error, ErrorKind::Unavailable, &["max number of clients", "raise maxclients"]);
    append(&channel(&node), "one").await.expect("those who are in stay in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_does_not_pass_for_a_server() {
    let [node, other] = [("0", "8191"), ("8192", "16383")].map(|(first, last)| {
        let node = Server::start(&program(), &[], None, |place| {
            Ok(vec![format!("cluster-enabled yes\ncluster-port {}\nsave \"\"", place.other_port)])
        })
        .expect("a server");
        node.admin.tell(&["CLUSTER", "ADDSLOTSRANGE", first, last]).expect("it takes the slots");
        node
    });
    let (port, bus) = (other.place().port.to_string(), other.place().other_port.to_string());
    node.admin.tell(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).expect("they meet");
    let is_whole = |reply: &Reply| reply.text().contains("cluster_state:ok");
    node.admin.until("it sees a whole cluster", &["CLUSTER", "INFO"], is_whole).expect("a cluster");

    let single = open(&node.admin.url(), CALL_TIME_MAX).await;
    let tenant = single.tenant("refusals").expect("a valid name");
    let channels = (0..32).map(|number| tenant.channel(&format!("feed:{number}")).expect("a valid name"));
    let (mut own, mut refused) = (None, None);
    for channel in channels {
        match append(&channel, "text").await {
            Ok(_) => own = Some(channel),
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.expect("a channel in a slot of the other node");
    check(&error, ErrorKind::Engine, &["MOVED", "write redis-cluster in place of redis"]);

    let own = own.expect("a channel in a slot of this node");
    node.admin.tell(&["FLUSHALL"]).expect("flushed");
    node.admin.tell(&["CLUSTER", "FLUSHSLOTS"]).expect("no slots");
    let error = append(&own, "refused").await.expect_err("nobody has its slot");
    check(&error, ErrorKind::Unavailable, &["CLUSTERDOWN", "CLUSTER INFO"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_were_flushed_are_loaded_again() {
    let server = start().server;
    let node = open(&server.admin.url(), PATIENCE).await;
    let channel = channel(&node);
    let mut subscription = channel.subscribe().open().await.expect("listening");
    for (text, offset) in [("one", 1), ("two", 2)] {
        server.admin.tell(&["SCRIPT", "FLUSH"]).expect("flushed");
        assert_eq!(append(&channel, text).await.unwrap(), offset);
        check_event(&next(&mut subscription).await, text);
        server.admin.tell(&["SCRIPT", "FLUSH"]).expect("flushed");
        assert_eq!(channel.read().await.unwrap().events.len() as u64, offset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_everything_is_used_on_and_the_loss_is_told() {
    let mut server = start().server;
    let node = open(&server.admin.url(), PATIENCE).await;
    let channel = channel(&node);
    let mut subscription = channel.subscribe().open().await.expect("listening");
    append(&channel, "before").await.unwrap();
    check_event(&next(&mut subscription).await, "before");
    for loss in ["FLUSHALL", "restart"] {
        match loss {
            "FLUSHALL" => server.admin.tell(&["FLUSHALL"]).expect("flushed"),
            _ => {
                server.kill().unwrap();
                server.restart().unwrap();
            }
        }
        assert_eq!(append(&channel, "after").await.expect(loss), 1, "a new history begins");
        match next(&mut subscription).await {
            Item::Gap(gap) => assert_eq!(gap.reason, GapReason::HistoryLost, "{loss}"),
            Item::Event(received) => panic!("{loss} was not told before {received:?}"),
        }
        check_event(&next(&mut subscription).await, "after");
    }
}
