//! `tidewire schema export`: a catalog, or what is made of it for other tools.

use std::path::PathBuf;

use anyhow::Context;

use super::source::Source;
use crate::failed::Failed;
use crate::print;

#[derive(clap::Args)]
pub(super) struct Export {
    /// An AsyncAPI 3.0.0 document of all channels and events
    #[arg(long)]
    asyncapi: bool,
    /// TypeScript types of all events
    #[arg(long, conflicts_with = "asyncapi")]
    typescript: bool,
    /// Of an AsyncAPI document: its title
    #[arg(long, value_name = "TEXT", default_value = "Events", conflicts_with = "typescript")]
    title: String,
    /// Of an AsyncAPI document: which release of the events it describes
    #[arg(long, value_name = "VERSION", default_value = "1.0.0", conflicts_with = "typescript")]
    release: String,
    /// Write to this file in place of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

impl Export {
    pub(super) fn run(self) -> Result<(), Failed> {
        let Self { asyncapi, typescript, title, release, output, source } = self;
        let catalog = source.catalog()?;
        let mut text = match (asyncapi, typescript) {
            (true, _) => serde_json::to_string_pretty(&catalog.asyncapi(&title, &release))?,
            (_, true) => catalog.typescript(),
            _ => catalog.to_json(),
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        match output {
            Some(file) => {
                let written = std::fs::write(&file, text);
                Ok(written.with_context(|| format!("cannot write {}", file.display()))?)
            }
            None => Ok(print::text(text.as_bytes())?),
        }
    }
}
