//! What it takes to hear everything again after the listening link was lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire::engine::{Heard, Interest, Sink};
use tidewire::name::ChannelPath;
use tokio::sync::Notify;

use crate::server::Server;
use crate::{CLOSE_TIME_MAX, open_engine};

const CHANNELS: usize = 100_000;
/// As many as a call of the seam takes.
const CHANNELS_PER_CALL: usize = 1_000;
/// Far more than it may take; past it the run ends.
const RELINK_TIME_MAX: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Relinks(Notify);

impl Sink for Relinks {
    fn hear(&self, heard: Heard) {
        if matches!(heard, Heard::Relinked) {
            self.0.notify_one();
        }
    }
}

pub(crate) async fn measure(url: &str, server: &Server) {
    let relinks = Arc::new(Relinks::default());
    let engine = open_engine(url, relinks.clone()).await;
    let start = Instant::now();
    for first in (0..CHANNELS).step_by(CHANNELS_PER_CALL) {
        let interests = (first..first + CHANNELS_PER_CALL).map(interest).collect();
        engine.pubsub.subscribe(interests).await.expect("subscribed");
    }
    println!("{CHANNELS} channels subscribed, {CHANNELS_PER_CALL} per call, in {:.2?}", start.elapsed());
    let (before, start) = (server.work(), Instant::now());
    let killed = server.ask("CLIENT KILL TYPE pubsub");
    let relinked = tokio::time::timeout(RELINK_TIME_MAX, relinks.0.notified()).await;
    relinked.expect("every channel is heard again");
    let (elapsed, work) = (start.elapsed(), server.work().since(&before));
    println!("links killed         {killed}");
    println!("SUBSCRIBE commands   {}      budget {}", work.calls_of("subscribe"), CHANNELS / 512 + 1);
    println!("until Relinked       {elapsed:.2?}, the wait before the link is dialed again included");
    println!("server CPU           {:.2?}", work.cpu);
    assert!(engine.tasks.close(CLOSE_TIME_MAX).await, "the engine stops");
}

fn interest(number: usize) -> Interest {
    Interest::Channel(ChannelPath::new("dev", "bench", &format!("many:{number}")).expect("a valid name"))
}
