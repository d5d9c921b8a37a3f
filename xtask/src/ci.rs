//! `cargo xtask ci`: all that a change must pass, cheapest first.

use std::path::Path;

use anyhow::Result;

use crate::command::{self, cargo};
use crate::stage::Stages;
use crate::{test, tidy};

/// Advisories are left out: they need a database from a host that a build machine may not reach.
const DENY: &[&str] = &["deny", "check", "licenses", "bans", "sources"];

/// Runs every check and every test, also after one failed: one run shows all that is wrong.
pub(crate) fn run(root: &Path, stages: &mut Stages) -> Result<()> {
    let format = stages.run("format", |_| command::run(&mut cargo(root, &["fmt", "--all", "--check"])));
    let tidy = stages.run("tidy", |_| tidy::run(root));
    let deny = deny(root, stages);
    // `--all-targets` compiles the benchmarks and examples too.
    let clippy = stages.run("clippy", |_| {
        command::run(&mut cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    let docs = stages.run("docs", |_| {
        command::run(cargo(root, &["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    });
    let tests = test::run(root, stages, &[]);
    format.and(tidy).and(deny).and(clippy).and(docs).and(tests)
}

/// cargo-deny takes minutes to build, so it is used where it is installed and named where it is not.
fn deny(root: &Path, stages: &mut Stages) -> Result<()> {
    if command::capture(&mut cargo(root, &["deny", "--version"])).is_err() {
        let fix = "NOT CHECKED, cargo-deny is missing; install it: cargo install cargo-deny --locked";
        eprintln!("licences, bans, sources: {fix}");
        stages.note("licences, bans", fix);
        return Ok(());
    }
    stages.run("licences, bans", |_| command::run(&mut cargo(root, DENY)))
}
