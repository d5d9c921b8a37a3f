//! What it takes to hear everything again after the listening link was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidewire::engine::{Heard, Interest, Sink};
use tidewire::name::ChannelPath;
use tokio::sync::Notify;

use crate::cluster::cluster;
use crate::server::{Server, Work};
use crate::{CLOSE_TIME_MAX, open_engine};

const CHANNELS: usize = 100_000;
/// As many as a call of the seam takes.
const CHANNELS_PER_CALL: usize = 1_000;
/// Far more than it may take; past it the run ends.
const RESTORE_TIME_MAX: Duration = Duration::from_secs(60);

/// Counts the interests that are heard again.
#[derive(Default)]
struct Restored {
    interests: AtomicUsize,
    changed: Notify,
}

impl Sink for Restored {
    fn hear(&self, heard: Heard) {
        let interests = match heard {
            Heard::Relinked => CHANNELS,
            Heard::Moved(interests) => interests.len(),
            Heard::Event { .. } | Heard::Work(_) => return,
        };
        self.interests.fetch_add(interests, Ordering::Release);
        self.changed.notify_one();
    }
}

impl Restored {
    async fn all(&self) {
        while self.interests.load(Ordering::Acquire) < CHANNELS {
            self.changed.notified().await;
        }
    }
}

pub(crate) async fn measure(url: &str, server: &Server) {
    restore("one server", url, std::slice::from_ref(server), "subscribe").await;
    let (url, servers) = cluster();
    restore("cluster of three primaries", &url, &servers, "ssubscribe").await;
}

async fn restore(what: &str, url: &str, servers: &[Server], command: &str) {
    let restored = Arc::new(Restored::default());
    let engine = open_engine(url, restored.clone()).await;
    let start = Instant::now();
    for first in (0..CHANNELS).step_by(CHANNELS_PER_CALL) {
        let interests = (first..first + CHANNELS_PER_CALL).map(interest).collect();
        engine.pubsub.subscribe(interests).await.expect("subscribed");
    }
    println!(
        "{what}: {CHANNELS} channels, {CHANNELS_PER_CALL} per call, subscribed in {:.2?}",
        start.elapsed()
    );
    let (before, start): (Vec<_>, _) = (servers.iter().map(Server::work).collect(), Instant::now());
    for server in servers {
        server.ask("CLIENT KILL TYPE pubsub");
    }
    let all = tokio::time::timeout(RESTORE_TIME_MAX, restored.all()).await;
    all.expect("every channel is heard again");
    let elapsed = start.elapsed();
    let work: Vec<Work> =
        servers.iter().zip(&before).map(|(server, before)| server.work().since(before)).collect();
    let calls: Vec<u64> = work.iter().map(|work| work.calls_of(command)).filter(|calls| *calls > 0).collect();
    let cpu: Duration = work.iter().map(|work| work.cpu).sum();
    println!("  {command} commands of each node  {calls:?}, budget {}", CHANNELS / 512 + calls.len());
    println!(
        "  all heard again after {elapsed:.2?}, the wait before a link is dialed again included; servers' CPU {cpu:.2?}"
    );
    assert!(engine.tasks.close(CLOSE_TIME_MAX).await, "the engine stops");
}

fn interest(number: usize) -> Interest {
    Interest::Channel(ChannelPath::new("dev", "bench", &format!("many:{number}")).expect("a valid name"))
}
