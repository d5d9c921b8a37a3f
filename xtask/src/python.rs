//! The tests of the published Python SDK in `e2e/python`, in a virtual environment that holds exactly what they pin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// The tests, in the environment that [`prepare`] made.
pub(crate) fn tests(folder: &Path, environment: &Path, pattern: Option<&str>) -> Command {
    let mut python = Command::new(program(environment));
    // Without `-B` it would leave compiled files beside the tests.
    python.current_dir(folder).args(["-B", "."]);
    if let Some(pattern) = pattern {
        python.args(["-k", pattern]);
    }
    python
}

/// Makes the virtual environment, unless the one that is there was made by the same Python from the same requirements.
pub(crate) fn prepare(python: &Path, folder: &Path, environment: &Path) -> Result<()> {
    let requirements = folder.join("requirements.txt");
    let pinned = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let version = command::capture(Command::new(python).arg("--version"))?;
    let wanted = format!("# {version}\n{pinned}");
    // Written last.
    let stamp = environment.join("made-from.txt");
    if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == wanted) {
        return Ok(());
    }
    command::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(environment))?;
    let mut pip = Command::new(program(environment));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r"]);
    command::run(pip.arg(requirements))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

fn program(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}
