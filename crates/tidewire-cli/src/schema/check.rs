//! `tidewire schema check`: whether a catalog breaks those who send or read by an older one.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use serde::Serialize;
use tidewire::{Catalog, Change, ChangeKind};

use super::source::{self, Source};
use crate::failed::Failed;
use crate::print;

#[derive(clap::Args)]
pub(super) struct Check {
    /// The older catalog; with --catalog alone it is the server's
    #[arg(long, value_name = "FILE", required_unless_present = "catalog")]
    against: Option<PathBuf>,
    /// Say what has changed without breaking anything too
    #[arg(long)]
    verbose: bool,
    /// Print JSON, one line for each change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// A change as a line of JSON.
#[derive(Serialize)]
struct Line<'c> {
    #[serde(flatten)]
    change: &'c Change,
    breaking: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failed> {
        let Self { against, verbose, json, source } = self;
        let (older, newer) = match (against, source) {
            (Some(file), source) => (source::of_file(&file)?, source.catalog()?),
            (None, Source { catalog: Some(file), api }) => (source::of_server(api)?, source::of_file(&file)?),
            (None, _) => {
                return Err(Failed::Usage("nothing to compare: give --against, --catalog, or both".into()));
            }
        };
        let changes = newer.changes_since(&older);
        let breaking = changes.iter().filter(|change| change.is_breaking()).count();
        match json {
            true => changes
                .iter()
                .try_for_each(|change| print::json(&Line { change, breaking: change.is_breaking() }))?,
            false => print_changes(&changes, verbose, &older, &newer)?,
        }
        match breaking {
            0 if json => Ok(()),
            0 => {
                let types = counted(newer.types().count(), "event type");
                Ok(print::line(format_args!("compatible: {types}, {}", counted(changes.len(), "change")))?)
            }
            1 => Err(anyhow!("1 change breaks those who send or read by the older catalog").into()),
            count => Err(anyhow!("{count} changes break those who send or read by the older catalog").into()),
        }
    }
}

fn counted(count: usize, thing: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{s}")
}

fn print_changes(changes: &[Change], verbose: bool, older: &Catalog, newer: &Catalog) -> Result<()> {
    let shown: Vec<_> = changes.iter().filter(|change| verbose || change.is_breaking()).collect();
    for (at, change) in shown.iter().enumerate() {
        let mark = if change.is_breaking() { "breaks" } else { "ok" };
        print::line(format_args!("{mark:<7}{}", print::one_line(&change.to_string())))?;
        // Said once, under the last change of a version.
        let of_version = |other: &Change| {
            other.is_breaking() && (&other.event_type, other.version) == (&change.event_type, change.version)
        };
        let is_last = !shown.iter().skip(at + 1).any(|other| of_version(other));
        if change.is_breaking() && is_last {
            print::line(format_args!("       -> {}", advice(change, older, newer)))?;
        }
    }
    Ok(())
}

/// What to do instead.
fn advice(change: &Change, older: &Catalog, newer: &Catalog) -> String {
    let Change { event_type, version, what, .. } = change;
    let newest = |catalog: &Catalog| catalog.versions(event_type).last().unwrap_or(*version);
    let (released, written) = (newest(older), newest(newer));
    match what {
        ChangeKind::TypeRemoved => {
            format!("keep {event_type} while events of it are in a stream or on their way")
        }
        ChangeKind::VersionRemoved => {
            format!("keep version {version} while events of it are in a stream: lift it to the next one")
        }
        _ if written > released => {
            format!("leave version {version} as it was: version {written} is there for what is different")
        }
        _ => format!(
            "leave version {version} as it was, make this version {}, and lift version {released} to it",
            released + 1
        ),
    }
}
