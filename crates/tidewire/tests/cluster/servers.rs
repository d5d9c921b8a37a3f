//! A cluster of three primaries and three replicas, for one test, on free loopback ports.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

/// How long a cluster may take to agree on something.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(20);
const PRIMARIES: usize = 3;
const SLOTS: u32 = 16_384;

pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
}

/// One server; dropping it kills it.
pub(crate) struct Server {
    pub(crate) port: u16,
    bus_port: u16,
    process: Child,
    _directory: TempDir,
}

/// A reply, as far as the tests look at one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Text(String),
    List(Vec<Reply>),
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::List(_) => "",
        }
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text.clone()],
            Self::List(items) => items.iter().map(|item| item.text().to_owned()).collect(),
        }
    }
}

impl Cluster {
    /// Waits until the replica on this port has taken over.
    pub(crate) async fn until_primary(&self, port: u16) {
        let is_primary = |role: &Reply| role.texts().first().is_some_and(|role| role == "master");
        let server = self.servers.iter().find(|server| server.port == port).expect("a server of ours");
        server.until("the replica to take over", &["ROLE"], is_primary).await;
    }

    /// Starts the servers and waits until every one sees a whole cluster with its replicas in step.
    pub(crate) async fn start() -> Self {
        let servers: Vec<Server> = (0..2 * PRIMARIES).map(|_| Server::start()).collect();
        let cluster = Self { servers };
        for (epoch, server) in cluster.servers.iter().enumerate() {
            server.until("it answers", &["PING"], |reply| reply.text() == "PONG").await;
            server.tell(&["CLUSTER", "SET-CONFIG-EPOCH", &(epoch + 1).to_string()]);
        }
        let first = &cluster.servers[0];
        let (port, bus_port) = (first.port.to_string(), first.bus_port.to_string());
        for server in &cluster.servers[1..] {
            server.tell(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]);
        }
        for (number, server) in (0..).zip(&cluster.servers[..PRIMARIES]) {
            let (first, end) = (number * SLOTS / 3, (number + 1) * SLOTS / 3);
            server.tell(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
        }
        for number in 0..PRIMARIES {
            let primary = cluster.servers[number].id();
            let replica = &cluster.servers[PRIMARIES + number];
            replica.until("it knows its primary", &["CLUSTER", "REPLICATE", &primary], is_ok).await;
        }
        for server in &cluster.servers {
            let is_whole = |reply: &Reply| reply.text().contains("cluster_state:ok");
            server.until("it sees a whole cluster", &["CLUSTER", "INFO"], is_whole).await;
        }
        for replica in &cluster.servers[PRIMARIES..] {
            let is_in_step = |reply: &Reply| reply.text().contains("master_link_status:up");
            replica.until("its primary's data", &["INFO", "replication"], is_in_step).await;
        }
        cluster
    }

    /// The URL of an engine on it; any node leads to all.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// The primaries of now.
    pub(crate) fn primaries(&self) -> Vec<&Server> {
        let is_primary = |server: &&Server| {
            server.ask(&["ROLE"]).is_ok_and(|role| role.texts().first().is_some_and(|role| role == "master"))
        };
        self.servers.iter().filter(is_primary).collect()
    }

    /// A replica of a primary that is in step with it.
    pub(crate) fn replica_of(&self, primary: &Server) -> &Server {
        let follows = |server: &&Server| {
            let role = server.ask(&["ROLE"]).map(|role| role.texts()).unwrap_or_default();
            role.first().is_some_and(|role| role == "slave") && role.get(2) == Some(&primary.port.to_string())
        };
        self.servers.iter().find(follows).expect("the primary has a replica")
    }

    /// Moves a slot from one primary to another, some keys at a time, as `redis-cli --cluster reshard` does.
    pub(crate) async fn migrate(&self, slot: u32, from: &Server, to: &Server) {
        let slot = slot.to_string();
        to.tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id()]);
        from.tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id()]);
        loop {
            let keys = from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).expect("keys").texts();
            if keys.is_empty() {
                break;
            }
            let port = to.port.to_string();
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            command.extend(keys.iter().map(String::as_str));
            let moved = from.ask(&command).expect("migrated");
            assert!(["OK", "NOKEY"].contains(&moved.text()), "{moved:?}");
            // Requests that find the slot on two nodes come in between.
            tokio::task::yield_now().await;
        }
        let taker = to.id();
        to.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &taker]);
        from.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &taker]);
        for primary in self.primaries() {
            primary.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &taker]);
        }
    }
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (port, bus_port) = (free_port(), free_port());
        #[expect(clippy::disallowed_methods, reason = "the test command says which server to test")]
        let program =
            std::env::var("TIDEWIRE_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let process = Command::new(&program)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--cluster-enabled", "yes", "--cluster-port", &bus_port.to_string()])
            .args(["--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0", "--save", ""])
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program}: {error}; run `cargo xtask test`"));
        Self { port, bus_port, process, _directory: directory }
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }

    /// Cuts a replica off its primary for good: a new link is refused.
    pub(crate) fn cut_off(&self) {
        let port = self.ask(&["ROLE"]).expect("a role").texts().get(2).cloned().unwrap_or_default();
        // Asked of the replica itself: the primary takes orders from nobody without the password now.
        let killed = self.ask(&["CLIENT", "KILL", "TYPE", "master"]).expect("it answers");
        assert_eq!(killed, Reply::Text("1".to_owned()), "the link to the primary on {port}");
    }

    /// Stops it where it stands, until [`Server::go_on`].
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &process]).status().expect("there is a kill command");
        assert!(status.success(), "kill {signal} {process}");
    }

    fn id(&self) -> String {
        self.ask(&["CLUSTER", "MYID"]).expect("an id").text().to_owned()
    }

    /// Runs a command that must answer `OK`.
    pub(crate) fn tell(&self, words: &[&str]) {
        let reply = self.ask(words).expect("it answers");
        assert!(is_ok(&reply), "{words:?}: {reply:?}");
    }

    /// Runs a command; an error reply is a text that starts with `-`.
    pub(crate) fn ask(&self, words: &[&str]) -> std::io::Result<Reply> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        (&stream).write_all(request.as_bytes())?;
        read_reply(&mut BufReader::new(stream))
    }

    /// Asks again and again until the reply is as wanted.
    pub(crate) async fn until(&self, what: &str, words: &[&str], is_so: impl Fn(&Reply) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut polls = tokio::time::interval(POLL);
        loop {
            let reply = self.ask(words);
            if reply.as_ref().is_ok_and(&is_so) {
                return;
            }
            assert!(Instant::now() < deadline, "waited for {what}: {reply:?}");
            polls.tick().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_ok(reply: &Reply) -> bool {
    reply.text() == "OK"
}

fn read_reply(reader: &mut BufReader<TcpStream>) -> std::io::Result<Reply> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at(1);
    let count = || rest.parse::<usize>().unwrap_or_default();
    Ok(match kind {
        "$" => {
            let mut body = vec![0; count() + 2];
            reader.read_exact(&mut body)?;
            body.truncate(count());
            Reply::Text(String::from_utf8_lossy(&body).into_owned())
        }
        "*" => Reply::List((0..count()).map(|_| read_reply(reader)).collect::<std::io::Result<_>>()?),
        "-" => Reply::Text(line.to_owned()),
        _ => Reply::Text(rest.to_owned()),
    })
}

/// A port that nobody listens on, below those that the system gives to outgoing connections: one of these could be taken
/// before the server has it.
fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).find(is_free).expect("a free port")
}
