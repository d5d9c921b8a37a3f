//! What all schedules came to.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use crate::load::Outcome;
use crate::schedule::{Fault, Schedule, Subject, Topology};

/// Violations of one schedule that are printed; the rest is like them.
const SHOWN: usize = 8;

#[derive(Default)]
pub(crate) struct Report {
    rows: BTreeMap<(Subject, Topology), (String, Row)>,
    faults: BTreeMap<Fault, usize>,
    seeds: Option<(u64, u64)>,
}

#[derive(Default)]
struct Row {
    schedules: usize,
    faults: usize,
    confirmed: usize,
    unknown: usize,
    gaps: usize,
    handled: usize,
    again: usize,
    dead: usize,
    violations: usize,
}

impl Report {
    /// Takes note of a schedule; prints at once what is wrong with it.
    pub(crate) fn add(&mut self, schedule: &Schedule, outcome: Result<Outcome>) {
        let outcome = outcome
            .unwrap_or_else(|error| Outcome { violations: vec![format!("{error:#}")], ..Outcome::default() });
        let (first, last) = self.seeds.unwrap_or((schedule.seed, schedule.seed));
        self.seeds = Some((first.min(schedule.seed), last.max(schedule.seed)));
        for step in &schedule.steps {
            *self.faults.entry(step.fault).or_default() += 1;
        }
        let place = (schedule.subject, schedule.topology);
        let (_, row) = self.rows.entry(place).or_insert_with(|| (schedule.label(), Row::default()));
        row.schedules += 1;
        row.faults += schedule.steps.len();
        row.confirmed += outcome.confirmed;
        row.unknown += outcome.unknown;
        row.gaps += outcome.gaps;
        row.handled += outcome.handled;
        row.again += outcome.again;
        row.dead += outcome.dead;
        row.violations += outcome.violations.len();
        if outcome.violations.is_empty() {
            return;
        }
        let label = schedule.label();
        println!(
            "\nVIOLATION on {label}; again with TIDEWIRE_SEED={} and the argument '{label}'",
            schedule.seed
        );
        for step in &schedule.steps {
            let (name, after, lasts) = (step.fault.name(), step.after, step.lasts);
            println!("  after {after:?}: {name}, {lasts:?} (target {})", step.target);
        }
        for violation in outcome.violations.iter().take(SHOWN) {
            println!("  - {violation}");
        }
        if outcome.violations.len() > SHOWN {
            println!("  - and {} more", outcome.violations.len() - SHOWN);
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.rows.values().all(|(_, row)| row.violations == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = [
            "schedules",
            "faults",
            "confirmed",
            "unknown",
            "gaps told",
            "handled",
            "again",
            "dead",
            "violations",
        ];
        writeln!(out, "\n{:<16}{}", "topology", columns.map(|column| format!("{column:>12}")).concat())?;
        let mut total = [0; 9];
        for (label, row) in self.rows.values() {
            let Row { schedules, faults, confirmed, unknown, gaps, handled, again, dead, violations } = row;
            let cells = [schedules, faults, confirmed, unknown, gaps, handled, again, dead, violations];
            let cells = cells.map(|cell| *cell);
            writeln!(out, "{label:<16}{}", cells.map(|cell| format!("{cell:>12}")).concat())?;
            total.iter_mut().zip(cells).for_each(|(total, cell)| *total += cell);
        }
        writeln!(out, "{:<16}{}", "in all", total.map(|cell| format!("{cell:>12}")).concat())?;
        let faults = self.faults.iter().map(|(fault, count)| format!("{} {count}", fault.name()));
        writeln!(out, "faults: {}", faults.collect::<Vec<_>>().join(", "))?;
        let (first, last) = self.seeds.unwrap_or_default();
        writeln!(out, "seeds: {first} to {last}")
    }
}
