//! Row 5: from the request that publishes to the frame that a browser gets, at half of the rate that is possible.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::client::{Http, Socket, data};
use super::server::Server;

const PUBLISHERS: usize = 32;
const SATURATE_FOR: Duration = Duration::from_secs(3);
const MEASURE_FOR: Duration = Duration::from_secs(10);

pub(crate) async fn run() -> Result<()> {
    let server = Server::start()?;
    let full_rate = saturate(&server).await?;
    println!("## publish to browser, memory engine, HTTP publish -> WebSocket, 128-byte data\n");
    println!("{PUBLISHERS} publishers reach {full_rate:.0}/s; server and clients share the machine.\n");
    println!("| part of the full rate | p50 | p99 | p99.9 | budget p99 |");
    println!("|---|---|---|---|---|");
    for part in [0.1, 0.5] {
        let lags = measure(&server, full_rate * part).await?;
        let at = |quantile| Duration::from_nanos(lags.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        let budget = if part == 0.5 { "2 ms" } else { "" };
        println!("| {part} | {:.2} ms | {:.2} ms | {:.2} ms | {budget} |", at(0.5), at(0.99), at(0.999));
    }
    println!();
    Ok(())
}

/// Publishes as fast as answers come, with a subscriber that keeps up.
async fn saturate(server: &Server) -> Result<f64> {
    let mut subscriber = Socket::open(&server.address).await?;
    subscriber.subscribe("latency").await?;
    let start = Instant::now();
    let publishers = (0..PUBLISHERS).map(|_| async {
        let mut http = Http::open(&server.address).await?;
        let mut count = 0_u32;
        while start.elapsed() < SATURATE_FOR {
            http.publish("latency", &data(0)).await?;
            count += 1;
        }
        anyhow::Ok(count)
    });
    let drain = async {
        let mut buffer = Vec::new();
        loop {
            subscriber.marks(&mut buffer).await?;
        }
    };
    tokio::select! {
        counts = futures_util::future::try_join_all(publishers) => {
            Ok(f64::from(counts?.iter().sum::<u32>()) / start.elapsed().as_secs_f64())
        }
        ended = drain => ended,
    }
}

/// Publishes at a steady rate and times each event until it arrives: from when it is sent, or, where it waits for the
/// one before it, from when it should have been sent.
async fn measure(server: &Server, rate: f64) -> Result<Histogram<u64>> {
    let mut subscriber = Socket::open(&server.address).await?;
    subscriber.subscribe("latency").await?;
    let interval = Duration::from_secs_f64(PUBLISHERS as f64 / rate);
    let start = Instant::now();
    let publishers = (0..PUBLISHERS).map(|n| async move {
        let mut http = Http::open(&server.address).await?;
        let mut due = start + interval.mul_f64(n as f64 / PUBLISHERS as f64);
        while due.duration_since(start) < MEASURE_FOR {
            let sent = if Instant::now() < due {
                tokio::time::sleep_until(due.into()).await; // tidy: a steady rate is kept by time
                // The timer is as late as a millisecond, which is not the server's doing.
                Instant::now()
            } else {
                due
            };
            let nanos = u64::try_from(sent.duration_since(start).as_nanos())?;
            http.publish("latency", &format!(r#"{{"mark":"~","number":"{nanos:020}"}}"#)).await?;
            due += interval;
        }
        anyhow::Ok(())
    });
    let mut lags = Histogram::new(3)?;
    let listen = async {
        let mut buffer = Vec::new();
        loop {
            subscriber.marks(&mut buffer).await?;
            let now = u64::try_from(start.elapsed().as_nanos())?;
            for sent in sent_times(&buffer) {
                lags.record(now.saturating_sub(sent))?;
            }
        }
    };
    tokio::select! {
        published = futures_util::future::try_join_all(publishers) => { published?; }
        ended = listen => return ended,
    }
    Ok(lags)
}

/// The numbers in a read; one that two reads share is left out.
fn sent_times(buffer: &[u8]) -> impl Iterator<Item = u64> {
    let text = String::from_utf8_lossy(buffer).into_owned();
    let numbers: Vec<_> =
        text.split("\"number\":\"").skip(1).filter_map(|rest| rest.get(..20)?.parse().ok()).collect();
    numbers.into_iter()
}
