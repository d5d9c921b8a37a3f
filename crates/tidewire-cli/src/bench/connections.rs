//! What an idle connection costs: memory as the slope between two counts, and CPU.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::client::Connection;
use super::crowd::{CrowdArguments, Listeners, beside, open_many};
use super::open_files;
use super::process::{CpuWatch, ServerProcess};
use super::report::{Report, ReportArguments};
use super::target::{Target, TargetArguments};
use super::window;
use crate::failed::Failed;
use crate::print;
use crate::wire::Ended;

/// Where nobody says otherwise. One process may open some 28,000 connections to one port.
const CONNECTIONS: u32 = 16_000;
/// The part of them that memory is measured at first, so that what a server needs anyhow is left out of the slope.
const FIRST_PART: usize = 8;
const PART: &str = "idle";

#[derive(clap::Args)]
pub(super) struct Connections {
    /// Connections in the end; 16000, or as many as the limit of open files allows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    connections: Option<u32>,
    /// Connections at which memory is measured first; an eighth of those in the end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    from: Option<u32>,
    /// How long CPU time is measured for while nothing but pings happens; longer than from one ping to the next
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = window)]
    idle_for: Duration,
    #[command(flatten)]
    crowd: CrowdArguments,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    server: ServerProcess,
    #[command(flatten)]
    report: ReportArguments,
}

impl Connections {
    pub(super) fn connections(&self) -> usize {
        count(self.connections.unwrap_or(CONNECTIONS))
    }

    pub(super) fn threads(&self) -> u16 {
        self.crowd.threads
    }

    pub(super) async fn run(self) -> Result<(), Failed> {
        let many = match self.connections {
            Some(_) => {
                open_files::check(self.connections())?;
                self.connections()
            }
            None => open_files::bounded(self.connections()),
        };
        let few = self.from.map_or((many / FIRST_PART).max(1), count);
        if few >= many {
            return Err(Failed::Usage(format!(
                "--from {few} is not below the {many} connections in the end: a slope needs two counts"
            )));
        }
        let target = self.target.resolve().await?;
        let server = self.server.find(&target)?;
        let mut report = Report::begin("connections", &self.report)?;
        let mut listeners = Listeners::new();
        let mut sizes = Vec::new();
        for (so_far, goal) in [(0, few), (few, many)] {
            let rate = open(&target, &self.crowd.channel, goal - so_far, &mut listeners).await?;
            print::note(format_args!("open connections: {goal}"));
            report.figure(&format!("up to {goal}"), "opened and subscribed", rate, "connections/s")?;
            if let Some(server) = server {
                let bytes = beside(&mut listeners, server.settled_bytes()).await?;
                report.figure(&format!("at {goal}"), "server memory, resident", bytes / 1e6, "MB")?;
                sizes.push(bytes);
            }
        }
        if let [first, last] = sizes[..] {
            let slope = (last - first) / (many - few) as f64 / 1e3;
            report.figure(&format!("from {few} to {many}"), "server memory", slope, "KB/connection")?;
        }
        let watch = CpuWatch::start(server)?;
        beside(&mut listeners, async {
            sleep(self.idle_for).await;
            Ok(())
        })
        .await?;
        let spent = watch.stop()?;
        let connection_seconds = many as f64 * spent.elapsed.as_secs_f64();
        report.cpu(PART, &spent, connection_seconds, "us/s per connection", self.crowd.threads.into())?;
        Ok(report.end()?)
    }
}

/// Opens connections, and gives the rate of it, each second.
async fn open(target: &Target, channel: &str, count: usize, listeners: &mut Listeners) -> Result<f64> {
    let start = Instant::now();
    open_many(target, channel, count, |connection| {
        listeners.spawn(stay(connection));
    })
    .await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Answers pings, and ends with the connection.
async fn stay(mut connection: Connection) -> Result<(), Ended> {
    loop {
        connection.read_numbers(|_| {}).await?;
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
