//! A primary, two replicas, and three sentinels that watch them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::admin::{Admin, Reply, until, until_within};
use crate::server::Server;
use crate::standalone::Persistence;

const REPLICAS: usize = 2;
const SENTINELS: usize = 3;
/// What the sentinels call the primary.
const NAME: &str = "tidewire";
/// Short, because tests wait for it; long enough for a server that shares two cores with a test to answer in.
const DOWN_AFTER_MS: &str = "750";
/// How often a sentinel looks at a server, pings it, and tells the others; every 10 s, 1 s and 2 s otherwise. It waits
/// for a multiple of these before it demotes a primary that came back, and one ping that is late is no sign of death.
const LOOKS: [&str; 6] = ["info-period", "250", "ping-period", "150", "publish-period", "250"];
/// A second failover starts no earlier than twice this after the first.
const FAILOVER_TIMEOUT_MS: &str = "2000";
/// After [`FAILOVER_TIMEOUT_MS`] a sentinel gives up a planned failover; what is left is for the others to hear of one.
const FAILOVER_TIME_MAX: Duration = Duration::from_secs(5);

/// Servers and who watches over them.
pub struct Sentinel {
    /// The primary of the beginning, then its replicas.
    pub servers: Vec<Server>,
    /// The sentinels.
    pub sentinels: Vec<Server>,
}

impl Sentinel {
    /// Starts all and waits until every sentinel knows every server.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start(program: &Path) -> Result<Self> {
        Self::start_with(program, Persistence::Nothing)
    }

    /// The same, with servers that keep what `persistence` says.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(program: &Path, persistence: Persistence) -> Result<Self> {
        let server = |primary: Option<u16>| {
            Server::start(program, &[], None, |_| {
                let mut lines = persistence.lines();
                lines.push("repl-diskless-sync-delay 0".to_owned());
                lines.extend(primary.map(|port| format!("replicaof 127.0.0.1 {port}")));
                Ok(lines)
            })
        };
        let mut servers = vec![server(None)?];
        let port = servers.first().context("the primary")?.port();
        for _ in 0..REPLICAS {
            servers.push(server(Some(port))?);
        }
        for replica in servers.iter().skip(1) {
            replica.admin.until_in_step()?;
        }
        let sentinel = || {
            Server::start(program, &["--sentinel"], None, |_| {
                Ok(vec![
                    format!("sentinel monitor {NAME} 127.0.0.1 {port} 2"),
                    format!("sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}"),
                    format!("sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}"),
                    format!("sentinel parallel-syncs {NAME} {REPLICAS}"),
                ])
            })
        };
        let sentinels = (0..SENTINELS).map(|_| sentinel()).collect::<Result<Vec<_>>>()?;
        sentinels.iter().try_for_each(look_often)?;
        let fleet = Self { servers, sentinels };
        fleet.until_watched()?;
        Ok(fleet)
    }

    /// `redis-sentinel://IP:PORT,IP:PORT,IP:PORT/NAME`.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| sentinel.admin.address().to_string()).collect();
        format!("redis-sentinel://{}/{NAME}", hosts.join(","))
    }

    /// The port of the primary that most sentinels name now.
    ///
    /// # Errors
    /// If they do not agree.
    pub fn primary_port(&self) -> Result<u16> {
        let named = |sentinel: &Server| {
            let reply = sentinel.admin.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok()?;
            reply.texts().get(1)?.parse().ok()
        };
        let ports: Vec<u16> = self.sentinels.iter().filter_map(named).collect();
        let is_agreed = |port: &&u16| 2 * ports.iter().filter(|other| other == port).count() > SENTINELS;
        ports
            .iter()
            .find(is_agreed)
            .copied()
            .with_context(|| format!("sentinels name the primaries {ports:?}"))
    }

    /// Waits until the sentinels agree on a primary other than that on port `old`, and it is one; gives its place in
    /// [`Sentinel::servers`].
    ///
    /// # Errors
    /// As [`Admin::until`].
    pub fn until_other_primary(&self, old: u16) -> Result<usize> {
        until("another primary", || self.other_primary(old))
    }

    fn other_primary(&self, old: u16) -> Result<usize> {
        match self.primary()? {
            (_, port) if port == old => bail!("the primary is still on port {old}"),
            (place, _) => Ok(place),
        }
    }

    /// The place in [`Sentinel::servers`] of the primary that the sentinels agree on, and its port.
    ///
    /// # Errors
    /// If there is none now.
    pub fn primary(&self) -> Result<(usize, u16)> {
        let port = self.primary_port()?;
        let place =
            self.servers.iter().position(|server| server.port() == port).context("a server of ours")?;
        let server = self.servers.get(place).context("a server of ours")?;
        if !server.admin.is_primary()? {
            bail!("the server on port {port} is not a primary yet");
        }
        Ok((place, port))
    }

    /// Has a sentinel hand over to a replica, as an operator does, and waits until all agree on it; gives the place of
    /// the new primary in [`Sentinel::servers`].
    ///
    /// # Errors
    /// As [`Admin::until`].
    pub fn fail_over(&self) -> Result<usize> {
        let old = until("a primary", || self.primary_port())?;
        let sentinel = self.sentinels.first().context("a sentinel")?;
        until("a planned failover", || {
            if let Ok(place) = self.other_primary(old) {
                return Ok(place);
            }
            sentinel.admin.tell(&["SENTINEL", "FAILOVER", NAME])?;
            until_within(FAILOVER_TIME_MAX, "another primary", || self.other_primary(old))
        })
    }

    /// Starts a sentinel again after it was killed.
    ///
    /// # Errors
    /// As [`Server::restart`].
    pub fn restart_sentinel(&mut self, place: usize) -> Result<()> {
        let sentinel = self.sentinels.get_mut(place).context("a sentinel")?;
        sentinel.restart()?;
        look_often(sentinel)
    }

    /// Waits until there is one primary, its replicas follow it in step, and every sentinel knows all of them well.
    ///
    /// # Errors
    /// As [`Admin::until`].
    pub fn until_watched(&self) -> Result<()> {
        until("one primary with two replicas in step", || {
            let (_, port) = self.primary()?;
            let followers = self.servers.iter().filter(|server| follows(&server.admin, port)).count();
            match followers {
                REPLICAS => Ok(()),
                count => bail!("{count} of {REPLICAS} replicas follow port {port}"),
            }
        })?;
        let port = self.primary_port()?.to_string();
        for sentinel in &self.sentinels {
            let is_known = |reply: &Reply| {
                let facts = reply.texts();
                let fact = |name: &str| {
                    let at = facts.iter().step_by(2).position(|fact| *fact == name)?;
                    facts.get(2 * at + 1).copied()
                };
                (fact("port"), fact("flags")) == (Some(&port), Some("master"))
                    && fact("num-slaves") == Some("2")
                    && fact("num-other-sentinels") == Some("2")
            };
            sentinel.admin.until("it knows every server", &["SENTINEL", "MASTER", NAME], is_known)?;
        }
        Ok(())
    }
}

/// A sentinel forgets this when it ends.
fn look_often(sentinel: &Server) -> Result<()> {
    sentinel.admin.tell(&[["SENTINEL", "DEBUG"].as_slice(), &LOOKS].concat())
}

/// Whether a server is a replica of that on `port` and has its data.
fn follows(admin: &Admin, port: u16) -> bool {
    let Ok(role) = admin.ask(&["ROLE"]) else { return false };
    let texts = role.texts();
    texts.first() == Some(&"slave")
        && texts.get(2) == Some(&port.to_string().as_str())
        && texts.get(3) == Some(&"connected")
}
