//! `cargo xtask test`: every test there is, with the services that they need.

use std::path::Path;

use anyhow::Result;

use crate::command::{self, cargo};
use crate::e2e;
use crate::services::Services;
use crate::stage::Stages;

/// What builds once for both the Rust tests and the end-to-end tests. One selection for all, because cargo unifies
/// features per selection: building the binary on its own would compile half of the dependencies a second time.
pub(crate) const BUILD: &[&str] = &["build", "--workspace", "--bins", "--tests", "--examples"];

/// Runs everything, or with `cargo_arguments` the chosen Rust tests alone.
pub(crate) fn run(root: &Path, stages: &mut Stages, cargo_arguments: &[String]) -> Result<()> {
    if !cargo_arguments.is_empty() {
        let services = Services::start(stages)?;
        let mut test = cargo(root, &["test"]);
        return stages.run("rust tests", |_| command::run_tests(services.tell(test.args(cargo_arguments))));
    }
    // Tools first: a machine that lacks one should say so before it compiles for minutes.
    let programs = e2e::Programs::provide(stages)?;
    let services = Services::start(stages)?;
    stages.run("build", |_| command::run(&mut cargo(root, BUILD)))?;
    let rust = stages.run("rust tests", |_| {
        command::run_tests(services.tell(&mut cargo(root, &["test", "--workspace", "--no-fail-fast"])))
    });
    // The end-to-end tests run also after a failure: one run shows all that is wrong.
    let end_to_end = e2e::run(root, stages, &programs, &services, None);
    rust.and(end_to_end)
}
