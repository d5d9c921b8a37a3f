//! `tidewire closed`: why connections ended.

use std::time::Duration;

use anyhow::Result;
use tidewire_protocol::v1::ClosedConnections;

use crate::failed::Failed;
use crate::groups::Output;
use crate::print::{self, one_line};
use crate::rest::{RestPath, seconds_of};
use crate::table::Table;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  tidewire closed --user ann
  tidewire closed --code 3008      # slow
  tidewire closed --limit 1000 --json")]
pub(crate) struct Closed {
    /// Only connections of this user
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only those that ended with this code; 0 for clients that were gone without a word
    #[arg(long, value_name = "NUMBER")]
    code: Option<u32>,
    /// At most so many, the newest
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

impl Closed {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let Self { user, code, limit, output } = self;
        let path = RestPath::closed_connections()
            .query("user", user.as_deref())
            .query("code", code.map(|code| code.to_string()).as_deref())
            .query("limit", Some(&limit.to_string()));
        let ClosedConnections { closed } = output.api.api()?.get(&path)?;
        if output.json {
            return Ok(closed.iter().try_for_each(print::json)?);
        }
        let mut table = Table::new(&["AT", "USER", "CODE", "REASON", "OPEN FOR", "TRANSPORT", "CLIENT"]);
        for one in closed {
            table.row([
                seconds_of(&one.at).into_owned(),
                one_line(&one.user).into_owned(),
                one.code.to_string(),
                one_line(&one.reason).into_owned(),
                format!("{:.0?}", Duration::from_millis(one.lasted_ms)),
                one.transport,
                one.client,
            ]);
        }
        Ok(table.print("no connection has ended that is remembered")?)
    }
}
