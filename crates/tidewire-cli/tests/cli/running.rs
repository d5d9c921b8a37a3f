//! Processes of the binary: run to their end, or running beside the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// A process that is slower than this hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of a process that the test has not read yet.
const UNREAD_LINES_MAX: usize = 10_000;

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Its error says all of these.
    #[track_caller]
    pub(crate) fn expect_error(self, parts: &[&str]) -> Self {
        assert!(parts.iter().all(|part| self.stderr.contains(part)), "{parts:?} in {self:?}");
        self
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// `tidewire ARGUMENTS`, untouched by the settings of whoever runs the test.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for setting in [
        "TIDEWIRE_URL",
        "TIDEWIRE_CA",
        "TIDEWIRE_API_KEY",
        "TIDEWIRE_TOKEN",
        "TIDEWIRE_TOKEN_SECRET",
        "TIDEWIRE_LOG",
    ] {
        command.env_remove(setting);
    }
    command
}

/// Runs `tidewire ARGUMENTS` to its end.
pub(crate) fn run(arguments: &[&str]) -> Done {
    command(arguments).output().unwrap().into()
}

/// Runs a command to its end with this standard input.
pub(crate) fn run_with_input(mut command: Command, input: &str) -> Done {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that fails early does not read it all.
    let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let done = child.wait_with_output().unwrap().into();
    writer.join().unwrap();
    done
}

/// A process beside the test, killed with it.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// The next line of its standard output.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(error) => {
                panic!("no line: {error}; stderr: {:#?}", self.stderr.try_iter().collect::<Vec<_>>())
            }
        }
    }

    /// Waits for a line of its standard error that says this.
    #[track_caller]
    pub(crate) fn wait_for_note(&self, part: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no note {part:?}: {error}; notes: {seen:#?}"),
            }
        }
    }

    /// All that its standard error says until it says this.
    #[track_caller]
    pub(crate) fn notes_until(&self, part: &str) -> String {
        let mut notes = String::new();
        while !notes.contains(part) {
            let line = self.stderr.recv_timeout(PATIENCE);
            notes.push_str(&line.unwrap_or_else(|error| panic!("no note {part:?}: {error}; notes: {notes}")));
            notes.push('\n');
        }
        notes
    }

    /// `kill -9`; returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As Ctrl-C does.
    #[cfg(unix)]
    pub(crate) fn interrupt(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }

    /// Its exit code, once its output has ended.
    #[track_caller]
    pub(crate) fn code(&mut self) -> Option<i32> {
        while self.stdout.recv_timeout(PATIENCE).is_ok() {}
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Reads in the background, so that the process never waits for the test.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(UNREAD_LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// `tidewire serve` on a free port, with a folder of its own.
pub(crate) struct Server {
    pub(crate) url: String,
    arguments: Vec<String>,
    process: Running,
    folder: TempDir,
}

impl Server {
    /// With `--dev`, on an engine that is `memory:` or, with `file:`, in the server's folder.
    pub(crate) fn dev(engine: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine_in(&folder, engine);
        Self::start(folder, &["--dev", "--engine", &engine])
    }

    /// On `memory:` with these settings.
    pub(crate) fn with_settings(settings: &str) -> Self {
        Self::with_settings_on("memory:", settings)
    }

    /// With these settings, on an engine as [`dev`](Self::dev) takes it.
    pub(crate) fn with_settings_on(engine: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (engine, file) = (engine_in(&folder, engine), write(folder.path(), settings));
        Self::start(folder, &["--engine", &engine, "--config", &file])
    }

    /// As [`Server::with_settings`], with a log that says all that there is at this level.
    pub(crate) fn with_log(settings: &str, level: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), settings);
        Self::start_with(folder, &["--engine", "memory:", "--config", &file], &[("TIDEWIRE_LOG", level)])
    }

    fn start(folder: TempDir, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    fn start_with(folder: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (process, url) = serve(&arguments, "127.0.0.1:0", environment);
        Self { url, arguments, process, folder }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again where it was.
    pub(crate) fn restart(&mut self) {
        let address = self.url.strip_prefix("http://").unwrap();
        (self.process, self.url) = serve(&self.arguments, address, &[]);
    }

    /// `tidewire ARGUMENTS` for this server, with the keys of `--dev`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("TIDEWIRE_URL", &self.url).env("TIDEWIRE_API_KEY", "dev-api-key");
        command
    }

    /// As [`Server::command`], run to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.command(arguments).output().unwrap().into()
    }

    /// `tidewire tail ARGUMENTS` beside the test.
    pub(crate) fn tail(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(&[&["tail"], arguments].concat()))
    }

    /// Waits for a line of its log that says this.
    #[track_caller]
    pub(crate) fn wait_for_note(&self, part: &str) -> String {
        self.process.wait_for_note(part)
    }

    /// All that its log says until it says this.
    #[track_caller]
    pub(crate) fn log_until(&self, part: &str) -> String {
        self.process.notes_until(part)
    }

    /// A file in the server's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn engine_in(folder: &TempDir, engine: &str) -> String {
    match engine {
        "file:" => format!("file:{}", folder.path().join("events").display()),
        other => other.to_owned(),
    }
}

fn serve(arguments: &[String], listen: &str, environment: &[(&str, &str)]) -> (Running, String) {
    let mut command = command(&["serve", "--listen", listen]);
    command.args(arguments).envs(environment.iter().copied());
    let process = Running::start(command);
    let line = process.line();
    let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    (process, url)
}

/// Writes a settings file; returns its path.
pub(crate) fn write(folder: &Path, settings: &str) -> String {
    let file = folder.join("tidewire.toml");
    std::fs::write(&file, settings).unwrap();
    file.to_str().unwrap().to_owned()
}
