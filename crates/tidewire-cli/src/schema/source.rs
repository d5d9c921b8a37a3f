//! Where a catalog comes from.

use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use tidewire::Catalog;

use crate::client::ApiArguments;
use crate::failed::Failed;
use crate::rest::RestPath;

/// A file, or else a server.
#[derive(clap::Args)]
pub(super) struct Source {
    /// Read the catalog from this file, and ask no server
    #[arg(long, value_name = "FILE")]
    pub(super) catalog: Option<PathBuf>,
    #[command(flatten)]
    pub(super) api: ApiArguments,
}

impl Source {
    pub(super) fn catalog(self) -> Result<Catalog, Failed> {
        match self.catalog {
            Some(file) => of_file(&file),
            None => of_server(self.api),
        }
    }
}

/// Reads a file.
///
/// # Errors
/// `Usage` if it cannot be read or is no catalog.
pub(super) fn of_file(file: &Path) -> Result<Catalog, Failed> {
    let usage = |problem: &str| Failed::Usage(format!("{}: {problem}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| usage(&format!("cannot be read: {error}")))?;
    // The cause says where it is no catalog.
    Catalog::from_json(&text).map_err(|error| usage(&Failed::from(error).to_string()))
}

/// Asks a server for what the tenant of the key has.
pub(super) fn of_server(api: ApiArguments) -> Result<Catalog, Failed> {
    let json: Box<RawValue> = api.api()?.get(&RestPath::catalog())?;
    Ok(Catalog::from_json(json.get())?)
}
