//! Fetch, handle and acknowledge with a handler that does nothing, beside a raw `XREADGROUP` and a batched `XACK`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire::engine::Append;
use tidewire::{Channel, Event, Outcome, Retention, Start, Tidewire};
use tokio::sync::Notify;

use crate::append::plain;
use crate::load::{DATA_BYTES, cpu, median};
use crate::server::{Server, work_of};
use crate::{Deaf, open_engine};

/// Events that are consumed in one round.
const EVENTS: u64 = 200_000;
const ROUNDS: usize = 5;
/// Events of one `XREADGROUP` of the limit, which are acknowledged by one `XACK` together with the next.
const LIMIT_COUNT: usize = 100;
const KEYS: usize = 1_000;

/// What a round took.
struct Taken {
    elapsed: Duration,
    cpu: Duration,
    server: Duration,
}

pub(crate) async fn measure(url: &str, server: &Server) {
    println!(
        "{DATA_BYTES} bytes of data, {EVENTS} events a round, median of {ROUNDS} rounds, thousands per second"
    );
    println!(
        "{:<22}{:>10}{:>24}{:>7}{:>13}{:>15}",
        "", "rate", "XREADGROUP 100 + XACK", "ratio", "our us/op", "server us/op"
    );
    let node = Tidewire::open(url).await.expect("the node opens");
    let tenant = node.tenant("bench").expect("a valid name");
    for (what, partitions, keys) in [("consume", 0, 0), ("consume, ordered", 32, KEYS)] {
        let channel =
            tenant.channel(what.split(',').next_back().unwrap_or(what).trim()).expect("a valid name");
        fill(url, &channel, keys).await;
        let (mut rates, mut limits, mut ours, mut servers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            limits.push(tokio::task::block_in_place(|| limit(server, round)));
            let Taken { elapsed, cpu, server } = consume(&channel, server, partitions, round).await;
            rates.push(EVENTS as f64 / elapsed.as_secs_f64());
            ours.push(cpu.as_secs_f64() * 1e6 / EVENTS as f64);
            servers.push(server.as_secs_f64() * 1e6 / EVENTS as f64);
        }
        let (rate, limit) = (median(rates), median(limits));
        println!(
            "{what:<22}{:>10.1}{:>24.1}{:>7.2}{:>13.2}{:>15.2}",
            rate / 1e3,
            limit / 1e3,
            rate / limit,
            median(ours),
            median(servers)
        );
    }
}

/// Appends what is consumed, with keys in turn.
async fn fill(url: &str, channel: &Channel, keys: usize) {
    let engine = open_engine(url, Arc::new(Deaf)).await;
    let mut number = 0;
    while number < EVENTS {
        let batch: Vec<Append> = (0..1_000)
            .map(|at| {
                let event = Event::new("bench", vec![b'x'; DATA_BYTES]);
                let event = match keys {
                    0 => event,
                    keys => event.with_key(&format!("key-{}", at % keys)),
                };
                Append {
                    envelope: Bytes::from(&event),
                    retention: Retention::BOUNDED,
                    ..plain(channel.path().clone())
                }
            })
            .collect();
        let outcomes = engine.log.append(batch).await.expect("appended");
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        number += 1_000;
    }
}

/// Consumes all of it in a group of its own.
async fn consume(channel: &Channel, server: &Server, partitions: u16, round: usize) -> Taken {
    let group = channel.group(&format!("bench-{round}"), Start::Earliest).expect("a valid name");
    let group = if partitions > 0 { group.ordered(partitions) } else { group };
    let (count, all) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let (work, before, start) = (work_of(std::slice::from_ref(server)), cpu(), Instant::now());
    let counted = (count.clone(), all.clone());
    let handler = move || {
        if counted.0.fetch_add(1, Ordering::Relaxed) + 1 == EVENTS {
            counted.1.notify_one();
        }
        std::future::ready(Outcome::Ack)
    };
    let consumer = group.consume().run(handler).await.expect("runs");
    all.notified().await;
    // What is handled is not yet acknowledged: the stop waits for that.
    consumer.stop().await;
    let (elapsed, cpu) = (start.elapsed(), cpu().saturating_sub(before));
    let server = work_of(std::slice::from_ref(server)).since(&work).cpu;
    assert_eq!(consumer.stats().acked, EVENTS);
    group.delete("bench").await.expect("deleted");
    Taken { elapsed, cpu, server }
}

/// Consumes as many events of a plain stream with a group of the server, over one connection: each request acknowledges what
/// the answer before it had.
fn limit(server: &Server, round: usize) -> f64 {
    let mut reader = server.connect();
    let mut socket = reader.get_ref().try_clone().expect("cloned");
    socket.set_nodelay(true).expect("set");
    let (stream, group) = ("bench:consumed", format!("group-{round}"));
    if round == 0 {
        let data = "x".repeat(DATA_BYTES);
        send(&mut socket, &[&["DEL", stream]]);
        skip(&mut reader, 1);
        let add: &[&str] = &["XADD", stream, "*", "e", &data];
        for _ in 0..EVENTS / 1_000 {
            send(&mut socket, &vec![add; 1_000]);
            skip(&mut reader, 1_000);
        }
    }
    send(&mut socket, &[&["XGROUP", "CREATE", stream, &group, "0"]]);
    skip(&mut reader, 1);
    let count = LIMIT_COUNT.to_string();
    let read = ["XREADGROUP", "GROUP", &group, "one", "COUNT", &count, "STREAMS", stream, ">"];
    let (start, mut consumed) = (Instant::now(), 0);
    send(&mut socket, &[&read]);
    let mut ids = read_ids(&mut reader);
    while !ids.is_empty() {
        consumed += ids.len() as u64;
        let acknowledge: Vec<&str> =
            ["XACK", stream, &group].into_iter().chain(ids.iter().map(String::as_str)).collect();
        send(&mut socket, &[&acknowledge, &read]);
        skip(&mut reader, 1);
        ids = read_ids(&mut reader);
    }
    assert_eq!(consumed, EVENTS);
    consumed as f64 / start.elapsed().as_secs_f64()
}

fn send(socket: &mut TcpStream, commands: &[&[&str]]) {
    let mut out = Vec::new();
    for command in commands {
        write!(out, "*{}\r\n", command.len()).expect("written");
        for part in *command {
            write!(out, "${}\r\n{part}\r\n", part.len()).expect("written");
        }
    }
    socket.write_all(&out).expect("sent");
}

/// Reads replies of one line.
fn skip(reader: &mut BufReader<TcpStream>, replies: usize) {
    for _ in 0..replies {
        let line = line(reader);
        if let Some(length) = line.strip_prefix('$') {
            bulk(reader, length.parse().expect("a length"));
        }
    }
}

/// Reads the answer to `XREADGROUP` of one stream; gives the ids.
fn read_ids(reader: &mut BufReader<TcpStream>) -> Vec<String> {
    if !line(reader).starts_with("*1") {
        return Vec::new();
    }
    line(reader);
    skip(reader, 1);
    let count: usize = line(reader).trim_start_matches('*').parse().expect("a count");
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        line(reader);
        let length = line(reader).trim_start_matches('$').parse().expect("a length");
        ids.push(String::from_utf8(bulk(reader, length)).expect("an id"));
        line(reader);
        skip(reader, 2);
    }
    ids
}

fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    line.truncate(line.trim_end().len());
    line
}

fn bulk(reader: &mut BufReader<TcpStream>, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length + 2];
    reader.read_exact(&mut bytes).expect("a string");
    bytes.truncate(length);
    bytes
}
