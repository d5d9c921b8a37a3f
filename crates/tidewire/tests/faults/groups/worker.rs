//! A process that consumes the groups of a schedule until it is killed, or until nothing is left to do.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tidewire::{Consumer, Delivery, Emit, Event, GapReason, Group, Outcome, Start, Tenant, Tidewire};

use super::notes::{Attempt, Note, Notes, Place, Said};
use super::plan::{LEASE, MADE, PARK_TIME, Plan, SOURCE, Way, retries};
use super::publisher::Publisher;

/// How often it looks whether all is done, and how often the machine should let it run.
const POLL: Duration = Duration::from_millis(40);
/// Later than that, it was not run for a while: its lease may have run out without anybody's fault.
const STALL: Duration = Duration::from_millis(400);
/// How long it may take to end when nothing is left to do.
const STOP_WITHIN: Duration = Duration::from_secs(10);
const CONCURRENCY: usize = 6;

/// What a worker is told when it is started.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) url: String,
    pub(crate) tenant: String,
    pub(crate) notes: String,
    pub(crate) seed: u64,
    pub(crate) process: u32,
    /// It publishes too, from this number on: nobody else can, while it has the engine.
    pub(crate) publish_from: Option<u64>,
}

impl Orders {
    pub(crate) fn to_arguments(&self) -> [String; 7] {
        let numbers = [self.seed, self.process.into(), self.publish_from.unwrap_or(0)];
        let [seed, process, from] = numbers.map(|number| number.to_string());
        ["worker".into(), self.url.clone(), self.tenant.clone(), self.notes.clone(), seed, process, from]
    }

    /// Those in the arguments of this process, if it is a worker.
    pub(crate) fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [role, url, tenant, notes, seed, process, from] = arguments else { return None };
        if role != "worker" {
            return None;
        }
        let publish_from = from.parse().ok().filter(|from| *from > 0);
        let (seed, process) = (seed.parse().ok()?, process.parse().ok()?);
        Some(Self {
            url: url.clone(),
            tenant: tenant.clone(),
            notes: notes.clone(),
            seed,
            process,
            publish_from,
        })
    }
}

struct Worker {
    orders: Orders,
    plan: Plan,
    notes: Arc<Notes>,
    /// Nothing more is published: it ends when all is handled.
    is_draining: AtomicBool,
    /// Milliseconds of handlers that take their time, so that they differ.
    pace: AtomicU64,
}

/// Works as it is told.
pub(crate) async fn run(orders: Orders) -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let notes = Arc::new(Notes::open(Path::new(&orders.notes))?);
    let plan = Plan::of(orders.seed);
    let worker = Arc::new(Worker {
        orders,
        plan,
        notes,
        is_draining: AtomicBool::new(false),
        pace: AtomicU64::new(0),
    });
    let of_orders = worker.clone();
    std::thread::spawn(move || of_orders.listen());
    let of_ticks = worker.clone();
    std::thread::spawn(move || of_ticks.watch_machine());
    worker.work().await
}

impl Worker {
    /// Takes orders; ends with whoever gives them.
    fn listen(&self) {
        for line in std::io::stdin().lock().lines() {
            if line.is_ok_and(|line| line == "drain") {
                self.is_draining.store(true, Ordering::Relaxed);
            }
        }
        std::process::exit(2);
    }

    fn watch_machine(&self) {
        loop {
            #[expect(clippy::disallowed_methods, reason = "what is measured is the machine")]
            let before = std::time::Instant::now();
            std::thread::sleep(POLL); // tidy: what is measured is how late it ends
            if before.elapsed() > POLL + STALL {
                self.notes.add(&Note::Stalled { process: self.orders.process });
            }
        }
    }

    async fn work(self: &Arc<Self>) -> Result<()> {
        let tidewire = again(|| Tidewire::open(&self.orders.url)).await?;
        let tenant = tidewire.tenant(&self.orders.tenant)?;
        let mut consumers = Vec::new();
        for kind in &self.plan.kinds {
            consumers.push(again(|| self.clone().consume(&tenant, kind.name)).await?);
        }
        let publishing = self.orders.publish_from.map(|from| {
            let publisher = Publisher::new(&tenant, self.plan.clone(), self.notes.clone());
            let worker = self.clone();
            spawn(async move {
                let publisher = publisher?;
                publisher.run(from, || worker.is_draining.load(Ordering::Relaxed)).await
            })
        });
        let mut lost = vec![0; consumers.len()];
        loop {
            tokio::time::sleep(POLL).await; // tidy: the end is looked for
            for (consumer, lost) in consumers.iter().zip(&mut lost) {
                let now = consumer.stats().sessions_lost;
                if now > *lost {
                    let group = consumer.group().name().to_owned();
                    self.notes.add(&Note::SessionLost { process: self.orders.process, group });
                }
                *lost = now;
            }
            let is_publishing = publishing.as_ref().is_some_and(|publishing| !publishing.is_finished());
            if self.is_draining.load(Ordering::Relaxed) && !is_publishing && is_drained(&consumers).await {
                break;
            }
        }
        if let Some(publishing) = publishing {
            publishing.await??;
        }
        for consumer in &consumers {
            consumer.stop().await;
        }
        tidewire.close(STOP_WITHIN).await.context("the node closes")
    }

    async fn consume(self: Arc<Self>, tenant: &Tenant, name: &'static str) -> tidewire::Result<Consumer> {
        let group = group(tenant, &self.plan, name)?;
        let kind = self.plan.kind(name).expect("a group of the plan");
        let notes = self.notes.clone();
        let told = move |gap: &tidewire::Gap| {
            let (from, to) = (gap.from.map(Place::from), gap.to.map(Place::from));
            let is_loss = gap.reason == GapReason::HistoryLost;
            notes.add(&Note::Gap { group: name.to_owned(), from, to, is_loss });
        };
        let consuming = group.consume().concurrency(CONCURRENCY).lease(LEASE).retries(retries());
        let mut consuming = consuming.park_time(PARK_TIME).on_gap(told);
        if kind.is_dedup {
            consuming = consuming.dedup(Duration::from_secs(600));
        }
        let handler = move |delivery: Delivery, emit: Emit| {
            let worker = self.clone();
            async move { worker.handle(name, &delivery, &emit).await }
        };
        consuming.run(handler).await
    }

    async fn handle(&self, group: &str, delivery: &Delivery, emit: &Emit) -> Outcome {
        let number = std::str::from_utf8(delivery.event().data()).ok().and_then(|text| text.parse().ok());
        let number = number.expect("an event of the load");
        let attempt = Attempt {
            process: self.orders.process,
            group: group.to_owned(),
            place: delivery.position().into(),
            number,
            attempt: delivery.attempt(),
            fence: delivery.fence(),
        };
        self.notes.add(&Note::Begin(attempt.clone()));
        let way = self.plan.way(group, number);
        let pace = self.pace.fetch_add(7, Ordering::Relaxed) % 100;
        let pace = Duration::from_millis(if way == Way::Slow { 30 + pace * 3 } else { pace / 20 });
        tokio::time::sleep(pace).await; // tidy: a handler takes time
        let is_first = delivery.attempt() == 1;
        let said = match way {
            Way::Crash => std::process::abort(),
            Way::RetryNow | Way::RetryLater if is_first => Said::Retry,
            Way::Fail => Said::Retry,
            Way::Reject => Said::Reject,
            Way::Park if is_fresh(delivery) => Said::Park,
            _ => Said::Ack,
        };
        if said == Said::Ack && self.plan.kind(group).is_some_and(|kind| kind.emits) {
            let made = Event::new("made", format!("{group} {}", delivery.position()));
            emit.append(MADE, made).expect("it may be emitted");
        }
        self.notes.add(&Note::End(attempt, said));
        match said {
            Said::Ack => Outcome::Ack,
            Said::Reject => Outcome::reject("never"),
            Said::Park => Outcome::park("its key waits"),
            Said::Retry if way == Way::RetryNow => Outcome::retry_now("not yet"),
            Said::Retry => Outcome::retry("not yet"),
        }
    }
}

/// Whether a delivery was handed out for the first time just now: nothing counts how often it was parked.
fn is_fresh(delivery: &Delivery) -> bool {
    tidewire::Clock::system().now().since(delivery.first_delivered()) < PARK_TIME / 2
}

/// A group of the plan.
pub(crate) fn group(tenant: &Tenant, plan: &Plan, name: &str) -> tidewire::Result<Group> {
    let group = tenant.channel(SOURCE)?.group(name, Start::Earliest)?;
    Ok(match plan.kind(name).map_or(0, |kind| kind.partitions) {
        0 => group,
        partitions => group.ordered(partitions),
    })
}

async fn is_drained(consumers: &[Consumer]) -> bool {
    for consumer in consumers {
        let Ok(status) = consumer.group().status().await else { return false };
        let left = status.lag_events + status.in_flight + status.waiting + status.outbox;
        if left > 0 {
            return false;
        }
    }
    true
}

/// Tries until it succeeds, or fails for good.
pub(crate) async fn again<T, F: Future<Output = tidewire::Result<T>>>(attempt: impl Fn() -> F) -> Result<T> {
    loop {
        match attempt().await {
            Err(error) if error.is_retryable() => tokio::time::sleep(POLL).await, // tidy: servers may be down
            outcome => return Ok(outcome?),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the task is awaited")]
fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}
