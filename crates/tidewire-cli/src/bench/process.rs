//! What a process uses of the machine, as Linux tells it in `/proc`.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::target::Target;
use crate::failed::Failed;
use crate::print;

/// Clock ticks per second in `/proc`, fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";
/// How often resident memory is looked at, and how many looks it has to stay the same for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS_ALIKE: u32 = 10;
/// Looks alike are those that differ by less than this part of it.
const ALIKE_WITHIN: f64 = 0.001;
/// Memory that is still moving then is taken as it is.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);

/// Which process is the server.
#[derive(clap::Args)]
pub(super) struct ServerProcess {
    /// Process of the server, whose CPU time and memory are measured; found by its port if it runs on this machine
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(u32);

impl ServerProcess {
    /// The process, or a note of why it is not measured.
    pub(super) fn find(&self, target: &Target) -> Result<Option<Process>, Failed> {
        if let Some(id) = self.pid {
            let process = Process(id);
            return match process.cpu() {
                Ok(_) => Ok(Some(process)),
                Err(error) => Err(Failed::Usage(format!("--pid {id}: {error:#}"))),
            };
        }
        if !target.address.ip().is_loopback() {
            print::note(
                "CPU time and memory are left out: the server is not on this machine's loopback; name it with --pid if it runs here",
            );
            return Ok(None);
        }
        let found = listeners(target.address.port());
        if let [id] = found[..] {
            return Ok(Some(Process(id)));
        }
        let why = if found.is_empty() { "no process is seen to listen" } else { "several processes listen" };
        print::note(format_args!(
            "CPU time and memory are left out: {why} on port {}; name the server with --pid",
            target.address.port()
        ));
        Ok(None)
    }
}

impl Process {
    /// The process that this code runs in.
    pub(super) fn own() -> Self {
        Self(std::process::id())
    }

    /// CPU time so far, user and system.
    pub(super) fn cpu(self) -> Result<Duration> {
        let file = format!("/proc/{}/stat", self.0);
        let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let cpu = cpu_in(&stat).with_context(|| format!("{file} has another form"))?;
        Ok(cpu)
    }

    /// Resident memory, in bytes.
    pub(super) fn resident_bytes(self) -> Result<f64> {
        let file = format!("/proc/{}/status", self.0);
        let status = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kilobytes.with_context(|| format!("{file} has another form"))? * 1024.0)
    }

    /// Resident memory once it stays the same for a second.
    pub(super) async fn settled_bytes(self) -> Result<f64> {
        let start = Instant::now();
        let (mut bytes, mut alike) = (self.resident_bytes()?, 0);
        while alike < LOOKS_ALIKE {
            if start.elapsed() > SETTLE_WITHIN {
                print::note(format_args!(
                    "memory of the server still moves after {SETTLE_WITHIN:?}; taken as it is"
                ));
                break;
            }
            sleep(LOOK_EVERY).await;
            let now = self.resident_bytes()?;
            alike = if (now - bytes).abs() <= bytes * ALIKE_WITHIN { alike + 1 } else { 0 };
            if alike == 0 {
                bytes = now;
            }
        }
        self.resident_bytes()
    }
}

/// CPU time spent in a window, of the server and of ourselves.
pub(super) struct CpuWatch {
    server: Option<(Process, Duration)>,
    own: Option<Duration>,
    start: Instant,
}

/// What a window cost.
pub(super) struct CpuSpent {
    pub(super) server: Option<Duration>,
    /// None where the system does not tell.
    pub(super) own: Option<Duration>,
    pub(super) elapsed: Duration,
}

impl CpuWatch {
    pub(super) fn start(server: Option<Process>) -> Result<Self> {
        let server = server.map(|process| anyhow::Ok((process, process.cpu()?))).transpose()?;
        Ok(Self { server, own: Process::own().cpu().ok(), start: Instant::now() })
    }

    /// What was spent since the start.
    ///
    /// # Errors
    /// If the server is gone.
    pub(super) fn stop(self) -> Result<CpuSpent> {
        let elapsed = self.start.elapsed();
        let since = |process: Process, before| anyhow::Ok(process.cpu()?.saturating_sub(before));
        let server = self.server.map(|(process, before)| since(process, before)).transpose()?;
        let own = self.own.map(|before| since(Process::own(), before)).transpose()?;
        Ok(CpuSpent { server, own, elapsed })
    }
}

/// The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
fn cpu_in(stat: &str) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11).map(str::parse::<f64>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    Some(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

/// The processes that hold a socket which listens on a port, as far as we may look.
fn listeners(port: u16) -> Vec<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let sockets: HashSet<String> = tables.iter().flat_map(|table| listening(table, port)).collect();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| holds(Path::new(&format!("/proc/{id}/fd")), &sockets)).collect()
}

/// The sockets that listen on a port, as the links of those who hold them name them.
fn listening(table: &str, port: u16) -> impl Iterator<Item = String> {
    let port = format!(":{port:04X}");
    table.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (local.ends_with(&port) && *state == LISTENING).then(|| format!("socket:[{inode}]"))
    })
}

fn holds(folder: &Path, sockets: &HashSet<String>) -> bool {
    let links = fs::read_dir(folder).into_iter().flatten().flatten();
    links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .any(|to| to.to_str().is_some_and(|to| sockets.contains(to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_time_behind_a_name_with_spaces_and_parentheses() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_in(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_in("12 (a) S 1"), None);
    }

    #[test]
    fn finds_listening_sockets_by_their_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n   \
            1: 0100007F:1F40 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n";
        assert_eq!(listening(table, 8000).collect::<Vec<_>>(), ["socket:[4711]"]);
        assert_eq!(listening(table, 8001).count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn finds_the_process_that_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listeners(listener.local_addr().unwrap().port()), [std::process::id()]);
        assert!(Process::own().resident_bytes().unwrap() > 0.0);
    }
}
