//! A backend that is told who is there, by processes that are killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tidewire_fleet::{Persistence, Standalone, server_program};

use crate::running::Server;

/// A webhook that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// An endpoint for webhooks.
struct Backend {
    url: String,
    events: Receiver<(String, Value)>,
    /// By id: one that was not answered in time comes again.
    had: BTreeMap<String, String>,
}

impl Backend {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (sender, events) = sync_channel(1_000);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || answer(stream, &sender));
            }
        });
        Self { url, events, had: BTreeMap::new() }
    }

    /// Waits for so many more events; what they tell, sorted, with clients by the names that they are given.
    #[track_caller]
    fn next(&mut self, count: usize, names: &mut Vec<String>) -> Vec<String> {
        let mut told = Vec::new();
        while told.len() < count {
            let Ok((id, body)) = self.events.recv_timeout(PATIENCE) else {
                panic!("{told:?} and no more; {:?}", self.had)
            };
            let data = &body["data"];
            let client = data["client"].as_str().map(|client| {
                let known = names.iter().position(|name| name == client);
                known.unwrap_or_else(|| {
                    names.push(client.to_owned());
                    names.len() - 1
                })
            });
            let kind = body["type"].as_str().unwrap().strip_prefix("tidewire.").unwrap();
            let what = match client {
                Some(number) => format!("{kind} {number} {}", data["reason"].as_str().unwrap_or_default()),
                None => format!("{kind} {}", data["channel"].as_str().unwrap()),
            };
            let what = what.trim_end().to_owned();
            match self.had.insert(id, what.clone()) {
                None => told.push(what),
                Some(before) => assert_eq!(before, what),
            }
        }
        told.sort();
        told
    }
}

/// Answers the requests of a connection.
fn answer(stream: TcpStream, sender: &SyncSender<(String, Value)>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let (mut id, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "webhook-id" => value.clone_into(&mut id),
                    "content-length" => length = value.parse().ok()?,
                    _ => {}
                }
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        sender.send((id, serde_json::from_slice(&body).ok()?)).ok()?;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
    }
}

fn settings(backend: &Backend) -> String {
    format!(
        r#"
        [tenants.default]
        anonymous = true
        lifecycle = {{ channel = "told", connections = true }}

        [[tenants.default.channels]]
        pattern = "told"
        keep = {{ events = 10_000, age = "1h" }}

        [[tenants.default.channels]]
        pattern = "room"
        subscribe = "anyone"
        tell = ["subscriptions", "occupancy"]

        [[webhooks]]
        channel = "told"
        name = "backend"
        start = "earliest"
        url = "{}"
        secrets = ["whsec_cmVwbGFjZS1tZS1yZXBsYWNlLW1lLXJlcGxhY2UtbWU="]
        allow_private = true
        "#,
        backend.url
    )
}

#[test]
fn each_change_is_told_once_when_a_node_on_redis_is_killed() {
    let program = server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it");
    let redis = Standalone::start(&program, Persistence::Nothing).unwrap();
    let mut backend = Backend::new();
    let settings = settings(&backend);
    let (mut dies, lives) = (
        Server::with_settings_on(&redis.url(), &settings),
        Server::with_settings_on(&redis.url(), &settings),
    );
    let mut names = Vec::new();
    let mut first = dies.tail(&["room"]);
    assert_eq!(backend.next(3, &mut names), ["connected 0", "occupied room", "subscribed 0"]);
    let mut second = lives.tail(&["room"]);
    assert_eq!(backend.next(2, &mut names), ["connected 1", "subscribed 1"]);
    dies.kill();
    first.kill();
    assert_eq!(backend.next(2, &mut names), ["disconnected 0 the node was gone", "unsubscribed 0"]);
    second.kill();
    let last = backend.next(3, &mut names);
    assert_eq!(last, ["disconnected 1 the client was gone", "unsubscribed 1", "vacated room"]);
    assert_eq!(backend.had.len(), 10);
}

#[test]
fn what_was_there_when_the_only_process_of_a_file_was_killed_is_told_as_over_when_it_is_back() {
    let mut backend = Backend::new();
    let mut server = Server::with_settings_on("file:", &settings(&backend));
    let mut names = Vec::new();
    let mut tail = server.tail(&["room"]);
    assert_eq!(backend.next(3, &mut names), ["connected 0", "occupied room", "subscribed 0"]);
    server.kill();
    tail.kill();
    server.restart();
    let told = backend.next(3, &mut names);
    assert_eq!(told, ["disconnected 0 the node was gone", "unsubscribed 0", "vacated room"]);
    // Again, and nothing of before is told again.
    server.kill();
    server.restart();
    let mut tail = server.tail(&["room"]);
    assert_eq!(backend.next(3, &mut names), ["connected 1", "occupied room", "subscribed 1"]);
    tail.kill();
    let told = backend.next(3, &mut names);
    assert_eq!(told, ["disconnected 1 the client was gone", "unsubscribed 1", "vacated room"]);
    assert_eq!(backend.had.len(), 12);
}

#[test]
fn who_goes_while_the_engine_is_away_is_told_when_it_is_back() {
    let program = server_program().expect("redis-server is on the PATH; `cargo xtask test` installs it");
    let mut redis = Standalone::start(&program, Persistence::AppendOnlyFile).unwrap();
    let mut backend = Backend::new();
    let server = Server::with_settings_on(&redis.url(), &settings(&backend));
    let mut names = Vec::new();
    let (mut goes, stays) = (server.tail(&["room"]), server.tail(&["room"]));
    let come = ["connected 0", "connected 1", "occupied room", "subscribed 0", "subscribed 1"];
    assert_eq!(backend.next(5, &mut names), come);
    redis.server.kill().unwrap();
    goes.kill();
    redis.server.restart().unwrap();
    let gone = backend.next(2, &mut names);
    assert!(gone[0].starts_with("disconnected") && gone[1].starts_with("unsubscribed"), "{gone:?}");
    drop(stays);
    let gone = backend.next(3, &mut names);
    assert!(gone[0].starts_with("disconnected") && gone[2] == "vacated room", "{gone:?}");
    assert_eq!(backend.had.len(), 10);
}
