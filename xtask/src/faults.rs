//! `cargo xtask faults`: seeded faults on real servers, as many as one has time for.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use crate::command::{self, cargo};
use crate::provision;
use crate::stage::Stages;

/// About an hour of faults on streams, and beside it a sixth as many schedules of groups; the tests have 300 and 50.
pub(crate) const SCHEDULES: u64 = 6_000;

/// The schedules that need no server.
const FILE_TOPOLOGY: &str = "groups file";

/// An engine whose servers and links can fail.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum FaultyEngine {
    Redis,
    /// No server: only processes fail.
    File,
}

/// Runs `schedules` schedules of faults from `seed` on, or from a random one; of one topology, or of all.
pub(crate) fn run(
    root: &Path,
    stages: &mut Stages,
    engine: FaultyEngine,
    schedules: u64,
    seed: Option<u64>,
    topology: Option<&str>,
) -> Result<()> {
    let program = match engine {
        FaultyEngine::Redis => {
            let [program] =
                stages.run("find redis", |stages| provision::provide(stages, [&provision::REDIS]))?;
            Some(program)
        }
        FaultyEngine::File => None,
    };
    stages.run("faults", |_| {
        let mut test = cargo(root, &["test", "--package", "tidewire", "--test", "faults", "--"]);
        match program {
            Some(program) => test.args(topology).env(provision::REDIS.setting(), program),
            None => test.arg(FILE_TOPOLOGY),
        };
        test.env("TIDEWIRE_SCHEDULES", schedules.to_string());
        if let Some(seed) = seed {
            test.env("TIDEWIRE_SEED", seed.to_string());
        }
        command::run_tests(&mut test)
    })
}
