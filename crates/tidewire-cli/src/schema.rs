//! `tidewire schema`: what is agreed of events - listed, shown, checked for changes that break somebody, exported.

mod check;
mod export;
mod source;

use anyhow::{Result, anyhow};
use clap::Subcommand;
use tidewire::{Catalog, Contract, Definition};
use tidewire_protocol::v1::SchemaSummary;

use self::check::Check;
use self::export::Export;
use self::source::Source;
use crate::failed::Failed;
use crate::print;
use crate::table::Table;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  tidewire schema list
  tidewire schema show order.placed --version 2
  tidewire schema check --catalog events.json --against released.json
  tidewire schema check --catalog events.json        # against what the server has
  tidewire schema export --typescript --catalog events.json --output events.ts
  tidewire schema export --asyncapi")]
pub(crate) struct SchemaCommand {
    #[command(subcommand)]
    verb: SchemaVerb,
}

#[derive(Subcommand)]
enum SchemaVerb {
    /// List the event types, their versions and channels
    List(List),
    /// Show what is agreed of an event type
    Show(Show),
    /// Say what has changed since an older catalog, and fail if that breaks those who send or read
    Check(Check),
    /// Write the catalog, or an AsyncAPI document or TypeScript types made of it
    Export(Export),
}

#[derive(clap::Args)]
struct List {
    /// Print JSON, one line for each type
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

#[derive(clap::Args)]
struct Show {
    /// The event type
    #[arg(value_name = "TYPE")]
    event_type: String,
    /// The version; the newest if left out
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Print JSON, as it stands in the catalog
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

impl SchemaCommand {
    pub(crate) fn run(self) -> Result<(), Failed> {
        match self.verb {
            SchemaVerb::List(List { json, source }) => Ok(list(&source.catalog()?, json)?),
            SchemaVerb::Show(show) => show.run(),
            SchemaVerb::Check(check) => check.run(),
            SchemaVerb::Export(export) => export.run(),
        }
    }
}

fn list(catalog: &Catalog, is_json: bool) -> Result<()> {
    let mut table = Table::new(&["TYPE", "VERSIONS", "CHANNEL", "GUARDED", "DESCRIPTION"]);
    for contract in catalog.types().filter_map(|event_type| catalog.newest(event_type)) {
        let summary = summary(catalog, contract);
        if is_json {
            print::json(&summary)?;
            continue;
        }
        table.row([
            summary.event_type,
            versions(&summary.versions),
            summary.channel.unwrap_or_default(),
            guards(contract.definition()).join(", "),
            summary.description.unwrap_or_default(),
        ]);
    }
    if is_json {
        Ok(())
    } else {
        table.print("there are no event types: see tenants.NAME.events in the server's settings")
    }
}

fn summary(catalog: &Catalog, contract: &Contract) -> SchemaSummary {
    let Definition { event_type, channel, description, is_signed, is_sealed, .. } = contract.definition();
    SchemaSummary {
        event_type: event_type.to_string(),
        versions: catalog.versions(event_type).collect(),
        channel: channel.as_deref().map(Into::into),
        is_signed: *is_signed,
        is_sealed: *is_sealed,
        description: description.as_deref().map(Into::into),
    }
}

fn versions(versions: &[u32]) -> String {
    versions.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn guards(definition: &Definition) -> Vec<&'static str> {
    let guards = [(definition.is_signed, "signed"), (definition.is_sealed, "sealed")];
    guards.into_iter().filter(|(is_on, _)| *is_on).map(|(_, guard)| guard).collect()
}

impl Show {
    fn run(self) -> Result<(), Failed> {
        let Self { event_type, version, json, source } = self;
        let catalog = source.catalog()?;
        let known: Vec<u32> = catalog.versions(&event_type).collect();
        let Some(&newest) = known.last() else {
            return Err(anyhow!(
                "no event type {event_type:?}; `tidewire schema list` lists those that there are"
            )
            .into());
        };
        let version = version.unwrap_or(newest);
        let Some(contract) = catalog.get(&event_type, version) else {
            let known = versions(&known);
            return Err(anyhow!("event type {event_type:?} has no version {version}; it has {known}").into());
        };
        let definition = contract.definition();
        if json {
            return Ok(print::json(definition)?);
        }
        print::line(format_args!("type         {event_type}"))?;
        print::line(format_args!("version      {version} of {}", versions(&known)))?;
        print::line(format_args!("dataschema   {}", contract.uri()))?;
        print::line(format_args!(
            "channel      {}",
            definition.channel.as_deref().unwrap_or("none: it is only read")
        ))?;
        let guards = guards(definition);
        if !guards.is_empty() {
            print::line(format_args!("guarded      {}", guards.join(", ")))?;
        }
        if let Some(description) = &definition.description {
            print::line(format_args!("description  {}", print::one_line(description)))?;
        }
        Ok(print::line(serde_json::to_string_pretty(&definition.schema)?)?)
    }
}
