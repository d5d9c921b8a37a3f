//! `cargo xtask test`: every test there is, with the services that they need.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command::{self, cargo};
use crate::redis::{Persistence, Redis};
use crate::stage::Stages;
use crate::{e2e, provision};

/// What builds once for both the Rust tests and the end-to-end tests. One selection for all, because cargo unifies
/// features per selection: building the binary on its own would compile half of the dependencies a second time.
pub(crate) const BUILD: &[&str] = &["build", "--workspace", "--bins", "--tests", "--examples"];

/// Runs everything, or with `cargo_arguments` the chosen Rust tests alone.
pub(crate) fn run(root: &Path, stages: &mut Stages, cargo_arguments: &[String]) -> Result<()> {
    if !cargo_arguments.is_empty() {
        let services = Services::start(stages)?;
        let mut test = cargo(root, &["test"]);
        return stages.run("rust tests", |_| command::run(services.tell(test.args(cargo_arguments))));
    }
    // Tools first: a machine that lacks one should say so before it compiles for minutes.
    let programs = e2e::Programs::provide(stages)?;
    let services = Services::start(stages)?;
    stages.run("build", |_| command::run(&mut cargo(root, BUILD)))?;
    let rust = stages.run("rust tests", |_| {
        command::run(services.tell(&mut cargo(root, &["test", "--workspace", "--no-fail-fast"])))
    });
    // The end-to-end tests run also after a failure: one run shows all that is wrong.
    let end_to_end = e2e::run(root, stages, &programs, &services, None);
    rust.and(end_to_end)
}

/// The servers that tests use. Dropping them stops them.
pub(crate) struct Services {
    server_program: PathBuf,
    standalone: Redis,
    append_only: Redis,
}

impl Services {
    /// Finds or installs Redis and starts what tests need.
    pub(crate) fn start(stages: &mut Stages) -> Result<Services> {
        let [server_program] =
            stages.run("find redis", |stages| provision::provide(stages, [&provision::REDIS]))?;
        stages.run("start redis", |stages| {
            let standalone = Redis::start(&server_program, Persistence::Nothing)?;
            let append_only = Redis::start(&server_program, Persistence::AppendOnlyFile)?;
            stages.note("redis, standalone", standalone.url());
            stages.note("redis, append-only", append_only.url());
            Ok(Services { server_program: server_program.clone(), standalone, append_only })
        })
    }

    /// Tells `command` where the services are.
    pub(crate) fn tell<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env(provision::REDIS.setting(), &self.server_program)
            .env("TIDEWIRE_TEST_REDIS_URL", self.standalone.url())
            .env("TIDEWIRE_TEST_REDIS_AOF_URL", self.append_only.url())
    }
}
