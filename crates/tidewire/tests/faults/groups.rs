//! Groups under faults: worker processes that are killed, stopped and cut off while they handle what is published, and a
//! checker that knows all that they did.

mod crew;
pub(crate) mod history;
pub(crate) mod notes;
pub(crate) mod plan;
mod publisher;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tidewire::engine::{Announce, Append, Engine, Heard, Retention, Setup, Sink};
use tidewire::tasks::Tasks;
use tidewire::{Clock, Durability, Limits, Position, Subscription, Tenant, Tidewire};
use tidewire_fleet::{Proxy, Way};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use self::crew::Crew;
use self::history::{Dead, History};
use self::notes::{Note, Notes, Place, Sort};
use self::plan::{LEASE, MADE, Plan, SOURCE};
use self::publisher::Publisher;
pub(crate) use self::worker::{Orders, run as work};
use crate::load::{Outcome, Target};
use crate::schedule::{Fault, Loss, Schedule, Step, Topology};
use crate::site::Site;

/// How long something may take that must happen.
const PATIENCE: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(20);
/// Events that are confirmed after a fault, which show that publishers are well again.
const SIGN_OF_LIFE: u64 = 4;
/// The least that a schedule publishes.
const EVENTS_MIN: u64 = 60;
/// A request that never comes, because there is nothing to do, is no place to kill at.
const REQUEST_WITHIN: Duration = Duration::from_secs(3);

/// A schedule that runs.
struct Stage {
    plan: Plan,
    tenant: String,
    folder: TempDir,
    notes: Arc<Notes>,
    crew: Crew,
    /// Who publishes, where workers do not.
    node: Option<Tidewire>,
    /// Somebody listens, so that there are output buffers to be filled.
    _ear: Option<Subscription>,
    confirmed: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    publishing: Vec<JoinHandle<Result<()>>>,
    url: String,
}

#[expect(clippy::disallowed_methods, reason = "the task is awaited")]
fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(future)
}

/// Runs one schedule; gives the site back.
pub(crate) async fn run(schedule: &Schedule, site: Site) -> (Result<Outcome>, Site) {
    let (urls, proxies) = match site.open(schedule.seed) {
        Ok(opened) => opened,
        Err(error) => return (Err(error), site),
    };
    let primaries = site.primaries();
    let mut stage = match Stage::start(schedule, &urls).await {
        Ok(stage) => stage,
        Err(error) => return (Err(error), site),
    };
    let mut site = Some(site);
    let proxies = Arc::new(proxies);
    let outcome = stage.play(schedule, &mut site, &proxies).await;
    let site = site.take().expect("the site is given back");
    let is_disturbed = !schedule.has(Fault::FailOver) && site.primaries() != primaries;
    let loss = schedule.loss().max(if is_disturbed { Loss::Unreplicated } else { Loss::Nothing });
    let outcome = match outcome {
        Ok(()) => stage.judge(schedule, loss).await,
        Err(error) => Err(error.context(stage.picture().await)),
    };
    (outcome.with_context(|| stage.keep_notes()), site)
}

impl Stage {
    async fn start(schedule: &Schedule, urls: &[String]) -> Result<Self> {
        let plan = Plan::of(schedule.seed);
        let tenant = format!("seed-{}-{:08x}", schedule.seed, fastrand::u32(..));
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("notes");
        let notes = Arc::new(Notes::open(&path)?);
        let (url, is_alone) = (urls[0].clone(), schedule.topology == Topology::File);
        let orders = Orders {
            url: url.clone(),
            tenant: tenant.clone(),
            notes: path.display().to_string(),
            seed: schedule.seed,
            process: 1,
            publish_from: is_alone.then_some(1),
        };
        let (is_over, mut publishing) = (Arc::new(AtomicBool::new(false)), Vec::new());
        let (mut node, mut ear, mut confirmed) = (None, None, Arc::default());
        if !is_alone {
            let opened = Tidewire::open(&url).await?;
            let publisher = Publisher::new(&opened.tenant(&tenant)?, plan.clone(), notes.clone())?;
            publisher.declare().await?;
            confirmed = publisher.confirmed.clone();
            let of_publisher = is_over.clone();
            publishing
                .push(spawn(async move { publisher.run(1, || of_publisher.load(Ordering::Relaxed)).await }));
            let garbage = litter(
                url.clone(),
                tenant.clone(),
                plan.clone(),
                notes.clone(),
                confirmed.clone(),
                is_over.clone(),
            );
            publishing.push(spawn(garbage));
            ear = Some(opened.tenant(&tenant)?.channel(SOURCE)?.subscribe().open().await?);
            node = Some(opened);
        }
        let workers = if is_alone { urls } else { &urls[1..] };
        let crew = Crew::start(workers, orders, notes.clone());
        Ok(Self { plan, tenant, folder, notes, crew, node, _ear: ear, confirmed, is_over, publishing, url })
    }

    /// What workers had to say.
    fn log(&self) -> String {
        std::fs::read_to_string(self.path().with_extension("log")).unwrap_or_default()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("notes")
    }

    /// What is confirmed, by whoever publishes.
    fn confirmed(&self) -> Result<u64> {
        if self.node.is_some() {
            return Ok(self.confirmed.load(Ordering::Relaxed));
        }
        let notes = Notes::read(&self.path())?;
        Ok(notes.iter().filter(|note| matches!(note, Note::Published { sort: Sort::Event, .. })).count()
            as u64)
    }

    /// Has the faults happen, and then everything handled.
    async fn play(
        &mut self,
        schedule: &Schedule,
        site: &mut Option<Site>,
        proxies: &Arc<Vec<Proxy>>,
    ) -> Result<()> {
        self.until("events are published", |stage| Ok(stage.confirmed()? >= SIGN_OF_LIFE)).await?;
        for step in &schedule.steps {
            tokio::time::sleep(step.after).await; // tidy: faults come at times of their own
            self.strike(step, site, proxies).await.with_context(|| format!("{step:?}"))?;
            let before = self.confirmed()?;
            self.until("events are published again", |stage| Ok(stage.confirmed()? >= before + SIGN_OF_LIFE))
                .await
                .with_context(|| format!("after {step:?}"))?;
        }
        self.until("enough is published", |stage| Ok(stage.confirmed()? >= EVENTS_MIN)).await?;
        self.is_over.store(true, Ordering::Relaxed);
        for publishing in self.publishing.drain(..) {
            timeout(PATIENCE, publishing).await.context("a publisher ends")???;
        }
        self.crew.drain();
        self.until("all is handled", |stage| {
            if stage.crew.failed() {
                bail!("a worker ended by itself:\n{}", stage.log());
            }
            Ok(stage.crew.is_done())
        })
        .await
    }

    async fn strike(&self, step: &Step, site: &mut Option<Site>, proxies: &Arc<Vec<Proxy>>) -> Result<()> {
        let place = step.target % self.crew.len();
        let what = step.fault.name();
        let pause = step.lasts.min(LEASE * 2);
        match step.fault {
            Fault::KillWorker => tokio::task::block_in_place(|| self.crew.kill(place, what, pause)),
            Fault::PauseWorker => {
                let pause = if step.target.is_multiple_of(3) { pause } else { LEASE + pause };
                tokio::task::block_in_place(|| self.crew.pause(place, pause))?;
            }
            Fault::KillAtRequest | Fault::KillAtReply => tokio::task::block_in_place(|| {
                // The first proxy is the publisher's.
                let proxy = &proxies[place + 1];
                let way = if step.fault == Fault::KillAtRequest { Way::Out } else { Way::In };
                proxy.hold_after(way, 1 + step.target as u64 / 7 % 12);
                proxy.until_held(REQUEST_WITHIN);
                self.crew.kill(place, what, Duration::ZERO);
                proxy.pass();
                std::thread::sleep(pause); // tidy: a fault lasts for a time
            }),
            _ => {
                let node = self.node.as_ref().context("no server has faults here")?;
                let target = Target::new(&self.tenant, node.tenant(&self.tenant)?.channel(SOURCE)?);
                let (step, of_step) = (*step, proxies.clone());
                self.notes.add(&Note::Fault { what: what.to_owned(), process: None });
                let mut taken = site.take().context("the site is here")?;
                let struck = tokio::task::spawn_blocking(move || {
                    let outcome = taken.strike(&step, &of_step, &target);
                    (outcome, taken)
                });
                let (outcome, taken) = struck.await?;
                *site = Some(taken);
                self.notes.add(&Note::Healed);
                outcome?;
            }
        }
        Ok(())
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self).with_context(|| format!("until {what}"))? {
            if Instant::now() > deadline {
                bail!("waited {PATIENCE:?} until {what}");
            }
            if let Some(ended) = self.publishing.iter().find(|one| one.is_finished())
                && !self.is_over.load(Ordering::Relaxed)
            {
                bail!("a publisher ended before its time: {ended:?}");
            }
            tokio::time::sleep(POLL).await; // tidy: notes are looked at
        }
        Ok(())
    }

    /// Looks at what is left and judges all that was seen.
    async fn judge(&mut self, schedule: &Schedule, loss: Loss) -> Result<Outcome> {
        self.crew.end().with_context(|| self.log())?;
        let node = match self.node.take() {
            Some(node) => node,
            None => Tidewire::open(&self.url).await?,
        };
        let tenant = node.tenant(&self.tenant)?;
        let notes = Notes::read(&self.path())?;
        let mut made = read_made(&tenant).await?;
        let mut outcome = Outcome {
            confirmed: notes.iter().filter(|note| matches!(note, Note::Published { .. })).count(),
            gaps: notes.iter().filter(|note| matches!(note, Note::Gap { .. })).count(),
            ..Outcome::default()
        };
        for kind in self.plan.kinds.clone() {
            let history = History {
                plan: &self.plan,
                kind,
                loss,
                is_trimmed: schedule.has(Fault::TrimStream),
                notes: &notes,
                dead: read_dead(&tenant, &self.plan, kind.name).await?,
                made: made.remove(kind.name).unwrap_or_default(),
            };
            let (handled, again) = history.counts();
            outcome.handled += handled;
            outcome.again += again;
            outcome.dead += history.dead.len();
            let found = history.violations().into_iter().map(|rule| format!("{}: {rule}", kind.name));
            outcome.violations.extend(found);
        }
        if let Err(error) = node.close(PATIENCE).await {
            outcome.violations.push(format!("the publisher's node does not close: {error}"));
        }
        if !outcome.violations.is_empty() {
            outcome.violations.push(self.keep_notes());
        }
        Ok(outcome)
    }

    /// Leaves the notes behind for whoever looks at a violation; says where.
    fn keep_notes(&mut self) -> String {
        self.folder.disable_cleanup(true);
        format!("the notes are in {}", self.path().display())
    }

    /// How the groups are, for whoever wonders why they are not well.
    async fn picture(&self) -> String {
        let Some(node) = &self.node else { return "the workers' log is beside the notes".into() };
        let mut picture = String::from("the groups are:");
        for kind in &self.plan.kinds {
            let Ok(tenant) = node.tenant(&self.tenant) else { continue };
            let Ok(group) = worker::group(&tenant, &self.plan, kind.name) else { continue };
            let status = timeout(PATIENCE, group.status()).await;
            picture.push_str(&format!("\n    {}: {status:?}", kind.name));
        }
        picture + "\n  and"
    }
}

/// The dead letters of a group.
async fn read_dead(tenant: &Tenant, plan: &Plan, name: &str) -> Result<Vec<Dead>> {
    let letters = worker::group(tenant, plan, name)?.dead_letters();
    let (mut dead, mut after) = (Vec::new(), String::new());
    loop {
        let page = letters.list(&after, 1_000).await?;
        dead.extend(
            page.letters.iter().map(|letter| Dead { place: letter.position.into(), kind: letter.kind }),
        );
        match page.next {
            Some(next) => after = next.into(),
            None => return Ok(dead),
        }
    }
}

/// What handlers have emitted, by their group.
async fn read_made(tenant: &Tenant) -> Result<BTreeMap<String, Vec<Place>>> {
    let (mut made, mut last): (BTreeMap<String, Vec<Place>>, Option<Position>) = (BTreeMap::new(), None);
    let channel = tenant.channel(MADE)?;
    loop {
        let reading = channel.read();
        let page = match last {
            Some(last) => reading.after(last).await?,
            None => reading.await?,
        };
        let Some(newest) = page.events.last() else { return Ok(made) };
        last = newest.position;
        for received in &page.events {
            let text = std::str::from_utf8(received.event.data())?;
            if let Some((group, position)) = text.split_once(' ') {
                made.entry(group.to_owned()).or_default().push(position.parse::<Position>()?.into());
            }
        }
    }
}

struct Nobody;

impl Sink for Nobody {
    fn hear(&self, _heard: Heard) {}
}

/// Appends bytes that are no event, now and then.
async fn litter(
    url: String,
    tenant: String,
    plan: Plan,
    notes: Arc<Notes>,
    confirmed: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) -> Result<()> {
    let setup = Setup {
        sink: Arc::new(Nobody),
        clock: Clock::system(),
        limits: Limits::default(),
        tasks: Tasks::new(),
    };
    let engine: Engine = tidewire::engine::redis::open_redis(&url, &setup).await?;
    let channel = tidewire::name::ChannelPath::new("dev", &tenant, SOURCE)?;
    for number in (1..).filter(|number| plan.has_garbage(*number)) {
        while confirmed.load(Ordering::Relaxed) < number {
            if is_over.load(Ordering::Relaxed) {
                engine.tasks.close(PATIENCE).await;
                return Ok(());
            }
            tokio::time::sleep(POLL).await; // tidy: a counter is watched
        }
        let append = Append {
            channel: channel.clone(),
            envelope: b"no event at all".as_slice().into(),
            announce: Announce::Quiet,
            dedup: Some(tidewire::engine::Dedup {
                id: format!("garbage:{number}").into(),
                window: PATIENCE * 10,
            }),
            retention: Retention::default(),
            durability: Durability::Fast,
            version: None,
            deliver_at: None,
        };
        loop {
            let outcome = engine.log.append(vec![append.clone()]).await.map(|mut outcomes| outcomes.pop());
            if let Ok(Some(Ok(appended))) = outcome
                && let Some(position) = appended.position
            {
                notes.add(&Note::Published { sort: Sort::Garbage, number, place: position.into() });
                break;
            }
            tokio::time::sleep(POLL).await; // tidy: it is tried again
        }
    }
    Ok(())
}
