//! The programs that tests need: found on this machine, else installed with its package manager, else a loud failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tidewire_fleet::find_program;

use crate::command;
use crate::stage::Stages;

/// Redis or Valkey.
pub(crate) const REDIS: Tool = Tool {
    name: "redis",
    programs: &["redis-server", "valkey-server"],
    setting: "TIDEWIRE_TEST_REDIS_SERVER",
    package: "redis",
    package_exceptions: &[("apt-get", "redis-server"), ("pacman", "valkey")],
    proof: &[],
};

/// Node, which runs the published SDK.
pub(crate) const NODE: Tool = Tool {
    name: "node",
    programs: &["node"],
    setting: "TIDEWIRE_TEST_NODE",
    package: "nodejs",
    package_exceptions: &[("brew", "node")],
    proof: &[],
};

/// Python, which runs the published SDK for Python. On Debian what makes virtual environments is a package of its own; an older
/// Python may come before the system's on the PATH.
pub(crate) const PYTHON: Tool = Tool {
    name: "python 3.10+",
    programs: &["python3", "/usr/bin/python3"],
    setting: "TIDEWIRE_TEST_PYTHON",
    package: "python3",
    package_exceptions: &[("apt-get", "python3-venv"), ("brew", "python"), ("pacman", "python")],
    proof: &["-c", "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))"],
};

/// npm, which fetches the published SDK.
pub(crate) const NPM: Tool = Tool {
    name: "npm",
    programs: &["npm"],
    setting: "TIDEWIRE_TEST_NPM",
    package: "npm",
    package_exceptions: &[("brew", "node")],
    proof: &[],
};

/// The browser. Ubuntu's own package only points at a snap; Chrome from its vendor does there.
pub(crate) const CHROMIUM: Tool = Tool {
    name: "chromium",
    programs: &[
        "chromium",
        "chromium-browser",
        "google-chrome",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    ],
    setting: "TIDEWIRE_TEST_CHROMIUM",
    package: "chromium",
    package_exceptions: &[("brew", "google-chrome")],
    proof: &[],
};

/// The README's tour uses it, and a test runs the tour.
pub(crate) const CURL: Tool = Tool {
    name: "curl",
    programs: &["curl"],
    setting: "TIDEWIRE_TEST_CURL",
    package: "curl",
    package_exceptions: &[],
    proof: &[],
};

/// A program that tests need.
pub(crate) struct Tool {
    name: &'static str,
    programs: &'static [&'static str],
    /// The environment variable that names the program where it is not on the PATH, and hands it to the tests.
    setting: &'static str,
    package: &'static str,
    /// Package managers that know it under another name.
    package_exceptions: &'static [(&'static str, &'static str)],
    /// Arguments with which a program that will not do ends with a failure; with none, every program will do.
    proof: &'static [&'static str],
}

impl Tool {
    /// The variable that tells tests where the program is.
    pub(crate) fn setting(&self) -> &'static str {
        self.setting
    }

    fn package(&self, manager: &PackageManager) -> &'static str {
        let exception = self.package_exceptions.iter().find(|(program, _)| *program == manager.program);
        exception.map_or(self.package, |(_, package)| package)
    }

    fn find(&self) -> Result<Option<PathBuf>> {
        if let Some(named) = std::env::var_os(self.setting) {
            let named = PathBuf::from(named);
            if !named.is_file() {
                bail!(
                    "{} is `{}`, which is no file: unset it or name the program",
                    self.setting,
                    named.display()
                );
            }
            return Ok(Some(named));
        }
        let search = std::env::var_os("PATH").unwrap_or_default();
        let mut found = self.programs.iter().filter_map(|program| find_program(program, &search));
        Ok(found.find(|program| self.will_do(program)))
    }

    fn will_do(&self, program: &Path) -> bool {
        self.proof.is_empty() || command::capture(Command::new(program).args(self.proof)).is_ok()
    }
}

struct PackageManager {
    program: &'static str,
    /// Run first, where an old or empty package list would make the install fail.
    refresh: &'static [&'static str],
    install: &'static [&'static str],
    needs_root: bool,
}

const MANAGERS: &[PackageManager] = &[
    PackageManager {
        program: "apt-get",
        refresh: &["update", "--quiet"],
        install: &["install", "--yes", "--quiet", "--no-install-recommends"],
        needs_root: true,
    },
    PackageManager { program: "dnf", refresh: &[], install: &["install", "--assumeyes"], needs_root: true },
    PackageManager { program: "apk", refresh: &[], install: &["add", "--no-cache"], needs_root: true },
    PackageManager { program: "brew", refresh: &[], install: &["install"], needs_root: false },
    PackageManager {
        program: "pacman",
        refresh: &[],
        install: &["-Sy", "--needed", "--noconfirm"],
        needs_root: true,
    },
];

/// Finds every tool, installing what is missing in one go, and notes the versions. Paths are in the order of `tools`.
pub(crate) fn provide<const N: usize>(stages: &mut Stages, tools: [&Tool; N]) -> Result<[PathBuf; N]> {
    let mut missing = Vec::new();
    for tool in tools {
        if tool.find()?.is_none() {
            missing.push(tool);
        }
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    let mut paths = [const { PathBuf::new() }; N];
    for (tool, path) in tools.iter().zip(&mut paths) {
        *path = tool.find()?.with_context(|| {
            format!(
                "{} is still missing: put {} on the PATH or name it in {}",
                tool.name,
                tool.programs.join(" or "),
                tool.setting
            )
        })?;
        stages.note(tool.name, version(path)?);
    }
    Ok(paths)
}

/// The first line of `--version`, and where the program is.
fn version(program: &Path) -> Result<String> {
    let text = command::capture(Command::new(program).arg("--version"))
        .with_context(|| format!("{} is there but does not run", program.display()))?;
    Ok(format!("{} ({})", text.lines().next().unwrap_or_default(), program.display()))
}

fn install(missing: &[&Tool]) -> Result<()> {
    let names = missing.iter().map(|tool| tool.name).collect::<Vec<_>>().join(", ");
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = MANAGERS.iter().find(|manager| find_program(manager.program, &search).is_some());
    let Some(manager) = found else {
        bail!(
            "{names} missing, and none of apt-get, dnf, apk, brew, pacman is here: install {names} and run this again"
        );
    };
    let packages = packages(missing, manager);
    let may_install = !manager.needs_root || command::capture(Command::new("id").arg("-u"))? == "0";
    let prefix: &[&str] = if may_install { &[] } else { &["sudo", "--non-interactive"] };

    println!("missing: {names}; installing with {}", manager.program);
    let fix = format!("{} {} {}", manager.program, manager.install.join(" "), packages.join(" "));
    let steps = [manager.refresh.to_vec(), [manager.install, &packages].concat()];
    for step in steps.iter().filter(|step| !step.is_empty()) {
        let line = [prefix, &[manager.program], step].concat();
        let (program, arguments) = line.split_first().context("a package manager has a name")?;
        command::run(Command::new(program).args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
            .with_context(|| format!("cannot install {names}; as root, run this and try again: {fix}"))?;
    }
    Ok(())
}

/// Each package once: some hold two of the tools.
fn packages(tools: &[&Tool], manager: &PackageManager) -> Vec<&'static str> {
    let mut packages: Vec<_> = tools.iter().map(|tool| tool.package(manager)).collect();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missing_package_is_asked_for_once() {
        let manager = |name| MANAGERS.iter().find(|manager| manager.program == name).unwrap();
        assert_eq!(packages(&[&REDIS, &NODE, &NPM], manager("brew")), ["redis", "node"]);
        assert_eq!(packages(&[&REDIS, &NODE, &NPM], manager("apt-get")), ["redis-server", "nodejs", "npm"]);
    }

    #[test]
    fn a_program_that_will_not_do_is_passed_over() {
        let search_for = |proof| Tool { programs: &["/bin/sh"], setting: "NO_SUCH_SETTING", proof, ..PYTHON };
        assert_eq!(search_for(&["-c", "exit 0"]).find().unwrap(), Some(PathBuf::from("/bin/sh")));
        assert_eq!(search_for(&["-c", "exit 1"]).find().unwrap(), None);
    }
}
