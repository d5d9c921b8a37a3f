//! Redis servers that live as long as the run: on free loopback ports, each in a folder of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Starts the program, waits until its own input closes - which it does when the run ends, even by SIGKILL - and then
/// stops the program and removes its folder.
const KEEPER: &str = r#"folder="$1"; shift
"$@" & program=$!
read -r _
kill "$program"; wait "$program"; rm -rf "$folder""#;

/// Another process may take a free port between our look and Redis' bind.
const START_ATTEMPTS: usize = 3;
const READY_POLLS: usize = 500;
const READY_POLL: Duration = Duration::from_millis(20);

/// What a Redis keeps when it is restarted.
#[derive(Clone, Copy)]
pub(crate) enum Persistence {
    Nothing,
    AppendOnlyFile,
}

/// A running Redis. Dropping it stops it.
pub(crate) struct Redis {
    address: SocketAddr,
    keeper: Child,
}

impl Redis {
    /// Starts `program` and waits until it answers.
    pub(crate) fn start(program: &Path, persistence: Persistence) -> Result<Redis> {
        let mut last = None;
        for _ in 0..START_ATTEMPTS {
            match Redis::start_once(program, persistence) {
                Ok(redis) => return Ok(redis),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    /// `redis://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    fn start_once(program: &Path, persistence: Persistence) -> Result<Redis> {
        let address = free_address()?;
        let folder = folder_of(address);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let append_only = match persistence {
            Persistence::Nothing => "no",
            Persistence::AppendOnlyFile => "yes",
        };
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&folder)
            .arg(program)
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", ""])
            .args(["--appendonly", append_only, "--logfile", "redis.log", "--dir"])
            .arg(&folder)
            .stdin(Stdio::piped())
            // Ctrl-C ends the run, and the end of the run ends Redis: it must not die first, under the tests.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let redis = Redis { address, keeper };
        redis.wait_until_ready().with_context(|| {
            let log = fs::read_to_string(folder.join("redis.log")).unwrap_or_default();
            format!("{} does not answer on {address}; its log:\n{log}", program.display())
        })?;
        Ok(redis)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let mut last = None;
        for _ in 0..READY_POLLS {
            match self.ping() {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
            std::thread::sleep(READY_POLL);
        }
        Err(last.context("never asked")?)
    }

    fn ping(&self) -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply)?;
        if &reply != b"+PONG\r\n" {
            bail!("it answers {:?} to PING", String::from_utf8_lossy(&reply));
        }
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        if let Err(error) = self.keeper.wait() {
            eprintln!("cannot wait for the Redis on {}: {error}", self.address);
        }
    }
}

/// Named by process and port, so that runs side by side never share one.
fn folder_of(address: SocketAddr) -> PathBuf {
    std::env::temp_dir().join(format!("tidewire-redis-{}-{}", std::process::id(), address.port()))
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
    Ok(listener.local_addr()?)
}
