//! `tidewire config`: the settings of `tidewire serve`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use tidewire_server::config::{Config as Settings, DEFAULT_CONFIG};

use crate::print;

#[derive(clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print every setting with its default and what it does
    Default,
    /// Check a settings file, without starting anything
    Check {
        /// The settings file
        file: PathBuf,
    },
    /// Print what holds with a settings file, defaults included and secrets hidden
    Show {
        /// The settings file
        file: PathBuf,
        /// As one line of JSON
        #[arg(long)]
        json: bool,
    },
}

impl Config {
    pub(crate) fn run(self) -> Result<()> {
        match self.action {
            Action::Default => print::text(DEFAULT_CONFIG.as_bytes()),
            Action::Check { file } => {
                Settings::from_file(&file)?.catalogs()?;
                print::line(format_args!("{}: ok", file.display()))
            }
            Action::Show { file, json } => {
                let settings = Settings::from_file(&file)?;
                if json {
                    return print::json(&settings);
                }
                let text = toml::to_string_pretty(&settings).context("cannot write the settings as TOML")?;
                print::text(text.as_bytes())
            }
        }
    }
}
