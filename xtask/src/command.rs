//! Running programs: the output stays visible, a failure names the line that failed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Cargo as it runs us, at the root of the workspace.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root).args(arguments);
    command
}

/// Runs `command` to its end; anything but success is an error that quotes it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs `command`, which runs tests, to its end. A failure names the tests that failed: they would be far up in the output.
///
/// Panics are printed without backtraces. Many are wanted, and a hundred lines for each hide the others.
pub(crate) fn run_tests(command: &mut Command) -> Result<()> {
    let line = describe(command);
    println!("$ {line}");
    let mut running = command
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let mut failed = Vec::new();
    let output = running.stdout.take().context("the output was piped")?;
    for printed in BufReader::new(output).lines() {
        let printed = printed?;
        println!("{printed}");
        failed.extend(failed_test(&printed).map(str::to_owned));
    }
    let status = running.wait()?;
    if !status.success() {
        failed.sort_unstable();
        failed.dedup();
        bail!("`{line}` ended with {status}; failed: {}", failed.join("; "));
    }
    Ok(())
}

/// The test that a line of a test harness (Rust's, our table of engines, Node's, Python's) says has failed.
fn failed_test(line: &str) -> Option<&str> {
    let line = line.trim();
    line.strip_prefix("test ")
        .and_then(|line| line.strip_suffix(" ... FAILED"))
        .or_else(|| line.strip_prefix("FAILED on "))
        .or_else(|| line.strip_prefix("VIOLATION on "))
        .or_else(|| line.strip_prefix("✖ ").filter(|line| *line != "failing tests:"))
        .or_else(|| line.strip_prefix("FAIL: "))
        .or_else(|| line.strip_prefix("ERROR: "))
}

/// What `command` prints to stdout.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it, without its environment.
fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_command() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(error.to_string().starts_with("`sh -c exit 3` ended with"), "{error}");
    }

    #[test]
    fn a_failure_of_tests_names_them() {
        let error_after = |lines: &str| {
            let script = format!("printf '%s\n' '{lines}'; exit 101");
            run_tests(Command::new("sh").args(["-c", &script])).unwrap_err().to_string()
        };
        let error = error_after(
            "test a::b ... ok\ntest a::c ... FAILED\nFAILED on memory: case: why\n✖ failing tests:\n✖ one (1 ms)",
        );
        assert!(error.ends_with("failed: a::c; memory: case: why; one (1 ms)"), "{error}");
        let error =
            error_after("test_a (t.x) ... FAIL\nERROR: test_b (t.x)\nFAIL: test_a (t.x)\nFAILED (errors=1)");
        assert!(error.ends_with("failed: test_a (t.x); test_b (t.x)"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-of-tidewire")).unwrap_err();
        assert!(error.to_string().contains("cannot start `no-such-program-of-tidewire`"), "{error}");
    }
}
