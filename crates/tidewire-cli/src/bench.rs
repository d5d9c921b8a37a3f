//! `tidewire bench`: loads a server as its clients do, and measures it.
//!
//! Speaks the Centrifuge client protocol, so it loads any server that does. Connections are raw TCP with our own framing
//! ([`tidewire_protocol::websocket`]) and share one buffer: the load shall not be the limit.

mod client;
mod connections;
mod crowd;
mod fanout;
mod http;
mod latency;
mod number;
mod open_files;
mod process;
mod publisher;
mod report;
mod storm;
mod target;

use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use jiff::Span;
use tokio::runtime::Builder;

use crate::failed::Failed;

#[derive(clap::Args)]
#[command(after_help = "\
Examples, on a server started with `tidewire serve --dev`:
  tidewire bench connections
  tidewire bench fanout --connections 5000 --api-key dev-api-key
  tidewire bench latency --rate 10000 --publish-from-client
  tidewire bench storm --connections 5000 --at-once --api-key dev-api-key

The load and the server share a machine unless --url says otherwise: read CPU and memory rather than rates then.")]
pub(crate) struct Bench {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Open many idle connections: memory of each, as the slope between two counts, and CPU
    Connections(connections::Connections),
    /// Send each event to many connections: deliveries a second, CPU of each
    Fanout(fanout::Fanout),
    /// Publish at a steady rate: time until a subscriber has the event
    Latency(latency::Latency),
    /// Cut all connections at once: time until each has recovered what it missed
    Storm(storm::Storm),
}

impl Bench {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let (connections, threads) = match &self.load {
            Load::Connections(load) => (load.connections(), load.threads()),
            Load::Fanout(load) => (load.connections(), load.threads()),
            Load::Latency(load) => (load.connections(), load.threads()),
            Load::Storm(load) => (load.connections(), load.threads()),
        };
        open_files::raise_for(connections)?;
        let runtime = match threads {
            1 => Builder::new_current_thread().enable_all().build(),
            many => Builder::new_multi_thread().worker_threads(many.into()).enable_all().build(),
        };
        runtime.context("cannot start the runtime")?.block_on(async {
            match self.load {
                Load::Connections(load) => load.run().await,
                Load::Fanout(load) => load.run().await,
                Load::Latency(load) => load.run().await,
                Load::Storm(load) => load.run().await,
            }
        })
    }
}

/// A time to measure for: a number and a unit.
fn window(text: &str) -> Result<Duration, String> {
    let parse = || -> Result<Duration, jiff::Error> { text.parse::<Span>()?.try_into() };
    match parse() {
        Ok(duration) if duration.is_zero() => Err("a time to measure for is longer than none".into()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("not a time such as 500ms, 10s or 1m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        assert_eq!(window("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(window("1m"), Ok(Duration::from_secs(60)));
        for text in ["", "7", "0s", "-1s", "soon"] {
            assert!(window(text).is_err(), "{text:?}");
        }
    }
}
