//! All connections cut at once: how long until each has recovered, and what the server reads for it.

mod follower;
mod recoveries;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::follower::{Followed, Follower, Plan, Progress, Stage};
use self::recoveries::Recoveries;
use super::crowd::{CrowdArguments, OPENING_AT_ONCE, beside, outcome};
use super::number::Faults;
use super::open_files;
use super::process::{CpuSpent, CpuWatch, Process, ServerProcess};
use super::publisher::{PublishArguments, Publishing};
use super::report::{Report, ReportArguments};
use super::target::{Target, TargetArguments};
use crate::failed::Failed;
use crate::print;
use crate::wire::Ended;

/// For all connections to open, and again for the cut.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// An event that takes longer is taken for lost.
const DELIVERED_WITHIN: Duration = Duration::from_secs(30);
/// The same of recoveries.
const RECOVERED_WITHIN: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
pub(super) struct Storm {
    /// Connections, each with one subscription
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Channels that the connections are spread over: CHANNEL-1, CHANNEL-2 and so on, if it is more than one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    channels: u32,
    /// Events of each channel that the connections miss; the channel has to keep as many
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    missed: u32,
    /// Connect again all at once, rather than each after a random wait as SDKs do
    #[arg(long)]
    at_once: bool,
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

type Followers = JoinSet<Result<Followed, Ended>>;

/// What is under load.
struct Load {
    target: Arc<Target>,
    publishing: Publishing,
    channels: Vec<String>,
    connections: u64,
    missed: u64,
    server: Option<Process>,
    stage: watch::Sender<Stage>,
    progress: Arc<Progress>,
}

/// What the reconnection came to.
struct Recovered {
    elapsed: Duration,
    spent: CpuSpent,
    /// Before and after, where the server tells.
    recoveries: Option<(Recoveries, Recoveries)>,
}

impl Storm {
    pub(super) fn connections(&self) -> usize {
        usize::try_from(self.connections).unwrap_or(usize::MAX)
    }

    pub(super) fn threads(&self) -> u16 {
        self.crowd.threads
    }

    pub(super) async fn run(self) -> Result<(), Failed> {
        open_files::check(self.connections())?;
        if self.channels > self.connections {
            let Self { channels, connections, .. } = self;
            return Err(Failed::Usage(format!("--channels {channels} is above --connections {connections}")));
        }
        let publishing = self.publish.chosen()?;
        let target = Arc::new(self.target.resolve().await?);
        let server = self.server.find(&target)?;
        let mut report = Report::begin("storm", &self.report)?;
        let channels = match self.channels {
            1 => vec![self.crowd.channel],
            many => (1..=many).map(|number| format!("{}-{number}", self.crowd.channel)).collect(),
        };
        let load = Load {
            target,
            publishing,
            channels,
            connections: self.connections.into(),
            missed: self.missed.into(),
            server,
            stage: watch::Sender::new(Stage::Listening),
            progress: Arc::default(),
        };
        let mut followers = load.followers(self.at_once);
        let recovered = load.drive(&mut followers).await?;
        let (times, faults) = load.collect(followers).await?;
        let part = if self.at_once { "at once" } else { "after random waits" };
        load.tell(part, &recovered, &times, faults, self.crowd.threads.into(), &mut report)?;
        if let Some(reason) = load.progress.first_failure.get() {
            print::note(format_args!("the first attempt that failed: {reason}"));
        }
        report.end()?;
        Ok(faults.check()?)
    }
}

impl Load {
    fn followers(&self, is_at_once: bool) -> Followers {
        let plan = Arc::new(Plan {
            target: self.target.clone(),
            is_at_once,
            missed_until: 1 + self.missed,
            opening: Semaphore::new(OPENING_AT_ONCE),
            progress: self.progress.clone(),
        });
        let mut followers = Followers::new();
        for (_, channel) in (0..self.connections).zip(self.channels.iter().cycle()) {
            let follower = Follower::new(plan.clone(), channel.clone(), self.stage.subscribe());
            followers.spawn(follower.follow());
        }
        followers
    }

    /// Opens, cuts and waits for what comes of it.
    async fn drive(&self, followers: &mut Followers) -> Result<Recovered> {
        let all = self.connections;
        let progress = &self.progress;
        beside(followers, progress.opened.reach(all, READY_WITHIN, "connections are subscribed")).await?;
        print::note(format_args!("subscribed connections: {all}; publishing by {}", self.publishing.name()));
        let prepare = async {
            self.publish(0, 1).await?;
            progress.began.reach(all, DELIVERED_WITHIN, "connections heard the first event").await?;
            let before = Recoveries::read(&self.target).await?;
            self.stage.send_replace(Stage::Cut);
            progress.cut.reach(all, READY_WITHIN, "connections are cut").await?;
            self.publish(1, self.missed).await?;
            anyhow::Ok(before)
        };
        let before = beside(followers, prepare).await?;
        print::note(format_args!("all are cut and miss {} events; connecting again", self.missed));
        let watch = CpuWatch::start(self.server)?;
        let start = Instant::now();
        self.stage.send_replace(Stage::Recovering);
        beside(followers, progress.recovered.reach(all, RECOVERED_WITHIN, "connections have recovered"))
            .await?;
        let (elapsed, spent) = (start.elapsed(), watch.stop()?);
        let recoveries = match before {
            Some(before) => Recoveries::read(&self.target).await?.map(|after| (before, after)),
            None => None,
        };
        // Who listens again gets what is live too: with the next number, if nothing was missed.
        self.publish(1 + self.missed, 1).await?;
        Ok(Recovered { elapsed, spent, recoveries })
    }

    /// Publishes so many events from number `first` on, in each channel.
    async fn publish(&self, first: u64, count: u64) -> Result<()> {
        // A new one each time: nobody answers its pings in between.
        let mut publisher = self.publishing.open(&self.target).await?;
        for channel in &self.channels {
            publisher.publish(channel, first..first + count).await?;
        }
        publisher.close().await;
        Ok(())
    }

    /// The times of the connections, in nanoseconds, and what they missed.
    async fn collect(&self, mut followers: Followers) -> Result<(Histogram<u64>, Faults)> {
        let mut times = Histogram::new(3)?;
        let mut faults = Faults::default();
        let all = async {
            while let Some(ended) = followers.join_next().await {
                let Followed { recovered_after, faults: some } = outcome(ended)?;
                times.record(u64::try_from(recovered_after.as_nanos())?)?;
                faults.missing += some.missing;
                faults.repeated += some.repeated;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(DELIVERED_WITHIN, all).await {
            Ok(ended) => ended?,
            Err(_) => {
                bail!("connections that have recovered did not hear a live event within {DELIVERED_WITHIN:?}")
            }
        }
        Ok((times, faults))
    }

    fn tell(
        &self,
        part: &str,
        recovered: &Recovered,
        times: &Histogram<u64>,
        faults: Faults,
        threads: usize,
        report: &mut Report,
    ) -> Result<()> {
        let seconds = recovered.elapsed.as_secs_f64();
        report.figure(part, "all recovered after", seconds * 1e3, "ms")?;
        report.times(part, "recovered after", times)?;
        report.figure(part, "recovered", self.connections as f64 / seconds, "connections/s")?;
        report.count(
            part,
            "attempts that failed, or did not last",
            self.progress.failed_attempts.count(),
            "attempts",
        )?;
        report.cpu(part, &recovered.spent, self.connections as f64, "us/connection", threads)?;
        if let Some((before, after)) = &recovered.recoveries {
            report.figure(
                part,
                "recoveries told complete",
                after.complete - before.complete,
                "recoveries",
            )?;
            report.figure(part, "recoveries told lost", after.lost - before.lost, "recoveries")?;
        }
        report.count(part, "events recovered", self.missed * self.connections, "events")?;
        report.count(part, "missing", faults.missing, "events")?;
        report.count(part, "repeated or late", faults.repeated, "events")
    }
}
