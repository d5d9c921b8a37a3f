//! The servers that schedules run on, and what is done to them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tidewire_fleet::{Admin, Cluster, Persistence, Proxy, Reply, Sentinel, Server, Standalone, Way};

use crate::load::{NODES, Target};
use crate::schedule::{Fault, Step, Topology};

/// What fills an append-only file, so that reading it takes a while: keys, and what each takes (us).
const FILLER_KEYS: usize = 20_000;
const LOAD_DELAY_US: usize = 50;
/// Long enough that requests find a slot on two nodes.
const MIGRATION_PAUSE: Duration = Duration::from_millis(2);
/// Less than one large event has.
const OUTPUT_BUFFER_LIMIT: &str = "pubsub 16384 0 0";
const OUTPUT_BUFFER_DEFAULT: &str = "pubsub 33554432 8388608 60";

/// The servers of a topology.
pub(crate) struct Site {
    topology: Topology,
    servers: Servers,
}

enum Servers {
    One(Standalone),
    /// A server that other schedules use too.
    Shared(Admin),
    /// Where each schedule has a directory.
    Files(Arc<TempDir>),
    Sentinel(Sentinel),
    Cluster(Cluster),
}

/// Waits: nothing signals that a fault has lasted for its time.
fn last(time: Duration) {
    std::thread::sleep(time); // tidy: a fault lasts for a time
}

impl Site {
    pub(crate) fn start(program: &Path, topology: Topology) -> Result<Self> {
        let servers = match topology {
            Topology::Links | Topology::Memory => {
                Servers::One(Standalone::start(program, Persistence::Nothing)?)
            }
            Topology::Aof => {
                let one = Standalone::start(program, Persistence::AppendOnlyFile)?;
                let fill = "for n = 1, ARGV[1] do redis.call('SET', 'filler:' .. n, n) end return 'OK'";
                one.server.admin.tell(&["EVAL", fill, "0", &FILLER_KEYS.to_string()])?;
                Servers::One(one)
            }
            Topology::Sentinel => Servers::Sentinel(Sentinel::start(program)?),
            Topology::Cluster => Servers::Cluster(Cluster::start(program)?),
            Topology::File => Servers::Files(Arc::new(tempfile::tempdir()?)),
        };
        Ok(Self { topology, servers })
    }

    /// The same servers for one of several schedules, none of which may do anything to the others.
    pub(crate) fn share(&self) -> Result<Self> {
        let servers = match &self.servers {
            Servers::One(one) => Servers::Shared(one.server.admin.clone()),
            Servers::Files(folder) => Servers::Files(folder.clone()),
            _ => bail!("only one server is shared"),
        };
        Ok(Self { topology: self.topology, servers })
    }

    /// The URL of each node, and the proxies that they go through, where links have faults.
    pub(crate) fn open(&self, seed: u64) -> Result<(Vec<String>, Vec<Proxy>)> {
        let url = match &self.servers {
            Servers::One(one) => one.url(),
            Servers::Sentinel(sentinel) => sentinel.url(),
            Servers::Cluster(cluster) => cluster.url(),
            Servers::Files(folder) => {
                return Ok((
                    vec![format!("file:{}", folder.path().join(seed.to_string()).display())],
                    Vec::new(),
                ));
            }
            Servers::Shared(admin) => {
                let proxies = (0..NODES as u64).map(|node| Proxy::open(admin.address(), seed + node));
                let proxies = proxies.collect::<Result<Vec<_>>>()?;
                return Ok((proxies.iter().map(Proxy::url).collect(), proxies));
            }
        };
        Ok((vec![url; NODES], Vec::new()))
    }

    /// Does what the step says, and undoes it, so that all is well again for servers and links.
    pub(crate) fn strike(&mut self, step: &Step, proxies: &[Proxy], target: &Target) -> Result<()> {
        if let Some(proxy) = proxies.get(step.target % NODES)
            && strike_link(step, proxy)
        {
            return Ok(());
        }
        match step.fault {
            Fault::KillData => return self.kill_clients("normal", proxies),
            Fault::KillListening => return self.kill_clients("pubsub", proxies),
            Fault::FlushScripts => {
                return self.data_servers().iter().try_for_each(|server| server.tell(&["SCRIPT", "FLUSH"]));
            }
            _ => {}
        }
        match &mut self.servers {
            Servers::One(one) => strike_one(step, &mut one.server, target),
            Servers::Sentinel(sentinel) => strike_sentinel(step, sentinel),
            Servers::Cluster(cluster) => strike_cluster(step, cluster, target),
            Servers::Shared(_) | Servers::Files(_) => bail!("{:?} would disturb others", step.fault),
        }
    }

    /// The ports of the primaries of now. Where they change without a fault that does it, the machine was too slow for
    /// servers to answer each other in time.
    pub(crate) fn primaries(&self) -> Vec<u16> {
        let mut servers = self.data_servers();
        servers.retain(|server| server.is_primary().unwrap_or_default());
        servers.iter().map(Admin::port).collect()
    }

    /// What the servers say of themselves, for who wonders why all is not well.
    pub(crate) fn picture(&self) -> String {
        let mut picture = String::from("the servers say:");
        for server in self.data_servers() {
            let role = server.ask(&["ROLE"]).map(|role| role.texts().join(" "));
            let nodes = server.ask(&["CLUSTER", "NODES"]).map(|nodes| nodes.text().replace('\n', "\n      "));
            let role = role.unwrap_or_else(|error| format!("{error:#}"));
            picture.push_str(&format!(
                "\n    {}: {role}\n      {}",
                server.port(),
                nodes.unwrap_or_default()
            ));
        }
        picture.push_str("\n  and");
        picture
    }

    /// Those that hold data.
    fn data_servers(&self) -> Vec<Admin> {
        let admins = |servers: &[Server]| servers.iter().map(|server| server.admin.clone()).collect();
        match &self.servers {
            Servers::One(one) => vec![one.server.admin.clone()],
            Servers::Shared(admin) => vec![admin.clone()],
            Servers::Sentinel(sentinel) => admins(&sentinel.servers),
            Servers::Cluster(cluster) => admins(&cluster.servers),
            Servers::Files(_) => Vec::new(),
        }
    }

    /// Cuts off connections of one kind: all, or behind proxies those of the schedule.
    fn kill_clients(&self, kind: &str, proxies: &[Proxy]) -> Result<()> {
        for server in self.data_servers() {
            if proxies.is_empty() {
                server.ask(&["CLIENT", "KILL", "TYPE", kind])?;
                continue;
            }
            let ours: Vec<String> =
                proxies.iter().flat_map(Proxy::links).map(|link| link.to_string()).collect();
            let clients = server.ask(&["CLIENT", "LIST", "TYPE", kind])?;
            let addresses = clients.text().lines().filter_map(|client| client.split(' ').nth(1));
            for address in addresses.filter_map(|address| address.strip_prefix("addr=")) {
                if ours.iter().any(|link| link == address) {
                    // It may have ended meanwhile.
                    drop(server.ask(&["CLIENT", "KILL", "ADDR", address]));
                }
            }
        }
        Ok(())
    }
}

/// Whether it was a fault of links.
fn strike_link(step: &Step, proxy: &Proxy) -> bool {
    match step.fault {
        Fault::Delay => proxy.delay(Duration::from_millis(2 + step.target as u64 % 60)),
        Fault::HalfOpen => proxy.hold(),
        Fault::Frozen => proxy.freeze(),
        Fault::SwallowOut => proxy.swallow(Way::Out),
        Fault::SwallowIn => proxy.swallow(Way::In),
        Fault::Cut => proxy.cut(),
        // A link that is opened takes some 25,000 bytes, for the scripts.
        Fault::CutMidway => proxy.cut_next(1 + step.target as u64 % 4, 60_000),
        _ => return false,
    }
    last(step.lasts);
    proxy.cut_next(0, 0);
    proxy.pass();
    true
}

fn strike_one(step: &Step, server: &mut Server, target: &Target) -> Result<()> {
    match step.fault {
        Fault::FlushAll => server.admin.tell(&["FLUSHALL"]),
        Fault::OutOfMemory => {
            server.admin.tell(&["CONFIG", "SET", "maxmemory", "1"])?;
            last(step.lasts);
            server.admin.tell(&["CONFIG", "SET", "maxmemory", "0"])
        }
        Fault::OutputBuffer => {
            let before = listening(&server.admin)?;
            server.admin.tell(&["CONFIG", "SET", "client-output-buffer-limit", OUTPUT_BUFFER_LIMIT])?;
            target.publish_large();
            let is_killed = |clients: &Reply| {
                client_ids(clients).iter().any(|id| !before.contains(id))
                    || client_ids(clients).len() < before.len()
            };
            server.admin.until("a listener is cut off", &["CLIENT", "LIST", "TYPE", "pubsub"], is_killed)?;
            server.admin.tell(&["CONFIG", "SET", "client-output-buffer-limit", OUTPUT_BUFFER_DEFAULT])
        }
        Fault::Pause => {
            server.pause()?;
            last(step.lasts);
            server.go_on()
        }
        Fault::RestartEmpty | Fault::Restart => {
            server.admin.tell(&["CONFIG", "SET", "key-load-delay", &LOAD_DELAY_US.to_string()])?;
            server.kill()?;
            last(step.lasts);
            server.restart()
        }
        Fault::FailedSave => fail_save(step, server),
        // What an operator thinks is all of a group; what is kept beside the stream for it stays.
        Fault::DeleteGroup => {
            delete(&server.admin, &["group", "sessions", "free"].map(|kind| target.keys(kind, "*")))
        }
        Fault::DeleteSessions => {
            let kind = if step.target.is_multiple_of(2) { "sessions" } else { "free" };
            delete(&server.admin, &[target.keys(kind, "*")])
        }
        Fault::DeleteStream => delete(&server.admin, &[target.stream_keys(0)]),
        Fault::TrimStream => {
            for key in server.admin.ask(&["KEYS", &target.stream_keys(0)])?.texts() {
                server.admin.ask(&["XTRIM", key, "MAXLEN", &(step.target % 4).to_string()])?;
            }
            Ok(())
        }
        other => bail!("{other:?} does not happen to one server"),
    }
}

/// Deletes all keys that match, at once.
fn delete(server: &Admin, patterns: &[String]) -> Result<()> {
    let mut command = vec!["DEL".to_owned()];
    for pattern in patterns {
        command.extend(server.ask(&["KEYS", pattern])?.texts().into_iter().map(str::to_owned));
    }
    if command.len() > 1 {
        server.ask(&command.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The ids of the connections that listen.
fn listening(server: &Admin) -> Result<Vec<String>> {
    Ok(client_ids(&server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"])?))
}

fn client_ids(clients: &Reply) -> Vec<String> {
    clients.text().lines().filter_map(|client| client.split(' ').next()).map(str::to_owned).collect()
}

/// A snapshot fails, because a folder is where its file should be: the server refuses to write.
fn fail_save(step: &Step, server: &Server) -> Result<()> {
    let obstacle = server.place().folder.join("dump.rdb");
    let is = |status: &'static str| move |facts: &Reply| facts.text().contains(status);
    drop(fs::remove_file(&obstacle));
    fs::create_dir_all(obstacle.join("in-the-way"))?;
    server.admin.tell(&["CONFIG", "SET", "save", "3600 1"])?;
    server.admin.ask(&["BGSAVE", "SCHEDULE"])?;
    server.admin.until("a snapshot fails", &["INFO", "persistence"], is("rdb_last_bgsave_status:err"))?;
    last(step.lasts);
    fs::remove_dir_all(&obstacle)?;
    server.admin.ask(&["BGSAVE", "SCHEDULE"])?;
    server.admin.until("a snapshot succeeds", &["INFO", "persistence"], is("rdb_last_bgsave_status:ok"))?;
    server.admin.tell(&["CONFIG", "SET", "save", ""])
}

fn strike_sentinel(step: &Step, fleet: &mut Sentinel) -> Result<()> {
    let (place, port) = fleet.primary()?;
    let replicas: Vec<Admin> = fleet
        .servers
        .iter()
        .map(|server| server.admin.clone())
        .filter(|admin| admin.port() != port)
        .collect();
    if step.fault == Fault::FailOver {
        fleet.fail_over()?;
        return fleet.until_watched();
    }
    if step.fault == Fault::KillSentinel {
        let place = step.target % fleet.sentinels.len();
        fleet.sentinels[place].kill()?;
        last(step.lasts);
        fleet.restart_sentinel(place)?;
        return fleet.until_watched();
    }
    if step.fault == Fault::KillReplica {
        let replica = (place + 1 + step.target % replicas.len()) % fleet.servers.len();
        strike_replica(step, &mut fleet.servers[replica])?;
        return fleet.until_watched();
    }
    strike_primary(step, &mut fleet.servers[place], &replicas)?;
    if step.fault != Fault::RestartEmpty {
        fleet.until_other_primary(port)?;
        last(step.lasts);
        bring_back(step, &mut fleet.servers[place])?;
    }
    fleet.until_watched()
}

fn strike_cluster(step: &Step, cluster: &mut Cluster, target: &Target) -> Result<()> {
    // The primary of one of the streams, so that the fault does hit the load.
    let slot = slot_of(cluster, &target.stream_keys(step.target))?;
    let place = cluster.owner(slot)?;
    let primary = &cluster.servers[place];
    let replica = cluster.replica_of(primary)?.admin.clone();
    match step.fault {
        Fault::FailOver => drop(cluster.fail_over(primary)?),
        Fault::MoveSlots => {
            let mut others = cluster.primaries();
            others.retain(|server| server.port() != primary.port());
            let taker = others[step.target % others.len()];
            cluster.migrate(slot, primary, taker, || last(MIGRATION_PAUSE))?;
            last(step.lasts);
            cluster.migrate(slot, taker, primary, || last(MIGRATION_PAUSE))?;
        }
        Fault::KillReplica => {
            let is_it = |server: &&mut Server| server.port() == replica.port();
            strike_replica(step, cluster.servers.iter_mut().find(is_it).context("the replica")?)?;
        }
        _ => {
            strike_primary(step, &mut cluster.servers[place], std::slice::from_ref(&replica))?;
            if step.fault != Fault::RestartEmpty {
                replica.until_primary()?;
                last(step.lasts);
                bring_back(step, &mut cluster.servers[place])?;
            }
        }
    }
    cluster.until_whole()
}

/// Takes a primary away, or all that it and its replicas have.
fn strike_primary(step: &Step, primary: &mut Server, replicas: &[Admin]) -> Result<()> {
    match step.fault {
        Fault::KillPrimary => primary.kill(),
        Fault::KillLonePrimary => {
            // Its replicas are cut off and cannot come back: it takes orders from nobody without the password now.
            primary.admin.tell(&["CONFIG", "SET", "requirepass", "secret"])?;
            for replica in replicas {
                replica.ask(&["CLIENT", "KILL", "TYPE", "master"])?;
            }
            last(step.lasts);
            primary.kill()
        }
        Fault::PausePrimary => primary.pause(),
        Fault::RestartEmpty => {
            // Before anybody takes over: its replicas copy what it has, which is nothing.
            primary.kill()?;
            primary.restart()
        }
        other => bail!("{other:?} does not happen to a primary"),
    }
}

/// Undoes [`strike_primary`], when another one has taken over.
fn bring_back(step: &Step, primary: &mut Server) -> Result<()> {
    if step.fault == Fault::PausePrimary { primary.go_on() } else { primary.restart() }
}

fn strike_replica(step: &Step, replica: &mut Server) -> Result<()> {
    replica.kill()?;
    last(step.lasts);
    replica.restart()
}

/// The slot of the first key that matches.
fn slot_of(cluster: &Cluster, pattern: &str) -> Result<u32> {
    for server in cluster.primaries() {
        let keys = server.admin.ask(&["KEYS", pattern])?;
        if let Some(key) = keys.texts().first() {
            return Ok(server.admin.ask(&["CLUSTER", "KEYSLOT", key])?.text().parse()?);
        }
    }
    bail!("no primary has a key like {pattern}")
}
