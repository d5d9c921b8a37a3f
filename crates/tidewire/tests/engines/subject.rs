//! The engines under test.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use tidewire::conformance::{Hook, Need, Subject};

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
        has: vec![Need::Durable],
        is_time_virtual: true,
        url: Box::new(move |case| format!("file:{}", root.join(case).display())),
        cut_links: None,
        destroy_history: None,
    }
}

/// A server that `cargo xtask test` has started and named in the environment variable.
///
/// # Errors
/// Says how to get one.
#[expect(clippy::disallowed_methods, reason = "the test command hands servers over by environment")]
pub(crate) fn redis(name: &'static str, variable: &str) -> Result<Subject, String> {
    let url = std::env::var(variable)
        .map_err(|_| format!("{variable} is not set: run `cargo xtask test`, which starts the servers"))?;
    let (_, hosts) = url.split_once("://").ok_or_else(|| format!("{variable} is not a URL"))?;
    // A cluster has more nodes than one; its URL names every primary.
    let hosts: Vec<String> = hosts.split('/').next().unwrap_or(hosts).split(',').map(str::to_owned).collect();
    Ok(Subject {
        name,
        has: vec![Need::Durable, Need::Shared, Need::CutLinks, Need::DestroyHistory],
        is_time_virtual: false,
        url: Box::new(move |_| url.clone()),
        cut_links: Some(hook(&hosts, |_| {
            ["normal", "pubsub"]
                .map(|kind| ["CLIENT", "KILL", "TYPE", kind].map(String::from).to_vec())
                .to_vec()
        })),
        destroy_history: Some(hook(&hosts, |tenant| {
            let unlink =
                "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end return 1";
            vec![vec!["EVAL".into(), unlink.into(), "0".into(), format!("*:tenant:{tenant}:*")]]
        })),
    })
}

/// A hook that runs commands on every server, on connections of its own.
fn hook(hosts: &[String], commands: fn(&str) -> Vec<Vec<String>>) -> Hook {
    let hosts = hosts.to_vec();
    Arc::new(move |tenant| {
        let (hosts, commands) = (hosts.clone(), commands(&tenant));
        Box::pin(async move {
            let run_all = move || hosts.iter().try_for_each(|host| run(host, &commands));
            tokio::task::spawn_blocking(run_all).await.expect("the hook ends").expect("it runs");
        })
    })
}

/// Runs commands whose replies are one line each.
fn run(host: &str, commands: &[Vec<String>]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(host)?;
    let mut replies = BufReader::new(stream.try_clone()?).lines();
    for command in commands {
        write!(stream, "*{}\r\n", command.len())?;
        for word in command {
            write!(stream, "${}\r\n{word}\r\n", word.len())?;
        }
        let reply = replies.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
        assert!(!reply.starts_with('-'), "{command:?}: {reply}");
    }
    Ok(())
}
