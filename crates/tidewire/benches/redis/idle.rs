//! What a process that does nothing costs its server: commands and connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire::engine::Interest;
use tidewire::name::ChannelPath;

use crate::server::Server;
use crate::{CLOSE_TIME_MAX, Deaf, open_engine};

const SUBSCRIPTIONS: usize = 100;
const WINDOW: Duration = Duration::from_secs(10);

pub(crate) async fn measure(url: &str, server: &Server) {
    let clients = server.work().clients;
    let engine = open_engine(url, Arc::new(Deaf)).await;
    let channel = |number| ChannelPath::new("dev", "bench", &format!("idle:{number}")).expect("a valid name");
    let interests = (0..SUBSCRIPTIONS).map(|number| Interest::Channel(channel(number))).collect();
    engine.pubsub.subscribe(interests).await.expect("subscribed");
    let (before, start) = (server.work(), Instant::now());
    tokio::time::sleep(WINDOW).await; // tidy: a rate is measured over time
    let (work, elapsed) = (server.work().since(&before), start.elapsed());
    let looks = work.calls_of("info");
    let commands = work.calls.values().sum::<u64>() - looks;
    println!(
        "{SUBSCRIPTIONS} subscriptions, nothing else, {elapsed:.0?}: {:?} (info is this benchmark)",
        work.calls
    );
    println!("commands per second  {:.2}   budget 2", commands as f64 / elapsed.as_secs_f64());
    println!("connections          {}      budget 3 per Redis node", before.clients - clients);
    assert!(engine.tasks.close(CLOSE_TIME_MAX).await, "the engine stops");
}
