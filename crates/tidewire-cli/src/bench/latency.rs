//! From the call that publishes to the frame that a subscriber gets, at a steady rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep_until};

use super::client::Connection;
use super::crowd::{Counter, CrowdArguments, Listeners, beside, open_many};
use super::open_files;
use super::process::{CpuWatch, Process, ServerProcess};
use super::publisher::{PublishArguments, Publisher, Publishing};
use super::report::{Report, ReportArguments};
use super::target::{Target, TargetArguments};
use super::window;
use crate::failed::Failed;
use crate::print;
use crate::wire::Ended;

/// An event that takes longer is taken for lost.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);
/// Longer times count as this, in nanoseconds.
const LAG_NANOS_MAX: u64 = 60_000_000_000;
/// The part of the full rate that is measured at.
const PART_OF_FULL: f64 = 0.5;

#[derive(clap::Args)]
pub(super) struct Latency {
    /// Connections, each subscribed to the channel
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Connections that publish
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    publishers: u16,
    /// Events a second; half of what the publishers reach if it is not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long the full rate is measured for, if no rate is given
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = window)]
    full_for: Duration,
    /// How long latency is measured for
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

/// What the subscribers heard, and when.
struct Heard {
    /// All times count from here.
    start: Instant,
    deliveries: Counter,
    lags: Mutex<Histogram<u64>>,
}

/// What is under load.
struct Load {
    target: Target,
    publishing: Publishing,
    channel: String,
    connections: u64,
    publishers: u16,
    heard: Arc<Heard>,
    server: Option<Process>,
    threads: usize,
}

impl Latency {
    pub(super) fn connections(&self) -> usize {
        usize::try_from(self.connections).unwrap_or(usize::MAX).saturating_add(self.publishers.into())
    }

    pub(super) fn threads(&self) -> u16 {
        self.crowd.threads
    }

    pub(super) async fn run(self) -> Result<(), Failed> {
        open_files::check(self.connections())?;
        let publishing = self.publish.chosen()?;
        let target = self.target.resolve().await?;
        let server = self.server.find(&target)?;
        let mut report = Report::begin("latency", &self.report)?;
        let lags = Mutex::new(Histogram::new_with_max(LAG_NANOS_MAX, 3).map_err(anyhow::Error::new)?);
        let heard = Arc::new(Heard { start: Instant::now(), deliveries: Counter::default(), lags });
        let mut listeners = Listeners::new();
        let subscribers = usize::try_from(self.connections).unwrap_or(usize::MAX);
        open_many(&target, &self.crowd.channel, subscribers, |connection| {
            listeners.spawn(listen(connection, heard.clone()));
        })
        .await?;
        print::note(format_args!(
            "subscribed connections: {subscribers}; publishing connections: {}, by {}",
            self.publishers,
            publishing.name()
        ));
        let load = Load {
            target,
            publishing,
            channel: self.crowd.channel,
            connections: self.connections.into(),
            publishers: self.publishers,
            heard,
            server,
            threads: self.crowd.threads.into(),
        };
        let measure = async {
            let rate = match self.rate {
                Some(rate) => f64::from(rate),
                None => load.full_rate(self.full_for, &mut report).await? * PART_OF_FULL,
            };
            load.measure(rate, self.duration, &mut report).await
        };
        beside(&mut listeners, measure).await?;
        Ok(report.end()?)
    }
}

impl Load {
    /// Publishes as fast as answers come; events a second.
    async fn full_rate(&self, duration: Duration, report: &mut Report) -> Result<f64> {
        let start = Instant::now();
        let publish = (0..self.publishers).map(|_| async {
            let mut publisher = self.open().await?;
            let mut count = 0;
            // One at least, so that a rate comes of it.
            while count == 0 || start.elapsed() < duration {
                self.publish_at(&mut publisher, Instant::now()).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
        let count: u64 = try_join_all(publish).await?.iter().sum();
        let rate = count as f64 / start.elapsed().as_secs_f64();
        self.all_arrived(0, count).await?;
        report.figure("full rate", "published", rate, "events/s")?;
        report.times("full rate", "publish to subscriber", &self.heard.lags())?;
        Ok(rate)
    }

    /// Publishes at a steady rate. An event that waits for the one before it counts from when it was due, so that a server
    /// that stops is not spared the events that it held up.
    async fn measure(&self, rate: f64, duration: Duration, report: &mut Report) -> Result<()> {
        let publishers = try_join_all((0..self.publishers).map(|_| self.open())).await?;
        let before = self.heard.deliveries.count();
        self.heard.lags().reset();
        let watch = CpuWatch::start(self.server)?;
        let start = Instant::now();
        let interval = Duration::from_secs_f64(f64::from(self.publishers) / rate);
        let publish = publishers.into_iter().zip(0_u32..).map(|(mut publisher, at)| async move {
            let mut due = start + interval.mul_f64(f64::from(at) / f64::from(self.publishers));
            let mut count = 0;
            while due.duration_since(start) < duration {
                let sent = if Instant::now() < due {
                    sleep_until(due).await;
                    // The timer is as late as a millisecond, which is not the server's doing.
                    Instant::now()
                } else {
                    due
                };
                self.publish_at(&mut publisher, sent).await?;
                due += interval;
                count += 1;
            }
            anyhow::Ok(count)
        });
        let count: u64 = try_join_all(publish).await?.iter().sum();
        let elapsed = start.elapsed().as_secs_f64();
        let spent = watch.stop()?;
        self.all_arrived(before, count).await?;
        let part = format!("{rate:.0} events/s");
        report.figure(&part, "published", count as f64 / elapsed, "events/s")?;
        report.times(&part, "publish to subscriber", &self.heard.lags())?;
        report.cpu(&part, &spent, (count * self.connections) as f64, "us/delivery", self.threads)
    }

    async fn open(&self) -> Result<Publisher> {
        self.publishing.open(&self.target).await
    }

    async fn publish_at(&self, publisher: &mut Publisher, time: Instant) -> Result<()> {
        let nanos = u64::try_from(time.duration_since(self.heard.start).as_nanos())?;
        publisher.publish(&self.channel, nanos..nanos.saturating_add(1)).await
    }

    /// Waits until every subscriber has what was published since `before`.
    async fn all_arrived(&self, before: u64, count: u64) -> Result<()> {
        let goal = before + count * self.connections;
        self.heard.deliveries.reach(goal, DELIVERED_WITHIN, "deliveries have come").await?;
        match self.heard.deliveries.count() {
            arrived if arrived == goal => Ok(()),
            arrived => Err(anyhow!(
                "{arrived} deliveries of {goal}: some came again, or somebody else publishes here"
            )),
        }
    }
}

impl Heard {
    fn lags(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.lags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(mut connection: Connection, heard: Arc<Heard>) -> Result<(), Ended> {
    loop {
        let mut count = 0;
        connection
            .read_numbers(|sent| {
                let now = u64::try_from(heard.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                heard.lags().saturating_record(now.saturating_sub(sent));
                count += 1;
            })
            .await?;
        // Last, because who waits for it reads the times.
        heard.deliveries.add(count);
    }
}
