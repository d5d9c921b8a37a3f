//! Seeded faults on real servers, and what was confirmed against what was kept and heard.
//!
//! Each schedule is a load and a few faults, all of which follow from its seed: three nodes that write and hear streams, or
//! processes that consume groups. `TIDEWIRE_SEED` is the first seed, and with it alone that schedule runs alone;
//! `TIDEWIRE_SCHEDULES` says how many run. An argument is part of a label as the report has it, such as `links` or
//! `groups file`: then only those schedules run, as many.

#![expect(
    clippy::indexing_slicing,
    reason = "an index that is out of range fails the schedule, as it should"
)]

mod groups;
mod history;
mod load;
mod report;
mod schedule;
mod site;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tidewire_fleet::server_program;
use tokio::task::JoinSet;

use self::groups::Orders;
use self::load::{Load, Outcome};
use self::report::Report;
use self::schedule::{Fault, Loss, Schedule, Subject, Topology};
use self::site::Site;

const SCHEDULES: u64 = 300;
/// Schedules of streams for each of groups, which take longer.
const STREAMS_PER_GROUP: u64 = 6;
/// Seeds that are looked at for schedules that are meant.
const SEARCHED: u64 = 1_000_000;
/// Seeds of a run that is told none: short, so that they can be typed.
const SEEDS: std::ops::Range<u64> = 1..1_000_000_000;

#[expect(clippy::disallowed_methods, reason = "a test is set up by its environment")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(orders) = Orders::from_arguments(&arguments) {
        return match groups::work(orders).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let seed = setting("TIDEWIRE_SEED");
    let count = setting("TIDEWIRE_SCHEDULES").unwrap_or(if seed.is_some() { 1 } else { SCHEDULES });
    let first = seed.unwrap_or_else(|| fastrand::u64(SEEDS));
    let part = arguments.into_iter().find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let schedules = choose(first, count, &part);
    let needs_server = schedules.iter().any(|schedule| schedule.topology != Topology::File);
    let program = server_program().or((!needs_server).then(std::path::PathBuf::new));
    let Some(program) = program else {
        println!("FAILED: redis-server is not on the PATH: run `cargo xtask test`, which installs it");
        return ExitCode::FAILURE;
    };
    println!("faults: {} schedules from seed {first}", schedules.len());
    let report = Arc::new(Mutex::new(Report::default()));
    let mut lanes = JoinSet::new();
    for (subject, topology) in
        Subject::ALL.into_iter().flat_map(|subject| Topology::ALL.map(|topology| (subject, topology)))
    {
        let is_here = |one: &&Schedule| one.subject == subject && one.topology == topology;
        let schedules: Vec<_> = schedules.iter().filter(is_here).cloned().collect();
        if !schedules.is_empty() {
            lanes.spawn(run_all(program.clone(), topology, schedules, report.clone()));
        }
    }
    let mut has_run = true;
    while let Some(lane) = lanes.join_next().await {
        if let Err(error) = lane.map_err(anyhow::Error::from).and_then(|outcome| outcome) {
            println!("FAILED: {error:#}");
            has_run = false;
        }
    }
    let report = report.lock();
    print!("{report}");
    if has_run && report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The schedules from a seed on whose label has this part: of streams as many as asked for, and of groups a part of that,
/// unless they alone are asked for.
fn choose(first: u64, count: u64, part: &str) -> Vec<Schedule> {
    let of = |subject, count| {
        let all = (first..first + SEARCHED).map(move |seed| Schedule::of(subject, seed));
        let meant = all.filter(|schedule| schedule.label().contains(part));
        meant.take(usize::try_from(count).expect("not too many")).collect::<Vec<_>>()
    };
    let mut schedules = of(Subject::Streams, count);
    let group_count = if schedules.is_empty() { count } else { count.div_ceil(STREAMS_PER_GROUP) };
    schedules.extend(of(Subject::Groups, group_count));
    schedules
}

/// Runs the schedules of a topology on servers that they share: one after the other, or some at a time.
async fn run_all(
    program: std::path::PathBuf,
    topology: Topology,
    schedules: Vec<Schedule>,
    report: Arc<Mutex<Report>>,
) -> Result<()> {
    let start = || {
        let program = program.clone();
        let starting = tokio::task::spawn_blocking(move || Site::start(&program, topology));
        async move { starting.await?.with_context(|| format!("{topology:?}")) }
    };
    let mut site = start().await?;
    if topology.width() == 1 {
        for schedule in schedules {
            let mut outcome;
            (outcome, site) = run(&schedule, site).await;
            if let Err(error) = &outcome {
                // A fault did not take place, or what was waited for after it did not come in time: the servers may have been
                // too slow, and are no place for the next one. Once more on fresh ones; what fails there has failed.
                println!("seed {} could not be carried out, and runs again: {error:#}", schedule.seed);
                drop(site);
                (outcome, site) = run(&schedule, start().await?).await;
                if outcome.is_err() {
                    drop(site);
                    site = start().await?;
                }
            }
            report.lock().add(&schedule, outcome);
        }
        return Ok(());
    }
    let mut waiting = schedules.into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < topology.width()
            && let Some(schedule) = waiting.next()
        {
            let (site, report) = (site.share()?, report.clone());
            running.spawn(async move {
                let (outcome, _) = run(&schedule, site).await;
                report.lock().add(&schedule, outcome);
            });
        }
        match running.join_next().await {
            Some(ended) => ended?,
            None => return Ok(()),
        }
    }
}

/// Runs one schedule; gives the site back.
async fn run(schedule: &Schedule, site: Site) -> (Result<Outcome>, Site) {
    match schedule.subject {
        Subject::Streams => run_streams(schedule, site).await,
        Subject::Groups => groups::run(schedule, site).await,
    }
}

async fn run_streams(schedule: &Schedule, mut site: Site) -> (Result<Outcome>, Site) {
    let (urls, proxies) = match site.open(schedule.seed) {
        Ok(opened) => opened,
        Err(error) => return (Err(error), site),
    };
    let (proxies, primaries) = (Arc::new(proxies), site.primaries());
    let mut load = match Load::start(schedule, &urls).await {
        Ok(load) => load,
        Err(error) => return (Err(error), site),
    };
    for (number, step) in schedule.steps.iter().copied().enumerate() {
        tokio::time::sleep(step.after).await; // tidy: faults come at times of their own
        let target = match load.target() {
            Ok(target) => target,
            Err(error) => return (Err(error), site),
        };
        let of_step = proxies.clone();
        let strike = move || {
            let outcome = site.strike(&step, &of_step, &target);
            (outcome.with_context(|| format!("{step:?}")), site)
        };
        let outcome;
        (outcome, site) = tokio::task::spawn_blocking(strike).await.expect("a fault does not panic");
        let late = async {
            outcome?;
            if number == 0 {
                load.listen_late().await?;
            }
            load.recover().await.with_context(|| format!("after {step:?}"))
        };
        if let Err(error) = late.await {
            return (Err(error.context(site.picture())), site);
        }
    }
    let is_disturbed = !schedule.has(Fault::FailOver) && site.primaries() != primaries;
    if is_disturbed && schedule.loss() == Loss::Nothing {
        println!("seed {}: servers failed over by themselves, the machine is too slow", schedule.seed);
    }
    let loss = schedule.loss().max(if is_disturbed { Loss::Unreplicated } else { Loss::Nothing });
    (load.finish(loss).await, site)
}
