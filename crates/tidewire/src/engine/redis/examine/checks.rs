//! What follows from what servers say of themselves.

use bytes::Bytes;

use super::Kind;
use super::facts::Facts;
use crate::engine::Finding;
use crate::engine::redis::capabilities::LADDER;
use crate::engine::redis::refusal::Explained;

/// Clocks further apart make dedup windows, schedules and retention by age differ by as much after a failover.
const CLOCK_MS_MAX: i64 = 1_000;
/// A server that is fuller than this is one burst away from refusing appends.
const MEMORY_PERCENT_MAX: u64 = 80;
/// The defaults of Redis: less makes a node be cut off by a burst that it would have read.
const BUFFER_BYTES_MIN: u64 = 32 << 20;
const BUFFER_SOFT_BYTES_MIN: u64 = 8 << 20;

/// What was found at one server; where it is is said by who asked.
pub(super) fn of_server(kind: Kind, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![server(kind, facts)];
    findings.extend(unreadable(facts));
    findings.extend(persistence(facts));
    findings.extend(eviction(facts));
    findings.extend(memory(facts));
    findings.extend(buffers(facts));
    if kind != Kind::Replica {
        findings.extend(replicas(kind, facts));
    }
    findings.extend(clock(facts));
    findings
}

fn server(kind: Kind, facts: &Facts) -> Finding {
    let version = match (facts.info("valkey_version"), facts.info("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "of an unknown version".to_owned(),
    };
    let role = if kind == Kind::Replica { "replica" } else { "primary" };
    Finding::ok("server", format!("{version}, {role}"))
}

fn unreadable(facts: &Facts) -> Vec<Finding> {
    let told = [
        ("INFO", facts.info.as_ref().err(), "persistence, eviction policy, memory, replicas"),
        (
            "CONFIG GET",
            facts.settings.as_ref().err(),
            "appendfsync, save, client-output-buffer-limit, min-replicas-to-write",
        ),
        ("COMMAND INFO", facts.capabilities.as_ref().err(), "its version"),
    ];
    let unreadable = told.into_iter().filter_map(|(command, why, what)| {
        let fix = format!("allow {command} to the user in the URL, or see for yourself: {what}");
        Some(Finding::warn("unreadable", format!("{command} is not answered: {}", why?), fix))
    });
    unreadable.collect()
}

fn persistence(facts: &Facts) -> Vec<Finding> {
    let check = "persistence";
    let Some(has_log) = facts.info("aof_enabled") else { return Vec::new() };
    let policy = match (has_log, facts.setting("appendfsync"), facts.setting("save")) {
        ("1", Some("always"), _) => Finding::ok(check, "append-only file, synced before each answer"),
        ("1", Some("no"), _) => Finding::warn(
            check,
            "append-only file, synced when the system likes to",
            "set appendfsync everysec, or always: a machine that fails loses up to half a minute",
        ),
        ("1", None, _) => Finding::ok(check, "append-only file; how it is synced is not told"),
        ("1", ..) => Finding::ok(
            check,
            "append-only file, synced every second or so: that is what a machine that fails may lose",
        ),
        (_, _, Some("")) => Finding::warn(
            check,
            "nothing is kept over a restart",
            "set appendonly yes: otherwise a restart loses every stream",
        ),
        (_, _, save) => Finding::warn(
            check,
            match save {
                Some(save) => format!("snapshots only (save {save})"),
                None => "no append-only file; whether there are snapshots is not told".to_owned(),
            },
            "set appendonly yes: otherwise a restart loses at least what came after the last snapshot",
        ),
    };
    let failed = |field: &str, what: &str| {
        (facts.info(field) == Some("err")).then(|| {
            Finding::warn(
                check,
                format!("the last {what} failed"),
                "see the server's log: is its disk full, or not writable?",
            )
        })
    };
    let failures = [
        failed("aof_last_write_status", "write of the append-only file"),
        failed("rdb_last_bgsave_status", "snapshot"),
    ];
    std::iter::once(policy).chain(failures.into_iter().flatten()).collect()
}

fn eviction(facts: &Facts) -> Option<Finding> {
    let policy = facts.info("maxmemory_policy")?;
    let lost = match policy {
        "noeviction" => return Some(Finding::ok("eviction", "noeviction")),
        policy if policy.starts_with("volatile-") => {
            "streams kept by age, dedup ids and entries with a time to live"
        }
        _ => "streams, and half of one: its events without its epoch",
    };
    Some(Finding::warn(
        "eviction",
        format!("{policy}: a full server throws away {lost}"),
        "set maxmemory-policy noeviction: a full server then refuses appends (Backpressure), and nothing is lost",
    ))
}

fn memory(facts: &Facts) -> Option<Finding> {
    let (used, most) = (facts.number("used_memory")?, facts.number("maxmemory")?);
    if most == 0 {
        let machine =
            facts.number("total_system_memory").map(|total| format!("; the machine has {}", size(total)));
        return Some(Finding::warn(
            "memory",
            format!("without a limit{}", machine.unwrap_or_default()),
            "set maxmemory to what the machine can spare: without it the system kills the server when memory runs out",
        ));
    }
    let percent = used.saturating_mul(100) / most;
    let found = format!("{} of {} used ({percent} %)", size(used), size(most));
    if percent <= MEMORY_PERCENT_MAX {
        return Some(Finding::ok("memory", found));
    }
    Some(Finding::warn(
        "memory",
        found,
        "raise maxmemory, or let streams keep less: a full server refuses appends",
    ))
}

fn buffers(facts: &Facts) -> Option<Finding> {
    let limits = facts.setting("client-output-buffer-limit")?;
    let mut words = limits.split(' ').skip_while(|word| *word != "pubsub").skip(1);
    let mut number = || words.next()?.parse::<u64>().ok();
    let (hard, soft, seconds) = (number()?, number()?, number()?);
    let found =
        format!("a node that is {} behind, or {} for {seconds} s, is cut off", size(hard), size(soft));
    let is_small = |limit: u64, least: u64| limit != 0 && limit < least;
    if hard == 0 && soft == 0 {
        return Some(Finding::warn(
            "pub/sub buffer",
            "a node that hangs fills the memory of the server",
            "set client-output-buffer-limit \"pubsub 32mb 8mb 60\"",
        ));
    }
    if is_small(hard, BUFFER_BYTES_MIN) || is_small(soft, BUFFER_SOFT_BYTES_MIN) {
        return Some(Finding::warn(
            "pub/sub buffer",
            found,
            "set client-output-buffer-limit \"pubsub 32mb 8mb 60\": what is cut off reads its streams again, and loses live events",
        ));
    }
    Some(Finding::ok("pub/sub buffer", found))
}

fn replicas(kind: Kind, facts: &Facts) -> Option<Finding> {
    let connected = facts.number("connected_slaves")?;
    let least = facts.setting("min-replicas-to-write").and_then(|least| least.parse::<u64>().ok());
    let found = match least {
        Some(least) => format!("{connected} connected, min-replicas-to-write {least}"),
        None => format!("{connected} connected"),
    };
    Some(match (connected, least) {
        (connected, Some(least)) if connected < least => Finding::warn(
            "replicas",
            found,
            "bring the replicas back: until then every append is refused (NOREPLICAS)",
        ),
        (0, _) if kind == Kind::Watched => {
            Finding::warn("replicas", found, "give it a replica: nothing can take over from it")
        }
        (0, _) => Finding::ok("replicas", found),
        (_, Some(0)) => Finding::warn(
            "replicas",
            found,
            "set min-replicas-to-write 1: a primary that is cut off from its replicas goes on confirming what a failover loses",
        ),
        _ => Finding::ok("replicas", found),
    })
}

fn clock(facts: &Facts) -> Option<Finding> {
    let ahead = facts.ahead_ms?;
    let took = i64::try_from(facts.took.as_millis()).unwrap_or(i64::MAX);
    if ahead.abs() <= CLOCK_MS_MAX.max(took) {
        return Some(Finding::ok("clock", format!("within {CLOCK_MS_MAX} ms of this machine's")));
    }
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    Some(Finding::warn(
        "clock",
        format!("{} ms {direction} this machine's", ahead.abs()),
        "set both by NTP: schedules, dedup windows and retention by age go by the server's clock",
    ))
}

/// What was found by comparing servers.
pub(super) fn of_all(all: &[Facts]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ahead = || all.iter().filter_map(|facts| facts.ahead_ms);
    if let (Some(first), Some(last), true) = (ahead().min(), ahead().max(), all.len() > 1) {
        let apart = last - first;
        findings.push(if apart <= CLOCK_MS_MAX {
            Finding::ok("clocks", format!("{} servers, within {CLOCK_MS_MAX} ms of each other", all.len()))
        } else {
            Finding::warn(
                "clocks",
                format!("{} servers, up to {apart} ms apart", all.len()),
                "set all by NTP: after a failover, what is kept for a time is kept for as much longer or shorter",
            )
        });
    }
    findings.extend(ladder(all));
    findings
}

/// What the servers offer; one that only some of them offer cannot be counted on.
fn ladder(all: &[Facts]) -> Vec<Finding> {
    let known: Vec<_> = all.iter().filter_map(|facts| facts.capabilities.as_ref().ok()).collect();
    if known.is_empty() {
        return Vec::new();
    }
    let rung = |(number, rung): (usize, &crate::engine::redis::capabilities::Capability)| {
        let has =
            known.iter().filter(|offered| offered.rungs().nth(number).is_some_and(|(_, has)| has)).count();
        let (name, since, without) = (rung.name, rung.since, rung.without);
        if has == known.len() {
            return Finding::ok("offers", name);
        }
        if has == 0 {
            return Finding::ok("offers not", format!("{name} (since {since}): {without}"));
        }
        Finding::warn(
            "offers",
            format!("{name}, on {has} of {} servers", known.len()),
            "run the same version on all servers",
        )
    };
    LADDER.iter().enumerate().map(rung).collect()
}

/// What a sentinel says about its quorum.
pub(super) fn of_quorum(name: &str, told: Result<Bytes, Bytes>) -> Finding {
    match told {
        Ok(text) => Finding::ok("quorum", format!("{name}: {}", String::from_utf8_lossy(&text))),
        Err(text) => Finding::warn(
            "quorum",
            format!("{name}: {}", Explained(&text)),
            "bring the sentinels back: without a majority of them nothing takes over from a primary that fails",
        ),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = bytes.saturating_mul(10) / unit;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests;
