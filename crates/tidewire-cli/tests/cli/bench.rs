//! `tidewire bench`: each load on a running server, with few connections, and how each of them fails.

use serde_json::Value;

use crate::running::{Running, Server, run};

/// A live channel that keeps nothing, and one that clients may not publish to.
const LIVE: &str = r#"
[tenants.default]
api_keys = ["dev-api-key-long"]
token_secrets = ["dev-token-secret"]
anonymous = true

[[tenants.default.channels]]
pattern = "live"
subscribe = "anyone"
"#;

/// What a load printed as JSON.
struct Figures(Vec<Value>);

impl Figures {
    /// `tidewire bench ARGUMENTS --json`, which succeeds.
    #[track_caller]
    fn of(server: &Server, arguments: &[&str]) -> Self {
        let done = server.run(&[&["bench"], arguments, &["--json"]].concat()).expect_code(0);
        let mut lines: Vec<Value> =
            done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let setting = lines.remove(0);
        assert!(setting["machine"].as_str().unwrap().contains("cores"), "{setting}");
        assert!(setting["command"].as_str().unwrap().starts_with("tidewire bench "), "{setting}");
        assert!(!done.stdout.contains("dev-api-key"), "a secret is never printed: {}", done.stdout);
        Self(lines)
    }

    /// The value of a figure, which has this unit.
    #[track_caller]
    fn value(&self, part: &str, figure: &str, unit: &str) -> f64 {
        let is_it = |line: &&Value| line["part"] == part && line["figure"] == figure;
        let line =
            self.0.iter().find(is_it).unwrap_or_else(|| panic!("no {part}, {figure} in {:#?}", self.0));
        assert_eq!(line["unit"], unit, "{line}");
        line["value"].as_f64().unwrap()
    }
}

#[test]
fn fanout_counts_and_checks_each_delivery_in_both_encodings_and_ways_to_publish() {
    let server = Server::dev("memory:");
    let load = ["fanout", "--connections", "10", "--duration", "200ms", "--bursts", "1,8"];
    let ways: [&[&str]; 3] = [
        &["--api-key", "dev-api-key"],
        &["--publish-from-client", "--encoding", "protobuf"],
        &["--threads", "2"],
    ];
    for way in ways {
        let figures = Figures::of(&server, &[&load, way].concat());
        for (part, together) in [("one at a time", 10.0), ("bursts of 8", 80.0)] {
            assert!(figures.value(part, "deliveries", "deliveries/s") > 0.0);
            let checked = figures.value(part, "deliveries checked", "deliveries");
            assert!(checked > 0.0 && checked % together == 0.0, "{way:?}: {checked}");
            for fault in ["missing", "repeated or late"] {
                assert_eq!(figures.value(part, fault, "deliveries"), 0.0, "{way:?}");
            }
            assert!(figures.value(part, "to all connections, p99", "ms") > 0.0);
            #[cfg(target_os = "linux")]
            assert!(figures.value(part, "server CPU", "us/delivery") >= 0.0);
        }
    }
}

#[test]
fn latency_is_told_at_the_rate_asked_for_or_at_half_of_what_is_reached() {
    let server = Server::dev("memory:");
    let load = ["latency", "--connections", "10", "--publishers", "4", "--duration", "300ms"];
    let asked = Figures::of(&server, &[&load[..], &["--rate", "200"]].concat());
    let rate = asked.value("200 events/s", "published", "events/s");
    assert!(rate > 0.0 && rate < 400.0, "{rate}");
    let times = ["p50", "p99", "p99.9", "max"]
        .map(|at| asked.value("200 events/s", &format!("publish to subscriber, {at}"), "ms"));
    assert!(times[0] > 0.0 && times.is_sorted(), "{times:?}");

    let half = Figures::of(&server, &[&load[..], &["--full-for", "100ms"]].concat());
    let full_rate = half.value("full rate", "published", "events/s");
    let part = format!("{:.0} events/s", full_rate / 2.0);
    assert!(half.value(&part, "publish to subscriber, p50", "ms") > 0.0);
}

#[test]
fn a_storm_ends_with_each_connection_having_each_event_once() {
    let server = Server::dev("memory:");
    let load = ["storm", "--connections", "10", "--channels", "2", "--missed", "300"];
    let ways: [(&str, &[&str]); 2] = [
        ("at once", &["--at-once", "--publish-from-client", "--encoding", "protobuf", "--channel", "one"]),
        ("after random waits", &["--channel", "other"]),
    ];
    for (part, way) in ways {
        let figures = Figures::of(&server, &[&load, way].concat());
        assert!(figures.value(part, "all recovered after", "ms") > 0.0);
        assert_eq!(figures.value(part, "events recovered", "events"), 3_000.0);
        assert_eq!(figures.value(part, "recoveries told complete", "recoveries"), 10.0);
        for fault in ["missing", "repeated or late"] {
            assert_eq!(figures.value(part, fault, "events"), 0.0, "{part}");
        }
    }
}

#[test]
fn a_storm_says_what_the_channel_did_not_keep() {
    let server = Server::dev("memory:");
    let load = ["bench", "storm", "--connections", "10", "--missed", "1500", "--at-once"];
    let done = server.run(&load).expect_code(1).expect_error(&["15000 are missing", "0 came again"]);
    assert!(done.stdout.contains("recoveries told lost"), "{done:?}");

    let live = Server::with_settings(LIVE);
    let load =
        ["bench", "storm", "--connections", "10", "--channel", "live", "--api-key", "dev-api-key-long"];
    live.run(&load).expect_code(1).expect_error(&["live", "keeps no events", "--channel"]);
}

#[cfg(target_os = "linux")]
#[test]
fn connections_tell_the_memory_of_each_and_its_cpu() {
    let server = Server::dev("memory:");
    let figures =
        Figures::of(&server, &["connections", "--connections", "10", "--from", "2", "--idle-for", "50ms"]);
    assert!(figures.value("up to 10", "opened and subscribed", "connections/s") > 0.0);
    let sizes = ["at 2", "at 10"].map(|part| figures.value(part, "server memory, resident", "MB"));
    assert!(sizes[0] > 0.0, "{sizes:?}");
    let slope = figures.value("from 2 to 10", "server memory", "KB/connection");
    assert!((slope - (sizes[1] - sizes[0]) * 1e3 / 8.0).abs() < 1e-6, "{slope} of {sizes:?}");
    assert!(figures.value("idle", "server CPU", "us/s per connection") >= 0.0);
}

#[test]
fn people_get_a_table_with_the_machine_and_the_command_without_its_secrets() {
    let server = Server::dev("memory:");
    let load = ["bench", "fanout", "--connections", "10", "--duration", "50ms", "--api-key", "dev-api-key"];
    let table = server.run(&load).expect_code(0).stdout;
    for part in
        ["date     ", "machine  ", "--api-key [hidden]", "PART", "deliveries/s", "bursts of 8    missing"]
    {
        assert!(table.contains(part), "{part:?} in {table}");
    }
}

#[test]
fn a_wrong_url_is_told_with_what_to_write() {
    let fanout =
        |arguments: &[&str]| run(&[&["bench", "fanout", "--publish-from-client"], arguments].concat());
    fanout(&["--url", "localhost:8000"])
        .expect_code(2)
        .expect_error(&["ws://HOST:PORT/connection/websocket"]);
    fanout(&["--url", "wss://localhost"]).expect_code(2).expect_error(&["behind the proxy"]);
    fanout(&["--url", "ws://127.0.0.1:1/"]).expect_code(1).expect_error(&["no server at ws://127.0.0.1:1/"]);
    let server = Server::dev("memory:");
    let elsewhere = format!("{}/elsewhere", server.url);
    fanout(&["--url", &elsewhere]).expect_code(1).expect_error(&["status 404", "--url"]);
    fanout(&["--url", &server.url, "--pid", "4294967295"]).expect_code(2).expect_error(&["--pid"]);
}

#[test]
fn a_refused_token_or_key_is_told_with_the_option_that_gives_another() {
    let server = Server::dev("memory:");
    let fanout = |arguments: &[&str]| {
        server.run(&[&["bench", "fanout", "--connections", "10", "--duration", "50ms"], arguments].concat())
    };
    fanout(&["--token", "forged"]).expect_code(1).expect_error(&["code 3500", "--token", "`tidewire token`"]);
    fanout(&["--api-key", "wrong"]).expect_code(1).expect_error(&["does not accept this API key"]);
    let no_key = ["bench", "fanout", "--url", &server.url];
    run(&no_key).expect_code(2).expect_error(&["--api-key", "--publish-from-client"]);
    let live = Server::with_settings(LIVE);
    live.run(&["bench", "fanout", "--connections", "10", "--channel", "live", "--publish-from-client"])
        .expect_code(1)
        .expect_error(&["publish: permission denied (error 103)"]);
}

#[test]
fn a_server_that_dies_under_load_ends_it() {
    let mut server = Server::dev("memory:");
    let mut load =
        Running::start(server.command(&["bench", "fanout", "--connections", "10", "--duration", "10m"]));
    load.wait_for_note("subscribed connections: 10");
    server.kill();
    assert_eq!(load.code(), Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn too_few_open_files_are_raised_where_they_may_be_and_told_where_not() {
    let server = Server::dev("memory:");
    let limited = |limit: &str| {
        let command =
            server.command(&["bench", "fanout", "--connections", "10", "--duration", "50ms", "--json"]);
        let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &format!(r#"ulimit {limit} && exec "$0" "$@""#)])
            .arg(command.get_program())
            .args(arguments);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        crate::running::Done::from(shell.output().unwrap())
    };
    limited("-Sn 64").expect_code(0);
    limited("-n 64").expect_code(2).expect_error(&[
        "10 connections",
        "limit of 64",
        "ulimit -n",
        "--connections",
    ]);
}
