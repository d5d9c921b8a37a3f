//! The `tidewire` binary: `serve`, and operating commands that use only the HTTP API and the wire.

mod failed;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// jemalloc gives memory back after many connections have left; see `docs/benchmarks.md`.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Realtime event backbone: publish once, seen at once, kept for good.
#[derive(Parser)]
#[command(name = "tidewire", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let outcome = match command {
        Command::Serve(serve) => serve.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.report(),
    }
}
