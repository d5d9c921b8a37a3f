//! The server under test: the binary in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks per second in `/proc`, fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process whose use of the machine is read from `/proc`; killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// CPU time so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
        let (_, after_name) = stat.rsplit_once(')').context("stat of the process")?;
        let fields: Vec<_> = after_name.split_whitespace().collect();
        let ticks =
            |at: usize| fields.get(at).context("field of stat")?.parse::<f64>().context("number in stat");
        Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND))
    }

    /// Resident memory, bytes.
    pub(crate) fn resident_bytes(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        let kilobytes: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kilobytes * 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            // Reaped, so that no zombie is left; its status says nothing.
            let _status = self.0.wait();
        }
    }
}

/// A running `tidewire serve --dev` on the memory engine.
pub(crate) struct Server {
    pub(crate) process: Process,
    /// `HOST:PORT`
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        // The clients here answer no pings, and a machine may be slow.
        let mut config = tempfile::NamedTempFile::new()?;
        config.write_all(b"timing.ping_every = \"1h\"\n")?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidewire"))
            .args(["serve", "--dev", "--engine", "memory:", "--listen", "127.0.0.1:0", "--config"])
            .arg(config.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("stdout of the server")?;
        let process = Process::new(child);
        let mut lines = BufReader::new(stdout).lines();
        let address = loop {
            let line = lines.next().context("the server ended before it listened")??;
            if let Some((_, address)) = line.split_once("listening on http://") {
                break address.trim().to_owned();
            }
        };
        // Read on, so that the server never waits for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, address })
    }
}
