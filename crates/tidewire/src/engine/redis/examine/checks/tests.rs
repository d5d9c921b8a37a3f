use std::time::Duration;

use super::*;
use crate::clock::Timestamp;
use crate::engine::redis::resp::Value;

const WELL: &str = "redis_version:8.2.0\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\nused_memory:1048576\r\n\
    maxmemory:1073741824\r\ntotal_system_memory:4294967296\r\nconnected_slaves:2\r\n";
const SET_WELL: [(&str, &str); 4] = [
    ("appendfsync", "everysec"),
    ("save", ""),
    ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
    ("min-replicas-to-write", "1"),
];
const NOW_MS: u64 = 1_800_000_000_000;

fn text(text: &str) -> Value {
    Value::Bulk(Bytes::copy_from_slice(text.as_bytes()))
}

fn facts_at(time_ms: u64, info: Value, settings: Value) -> Facts {
    let number = |number: u64| Value::Int(i64::try_from(number).unwrap());
    let time = Value::Array(vec![number(time_ms / 1_000), number(time_ms % 1_000 * 1_000)]);
    // More than it is asked about.
    let commands = Value::Array(vec![Value::Null; 32]);
    let now = Timestamp::from_millis(NOW_MS);
    Facts::read(vec![time, info, settings, commands], now, now.saturating_add(Duration::from_millis(2)))
}

/// A server that is well, but for these lines of its `INFO` and these settings.
fn facts(info: &str, settings: &[(&str, &str)]) -> Facts {
    let info = format!("{WELL}{info}\r\n");
    let settings = SET_WELL.iter().chain(settings).map(|(name, value)| (text(name), text(value))).collect();
    facts_at(NOW_MS, text(&info), Value::Map(settings))
}

#[track_caller]
fn check(findings: Vec<Finding>, check: &str, found: &str, fix: &str) {
    let mut of = findings.iter().filter(|finding| finding.check == check);
    let finding = of.next_back().unwrap_or_else(|| panic!("{check} is not among {findings:?}"));
    assert!(finding.found.contains(found), "{finding:?}");
    match fix {
        "" => assert_eq!(finding.fix, None, "{finding:?}"),
        fix => assert!(finding.fix.as_ref().is_some_and(|said| said.contains(fix)), "{finding:?}"),
    }
}

#[test]
fn a_server_that_is_well_has_nothing_to_change() {
    let findings = of_server(Kind::Watched, &facts("", &[]));
    assert_eq!(findings.len(), 7, "{findings:?}");
    for finding in findings {
        assert_eq!(finding.fix, None, "{finding:?}");
    }
}

#[test]
fn what_a_server_would_lose_is_told_with_the_setting_to_change() {
    for (info, settings, name, found, fix) in [
        ("aof_enabled:0", [("save", "")], "persistence", "nothing is kept", "appendonly yes"),
        ("aof_enabled:0", [("save", "3600 1")], "persistence", "save 3600 1", "appendonly yes"),
        ("", [("appendfsync", "no")], "persistence", "when the system likes", "appendfsync everysec"),
        ("", [("appendfsync", "always")], "persistence", "before each answer", ""),
        ("aof_last_write_status:err", [("save", "")], "persistence", "append-only file failed", "disk full"),
        ("rdb_last_bgsave_status:err", [("save", "")], "persistence", "snapshot failed", "disk full"),
        ("maxmemory_policy:allkeys-lru", [("save", "")], "eviction", "throws away streams", "noeviction"),
        ("maxmemory_policy:volatile-ttl", [("save", "")], "eviction", "streams kept by age", "noeviction"),
        (
            "maxmemory:0",
            [("save", "")],
            "memory",
            "without a limit; the machine has 4.0 GiB",
            "set maxmemory",
        ),
        ("maxmemory:1100000", [("save", "")], "memory", "1.0 MiB of 1.0 MiB used (95 %)", "raise maxmemory"),
        ("connected_slaves:0", [("save", "")], "replicas", "0 connected", "every append is refused"),
        (
            "connected_slaves:0",
            [("min-replicas-to-write", "0")],
            "replicas",
            "0 connected",
            "give it a replica",
        ),
        ("", [("min-replicas-to-write", "0")], "replicas", "2 connected", "min-replicas-to-write 1"),
        (
            "",
            [("client-output-buffer-limit", "pubsub 1048576 0 0")],
            "pub/sub buffer",
            "1.0 MiB behind",
            "32mb 8mb 60",
        ),
        (
            "",
            [("client-output-buffer-limit", "pubsub 0 0 0")],
            "pub/sub buffer",
            "fills the memory",
            "32mb 8mb 60",
        ),
    ] {
        check(of_server(Kind::Watched, &facts(info, &settings)), name, found, fix);
    }
}

#[test]
fn a_single_server_without_a_replica_is_the_choice_of_its_operator() {
    let alone = facts("connected_slaves:0", &[("min-replicas-to-write", "0")]);
    check(of_server(Kind::Only, &alone), "replicas", "0 connected", "");
}

#[test]
fn what_a_server_does_not_tell_is_a_finding() {
    let refusal = |command: &str| {
        let text = format!("NOPERM this user has no permissions to run the '{command}' command");
        Value::Error(text.into_bytes().into())
    };
    let findings = of_server(Kind::Only, &facts_at(NOW_MS, refusal("info"), refusal("config|get")));
    let unreadable: Vec<_> = findings.iter().filter(|finding| finding.check == "unreadable").collect();
    assert_eq!(unreadable.len(), 2, "{findings:?}");
    check(findings, "unreadable", "CONFIG GET is not answered: NOPERM", "allow CONFIG GET");
}

#[test]
fn persistence_is_not_guessed_where_settings_are_not_told() {
    let untold =
        |info: &str| facts_at(NOW_MS, text(info), Value::Error(Bytes::from_static(b"ERR unknown command")));
    let of = |info| of_server(Kind::Only, &untold(info));
    check(of("aof_enabled:1\r\n"), "persistence", "how it is synced is not told", "");
    check(
        of("aof_enabled:0\r\n"),
        "persistence",
        "whether there are snapshots is not told",
        "appendonly yes",
    );
}

#[test]
fn clocks_that_are_apart_are_told_in_both_directions() {
    let at = |time_ms| facts_at(time_ms, text(WELL), Value::Map(Vec::new()));
    check(of_server(Kind::Only, &at(NOW_MS + 5_001)), "clock", "5000 ms ahead", "NTP");
    check(of_server(Kind::Only, &at(NOW_MS - 4_999)), "clock", "5000 ms behind", "NTP");
    check(of_all(&[at(NOW_MS), at(NOW_MS + 900)]), "clocks", "within 1000 ms", "");
    check(of_all(&[at(NOW_MS - 700), at(NOW_MS + 900)]), "clocks", "1600 ms apart", "NTP");
}

#[test]
fn replicas_are_found_where_the_primary_says() {
    let facts = facts(
        "slave0:ip=10.0.0.2,port=6380,state=online,offset=1,lag=0\r\nslave1:ip=::1,port=6381,state=online",
        &[],
    );
    assert_eq!(facts.replicas(), [("10.0.0.2".to_owned(), 6380), ("::1".to_owned(), 6381)]);
}
