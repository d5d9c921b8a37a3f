//! `tidewire doctor`: on the embedded engine, on a running server, and on real servers of each kind.

use std::path::PathBuf;

use serde_json::Value;
use tidewire_fleet::{Acl, Cluster, Persistence, Sentinel, Standalone, server_program};

use crate::running::{Server, run};

#[test]
fn doctor_proves_that_an_engine_works_and_warns_of_one_that_forgets() {
    let report = run(&["doctor", "--engine", "memory:", "--json"]).expect_code(0).stdout;
    let findings: Vec<Value> = report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcome = |check: &str| {
        let finding = findings.iter().find(|finding| finding["check"] == check);
        finding.map_or("not checked", |finding| finding["outcome"].as_str().unwrap())
    };
    for check in ["open", "link", "subscribe", "publish", "append", "deduplicate", "read", "close"] {
        assert_eq!(outcome(check), "ok", "{check} in {report}");
    }
    assert_eq!(outcome("durable"), "warn", "{report}");
    let text = run(&["doctor", "--engine", "memory:"]).expect_code(0).stdout;
    assert!(text.contains("-> --engine file:DIR"), "{text}");
}

#[test]
fn doctor_says_what_is_wrong_with_an_engine() {
    let wrong =
        run(&["doctor", "--engine", "memroy:"]).expect_code(1).expect_error(&["1 of 1 checks failed"]);
    assert!(wrong.stdout.starts_with("FAIL  open") && wrong.stdout.contains("memory:"), "{wrong:?}");
    run(&["doctor", "--config", "/nowhere/tidewire.toml"]).expect_code(2).expect_error(&["/nowhere"]);
}

#[test]
fn doctor_finds_a_running_server_well_and_its_folder_taken() {
    let server = Server::dev("file:");
    let report = server.run(&["doctor"]).expect_code(0).stdout;
    assert_eq!(report.lines().filter(|line| line.starts_with("ok")).count(), 3, "{report}");

    let engine = format!("file:{}", server.folder().join("events").display());
    let taken = run(&["doctor", "--engine", &engine]).expect_code(1);
    assert!(taken.stdout.starts_with("FAIL") && taken.stdout.contains("doctor --url"), "{taken:?}");
}

fn program() -> PathBuf {
    server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it")
}

/// What the doctor found on an engine that works.
struct Report(Vec<Value>);

impl Report {
    fn of(url: &str) -> Self {
        let report = run(&["doctor", "--engine", url, "--json"]).expect_code(0).stdout;
        Self(report.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// How so many findings of a check ended.
    #[track_caller]
    fn expect(&self, check: &str, count: usize, outcome: &str, parts: &[&str]) {
        let of: Vec<_> = self.0.iter().filter(|finding| finding["check"] == check).collect();
        assert_eq!(of.len(), count, "{check}: {of:?}");
        for finding in of {
            assert_eq!(finding["outcome"], outcome, "{finding}");
            let text = finding.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in {text}");
        }
    }
}

#[test]
fn doctor_names_the_settings_of_a_server_that_are_to_be_changed() {
    let server = Standalone::start(&program(), Persistence::Nothing).unwrap().server;
    let report = Report::of(&server.admin.url());
    report.expect("server", 1, "ok", &[&server.port().to_string(), "primary"]);
    report.expect("persistence", 1, "warn", &["nothing is kept", "appendonly yes"]);
    report.expect("eviction", 1, "ok", &["noeviction"]);
    report.expect("memory", 1, "warn", &["without a limit", "set maxmemory"]);
    report.expect("clock", 1, "ok", &[]);
    for (setting, value) in
        [("appendonly", "yes"), ("maxmemory", "1gb"), ("maxmemory-policy", "allkeys-lru"), ("save", "60 1")]
    {
        server.admin.tell(&["CONFIG", "SET", setting, value]).unwrap();
    }
    let report = Report::of(&server.admin.url());
    report.expect("persistence", 1, "ok", &["append-only file"]);
    report.expect("memory", 1, "ok", &["of 1.0 GiB used"]);
    report.expect("eviction", 1, "warn", &["allkeys-lru", "maxmemory-policy noeviction"]);
}

#[test]
fn doctor_reads_what_it_may_and_says_what_it_may_not() {
    let acl = Acl::start(&program()).unwrap();
    let report = Report::of(&acl.url());
    report.expect("unreadable", 2, "warn", &["is not answered: NOPERM", "to the user in the URL"]);
    report.expect("offers", 0, "ok", &[]);
    report.expect("eviction", 1, "ok", &["noeviction"]);
}

#[test]
fn doctor_looks_at_the_replicas_of_a_primary_and_at_its_sentinels() {
    let mut fleet = Sentinel::start(&program()).unwrap();
    let report = Report::of(&fleet.url());
    report.expect("server", 2, "ok", &["Redis"]);
    report.expect("eviction", 1, "ok", &["all 3 servers"]);
    report.expect("replicas", 1, "warn", &["2 connected", "min-replicas-to-write 1"]);
    report.expect("clocks", 1, "ok", &[]);
    report.expect("quorum", 1, "ok", &["OK 3 usable Sentinels"]);
    fleet.sentinels[1].kill().unwrap();
    fleet.sentinels[2].kill().unwrap();
    let report = Report::of(&fleet.url());
    let deaf = report.0.iter().filter(|finding| finding["check"] == "link" && finding["outcome"] == "warn");
    assert_eq!(deaf.count(), 2, "{:?}", report.0);
}

#[test]
fn doctor_looks_at_every_node_of_a_cluster() {
    let cluster = Cluster::start(&program()).unwrap();
    let report = Report::of(&cluster.url());
    report.expect("persistence", 1, "warn", &["all 6 servers", "appendonly yes"]);
    report.expect("replicas", 1, "warn", &["1 connected", "min-replicas-to-write 1"]);
    let primaries: Vec<_> = cluster.primaries().iter().map(|server| server.port().to_string()).collect();
    let is_of_primaries = |finding: &&Value| {
        let text = finding["found"].as_str().unwrap();
        finding["check"] == "server" && primaries.iter().all(|port| text.contains(port.as_str()))
    };
    assert_eq!(report.0.iter().filter(is_of_primaries).count(), 1, "{:?}", report.0);
    report.expect("clocks", 1, "ok", &["6 servers"]);
}
