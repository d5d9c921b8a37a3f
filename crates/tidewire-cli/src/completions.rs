//! `tidewire completions`: what a shell needs to complete our commands.

use anyhow::Result;
use clap_complete::Shell;

use crate::print;

#[derive(clap::Args)]
pub(crate) struct Completions {
    /// The shell that will read the script
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, mut command: clap::Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "tidewire", &mut script);
        print::text(&script)
    }
}
