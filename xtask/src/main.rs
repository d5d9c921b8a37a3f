//! `cargo xtask`: what people and CI run, so that both run the same thing.
//!
//! Invariants: every process that a command starts ends with the command, however that ends; a tool that is missing
//! is installed or named in an error with the line that fixes it, never skipped in silence.

mod bench;
mod ci;
mod command;
mod e2e;
mod faults;
mod provision;
mod python;
mod services;
mod stage;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::faults::FaultyEngine;
use crate::stage::Stages;

/// Tests, checks and benchmarks of the workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every test: Rust tests and doctests on every engine, then the published SDKs and Chromium against the binary.
    Test {
        /// Instead of the whole workspace: arguments of `cargo test`, with the same services and no end-to-end tests.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        cargo_arguments: Vec<String>,
    },
    /// Run the end-to-end tests alone: the published SDKs in Node and in Python, and headless Chromium.
    E2e {
        /// Run only the tests whose name matches this pattern.
        pattern: Option<String>,
    },
    /// Run seeded schedules of faults against real servers and check what was confirmed, kept and heard.
    Faults {
        /// The engine whose servers fail.
        #[arg(long, value_enum)]
        engine: FaultyEngine,
        /// How many schedules.
        #[arg(long, default_value_t = faults::SCHEDULES)]
        schedules: u64,
        /// The first seed; a random one if none is given. One schedule of that seed repeats what it did.
        #[arg(long)]
        seed: Option<u64>,
        /// Run only those on this topology: links, memory, aof, sentinel, cluster; with `groups` in front, those of groups
        /// there; with `groups` alone, those of groups anywhere.
        topology: Option<String>,
    },
    /// Run all that a change must pass: format, lints, documentation, tidy, licences, tests.
    Ci,
    /// Check the rules about this tree that no compiler knows.
    Tidy,
    /// Run the benchmarks against a Redis of their own and keep what they print in `target/bench.txt`.
    Bench {
        /// Run only the benchmark program of this name.
        name: Option<String>,
        /// Handed to the program: which of its parts to run.
        parts: Vec<String>,
    },
}

fn main() -> ExitCode {
    let root = workspace_root();
    let mut stages = Stages::default();
    let outcome = match Arguments::parse().task {
        Task::Test { cargo_arguments } => test::run(&root, &mut stages, &cargo_arguments),
        Task::E2e { pattern } => e2e::run_alone(&root, &mut stages, pattern.as_deref()),
        Task::Faults { engine, schedules, seed, topology } => {
            faults::run(&root, &mut stages, engine, schedules, seed, topology.as_deref())
        }
        Task::Ci => ci::run(&root, &mut stages),
        Task::Tidy => stages.run("tidy", |_| tidy::run(&root)),
        Task::Bench { name, parts } => bench::run(&root, &mut stages, name.as_deref(), &parts),
    };
    println!("{stages}");
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace: the parent of this crate's folder.
fn workspace_root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder).to_path_buf()
}
