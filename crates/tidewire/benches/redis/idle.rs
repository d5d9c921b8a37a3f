//! What a process that does nothing costs its server: commands and connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire::engine::Interest;
use tidewire::name::ChannelPath;
use tidewire::{Outcome, Start, Tidewire};

use crate::server::Server;
use crate::{CLOSE_TIME_MAX, Deaf, open_engine};

const SUBSCRIPTIONS: usize = 100;
const WINDOW: Duration = Duration::from_secs(20);
/// Time for what a consumer does when it begins.
const SETTLING: Duration = Duration::from_secs(3);

pub(crate) async fn measure(url: &str, server: &Server) {
    let clients = server.work().clients;
    let engine = open_engine(url, Arc::new(Deaf)).await;
    let channel = |number| ChannelPath::new("dev", "bench", &format!("idle:{number}")).expect("a valid name");
    let interests = (0..SUBSCRIPTIONS).map(|number| Interest::Channel(channel(number))).collect();
    engine.pubsub.subscribe(interests).await.expect("subscribed");
    let connections = server.work().clients - clients;
    watch(server, &format!("{SUBSCRIPTIONS} subscriptions")).await;
    println!("connections          {connections}      budget 3 per Redis node");
    assert!(engine.tasks.close(CLOSE_TIME_MAX).await, "the engine stops");
    for (what, partitions) in [("an idle consumer", 0), ("an idle consumer, ordered", 16)] {
        let node = Tidewire::open(url).await.expect("the node opens");
        let channel = node.tenant("bench").and_then(|tenant| tenant.channel("idle")).expect("valid names");
        let group = channel.group(&format!("idle-{partitions}"), Start::Latest).expect("a valid name");
        let group = if partitions > 0 { group.ordered(partitions) } else { group };
        let consumer = group.consume().run(|| std::future::ready(Outcome::Ack)).await.expect("runs");
        tokio::time::sleep(SETTLING).await; // tidy: what begins has to be over
        watch(server, what).await;
        consumer.stop().await;
        node.close(CLOSE_TIME_MAX).await.expect("the node closes");
    }
}

async fn watch(server: &Server, what: &str) {
    let (before, start) = (server.work(), Instant::now());
    tokio::time::sleep(WINDOW).await; // tidy: a rate is measured over time
    let (work, elapsed) = (server.work().since(&before), start.elapsed());
    let looks = work.calls_of("info");
    // What a script calls is counted beside it.
    let commands = work.calls.values().sum::<u64>() - looks;
    println!("{what}, nothing else, {elapsed:.0?}: {:?} (info is this benchmark)", work.calls);
    println!(
        "commands per second  {:.2}   budget 2; calls of scripts count, too",
        commands as f64 / elapsed.as_secs_f64()
    );
}
