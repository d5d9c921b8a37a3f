//! How many connections one process may open.

use std::fs;

use crate::failed::Failed;
use crate::print;

/// Open files beside the connections under test: standard streams, the runtime's, publishers.
const RESERVED: usize = 100;

/// The limit of open files.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limit {
    soft: usize,
    /// What this process may raise it to.
    hard: usize,
}

/// Raises the limit as far as it goes if `connections` need it: this process is replaced by one that is the same but for
/// the limit. Returns if nothing has to be done or nothing can.
///
/// # Errors
/// If it cannot be raised although it should be possible.
pub(super) fn raise_for(connections: usize) -> Result<(), Failed> {
    match limit() {
        Some(limit) if limit.soft < limit.hard && limit.soft < connections.saturating_add(RESERVED) => {
            raise_to(limit.hard)
        }
        _ => Ok(()),
    }
}

/// How many connections to open: as many as asked for.
///
/// # Errors
/// More than the limit allows.
pub(super) fn check(connections: usize) -> Result<(), Failed> {
    let Some(limit) = limit() else { return Ok(()) };
    if connections.saturating_add(RESERVED) <= limit.soft {
        return Ok(());
    }
    Err(Failed::Usage(format!(
        "too few open files: {connections} connections and {RESERVED} files beside them are over the limit of {} \
         (`ulimit -n`, which may be raised to {}); raise it, or give a smaller --connections",
        limit.soft, limit.hard
    )))
}

/// As many of `connections` as the limit allows, with a note where those are fewer.
pub(super) fn bounded(connections: usize) -> usize {
    let room = limit().map_or(usize::MAX, |limit| limit.soft.saturating_sub(RESERVED));
    if room < connections {
        print::note(format_args!(
            "{room} connections in place of {connections}: more are over the limit of open files (`ulimit -n`)"
        ));
    }
    room.min(connections)
}

/// None where the system does not tell, as outside of Linux.
fn limit() -> Option<Limit> {
    parse(&fs::read_to_string("/proc/self/limits").ok()?)
}

fn parse(limits: &str) -> Option<Limit> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|number| match number {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    });
    Some(Limit { soft: numbers.next()??, hard: numbers.next()?? })
}

/// A process has no safe way to raise its own limit, but a shell has, and may then become this program again. There is
/// no way back here: the limits are equal then.
#[cfg(unix)]
fn raise_to(files: usize) -> Result<(), Failed> {
    use std::os::unix::process::CommandExt;

    use anyhow::Context;

    let program = std::env::current_exe().context("cannot raise the limit of open files")?;
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", r#"ulimit -n "$0" && exec "$@""#]).arg(files.to_string());
    let error = shell.arg(program).args(std::env::args_os().skip(1)).exec();
    Err(anyhow::Error::new(error).context("cannot raise the limit of open files through `sh`").into())
}

#[cfg(not(unix))]
fn raise_to(_files: usize) -> Result<(), Failed> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_limits() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             unlimited            unlimited            processes \n\
                      Max open files            1024                 unlimited            files     \n";
        assert_eq!(parse(limits), Some(Limit { soft: 1024, hard: usize::MAX }));
        assert_eq!(parse("Max processes 1 1"), None);
    }
}
