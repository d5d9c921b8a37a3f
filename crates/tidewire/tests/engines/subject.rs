//! The engines under test.

use std::path::PathBuf;
use std::sync::Arc;

use tidewire::conformance::{Hook, Need, Subject};
use tidewire_fleet::Admin;

/// Keeps nothing; time is virtual.
pub(crate) fn memory() -> Subject {
    Subject {
        name: "memory",
        has: Vec::new(),
        is_time_virtual: true,
        url: Box::new(|_| "memory:".into()),
        cut_links: None,
        destroy_history: None,
    }
}

/// Each case has a directory of its own under `root`; time is virtual.
pub(crate) fn file(root: PathBuf) -> Subject {
    Subject {
        name: "file",
        has: vec![Need::Durable, Need::Syncs],
        is_time_virtual: true,
        url: Box::new(move |case| format!("file:{}", root.join(case).display())),
        cut_links: None,
        destroy_history: None,
    }
}

/// The topologies that `cargo xtask test` starts: the name of the column, and what its variables are called.
pub(crate) const TOPOLOGIES: [(&str, &str); 7] = [
    ("redis", "REDIS"),
    ("redis-aof", "REDIS_AOF"),
    ("sentinel", "REDIS_SENTINEL"),
    ("cluster", "REDIS_CLUSTER"),
    ("tls", "REDIS_TLS"),
    ("acl", "REDIS_ACL"),
    (VALKEY, "VALKEY"),
];

/// Whether an engine under test is called so.
pub(crate) fn is_name(text: &str) -> bool {
    ["memory", "file"].contains(&text) || TOPOLOGIES.iter().any(|(name, _)| *name == text)
}

/// The one that a machine may lack.
pub(crate) const VALKEY: &str = "valkey";
pub(crate) const WITHOUT_VALKEY: &str = "valkey, which `cargo xtask test` starts where valkey-server is on the PATH or named in TIDEWIRE_TEST_VALKEY_SERVER";

/// Servers that `cargo xtask test` has started and named in `TIDEWIRE_TEST_X_URL` and `TIDEWIRE_TEST_X_ADMIN`.
///
/// # Errors
/// Says how to get them.
pub(crate) fn redis(name: &'static str, variable: &str) -> Result<Subject, String> {
    let url = setting(&format!("TIDEWIRE_TEST_{variable}_URL"))?;
    let admins = setting(&format!("TIDEWIRE_TEST_{variable}_ADMIN"))?;
    let admins = admins.split(',').map(Admin::parse).collect::<Result<Arc<[_]>, _>>();
    let admins = admins.map_err(|error| error.to_string())?;
    let mut has = vec![Need::Durable, Need::Shared, Need::CutLinks, Need::DestroyHistory];
    match name {
        "sentinel" | "cluster" => has.push(Need::Replicas),
        "redis-aof" => has.push(Need::Syncs),
        _ => {}
    }
    Ok(Subject {
        name,
        has,
        is_time_virtual: false,
        url: Box::new(move |_| url.clone()),
        cut_links: Some(hook(&admins, |server, _| {
            for kind in ["normal", "pubsub"] {
                server.ask(&["CLIENT", "KILL", "TYPE", kind]).expect("its clients are cut off");
            }
        })),
        destroy_history: Some(hook(&admins, |server, tenant| {
            // A replica follows its primary in this too.
            if server.is_primary().expect("it says what it is") {
                let unlink = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end return 1";
                let keys = format!("*:tenant:{tenant}:*");
                server.ask(&["EVAL", unlink, "0", &keys]).expect("the keys are gone");
            }
        })),
    })
}

#[expect(clippy::disallowed_methods, reason = "the test command hands servers over by environment")]
fn setting(variable: &str) -> Result<String, String> {
    std::env::var(variable)
        .map_err(|_| format!("{variable} is not set: run `cargo xtask test`, which starts the servers"))
}

/// A hook that does something to every server, on connections of its own.
fn hook(admins: &Arc<[Admin]>, action: fn(&Admin, &str)) -> Hook {
    let admins = admins.clone();
    Arc::new(move |tenant| {
        let admins = admins.clone();
        Box::pin(async move {
            let run_all = move || admins.iter().for_each(|admin| action(admin, &tenant));
            tokio::task::spawn_blocking(run_all).await.expect("the hook ends");
        })
    })
}
