//! `tidewire webhooks`: how the endpoints of the settings do, and how they are enabled, disabled and tried.

use anyhow::{Result, anyhow};
use clap::Subcommand;
use tidewire_protocol::v1::{DisableRequest, Webhook, WebhookTest, Webhooks};

use crate::client::{Api, Verb};
use crate::failed::Failed;
use crate::groups::{By, Output};
use crate::print;
use crate::rest::{RestPath, seconds_of};
use crate::table::Table;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  tidewire webhooks list
  tidewire webhooks test billing
  tidewire webhooks disable billing --reason \"moving it\"
  tidewire webhooks enable billing")]
pub(crate) struct WebhooksCommand {
    #[command(subcommand)]
    verb: WebhooksVerb,
}

#[derive(Subcommand)]
enum WebhooksVerb {
    /// List the webhooks and how each of them does
    List(Output),
    /// Show one, and why it is disabled
    Show(Named),
    /// Send again what waits, and what comes
    Enable(Named),
    /// Send nothing any more: events wait until it is enabled
    Disable(Disable),
    /// Send a test event, beside the stream
    Test(Named),
}

#[derive(clap::Args)]
struct Named {
    /// The webhook
    name: String,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct Disable {
    #[command(flatten)]
    named: Named,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    by: By,
}

impl WebhooksCommand {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match self.verb {
            WebhooksVerb::List(output) => Ok(list(&output.api.api()?, output.json)?),
            WebhooksVerb::Show(Named { name, output }) => {
                Ok(show(&output.api.api()?.get(&RestPath::webhook(&name))?, output.json)?)
            }
            WebhooksVerb::Enable(Named { name, output }) => {
                let nothing = serde_json::Map::new();
                let path = RestPath::webhook(&name).then("enable");
                Ok(show(&output.api.api()?.send(Verb::Post, &path, &nothing)?, output.json)?)
            }
            WebhooksVerb::Disable(Disable { named: Named { name, output }, reason, by }) => {
                let request = DisableRequest { reason, by: by.by };
                let path = RestPath::webhook(&name).then("disable");
                Ok(show(&output.api.api()?.send(Verb::Post, &path, &request)?, output.json)?)
            }
            WebhooksVerb::Test(named) => named.test(),
        }
    }
}

fn list(api: &Api, is_json: bool) -> Result<()> {
    let Webhooks { webhooks } = api.get(&RestPath::webhooks())?;
    if is_json {
        return webhooks.iter().try_for_each(print::json);
    }
    let mut table = Table::new(&["WEBHOOK", "CHANNEL", "STATE", "FAILURES", "SINCE", "URL"]);
    for webhook in webhooks {
        let since = webhook.disabled_at.as_ref().or(webhook.failing_since.as_ref());
        table.row([
            webhook.name.clone(),
            webhook.channel.clone(),
            state(&webhook).to_owned(),
            webhook.failures.to_string(),
            since.map(|time| seconds_of(time).into_owned()).unwrap_or_default(),
            webhook.url.clone(),
        ]);
    }
    table.print("there are no webhooks in the server's settings")
}

fn state(webhook: &Webhook) -> &'static str {
    match (webhook.is_enabled, webhook.failures) {
        (false, _) => "disabled",
        (true, 0) => "enabled",
        (true, _) => "failing",
    }
}

fn show(webhook: &Webhook, is_json: bool) -> Result<()> {
    if is_json {
        return print::json(webhook);
    }
    let Webhook { name, channel, url, failures, .. } = webhook;
    print::line(format_args!("webhook      {name}, a group of {channel}"))?;
    print::line(format_args!("url          {url}"))?;
    print::line(format_args!("state        {}", state(webhook)))?;
    let rows = [
        ("disabled at", &webhook.disabled_at),
        ("because", &webhook.disabled_why),
        ("failing from", &webhook.failing_since),
        ("last failure", &webhook.last_failure),
    ];
    print::line(format_args!("failures     {failures} since the last success"))?;
    for (label, text) in rows {
        if let Some(text) = text {
            print::line(format_args!("{label:<13}{}", print::one_line(text)))?;
        }
    }
    Ok(())
}

impl Named {
    fn test(self) -> Result<(), Failed> {
        let Self { name, output } = self;
        let path = RestPath::webhook(&name).then("test");
        let nothing = serde_json::Map::new();
        let tested: WebhookTest = output.api.api()?.send(Verb::Post, &path, &nothing)?;
        if output.json {
            print::json(&tested)?;
        }
        let WebhookTest { status, problem, took_ms, .. } = tested;
        if let Some(problem) = problem {
            return Err(anyhow!("{problem} ({took_ms} ms)").into());
        }
        if !output.json {
            print::line(format_args!("accepted with {} in {took_ms} ms", status.unwrap_or_default()))?;
        }
        Ok(())
    }
}
