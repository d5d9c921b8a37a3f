//! The server: what it counts of itself, and what `redis-benchmark` reaches with it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) struct Server {
    host: String,
    port: String,
}

/// What a server has done so far, or between two looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Calls of each command, those in scripts too.
    pub(crate) calls: BTreeMap<String, u64>,
    /// Reads from its clients' sockets.
    pub(crate) reads: u64,
    pub(crate) cpu: Duration,
    /// Connections that are open now.
    pub(crate) clients: u64,
}

impl Server {
    pub(crate) fn at(url: &str) -> Self {
        let address = url.trim_start_matches("redis://").split('/').next().unwrap_or_default();
        let (host, port) = address.rsplit_once(':').expect("the URL has a port");
        Self { host: host.to_owned(), port: port.to_owned() }
    }

    /// What a command without spaces in its arguments is answered, if that is text.
    pub(crate) fn ask(&self, line: &str) -> String {
        let mut link = self.connect();
        link.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("the server reads");
        let mut head = String::new();
        link.read_line(&mut head).expect("the server answers");
        let Some(length) = head.strip_prefix('$') else { return head.trim().to_owned() };
        let mut text = vec![0; length.trim().parse().expect("a length")];
        link.read_exact(&mut text).expect("the server answers in full");
        String::from_utf8(text).expect("text")
    }

    /// A connection of its own.
    pub(crate) fn connect(&self) -> BufReader<TcpStream> {
        let link = TcpStream::connect(format!("{}:{}", self.host, self.port)).expect("the server listens");
        link.set_read_timeout(Some(Duration::from_secs(10))).expect("a time that is not zero");
        BufReader::new(link)
    }

    /// What it has done until now. Looking is work too: one `INFO`, one read, one connection.
    pub(crate) fn work(&self) -> Work {
        let text = self.ask("INFO stats cpu clients commandstats");
        let mut work = Work::default();
        for (name, value) in text.lines().filter_map(|line| line.trim().split_once(':')) {
            let number = || value.parse().unwrap_or_default();
            match name {
                "total_reads_processed" => work.reads = number(),
                "connected_clients" => work.clients = number(),
                "used_cpu_user" | "used_cpu_sys" => {
                    work.cpu += Duration::from_secs_f64(value.parse().expect("seconds"));
                }
                _ => {
                    let calls = value.strip_prefix("calls=").and_then(|rest| rest.split(',').next());
                    if let (Some(command), Some(calls)) = (name.strip_prefix("cmdstat_"), calls) {
                        work.calls.insert(command.to_owned(), calls.parse().unwrap_or_default());
                    }
                }
            }
        }
        work
    }

    /// Requests per second of `redis-benchmark`, for about as long as one of our rounds.
    pub(crate) fn limit(&self, clients: &str, depth: &str, command: &[&str]) -> f64 {
        let requests = if depth == "1" { "20000" } else { "1000000" };
        let output =
            self.benchmark(clients, depth, requests, command).output().expect("redis-benchmark runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().unwrap_or_default();
        // The test's name is quoted and holds the command, which has no quotes; the rate is the next column.
        let rate = line.split("\",\"").nth(1).and_then(|field| field.trim_matches('"').parse().ok());
        rate.unwrap_or_else(|| panic!("redis-benchmark printed {text}"))
    }

    /// Starts `redis-benchmark` to publish more than it will have time for.
    ///
    /// It ends an argument at its first zero byte, so the payload lies in the server.
    pub(crate) fn begin_load(&self, clients: &str, depth: &str, channel: &str, payload: &[u8]) -> Child {
        const KEY: &str = "bench:payload";
        const PUBLISH: &str = "local payload = redis.call('GET', KEYS[1]) \
            for _ = 1, 16 do redis.call('PUBLISH', ARGV[1], payload) end";
        let mut link = self.connect();
        let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{KEY}\r\n${}\r\n", KEY.len(), payload.len());
        link.get_mut().write_all(&[head.as_bytes(), payload, b"\r\n"].concat()).expect("the server reads");
        link.read_line(&mut String::new()).expect("the server answers");
        let mut benchmark =
            self.benchmark(clients, depth, "1000000000", &["EVAL", PUBLISH, "1", KEY, channel]);
        benchmark.stdout(Stdio::null()).spawn().expect("redis-benchmark runs")
    }

    /// What the engine calls a channel that it listens to.
    pub(crate) fn channel_that_ends_with(&self, name: &str) -> String {
        let mut link = self.connect();
        link.get_mut().write_all(b"PUBSUB CHANNELS\r\n").expect("the server reads");
        let mut line = String::new();
        while !line.trim_end().ends_with(name) {
            line.clear();
            link.read_line(&mut line).expect("somebody listens to it");
        }
        line.trim_end().to_owned()
    }

    fn benchmark(&self, clients: &str, depth: &str, requests: &str, command: &[&str]) -> Command {
        let mut benchmark = Command::new("redis-benchmark");
        benchmark
            .args(["-h", &self.host, "-p", &self.port, "-c", clients, "-P", depth, "-n", requests, "--csv"]);
        benchmark.args(command);
        benchmark
    }
}

/// What several servers have done.
pub(crate) fn work_of(servers: &[Server]) -> Work {
    let mut all = Work::default();
    for work in servers.iter().map(Server::work) {
        all.reads += work.reads;
        all.cpu += work.cpu;
        all.clients += work.clients;
        work.calls.into_iter().for_each(|(command, calls)| *all.calls.entry(command).or_default() += calls);
    }
    all
}

impl Work {
    /// What was done since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |command: &String| earlier.calls.get(command).copied().unwrap_or_default();
        let calls = self.calls.iter().map(|(command, calls)| (command.clone(), calls - before(command)));
        Self {
            calls: calls.filter(|(_, calls)| *calls > 0).collect(),
            reads: self.reads - earlier.reads,
            cpu: self.cpu.saturating_sub(earlier.cpu),
            clients: self.clients,
        }
    }

    pub(crate) fn calls_of(&self, command: &str) -> u64 {
        self.calls.get(command).copied().unwrap_or_default()
    }
}
