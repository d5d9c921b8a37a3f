//! Runs every conformance case on every engine and prints the table.
//!
//! Side by side, because they wait more than they work. On a slow machine the crowd itself can make a case late whose
//! time is real, so what fails in it runs again alone, afterwards: a case has failed if it fails alone. The table says
//! `alone` where that was needed, and the first failure is printed.
//!
//! `cargo test -p tidewire --test engines -- [ENGINE] [PART]` runs one engine alone, and the cases whose name, or
//! that of a trap that they are about, holds PART.

#![expect(clippy::disallowed_methods, reason = "a case is awaited right where it is spawned")]

mod subject;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tidewire::conformance::{CASES, Case, Need, Scene, Subject, TRAPS, Trap};
use tokio::sync::Semaphore;

/// Engines at a time: their cases wait more than they work, and too many of them would be late for each other.
const SIDE_BY_SIDE: usize = 3;
/// Cases of one engine at a time, for the same reason.
const CASES_AT_ONCE: usize = 48;
/// The longest a case may take.
const CASE_TIME_MAX: Duration = Duration::from_secs(60);

enum Outcome {
    Passed,
    /// It passed alone, after it had failed in the crowd for this reason.
    PassedAlone(String),
    Failed(String),
    Skipped(&'static str),
}

/// One engine's outcomes, in the order of the cases.
struct Column {
    engine: &'static str,
    subject: Arc<Subject>,
    outcomes: Vec<Outcome>,
}

async fn run(case: &'static Case, subject: Arc<Subject>, name: String) -> Outcome {
    if let Some(need) = case.needs.iter().find(|need| !subject.has.contains(need)) {
        return Outcome::Skipped(need.reason());
    }
    let running = tokio::spawn((case.run)(Scene::new(subject, name)));
    match tokio::time::timeout(CASE_TIME_MAX, running).await {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed(format!("took more than {CASE_TIME_MAX:?}")),
    }
}

/// Runs the cases side by side; those that cut links disturb the others and run alone, afterwards.
async fn run_all(subject: Subject, cases: &[&'static Case]) -> Column {
    let (engine, subject) = (subject.name, Arc::new(subject));
    let is_alone = |case: &Case| case.needs.contains(&Need::CutLinks);
    let places = Arc::new(Semaphore::new(CASES_AT_ONCE));
    let place = |case: &'static Case| {
        let (places, subject) = (places.clone(), subject.clone());
        tokio::spawn(async move {
            let _place = places.acquire().await.expect("never closed");
            run(case, subject, case.name.into()).await
        })
    };
    let together: Vec<_> = cases.iter().map(|&case| (!is_alone(case)).then(|| place(case))).collect();
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    for running in together {
        outcomes.push(match running {
            Some(running) => Some(running.await.expect("a case that panics is caught inside")),
            None => None,
        });
    }
    for (case, outcome) in cases.iter().zip(&mut outcomes) {
        if outcome.is_none() {
            *outcome = Some(run(case, subject.clone(), case.name.into()).await);
        }
    }
    Column { engine, subject, outcomes: outcomes.into_iter().flatten().collect() }
}

/// Runs what failed once more, one case at a time, with nothing of the first run to be found.
async fn run_again(cases: &[&'static Case], columns: &mut [Column]) {
    for Column { subject, outcomes, .. } in columns {
        for (case, outcome) in cases.iter().zip(outcomes) {
            let Outcome::Failed(why) = outcome else { continue };
            let again = run(case, subject.clone(), format!("again-{}", case.name)).await;
            if matches!(again, Outcome::Passed) {
                *outcome = Outcome::PassedAlone(std::mem::take(why));
            }
        }
    }
}

fn print_table(cases: &[&Case], columns: &[Column]) {
    let header: String = columns.iter().map(|column| format!("{:>10}", column.engine)).collect();
    println!("\nconformance: cases x engines (g. = guarantee of the design)\n  g.  {:<70}{header}", "case");
    for (row, case) in cases.iter().enumerate() {
        let cell = |column: &Column| match column.outcomes.get(row) {
            Some(Outcome::Passed) => format!("{:>10}", "ok"),
            Some(Outcome::PassedAlone(_)) => format!("{:>10}", "alone"),
            Some(Outcome::Skipped(_)) => format!("{:>10}", "-"),
            Some(Outcome::Failed(_)) | None => format!("{:>10}", "FAILED"),
        };
        let cells: String = columns.iter().map(cell).collect();
        println!("  {:>2}  {:<70}{cells}", case.guarantee, case.name.replace('_', " "));
    }
    for Column { engine, outcomes, .. } in columns {
        let mut reasons: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| if let Outcome::Skipped(reason) = outcome { Some(*reason) } else { None })
            .collect();
        reasons.sort_unstable();
        reasons.dedup();
        println!(
            "  - {engine}: {}",
            if reasons.is_empty() { "nothing skipped".into() } else { reasons.join("; ") }
        );
    }
}

/// The traps that none of what was run fell into, and the others.
fn print_traps(cases: &[&Case], columns: &[Column]) {
    println!("\ntraps: what others fell into, by the cases above");
    for Trap { name, what, cases: about } in TRAPS {
        let rows = cases.iter().enumerate().filter(|(_, case)| about.contains(&case.name));
        let outcomes =
            rows.flat_map(|(row, _)| columns.iter().filter_map(move |column| column.outcomes.get(row)));
        let (mut passed, mut failed) = (0, 0);
        for outcome in outcomes {
            match outcome {
                Outcome::Passed | Outcome::PassedAlone(_) => passed += 1,
                Outcome::Failed(_) => failed += 1,
                Outcome::Skipped(_) => {}
            }
        }
        let verdict = match (passed, failed) {
            (0, 0) => "-",
            (_, 0) => "ok",
            _ => "FAILED",
        };
        println!("  {name:<28} {what:<92} {verdict}");
    }
}

fn is_about(case: &Case, part: &str) -> bool {
    case.name.contains(part)
        || TRAPS.iter().any(|trap| trap.name.contains(part) && trap.cases.contains(&case.name))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let engine = arguments.iter().find(|argument| subject::is_name(argument));
    let part = arguments.iter().find(|argument| !subject::is_name(argument)).cloned().unwrap_or_default();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut subjects = vec![subject::memory(), subject::file(directory.path().to_owned())];
    for (name, variable) in subject::TOPOLOGIES {
        if engine.is_some_and(|engine| engine != name) {
            continue;
        }
        match subject::redis(name, variable) {
            Ok(subject) => subjects.push(subject),
            Err(_) if name == subject::VALKEY => println!("skipped: {}", subject::WITHOUT_VALKEY),
            Err(why) => {
                println!("FAILED: {name}: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    let cases: Vec<_> = CASES.iter().filter(|case| is_about(case, &part)).collect();
    let subjects = subjects.into_iter().filter(|subject| engine.is_none_or(|engine| engine == subject.name));
    let columns = subjects.map(|subject| run_all(subject, &cases));
    let mut columns: Vec<Column> = stream::iter(columns).buffered(SIDE_BY_SIDE).collect().await;
    run_again(&cases, &mut columns).await;
    print_table(&cases, &columns);
    print_traps(&cases, &columns);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for column in &columns {
        for (case, outcome) in cases.iter().zip(&column.outcomes) {
            match outcome {
                Outcome::Passed => passed += 1,
                Outcome::PassedAlone(why) => {
                    passed += 1;
                    println!("passed alone on {}: {}, in the crowd: {why}", column.engine, case.name);
                }
                Outcome::Skipped(_) => skipped += 1,
                Outcome::Failed(why) => {
                    failed += 1;
                    println!("FAILED on {}: {}: {why}", column.engine, case.name);
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
