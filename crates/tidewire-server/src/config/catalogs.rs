//! Catalogs of events that the settings name.

use std::collections::BTreeMap;
use std::path::Path;

use tidewire::Catalog;

use super::Config;
use super::error::ConfigError;

impl Config {
    /// Reads the catalogs of events that the settings name, by tenant.
    ///
    /// # Errors
    /// A file that cannot be read or is no catalog; the text names the setting, the file and what is wrong.
    pub fn catalogs(&self) -> Result<BTreeMap<String, Catalog>, ConfigError> {
        let named = self.tenants.iter().filter_map(|(name, tenant)| Some((name, tenant.events.as_deref()?)));
        named
            .map(|(name, file)| match read(file) {
                Ok(catalog) => Ok((name.clone(), catalog)),
                Err(problem) => {
                    Err(ConfigError::of_setting(&format!("tenants.{name}.events"), file, &problem))
                }
            })
            .collect()
    }
}

fn read(file: &Path) -> Result<Catalog, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    Catalog::from_json(&text).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}
