//! Kills a writer process at random moments, again and again over one directory, and finds every confirmed append.
//!
//! `TIDEWIRE_SEED` repeats a run, `TIDEWIRE_KILLS` sets how many kills. Several streams: one confirmed by the
//! operating system, one by the device, one in batches, one under retention, one with dedup ids that the next
//! process sends again; entries of the store; and a stream with a group, whose sessions are killed with the process.

mod check;
mod grouped;
mod writer;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use tidewire::engine::embedded::{FileOptions, open_file};
use tidewire::engine::{Engine, Heard, Setup, Sink};
use tidewire::name::{ChannelPath, EntryPath};
use tidewire::tasks::Tasks;
use tidewire::{Clock, Limits};

use crate::check::Confirmed;

const KILLS: u64 = 200;
/// Small, so that many segments come and go.
const SEGMENT_BYTES: u64 = 48 * 1024;
/// The streams of the test, each written by one task of the writer.
pub(crate) const STREAMS: [&str; 6] = ["fast", "synced", "batch", "kept", "dedup", grouped::STREAM];
/// What the stream `kept` keeps.
pub(crate) const KEPT_EVENTS: u64 = 700;
/// Confirmed ids of the stream `dedup` that the next process sends again.
const RESENT: u64 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, directory, seed, round, next_id] = arguments.as_slice()
        && role == "writer"
    {
        let number = |text: &str| text.parse().expect("a number");
        writer::run(Path::new(directory), number(seed), number(round), number(next_id));
        return ExitCode::SUCCESS;
    }
    let seed = setting("TIDEWIRE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = setting("TIDEWIRE_KILLS").unwrap_or(KILLS);
    println!("kill test: seed {seed}");
    let directory = tempfile::tempdir().expect("a directory");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut confirmed = Confirmed::new(directory.path(), seed);
    for round in 1..=kills {
        let next_id = confirmed.next_id().saturating_sub(RESENT).max(1);
        kill_one(directory.path(), seed, round, next_id, &mut random, &mut confirmed);
        // Now and then a process opens what two have left behind.
        if random.u32(..4) > 0 || round == kills {
            confirmed.check(directory.path(), round);
        }
    }
    let (count, settled) = (confirmed.count(), confirmed.settled());
    println!(
        "kill test: {kills} kills, seed {seed}, {count} confirmed appends, all found; {settled} events settled once"
    );
    ExitCode::SUCCESS
}

#[expect(clippy::disallowed_methods, reason = "a test is set up by its environment")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Starts a writer, kills it some confirmations later, and takes note of all that it had confirmed.
fn kill_one(
    directory: &Path,
    seed: u64,
    round: u64,
    next_id: u64,
    random: &mut fastrand::Rng,
    confirmed: &mut Confirmed,
) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .arg("writer")
        .arg(directory)
        .args([seed, round, next_id].map(|number| number.to_string()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    // The first lines say that the writer opens the directory and has opened it: few of them kill it there.
    let lines_max = if random.u32(..8) == 0 { random.usize(1..4) } else { random.usize(4..800) };
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let (mut line, mut lines) = (String::new(), 0);
    while output.read_line(&mut line).expect("its output is read") > 0 {
        // The last line of a killed process may be cut off.
        if line.ends_with('\n') {
            confirmed.note(line.trim_end());
        }
        line.clear();
        lines += 1;
        if lines == lines_max {
            child.kill().expect("the writer is killed");
        }
    }
    let status = child.wait().expect("the writer ends");
    assert!(
        lines >= lines_max && status.code().is_none(),
        "round {round}: the writer ended by itself: {status}"
    );
}

/// Opens the engine in `directory`.
pub(crate) fn open(directory: &Path) -> Engine {
    let mut options = FileOptions::default();
    options.segment_bytes = SEGMENT_BYTES;
    let setup = Setup {
        sink: Arc::new(Nobody),
        clock: Clock::system(),
        limits: Limits::default(),
        tasks: Tasks::new(),
    };
    open_file(directory, &options, &setup).expect("the engine opens")
}

struct Nobody;

impl Sink for Nobody {
    fn hear(&self, _heard: Heard) {}
}

pub(crate) fn channel(stream: &str) -> ChannelPath {
    ChannelPath::new("test", "kill", stream).expect("a valid name")
}

pub(crate) fn entry() -> EntryPath {
    EntryPath::new("test", "kill", "entry").expect("a valid name")
}

/// The envelope of the event `number` that the process of `round` appends: it can be told from any other, and a
/// part of it from the whole.
pub(crate) fn envelope(seed: u64, stream: &str, round: u64, number: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed ^ (round << 32) ^ number);
    let filler: String = (0..random.usize(..600)).map(|_| random.alphanumeric()).collect();
    format!("{stream} {round} {number} {filler}.")
}
