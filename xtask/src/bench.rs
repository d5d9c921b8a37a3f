//! `cargo xtask bench`: the benchmark programs, with a Redis of their own.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::cargo;
use crate::services::Services;
use crate::stage::Stages;

/// Runs all benchmark programs of the workspace, or of the one called `name` the `parts`.
pub(crate) fn run(root: &Path, stages: &mut Stages, name: Option<&str>, parts: &[String]) -> Result<()> {
    let services = Services::start(stages)?;
    print_machine();
    stages.run("benchmarks", |_| {
        let mut bench = cargo(root, &["bench", "--workspace", "--bench", name.unwrap_or("*")]);
        bench.arg("--").args(parts);
        let kept = root.join("target/bench.txt");
        tee(services.tell(&mut bench), &kept)?;
        println!("kept in {}", kept.display());
        Ok(())
    })
}

/// Says what the figures were measured on, as `docs/benchmarks.md` wants it.
fn print_machine() {
    let first_line = |command: &mut Command| {
        let output = command.output().ok()?;
        String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
    };
    let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let unknown = || "unknown".to_owned();
    println!("date       {}", first_line(Command::new("date").args(["-u", "+%F"])).unwrap_or_else(unknown));
    println!(
        "commit     {}",
        first_line(Command::new("git").args(["rev-parse", "--short", "HEAD"])).unwrap_or_else(unknown)
    );
    println!("machine    {}, {cores} cores", processor.unwrap_or_else(unknown));
    println!("system     {}", first_line(Command::new("uname").arg("-sr")).unwrap_or_else(unknown));
    println!("compiler   {}", first_line(Command::new("rustc").arg("--version")).unwrap_or_else(unknown));
}

/// Runs `command` and writes what it prints both to the terminal and to the file `kept`.
fn tee(command: &mut Command, kept: &Path) -> Result<()> {
    let mut file = File::create(kept).with_context(|| format!("cannot write {}", kept.display()))?;
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("stdout is piped")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        writeln!(file, "{line}")?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the benchmarks ended with {status}");
    }
    Ok(())
}
