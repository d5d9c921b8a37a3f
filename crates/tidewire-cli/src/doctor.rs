//! `tidewire doctor`: looks at a running server or an engine, and says what to change.

mod engine;
mod server;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use tidewire_server::config::{Config, EngineUrl};

use crate::failed::Failed;
use crate::print;
use crate::server_url::ServerArguments;

#[derive(clap::Args)]
pub(crate) struct Doctor {
    /// Check this engine, by publishing, appending and reading on a channel of its own
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    engine: Option<String>,
    /// Check the engine that this settings file names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print each check as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Ok,
    /// It works, and there is something to know before relying on it.
    Warn,
    Fail,
}

/// What a check found.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    check: String,
    outcome: Outcome,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// Prints findings as they are made.
pub(crate) struct Report {
    is_json: bool,
    check_count: usize,
    fail_count: usize,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let mut report = Report { is_json: self.json, check_count: 0, fail_count: 0 };
        let settings = match (&self.config, &self.engine) {
            (Some(file), _) => {
                let settings = Config::from_file(file);
                Some(settings.map_err(|error| Failed::Usage(error.to_string()))?)
            }
            (None, Some(url)) => {
                let mut settings = Config::default();
                settings.engine = EngineUrl::from(url.as_str());
                Some(settings)
            }
            (None, None) => None,
        };
        match settings {
            Some(settings) => {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
                runtime
                    .context("cannot start the runtime")?
                    .block_on(engine::check(&settings, &mut report))?;
            }
            None => server::check(&self.server.place()?, &mut report)?,
        }
        match report.fail_count {
            0 => Ok(()),
            failed => Err(anyhow!("{failed} of {} checks failed", report.check_count).into()),
        }
    }
}

impl Finding {
    pub(crate) fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), outcome: Outcome::Ok, found: found.into(), fix: None }
    }

    pub(crate) fn warn(check: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warn, fix: Some(fix.into()), ..Self::ok(check, found) }
    }

    pub(crate) fn fail(check: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, fix: Some(fix.into()), ..Self::ok(check, found) }
    }
}

impl From<tidewire::Finding> for Finding {
    fn from(finding: tidewire::Finding) -> Self {
        let outcome = if finding.fix.is_some() { Outcome::Warn } else { Outcome::Ok };
        Self { check: finding.check.to_owned(), outcome, found: finding.found, fix: finding.fix }
    }
}

impl Report {
    pub(crate) fn add(&mut self, finding: &Finding) -> Result<()> {
        self.check_count += 1;
        self.fail_count += usize::from(finding.outcome == Outcome::Fail);
        if self.is_json {
            return print::json(finding);
        }
        let Finding { check, outcome, found, fix } = finding;
        let outcome = match outcome {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        print::line(format_args!("{outcome:<4}  {check:<14}  {found}"))?;
        match fix {
            Some(fix) => print::line(format_args!("{:<4}  {:<14}  -> {fix}", "", "")),
            None => Ok(()),
        }
    }
}
