//! A cluster of three primaries and three replicas.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::admin::{Reply, until, until_within};
use crate::server::Server;
use crate::standalone::Persistence;

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
/// Short, because tests wait for it; long enough for a server that shares two cores with a test to answer in.
const NODE_TIMEOUT_MS: &str = "1000";
/// After 5 s a server gives a planned failover up.
const FAILOVER_TIME_MAX: Duration = Duration::from_secs(6);
/// Keys that are moved with one command: few, so that requests find a slot on two nodes.
const MIGRATED_AT_ONCE: &str = "10";
const MIGRATE_TIME_MAX_MS: &str = "5000";

/// Six servers that share the slots.
pub struct Cluster {
    /// The primaries of the beginning, then their replicas in the same order.
    pub servers: Vec<Server>,
}

impl Cluster {
    /// Starts the servers and waits until every one sees a whole cluster with its replicas in step.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start(program: &Path) -> Result<Self> {
        let server = || {
            Server::start(program, &[], None, |place| {
                let mut lines = Persistence::Nothing.lines();
                lines.push("cluster-enabled yes".to_owned());
                lines.push(format!("cluster-port {}", place.other_port));
                lines.push(format!("cluster-node-timeout {NODE_TIMEOUT_MS}"));
                lines.push("repl-diskless-sync-delay 0".to_owned());
                Ok(lines)
            })
        };
        let servers = (0..2 * PRIMARIES).map(|_| server()).collect::<Result<Vec<_>>>()?;
        let cluster = Self { servers };
        cluster.join()?;
        cluster.until_whole()?;
        Ok(cluster)
    }

    fn join(&self) -> Result<()> {
        let first = self.servers.first().context("a server")?;
        let (port, bus_port) = (first.port().to_string(), first.place().other_port.to_string());
        for (epoch, server) in (1..).zip(&self.servers) {
            server.admin.tell(&["CLUSTER", "SET-CONFIG-EPOCH", &format!("{epoch}")])?;
            if epoch > 1 {
                server.admin.tell(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port])?;
            }
        }
        let (primaries, replicas) = self.servers.split_at(PRIMARIES);
        for (number, server) in primaries.iter().enumerate() {
            let (first, end) = (number * SLOTS / PRIMARIES, (number + 1) * SLOTS / PRIMARIES);
            server.admin.tell(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()])?;
        }
        for (primary, replica) in primaries.iter().zip(replicas) {
            let id = id(primary)?;
            replica.admin.until("it knows its primary", &["CLUSTER", "REPLICATE", &id], Reply::is_ok)?;
        }
        Ok(())
    }

    /// Waits until every server answers, sees every slot served, and knows all others well; and every primary has a
    /// replica in step with it.
    ///
    /// # Errors
    /// As [`Admin::until`](crate::Admin::until).
    pub fn until_whole(&self) -> Result<()> {
        for server in &self.servers {
            let is_whole = |reply: &Reply| reply.text().contains("cluster_state:ok");
            server.admin.until("it sees a whole cluster", &["CLUSTER", "INFO"], is_whole)?;
            let is_well = |reply: &Reply| {
                let nodes: Vec<&str> = reply.text().lines().collect();
                let is_up = |node: &&str| !node.contains("fail") && !node.contains("handshake");
                nodes.len() == 2 * PRIMARIES && nodes.iter().all(is_up)
            };
            server.admin.until("it knows every other", &["CLUSTER", "NODES"], is_well)?;
        }
        until("a replica in step for every primary", || {
            let primaries = self.primaries();
            for primary in &primaries {
                self.replica_of(primary)?;
            }
            match primaries.len() {
                PRIMARIES => Ok(()),
                count => bail!("{count} primaries"),
            }
        })
    }

    /// Waits until there are as many primaries as in the beginning without the server on `port`.
    ///
    /// # Errors
    /// As [`Admin::until`](crate::Admin::until).
    pub fn until_taken_over(&self, port: u16) -> Result<()> {
        until("a replica that took over", || {
            match self.primaries().iter().filter(|primary| primary.port() != port).count() {
                PRIMARIES => Ok(()),
                count => bail!("{count} other primaries"),
            }
        })
    }

    /// The URL of an engine on it; any node leads to all.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.servers.iter().map(|server| server.admin.address().to_string()).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// The primaries of now.
    pub fn primaries(&self) -> Vec<&Server> {
        self.servers.iter().filter(|server| server.admin.is_primary().unwrap_or_default()).collect()
    }

    /// The place in [`Cluster::servers`] of the primary that serves a slot.
    ///
    /// # Errors
    /// If none does now.
    pub fn owner(&self, slot: u32) -> Result<usize> {
        let owns = |server: &Server| -> Result<bool> {
            if !server.admin.is_primary()? {
                return Ok(false);
            }
            let id = id(server)?;
            let nodes = server.admin.ask(&["CLUSTER", "NODES"])?;
            let line = nodes.text().lines().find(|line| line.starts_with(&id)).unwrap_or_default().to_owned();
            // Ranges stand after eight words; a slot that moves stands in brackets.
            let has_slot = |range: &str| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                matches!((first.parse::<u32>(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
            };
            Ok(line.split(' ').skip(8).any(has_slot))
        };
        let place = self.servers.iter().position(|server| owns(server).unwrap_or_default());
        place.with_context(|| format!("nobody serves slot {slot}"))
    }

    /// A replica of a primary that is in step with it.
    ///
    /// # Errors
    /// If there is none now.
    pub fn replica_of(&self, primary: &Server) -> Result<&Server> {
        let port = primary.port().to_string();
        let follows = |server: &&Server| {
            let Ok(role) = server.admin.ask(&["ROLE"]) else { return false };
            let texts = role.texts();
            texts.first() == Some(&"slave")
                && texts.get(2) == Some(&&*port)
                && texts.get(3) == Some(&"connected")
        };
        self.servers
            .iter()
            .find(follows)
            .with_context(|| format!("no replica follows the primary on port {port}"))
    }

    /// Has the replica of a primary take over from it, as an operator does, and waits until it has; gives the new
    /// primary.
    ///
    /// # Errors
    /// As [`Admin::until`](crate::Admin::until).
    pub fn fail_over(&self, primary: &Server) -> Result<&Server> {
        let replica = until("a replica in step", || self.replica_of(primary))?;
        until("a planned failover", || {
            if replica.admin.is_primary()? {
                return Ok(());
            }
            replica.admin.tell(&["CLUSTER", "FAILOVER"])?;
            until_within(FAILOVER_TIME_MAX, "it takes over", || match replica.admin.is_primary()? {
                true => Ok(()),
                false => bail!("the server on port {} is a replica", replica.port()),
            })
        })?;
        Ok(replica)
    }

    /// Moves a slot from one primary to another, some keys at a time, as `redis-cli --cluster reshard` does. Calls
    /// `between` after every few keys.
    ///
    /// # Errors
    /// If a server refuses a step.
    pub fn migrate(&self, slot: u32, from: &Server, to: &Server, mut between: impl FnMut()) -> Result<()> {
        let slot = slot.to_string();
        let (giver, taker) = (id(from)?, id(to)?);
        to.admin.tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &giver])?;
        from.admin.tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &taker])?;
        loop {
            let found = from.admin.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, MIGRATED_AT_ONCE])?;
            let keys = found.texts();
            if keys.is_empty() {
                break;
            }
            let port = to.port().to_string();
            // A move that timed out may have been done on the other side: what is here counts.
            let mut command =
                vec!["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATE_TIME_MAX_MS, "REPLACE", "KEYS"];
            command.extend(keys);
            // A key may have expired meanwhile.
            let is_moved = |moved: &Reply| ["OK", "NOKEY"].contains(&moved.text());
            from.admin.until("keys move", &command, is_moved)?;
            between();
        }
        to.admin.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &taker])?;
        from.admin.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &taker])?;
        for primary in self.primaries() {
            primary.admin.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &taker])?;
        }
        Ok(())
    }
}

fn id(server: &Server) -> Result<String> {
    Ok(server.admin.ask(&["CLUSTER", "MYID"])?.text().to_owned())
}
