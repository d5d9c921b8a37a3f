//! Named parts of a run, each with its outcome and time, printed as a table at the end.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

/// The stages that ran so far, and facts worth a line in the conclusion (versions of what was used).
#[derive(Default)]
pub(crate) struct Stages {
    rows: Vec<Row>,
    facts: Vec<(&'static str, String)>,
}

struct Row {
    name: &'static str,
    time: Duration,
    has_passed: bool,
}

impl Stages {
    /// Runs one stage and records its time, also when it fails.
    pub(crate) fn run<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Stages) -> Result<T>,
    ) -> Result<T> {
        println!("\n=== {name}");
        #[expect(
            clippy::disallowed_methods,
            reason = "measures real time; nothing here runs on a virtual clock"
        )]
        let start = Instant::now();
        let outcome = work(self);
        self.rows.push(Row { name, time: start.elapsed(), has_passed: outcome.is_ok() });
        outcome.map_err(|error| error.context(format!("stage `{name}` failed")))
    }

    /// Adds a line to the conclusion.
    pub(crate) fn note(&mut self, subject: &'static str, fact: impl Into<String>) {
        self.facts.push((subject, fact.into()));
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.facts.is_empty() {
            writeln!(out, "\nran with")?;
        }
        for (subject, fact) in &self.facts {
            writeln!(out, "  {subject:<20} {fact}")?;
        }
        writeln!(out, "\n  {:<20} {:>9}  outcome", "stage", "time")?;
        for row in &self.rows {
            let outcome = if row.has_passed { "ok" } else { "FAILED" };
            writeln!(out, "  {:<20} {:>7.1} s  {outcome}", row.name, row.time.as_secs_f64())?;
        }
        let total: Duration = self.rows.iter().map(|row| row.time).sum();
        write!(out, "  {:<20} {:>7.1} s", "total", total.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_stage_is_in_the_table_and_named_in_the_error() {
        let mut stages = Stages::default();
        stages.run("first", |_| Ok(())).unwrap();
        let error = stages.run("second", |_| anyhow::bail!("reason") as Result<()>).unwrap_err();
        stages.note("redis", "7.0.15");

        assert_eq!(format!("{error:#}"), "stage `second` failed: reason");
        let table = stages.to_string();
        assert!(table.contains("redis                7.0.15"), "{table}");
        assert!(table.lines().any(|line| line.contains("first") && line.ends_with("ok")), "{table}");
        assert!(table.lines().any(|line| line.contains("second") && line.ends_with("FAILED")), "{table}");
    }
}
