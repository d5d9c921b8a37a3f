//! Row 6: one event to many WebSockets, against a bare epoll program that writes the same bytes.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::client::{Socket, data, subscribe_many};
use super::limit::Limit;
use super::server::{Process, Server};

const CONNECTIONS: usize = 5_000;
const DELIVERIES: usize = 2_000_000;

/// What one side of the comparison cost.
struct Cost {
    per_second: f64,
    cpu_per_delivery: Duration,
}

pub(crate) async fn run() -> Result<()> {
    println!("## fan-out to {CONNECTIONS} WebSockets, 128-byte data, CPU of the server's process\n");
    println!(
        "| events at once | deliveries/s | CPU per delivery | bare epoll | its CPU per write of the same bytes | ratio |"
    );
    println!("|---|---|---|---|---|---|");
    for burst in [1, 8] {
        let ours = server(burst).await?;
        let limit = bare(burst).await?;
        println!(
            "| {burst} | {:.0}/s | {:.2} us | {:.0}/s | {:.2} us | {:.2} x |",
            ours.per_second,
            ours.cpu_per_delivery.as_secs_f64() * 1e6,
            limit.per_second,
            limit.cpu_per_delivery.as_secs_f64() * 1e6,
            limit.cpu_per_delivery.as_secs_f64() / ours.cpu_per_delivery.as_secs_f64(),
        );
    }
    println!();
    Ok(())
}

async fn server(burst: usize) -> Result<Cost> {
    let server = Server::start()?;
    let mut sockets = subscribe_many(&server.address, "fanout", CONNECTIONS).await?;
    let mut publisher = Socket::open(&server.address).await?;
    publisher.subscribe("elsewhere").await?;
    let commands: Vec<_> = (0..burst as u64)
        .map(|n| format!(r#"{{"id":{},"publish":{{"channel":"fanout","data":{}}}}}"#, n + 10, data(n)))
        .collect();
    let frame = commands.join("\n");
    let mut go = async || publisher.send(&frame).await;
    measure(&server.process, &mut sockets, burst, &mut go).await
}

async fn bare(burst: usize) -> Result<Cost> {
    let frame = format!(r#"{{"push":{{"channel":"fanout","pub":{{"data":{},"offset":1000}}}}}}"#, data(1));
    let limit = Limit::start(CONNECTIONS, burst, &frame)?;
    let mut sockets = Vec::new();
    for _ in 0..CONNECTIONS {
        sockets.push(limit.connect().await?);
    }
    let (process, mut go) = limit.ready()?;
    measure(&process, &mut sockets, burst, &mut go).await
}

/// Has `go` send a burst whenever the one before has arrived everywhere.
async fn measure(
    process: &Process,
    sockets: &mut [Socket],
    burst: usize,
    go: &mut impl AsyncFnMut() -> Result<()>,
) -> Result<Cost> {
    let rounds = DELIVERIES / (sockets.len() * burst);
    let mut buffer = Vec::with_capacity(64 * 1024);
    let (start, cpu) = (Instant::now(), process.cpu()?);
    for _ in 0..rounds {
        go().await?;
        for socket in &mut *sockets {
            let mut arrived = 0;
            while arrived < burst {
                arrived += socket.marks(&mut buffer).await?;
            }
        }
    }
    let count = (rounds * sockets.len() * burst) as f64;
    let spent = process.cpu()? - cpu;
    Ok(Cost { per_second: count / start.elapsed().as_secs_f64(), cpu_per_delivery: spent.div_f64(count) })
}
