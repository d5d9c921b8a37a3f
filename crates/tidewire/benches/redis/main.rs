//! The Redis engine beside what its server can do, measured in turns in the same run.
//!
//! `cargo xtask bench redis` runs every part, `cargo xtask bench redis publish idle` those named. Needs
//! `redis-benchmark` in the path. Rates depend on what else the machine does; ratios within a run, CPU per operation and
//! operations per read of the server do so far less.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads its server from the environment, spawns its load and times it"
)]

mod append;
mod cluster;
mod consume;
mod idle;
mod load;
mod publish;
mod receive;
mod resubscribe;
mod server;
mod store;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tidewire::engine::{Engine, Heard, Setup, Sink};
use tidewire::tasks::Tasks;
use tidewire::{Clock, Limits};

use self::server::Server;

/// How long an engine may take to stop.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);
/// Those that count commands or kill links come first, while nothing else of ours is connected.
const PARTS: [&str; 9] =
    ["idle", "resubscribe", "publish", "append", "consume", "work", "store", "receive", "cluster"];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let url = std::env::var("TIDEWIRE_TEST_REDIS_URL")
        .expect("TIDEWIRE_TEST_REDIS_URL is not set: run `cargo xtask bench redis`, which starts the server");
    let server = Server::at(&url);
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = asked.iter().find(|part| !PARTS.contains(&part.as_str())) {
        panic!("there is no part {unknown:?}; the parts are {}", PARTS.join(", "));
    }
    for part in PARTS {
        if !asked.is_empty() && !asked.iter().any(|asked| asked == part) {
            continue;
        }
        println!("\n{part}");
        match part {
            "publish" => publish::measure(&url, &server).await,
            "append" => append::measure(&url, &server).await,
            "consume" => consume::measure(&url, &server).await,
            "work" => work::measure(&url, &server).await,
            "store" => store::measure(&url, &server).await,
            "receive" => receive::measure(&url, &server).await,
            "cluster" => cluster::measure(&url, Server::at(&url)).await,
            "idle" => idle::measure(&url, &server).await,
            _ => resubscribe::measure(&url, &server).await,
        }
    }
}

/// An engine that tells what it hears to `sink`.
async fn open_engine(url: &str, sink: Arc<dyn Sink>) -> Arc<Engine> {
    let setup = Setup { sink, clock: Clock::system(), limits: Limits::default(), tasks: Tasks::new() };
    Arc::new(tidewire::engine::redis::open_redis(url, &setup).await.expect("the engine opens"))
}

struct Deaf;

impl Sink for Deaf {
    fn hear(&self, _heard: Heard) {}
}
