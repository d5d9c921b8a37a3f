//! The end-to-end tests in `e2e/`: the published SDKs in Node, in headless Chromium and in Python, against the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo};
use crate::provision::{self, CHROMIUM, CURL, NODE, NPM, PYTHON};
use crate::python;
use crate::services::Services;
use crate::stage::Stages;
use crate::test::BUILD;

/// The first version whose `node --test` has all that the tests use; Debian 12 ships it.
const NODE_MAJOR_MIN: u32 = 18;

/// The programs that the tests need.
pub(crate) struct Programs {
    node: PathBuf,
    npm: PathBuf,
    chromium: PathBuf,
    python: PathBuf,
}

impl Programs {
    /// Finds or installs them.
    pub(crate) fn provide(stages: &mut Stages) -> Result<Programs> {
        stages.run("find node and others", |stages| {
            let tools = [&NODE, &NPM, &CHROMIUM, &PYTHON, &CURL];
            let [node, npm, chromium, python, _] = provision::provide(stages, tools)?;
            require_node_version(&command::capture(Command::new(&node).arg("--version"))?)?;
            Ok(Programs { node, npm, chromium, python })
        })
    }
}

/// Runs the end-to-end tests alone, with a build and services of their own.
pub(crate) fn run_alone(root: &Path, stages: &mut Stages, pattern: Option<&str>) -> Result<()> {
    let programs = Programs::provide(stages)?;
    let services = Services::start(stages)?;
    stages.run("build", |_| command::run(&mut cargo(root, BUILD)))?;
    run(root, stages, &programs, &services, pattern)
}

/// Runs the end-to-end tests against the binary that [`BUILD`] made.
pub(crate) fn run(
    root: &Path,
    stages: &mut Stages,
    programs: &Programs,
    services: &Services,
    pattern: Option<&str>,
) -> Result<()> {
    let node = run_node(root, stages, programs, services, pattern);
    // Those in Python run also after a failure: one run shows all that is wrong.
    let python = run_python(root, stages, programs, services, pattern);
    node.and(python)
}

fn run_node(
    root: &Path,
    stages: &mut Stages,
    programs: &Programs,
    services: &Services,
    pattern: Option<&str>,
) -> Result<()> {
    let folder = root.join("e2e");
    stages.run("fetch the sdk", |_| fetch_packages(&folder, &programs.npm))?;
    stages.run("end-to-end tests", |_| {
        let mut node = Command::new(&programs.node);
        node.current_dir(&folder)
            .args(["--test", "--test-reporter=spec"])
            .env(CHROMIUM.setting(), &programs.chromium)
            // Read when a process starts; no test could set it for its own.
            .env("NODE_EXTRA_CA_CERTS", services.authority());
        if let Some(pattern) = pattern {
            node.arg(format!("--test-name-pattern={pattern}"));
        }
        node.args(test_files(&folder)?);
        command::run_tests(tell(root, services, &mut node)?)
    })
}

fn run_python(
    root: &Path,
    stages: &mut Stages,
    programs: &Programs,
    services: &Services,
    pattern: Option<&str>,
) -> Result<()> {
    let folder = root.join("e2e/python");
    let environment = target_folder(root)?.join("python");
    stages.run("fetch the python sdk", |_| python::prepare(&programs.python, &folder, &environment))?;
    stages.run("python sdk tests", |_| {
        let mut python = python::tests(&folder, &environment, pattern);
        command::run_tests(tell(root, services, &mut python)?)
    })
}

/// Tells `command` where the services are, and the programs that [`BUILD`] made.
fn tell<'c>(root: &Path, services: &Services, command: &'c mut Command) -> Result<&'c mut Command> {
    let built = target_folder(root)?.join("debug");
    command
        .env("TIDEWIRE_TEST_BINARY", built.join("tidewire"))
        .env("TIDEWIRE_TEST_FLEET", built.join("tidewire-fleet"))
        .env("TIDEWIRE_TEST_WORKER", built.join("examples/worker"));
    Ok(services.tell(command))
}

/// `npm ci`, unless what is installed is as new as the lock file.
fn fetch_packages(folder: &Path, npm: &Path) -> Result<()> {
    let changed = |file: &str| fs::metadata(folder.join(file)).and_then(|metadata| metadata.modified());
    let locked = changed("package-lock.json").context("e2e/package-lock.json is missing")?;
    // npm writes this file last.
    if changed("node_modules/.package-lock.json").is_ok_and(|installed| installed >= locked) {
        return Ok(());
    }
    command::run(Command::new(npm).current_dir(folder).args(["ci", "--no-audit", "--no-fund"]))
}

/// Named one by one: Node 18 and 20 know no glob.
fn test_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".test.mjs") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("no *.test.mjs in {}", folder.display());
    }
    Ok(files)
}

/// Where cargo builds; `CARGO_TARGET_DIR` and configuration may have moved it away from `target/`.
fn target_folder(root: &Path) -> Result<PathBuf> {
    let metadata = command::capture(&mut cargo(root, &["metadata", "--no-deps", "--format-version", "1"]))?;
    let (_, rest) =
        metadata.split_once(r#""target_directory":""#).context("cargo metadata names no target folder")?;
    let (folder, _) = rest.split_once('"').context("cargo metadata is cut short")?;
    Ok(PathBuf::from(folder))
}

fn require_node_version(version: &str) -> Result<()> {
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= NODE_MAJOR_MIN => Ok(()),
        _ => bail!(
            "node is {version}, the tests need {NODE_MAJOR_MIN} or newer: install it, or name it in {}",
            NODE.setting()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_node_is_refused_with_the_way_out() {
        require_node_version("v18.19.0").unwrap();
        let error = require_node_version("v16.20.2").unwrap_err().to_string();
        assert_eq!(
            error,
            "node is v16.20.2, the tests need 18 or newer: install it, or name it in TIDEWIRE_TEST_NODE"
        );
    }
}
