//! `tidewire groups`: which groups a channel has, how far they are, and how they are made, moved and deleted.

use anyhow::Result;
use clap::Subcommand;
use tidewire_protocol::v1::{Audit, DeclareRequest, Declared, Group, Groups, Seek, SeekRequest};

use crate::client::{Api, ApiArguments, Verb};
use crate::failed::Failed;
use crate::print;
use crate::rest::{RestPath, duration_of, seconds_of};
use crate::table::Table;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  tidewire groups list orders
  tidewire groups show orders billing
  tidewire groups declare orders billing --start earliest
  tidewire groups seek orders billing 2026-01-31T12:00:00Z --preview")]
pub(crate) struct GroupsCommand {
    #[command(subcommand)]
    verb: GroupsVerb,
}

#[derive(Subcommand)]
enum GroupsVerb {
    /// List the groups of a channel and how far each of them is
    List(List),
    /// Show how far a group is, and who works on it
    Show(Named),
    /// Make a group if it is not there, so that every event from its start on is kept for it
    Declare(Declare),
    /// Go on from another position: back, so that events are delivered again, or forth, so that they are passed over
    Seek(SeekTo),
    /// Remove a group with all that it has: what waits, its dead letters, its audit trail
    Delete(Delete),
    /// List who replayed, purged and moved what
    Audit(Named),
}

#[derive(clap::Args)]
struct List {
    /// The channel
    channel: String,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Named {
    #[command(flatten)]
    group: GroupArguments,
    #[command(flatten)]
    output: Output,
}

/// A group of a channel.
#[derive(clap::Args)]
pub(crate) struct GroupArguments {
    /// The channel
    pub(crate) channel: String,
    /// The group
    pub(crate) group: String,
}

impl GroupArguments {
    pub(crate) fn path(&self) -> RestPath {
        RestPath::group(&self.channel, &self.group)
    }
}

/// How to print, and whom to ask.
#[derive(clap::Args)]
pub(crate) struct Output {
    /// Print JSON, one line for each thing
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArguments,
}

/// Who does it.
#[derive(clap::Args)]
pub(crate) struct By {
    /// Who does it, for the audit trail
    #[arg(long, env = "USER", value_name = "NAME", default_value = "", hide_env_values = true)]
    pub(crate) by: String,
}

#[derive(clap::Args)]
struct Declare {
    #[command(flatten)]
    group: GroupArguments,
    /// Where it begins: earliest, latest, EPOCH:OFFSET, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "PLACE")]
    start: String,
    /// Handle the events of each key in their order, spread over so many partitions
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=128))]
    partitions: u16,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct SeekTo {
    #[command(flatten)]
    group: GroupArguments,
    /// Where to: earliest, latest, EPOCH:OFFSET, or a time such as 2026-01-31T12:00:00Z
    to: String,
    /// Move nothing and say what it would do
    #[arg(long)]
    preview: bool,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Delete {
    #[command(flatten)]
    group: GroupArguments,
    /// Delete it though it has dead letters
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    api: ApiArguments,
}

impl GroupsCommand {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match self.verb {
            GroupsVerb::List(List { channel, output }) => {
                Ok(list(&channel, output.json, &output.api.api()?)?)
            }
            GroupsVerb::Show(Named { group, output }) => {
                Ok(show(&output.api.api()?.get(&group.path())?, output.json)?)
            }
            GroupsVerb::Declare(declare) => declare.run(),
            GroupsVerb::Seek(seek) => seek.run(),
            GroupsVerb::Delete(delete) => delete.run(),
            GroupsVerb::Audit(Named { group, output }) => {
                Ok(audit(&output.api.api()?.get(&group.path().then("audit"))?, output.json)?)
            }
        }
    }
}

fn list(channel: &str, is_json: bool, api: &Api) -> Result<()> {
    let Groups { groups } = api.get(&RestPath::channel(channel).then("groups"))?;
    let mut table = Table::new(&["GROUP", "LAG", "LAG TIME", "IN FLIGHT", "WAITING", "DEAD", "SESSIONS"]);
    for name in groups {
        let group: Group = api.get(&RestPath::group(channel, &name))?;
        if is_json {
            print::json(&group)?;
            continue;
        }
        table.row([
            name,
            group.lag_events.to_string(),
            duration_of(group.lag_ms),
            group.in_flight.to_string(),
            group.waiting.to_string(),
            group.dead_letters.to_string(),
            group.sessions.len().to_string(),
        ]);
    }
    if is_json { Ok(()) } else { table.print(&format!("channel {channel} has no groups")) }
}

fn show(group: &Group, is_json: bool) -> Result<()> {
    if is_json {
        return print::json(group);
    }
    let Group { channel, epoch, first, last, next, floor, .. } = group;
    let order = match group.partitions {
        0 => "none".to_owned(),
        count => format!("by key, in {count} partitions"),
    };
    print::line(format_args!("group        {} of {channel}", group.group))?;
    print::line(format_args!("order        {order}"))?;
    print::line(format_args!("stream       offsets {first} to {last} of epoch {epoch}"))?;
    print::line(format_args!("next         {next}; all before {floor} is settled or waits"))?;
    print::line(format_args!("lag          {} events, {}", group.lag_events, duration_of(group.lag_ms)))?;
    print::line(format_args!("in flight    {}", group.in_flight))?;
    print::line(format_args!("waiting      {}", group.waiting))?;
    print::line(format_args!("dead letters {}", group.dead_letters))?;
    print::line(format_args!("moved        {} times", group.moves))?;
    let mut sessions = Table::new(&["SESSION", "IN FLIGHT", "PARTITIONS", "LEASE LEFT"]);
    for session in &group.sessions {
        sessions.row([
            session.name.clone(),
            session.in_flight.to_string(),
            session.partitions.to_string(),
            duration_of(session.lease_left_ms),
        ]);
    }
    sessions.print("no session works on it")
}

fn audit(audit: &Audit, is_json: bool) -> Result<()> {
    if is_json {
        return audit.entries.iter().try_for_each(print::json);
    }
    let mut table = Table::new(&["TIME", "ACTION", "COUNT", "WHO", "DETAIL"]);
    for entry in &audit.entries {
        table.row([
            seconds_of(&entry.time).into_owned(),
            entry.action.clone(),
            entry.count.to_string(),
            entry.who.clone(),
            entry.detail.clone(),
        ]);
    }
    table.print("nothing was replayed, purged or moved")
}

impl Declare {
    fn run(self) -> Result<(), Failed> {
        let Self { group, start, partitions, output } = self;
        let request = DeclareRequest { start, partitions };
        let declared: Declared = output.api.api()?.send(Verb::Put, &group.path(), &request)?;
        if output.json {
            return Ok(print::json(&declared)?);
        }
        let GroupArguments { channel, group } = group;
        let done = if declared.is_new { "made" } else { "found" };
        Ok(print::line(format_args!("{done} group {group} of {channel}: next is {}", declared.next))?)
    }
}

impl SeekTo {
    fn run(self) -> Result<(), Failed> {
        let Self { group, to, preview, by, output } = self;
        let request = SeekRequest { to, preview, by: by.by };
        let seek: Seek = output.api.api()?.send(Verb::Post, &group.path().then("seek"), &request)?;
        if output.json {
            return Ok(print::json(&seek)?);
        }
        let Seek { from, to, again_count, skipped_count } = seek;
        let what = match (again_count, skipped_count) {
            (0, 0) => "no event is delivered again or passed over".to_owned(),
            (again, 0) => format!("{again} events are delivered again"),
            (_, skipped) => format!("{skipped} events are passed over"),
        };
        let done = if preview { "would move" } else { "moved" };
        Ok(print::line(format_args!("{done} from {from} to {to}: {what}"))?)
    }
}

impl Delete {
    fn run(self) -> Result<(), Failed> {
        let Self { group, force, by, api } = self;
        let api = api.api()?;
        let status: Group = api.get(&group.path())?;
        if status.dead_letters > 0 && !force {
            return Err(anyhow::anyhow!(
                "group {} has {} dead letters, which would be gone: replay them, or give --force",
                group.group,
                status.dead_letters
            )
            .into());
        }
        api.delete(&group.path().query("by", Some(by.by.as_str()).filter(|by| !by.is_empty())))?;
        Ok(print::line(format_args!("deleted group {} of {}", group.group, group.channel))?)
    }
}
