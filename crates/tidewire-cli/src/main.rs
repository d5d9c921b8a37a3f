//! The `tidewire` binary: `serve`, and commands that operate a running server or look at an engine.

mod bench;
mod client;
mod closed;
mod completions;
mod config;
mod dead;
mod doctor;
mod failed;
mod groups;
mod hint;
mod print;
mod publish;
mod rest;
mod schema;
mod serve;
mod server_url;
mod table;
mod tail;
mod tls;
mod token;
mod trace;
mod webhooks;
mod wire;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::failed::Failed;
use crate::publish::Speed;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Realtime event backbone: publish once, seen at once, kept for good.
#[derive(Parser)]
#[command(name = "tidewire", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    /// Publish live events: to whoever listens now, at most once, kept nowhere
    Publish(publish::Publish),
    /// Append events to a channel's stream: kept, and announced to whoever listens
    Append(publish::Publish),
    /// Follow a channel, one line for each event, resuming after a lost connection; or a user's connections
    Tail(tail::Tail),
    /// List, show, declare, move and delete groups of consumers
    Groups(groups::GroupsCommand),
    /// List, show, replay and purge what groups have given up on
    Dead(dead::Dead),
    /// Say why connections ended
    Closed(closed::Closed),
    /// Say where an event is, and why: in the stream, and with each group
    Trace(trace::TraceCommand),
    /// List, show, enable, disable and try the endpoints that events are sent to
    Webhooks(webhooks::WebhooksCommand),
    /// List, show, check and export what is agreed of events
    Schema(schema::SchemaCommand),
    /// Make a token for a client: to connect with, or to subscribe with
    Token(token::Token),
    /// Load a server as its clients do, and measure what it does and what that costs it
    Bench(bench::Bench),
    /// Check a running server, or an engine, and say what to change
    Doctor(doctor::Doctor),
    /// Print the default settings, check a settings file, or show what holds
    Config(config::Config),
    /// Print the completion script of a shell
    Completions(completions::Completions),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.report(),
    }
}

fn run(command: Command) -> Result<(), Failed> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Publish(publish) => publish.run(Speed::Live),
        Command::Append(append) => append.run(Speed::Kept),
        Command::Tail(tail) => tail.run(),
        Command::Groups(groups) => groups.run(),
        Command::Dead(dead) => dead.run(),
        Command::Closed(closed) => closed.run(),
        Command::Trace(trace) => trace.run(),
        Command::Webhooks(webhooks) => webhooks.run(),
        Command::Schema(schema) => schema.run(),
        Command::Token(token) => token.run(),
        Command::Bench(bench) => bench.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Config(config) => Ok(config.run()?),
        Command::Completions(completions) => Ok(completions.run(Arguments::command())?),
    }
}
