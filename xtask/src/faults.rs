//! `cargo xtask faults`: seeded faults on real servers, as many as one has time for.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use crate::command::{self, cargo};
use crate::provision;
use crate::stage::Stages;

/// About an hour of faults; the tests have 300 schedules.
pub(crate) const SCHEDULES: u64 = 5_000;

/// An engine whose servers and links can fail.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum FaultyEngine {
    Redis,
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
    let FaultyEngine::Redis = engine;
    let [program] = stages.run("find redis", |stages| provision::provide(stages, [&provision::REDIS]))?;
    stages.run("faults", |_| {
        let mut test = cargo(root, &["test", "--package", "tidewire", "--test", "faults", "--"]);
        test.args(topology).env(provision::REDIS.setting(), &program);
        test.env("TIDEWIRE_SCHEDULES", schedules.to_string());
        if let Some(seed) = seed {
            test.env("TIDEWIRE_SEED", seed.to_string());
        }
        command::run(&mut test)
    })
}
