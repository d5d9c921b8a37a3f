//! `tidewire dead`: the dead letters of a group - listed, shown, grouped by reason, replayed, purged.

use std::io::{self, IsTerminal};

use anyhow::Result;
use clap::Subcommand;
use tidewire_protocol::v1::{
    DeadLetter, DeadLetterFilter, DeadLetters, DeadReasons, Event, SweepRequest, Swept,
};

use crate::client::{Api, Verb};
use crate::failed::Failed;
use crate::groups::{By, GroupArguments, Output};
use crate::print::{self, one_line};
use crate::rest::{moment, seconds_of};
use crate::table::Table;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  tidewire dead reasons orders billing
  tidewire dead list orders billing --reason 'card # declined' --since 2h
  tidewire dead replay orders billing --reason 'card # declined' --rate 50
  tidewire dead purge orders billing --before 30d --dry-run")]
pub(crate) struct Dead {
    #[command(subcommand)]
    verb: DeadVerb,
}

#[derive(Subcommand)]
enum DeadVerb {
    /// List dead letters, the oldest first
    List(List),
    /// Show one dead letter with its event
    Show(Show),
    /// Count dead letters by what their reasons have in common
    Reasons(Reasons),
    /// Append the events of dead letters again, so that the group handles them once more, and remove the letters
    Replay(Replay),
    /// Remove dead letters for good
    Purge(Purge),
}

/// Which letters.
#[derive(clap::Args)]
struct Filter {
    /// Only those whose reason has this fingerprint, as `dead reasons` tells it
    #[arg(long, value_name = "FINGERPRINT")]
    reason: Option<String>,
    /// Only those of this kind
    #[arg(long, value_parser = ["rejected", "attempts_used_up", "undecodable", "crashed_process"])]
    kind: Option<String>,
    /// Only those whose event has this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only those that died since then: a time, or how long ago, such as 15m or 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Only those that died before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<String>,
}

#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    group: GroupArguments,
    #[command(flatten)]
    filter: Filter,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Show {
    #[command(flatten)]
    group: GroupArguments,
    /// The letter's id
    id: String,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Reasons {
    #[command(flatten)]
    group: GroupArguments,
    #[command(flatten)]
    output: Output,
}

/// What a replay and a purge have in common.
#[derive(clap::Args)]
struct Sweep {
    #[command(flatten)]
    group: GroupArguments,
    /// Only the letter with this id; may be given several times
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Change nothing and count
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Replay {
    #[command(flatten)]
    sweep: Sweep,
    /// At most so many events a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Into this channel, where they are events like any other
    #[arg(long, value_name = "CHANNEL")]
    to: Option<String>,
}

#[derive(clap::Args)]
struct Purge {
    #[command(flatten)]
    sweep: Sweep,
    /// Without a filter: all of them
    #[arg(long)]
    all: bool,
}

impl Dead {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match self.verb {
            DeadVerb::List(list) => list.run(),
            DeadVerb::Show(show) => show.run(),
            DeadVerb::Reasons(reasons) => reasons.run(),
            DeadVerb::Replay(Replay { sweep, rate, to }) => sweep.run(Kind::Replay { rate, to }),
            DeadVerb::Purge(Purge { sweep, all }) => sweep.run(Kind::Purge { all }),
        }
    }
}

impl List {
    fn run(self) -> Result<(), Failed> {
        let Self { group, filter, limit, output } = self;
        let api = output.api.api()?;
        let mut table = Table::new(&["ID", "DIED", "ATTEMPTS", "TYPE", "KIND", "REASON"]);
        let (mut left, mut after) = (limit, None::<String>);
        while left > 0 {
            let page: DeadLetters = api.get(
                &group
                    .path()
                    .then("dead-letters")
                    .query("after", after.as_deref())
                    .query("limit", Some(&left.min(1_000).to_string()))
                    .query("reason", filter.reason.as_deref())
                    .query("kind", filter.kind.as_deref())
                    .query("type", filter.event_type.as_deref())
                    .query("since", filter.since.as_deref())
                    .query("before", filter.before.as_deref()),
            )?;
            left = left.saturating_sub(page.letters.len());
            for letter in page.letters {
                if output.json {
                    print::json(&letter)?;
                } else {
                    table.row(row(letter));
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if !output.json {
            table.print("no dead letters")?;
            if after.is_some() {
                print::note(format_args!("there are more; --limit is {limit}"));
            }
        }
        Ok(())
    }
}

fn row(letter: DeadLetter) -> [String; 6] {
    let died = seconds_of(&letter.died).into_owned();
    let event_type = letter.event.map_or_else(|| "?".to_owned(), |event| event.event_type);
    [letter.id, died, letter.attempts.to_string(), event_type, letter.kind, letter.reason]
}

impl Show {
    fn run(self) -> Result<(), Failed> {
        let Self { group, id, output } = self;
        let letter: DeadLetter = output.api.api()?.get(&group.path().then("dead-letters").name(&id))?;
        if output.json {
            return Ok(print::json(&letter)?);
        }
        let DeadLetter { id, kind, reason, fingerprint, attempts, crashes, position, .. } = &letter;
        print::line(format_args!("id           {id}"))?;
        print::line(format_args!("why          {kind}: {}", one_line(reason)))?;
        print::line(format_args!("fingerprint  {}", one_line(fingerprint)))?;
        print::line(format_args!("attempts     {attempts}, of which {crashes} ended with their process"))?;
        print::line(format_args!("appended     {} at {position}", letter.appended))?;
        print::line(format_args!("delivered    {} to {}", letter.first_delivered, letter.last_delivered))?;
        print::line(format_args!("died         {}", letter.died))?;
        print::line(format_args!("session      {} of node {}", letter.session, letter.node))?;
        match (&letter.event, &letter.envelope) {
            (Some(event), _) => show_event(event)?,
            (None, Some(envelope)) => print::line(format_args!("undecodable  {}", one_line(envelope.get())))?,
            (None, None) => {}
        }
        Ok(())
    }
}

fn show_event(event: &Event) -> Result<()> {
    print::line(format_args!("event        {} {}, {}", event.id, one_line(&event.event_type), event.time))?;
    for (name, value) in &event.attributes {
        print::line(format_args!("  {name:<10} {}", one_line(value)))?;
    }
    event.data.iter().try_for_each(|data| print::line(format_args!("data         {}", one_line(data.get()))))
}

impl Reasons {
    fn run(self) -> Result<(), Failed> {
        let Self { group, output } = self;
        let path = group.path().then("dead-letters").then("reasons");
        let found: DeadReasons = output.api.api()?.get(&path)?;
        if output.json {
            return Ok(found.reasons.iter().try_for_each(print::json)?);
        }
        let mut table = Table::new(&["COUNT", "KIND", "FIRST", "LAST", "EXAMPLE", "REASON"]);
        for reason in found.reasons {
            table.row([
                reason.count.to_string(),
                reason.kind,
                seconds_of(&reason.first).into_owned(),
                seconds_of(&reason.last).into_owned(),
                reason.example,
                reason.fingerprint,
            ]);
        }
        table.print("no dead letters")?;
        if found.others > 0 {
            print::note(format_args!("and {} of further reasons", found.others));
        }
        Ok(())
    }
}

enum Kind {
    Replay { rate: Option<u32>, to: Option<String> },
    Purge { all: bool },
}

impl Sweep {
    fn run(self, kind: Kind) -> Result<(), Failed> {
        let Self { group, ids, filter, limit, dry_run, by, output } = self;
        let Filter { reason, kind: dead_kind, event_type, since, before } = filter;
        let filter = DeadLetterFilter { ids, reason, kind: dead_kind, event_type, since, before };
        let mut request = SweepRequest { filter, dry_run, by: by.by, ..SweepRequest::default() };
        let (verb, done) = match kind {
            Kind::Replay { rate, to } => {
                (request.rate, request.to_channel) = (rate, to);
                ("replay", "replayed")
            }
            Kind::Purge { all } => {
                if request.filter == DeadLetterFilter::default() && !all {
                    return Err(Failed::Usage(
                        "nothing says which letters to purge: give a filter such as --reason or --before, or --all"
                            .into(),
                    ));
                }
                request.all = all;
                ("purge", "purged")
            }
        };
        let path = group.path().then("dead-letters").then(verb);
        let done = if dry_run { format!("would have {done}") } else { done.to_owned() };
        let swept = sweep(&output.api.api()?, &path, request, limit, &done)?;
        if output.json {
            return Ok(print::json(&swept)?);
        }
        let before = match swept.duplicate_count {
            0 => String::new(),
            count => format!("; {count} of them an earlier replay had appended already"),
        };
        Ok(print::line(format_args!("{done} {} dead letters{before}", swept.count))?)
    }
}

/// Sends requests until all is done, each of them a bounded part; tells on a terminal how far it is.
fn sweep(
    api: &Api,
    path: &crate::rest::RestPath,
    mut request: SweepRequest,
    limit: Option<u64>,
    done: &str,
) -> Result<Swept> {
    let is_seen = io::stderr().is_terminal();
    let mut total = Swept::default();
    loop {
        request.limit = limit.map(|limit| limit - total.count);
        let part: Swept = api.send(Verb::Post, path, &request)?;
        total.count += part.count;
        total.duplicate_count += part.duplicate_count;
        let is_at_limit = limit.is_some_and(|limit| total.count >= limit);
        if part.next.is_none() || is_at_limit {
            return Ok(total);
        }
        request.resume = part.next;
        if is_seen {
            print::note(format_args!("{done} {} so far", total.count));
        }
    }
}
