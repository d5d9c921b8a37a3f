//! Hearing live events: what each costs this process, while `redis-benchmark` publishes as fast as it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire::engine::{Heard, Interest, Sink};
use tidewire::name::ChannelPath;
use tidewire::{Event, Item, Tidewire};

use crate::load::{DATA_BYTES, cpu, median};
use crate::open_engine;
use crate::server::Server;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1_200);
/// Clients that publish and the depth of each; a call publishes sixteen.
const LOAD: (&str, &str) = ("1", "4");

#[derive(Default)]
struct Counted(AtomicU64);

impl Sink for Counted {
    fn hear(&self, heard: Heard) {
        if matches!(heard, Heard::Event { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub(crate) async fn measure(url: &str, server: &Server) {
    println!(
        "{DATA_BYTES} bytes of data, median of {ROUNDS} rounds of {ROUND:?}; the publisher is redis-benchmark"
    );
    println!("{:<22}{:>14}{:>16}", "", "events/s", "our us/event");
    let heard = Arc::new(Counted::default());
    let engine = open_engine(url, heard.clone()).await;
    let path = ChannelPath::new("dev", "bench", "heard-by-engine").expect("a valid name");
    engine.pubsub.subscribe(vec![Interest::Channel(path)]).await.expect("subscribed");
    let live = Event::new("bench", vec![b'x'; DATA_BYTES]);
    rounds("receive, engine", server, "heard-by-engine", &live, &heard).await;

    let node = Tidewire::open(url).await.expect("the node opens");
    let tenant = node.tenant("bench").expect("a valid name");
    let channel = tenant.channel("heard-by-library").expect("a valid name");
    let mut subscription = channel.subscribe().open().await.expect("subscribed");
    let yielded = Arc::new(Counted::default());
    let counted = yielded.clone();
    let listening = tokio::spawn(async move {
        while let Some(item) = subscription.next().await {
            if let Item::Event(received) = item {
                assert_eq!(received.event.data().len(), DATA_BYTES);
                counted.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    rounds("receive, library", server, "heard-by-library", &live, &yielded).await;
    listening.abort();
}

async fn rounds(what: &str, server: &Server, channel: &str, event: &Event, heard: &Counted) {
    let redis_channel = server.channel_that_ends_with(channel);
    let payload = [b"p", &Bytes::from(event)[..]].concat();
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut load = server.begin_load(LOAD.0, LOAD.1, &redis_channel, &payload);
        while heard.0.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await; // tidy: the load has to begin
        }
        let (count, before, start) = (heard.0.load(Ordering::Relaxed), cpu(), Instant::now());
        tokio::time::sleep(ROUND).await; // tidy: a rate is measured over time
        let (count, cost) = (heard.0.load(Ordering::Relaxed) - count, cpu().saturating_sub(before));
        rates.push(count as f64 / start.elapsed().as_secs_f64());
        costs.push(cost.as_secs_f64() * 1e6 / count as f64);
        load.kill().expect("the load ends");
        load.wait().expect("the load ends");
    }
    println!("{what:<22}{:>14.0}{:>16.2}", median(rates), median(costs));
}
