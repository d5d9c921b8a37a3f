//! `tidewire trace`: where an event is, and why.

use anyhow::Result;
use tidewire_protocol::v1::{Trace, TracedInGroup};

use crate::failed::Failed;
use crate::groups::Output;
use crate::print::{self, one_line};
use crate::rest::{RestPath, moment};
use crate::table::Table;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  tidewire trace orders 0199d3c4-e5f6-7890-abcd-ef0123456789
  tidewire trace orders 6fa459ea-ee8a-4ca4-894e-db77e160355e --since 2d")]
pub(crate) struct TraceCommand {
    /// The channel
    channel: String,
    /// The event's id
    event: String,
    /// Look at events appended since then: a time, or how long ago, such as 15m or 7d. Without it the id tells, if it holds
    /// a time, as those do that Tidewire makes
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl TraceCommand {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let Self { channel, event, since, output } = self;
        let path = RestPath::channel(&channel).then("trace").name(&event);
        let trace: Trace = output.api.api()?.get(&path.query("since", since.as_deref()))?;
        if output.json {
            print::json(&trace)?;
        } else {
            show(&trace)?;
        }
        if trace.copies.is_empty() && trace.groups.is_empty() {
            let more =
                if trace.has_more { "; the stream goes on after them: give a later --since" } else { "" };
            return Err(anyhow::anyhow!(
                "event {event} is not among offsets {} to {} of {channel}, and not among its dead letters{more}",
                trace.first,
                trace.last
            )
            .into());
        }
        Ok(())
    }
}

fn show(trace: &Trace) -> Result<()> {
    for copy in &trace.copies {
        let replay = copy.replay_of.as_ref().map_or_else(String::new, |id| format!(", a replay of {id}"));
        print::line(format_args!(
            "{} at {}, appended {}{replay}",
            one_line(&copy.event_type),
            copy.position,
            copy.time
        ))?;
    }
    if trace.groups.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["GROUP", "POSITION", "STATE", "WHY"]);
    for found in &trace.groups {
        table.row([found.group.clone(), found.position.clone(), found.state.replace('_', " "), why(found)]);
    }
    table.print("no group has it")
}

fn why(found: &TracedInGroup) -> String {
    let attempts = match (found.attempts.unwrap_or_default(), &found.error) {
        (0, _) => String::new(),
        (count, Some(error)) => format!(", {count} attempts failed: {error}"),
        (count, None) => format!(", {count} attempts failed"),
    };
    match &*found.state {
        "before_start" => "it was appended before the group's start".into(),
        "not_for_this_group" => "it was replayed for another group".into(),
        "ahead" => format!("at most {} events come before it", found.events_before.unwrap_or_default()),
        "in_flight" => match &found.session {
            Some(session) => format!("session {session} has it{attempts}"),
            None => format!("the session that had it is gone{attempts}"),
        },
        "waiting" => format!("until {}{attempts}", found.due.as_deref().unwrap_or("its time")),
        "dead" => found.letter.as_ref().map_or_else(String::new, |letter| {
            format!(
                "{} at {} after {} attempts: {}",
                letter.kind, letter.died, letter.attempts, letter.reason
            )
        }),
        "settled" => "acknowledged, or a dead letter that was replayed or purged since".into(),
        _ => String::new(),
    }
}
