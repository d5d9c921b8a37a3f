//! A Redis Cluster for programs that are not written in Rust, and for trying things out by hand.
//!
//! Prints the URL of an engine on it, then answers each line of standard input with one line: `holder PATTERN` with the
//! port of the primary that holds a key like that, `kill PORT` and `restart PORT` with `ok`, `failed-over PORT` with `ok` once
//! a replica has taken over from that server. Ends, and ends the servers, with its input.

use std::io::BufRead;

use anyhow::{Context, Result, bail};
use tidewire_fleet::{Cluster, Server, server_program};

fn main() -> Result<()> {
    let program = server_program().context("redis-server is not on the PATH; install redis")?;
    let mut cluster = Cluster::start(&program)?;
    println!("{}", cluster.url());
    for line in std::io::stdin().lock().lines() {
        match obey(&mut cluster, &line?) {
            Ok(answer) => println!("{answer}"),
            Err(error) => println!("error: {error:#}"),
        }
    }
    Ok(())
}

fn obey(cluster: &mut Cluster, line: &str) -> Result<String> {
    match line.split_once(' ') {
        Some(("holder", pattern)) => {
            let holds = |server: &&&Server| {
                server.admin.ask(&["KEYS", pattern]).is_ok_and(|keys| !keys.texts().is_empty())
            };
            let primaries = cluster.primaries();
            let holder = primaries.iter().find(holds).context("no primary holds such a key")?;
            return Ok(holder.port().to_string());
        }
        Some(("kill", port)) => server(cluster, port)?.kill()?,
        Some(("restart", port)) => server(cluster, port)?.restart()?,
        Some(("failed-over", port)) => cluster.until_taken_over(port.parse()?)?,
        _ => bail!("{line:?} is none of holder PATTERN, kill PORT, restart PORT, failed-over PORT"),
    }
    Ok("ok".to_owned())
}

fn server<'c>(cluster: &'c mut Cluster, port: &str) -> Result<&'c mut Server> {
    let found = cluster.servers.iter_mut().find(|server| server.port().to_string() == port);
    found.with_context(|| format!("no server has the port {port}"))
}
