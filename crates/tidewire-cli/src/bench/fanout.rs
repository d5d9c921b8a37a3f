//! One event to many connections: deliveries a second, and what one costs the server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::client::Connection;
use super::crowd::{Counter, CrowdArguments, Listeners, beside, open_many};
use super::number::{Faults, Numbers, Sequence};
use super::open_files;
use super::process::{CpuWatch, Process, ServerProcess};
use super::publisher::{PublishArguments, Publisher};
use super::report::{Report, ReportArguments};
use super::target::TargetArguments;
use super::window;
use crate::failed::Failed;
use crate::print;
use crate::wire::Ended;

/// A delivery that takes longer is taken for lost.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(super) struct Fanout {
    /// Connections, each subscribed to the channel
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Events that are published together, once those before them have arrived everywhere; one measurement for each
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 8], value_parser = clap::value_parser!(u64).range(1..=100))]
    bursts: Vec<u64>,
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = window)]
    duration: Duration,
    #[command(flatten)]
    crowd: CrowdArguments,
    #[command(flatten)]
    publish: PublishArguments,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    server: ServerProcess,
    #[command(flatten)]
    report: ReportArguments,
}

/// What the subscribers heard.
#[derive(Default)]
struct Heard {
    deliveries: Counter,
    missing: Counter,
    repeated: Counter,
}

/// What is under load.
struct Load {
    channel: String,
    connections: u64,
    publisher: Publisher,
    numbers: Numbers,
    heard: Arc<Heard>,
    server: Option<Process>,
    duration: Duration,
    threads: usize,
}

impl Fanout {
    pub(super) fn connections(&self) -> usize {
        usize::try_from(self.connections).unwrap_or(usize::MAX)
    }

    pub(super) fn threads(&self) -> u16 {
        self.crowd.threads
    }

    pub(super) async fn run(self) -> Result<(), Failed> {
        open_files::check(self.connections())?;
        let connections = self.connections();
        let publishing = self.publish.chosen()?;
        let target = self.target.resolve().await?;
        let server = self.server.find(&target)?;
        let mut report = Report::begin("fanout", &self.report)?;
        let heard = Arc::new(Heard::default());
        let mut listeners = Listeners::new();
        open_many(&target, &self.crowd.channel, connections, |connection| {
            listeners.spawn(listen(connection, heard.clone()));
        })
        .await?;
        print::note(format_args!(
            "subscribed connections: {connections}; publishing by {}",
            publishing.name()
        ));
        let mut load = Load {
            channel: self.crowd.channel,
            connections: self.connections.into(),
            publisher: publishing.open(&target).await?,
            numbers: Numbers::new(),
            heard,
            server,
            duration: self.duration,
            threads: self.crowd.threads.into(),
        };
        let mut faults = Faults::default();
        for burst in self.bursts {
            let some = beside(&mut listeners, load.measure(burst, &mut report)).await?;
            faults.missing += some.missing;
            faults.repeated += some.repeated;
        }
        report.end()?;
        Ok(faults.check()?)
    }
}

impl Load {
    /// Publishes bursts, each when the one before has arrived everywhere.
    async fn measure(&mut self, burst: u64, report: &mut Report) -> Result<Faults> {
        let before = self.counts();
        let mut rounds = Histogram::new(3)?;
        let watch = CpuWatch::start(self.server)?;
        let start = Instant::now();
        let mut goal = before.0;
        while start.elapsed() < self.duration {
            let round = Instant::now();
            goal += burst * self.connections;
            self.publisher.publish(&self.channel, self.numbers.take(burst)).await?;
            self.heard.deliveries.reach(goal, DELIVERED_WITHIN, "deliveries have come").await?;
            rounds.record(u64::try_from(round.elapsed().as_nanos())?)?;
        }
        let elapsed = start.elapsed().as_secs_f64();
        let spent = watch.stop()?;
        let after = self.counts();
        let (delivered, faults) =
            (after.0 - before.0, Faults { missing: after.1 - before.1, repeated: after.2 - before.2 });
        let part = if burst == 1 { "one at a time".to_owned() } else { format!("bursts of {burst}") };
        report.figure(&part, "deliveries", delivered as f64 / elapsed, "deliveries/s")?;
        report.cpu(&part, &spent, delivered as f64, "us/delivery", self.threads)?;
        report.times(&part, "to all connections", &rounds)?;
        report.count(&part, "deliveries checked", delivered, "deliveries")?;
        report.count(&part, "missing", faults.missing, "deliveries")?;
        report.count(&part, "repeated or late", faults.repeated, "deliveries")?;
        Ok(faults)
    }

    fn counts(&self) -> (u64, u64, u64) {
        let Heard { deliveries, missing, repeated } = &*self.heard;
        (deliveries.count(), missing.count(), repeated.count())
    }
}

/// Counts what comes, and checks that it is each event once and in order.
async fn listen(mut connection: Connection, heard: Arc<Heard>) -> Result<(), Ended> {
    let mut sequence = Sequence::from(0);
    loop {
        let mut count = 0;
        connection
            .read_numbers(|number| {
                sequence.hear(number);
                count += 1;
            })
            .await?;
        let Faults { missing, repeated } = std::mem::take(&mut sequence.faults);
        if missing + repeated > 0 {
            heard.missing.add(missing);
            heard.repeated.add(repeated);
        }
        heard.deliveries.add(count);
    }
}
