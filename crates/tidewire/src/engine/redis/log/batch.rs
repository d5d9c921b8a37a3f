//! A batch of appends to streams of one slot: how it is written for `append.lua`, how its answer is read.

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clock::millis;
use crate::engine::redis::command::Command;
use crate::engine::redis::keys;
use crate::engine::redis::pubsub::malformed;
use crate::engine::redis::resp::parse_int;
use crate::engine::redis::scripts::{Script, Scripts};
use crate::engine::{Announce, Append, Appended};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ChannelPath;
use crate::position::{Epoch, Position};

/// Bytes of an entry's arguments beside its names and its envelope.
const ENTRY_BYTES: usize = 64;

/// What one call of `Log::append` wants of a slot, and who waits for it.
pub(super) struct Job {
    pub(super) appends: Vec<Append>,
    pub(super) deadline: Instant,
    pub(super) outcome: oneshot::Sender<Result<Vec<Result<Appended>>>>,
}

impl Job {
    pub(super) fn bytes(&self) -> usize {
        self.appends.iter().map(|append| append.envelope.len() + ENTRY_BYTES).sum()
    }

    /// Tells the caller that nothing came of it.
    pub(super) fn fail(self, kind: ErrorKind, text: &str) {
        // The caller may have gone away.
        drop(self.outcome.send(Err(Error::new(kind, text.to_owned()))));
    }
}

/// Jobs that are appended in one step.
pub(super) struct Batch {
    /// Counts the batches of a lane.
    pub(super) number: u64,
    pub(super) jobs: Vec<Job>,
    /// It may have been executed already.
    pub(super) was_sent: bool,
}

/// The positions that a lane saw confirmed last, so that a stream that fell behind them is noticed.
pub(super) type Floors = FxHashMap<ChannelPath, Position>;

impl Batch {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.jobs.iter().map(|job| job.deadline).min()
    }

    fn appends(&self) -> impl Iterator<Item = &Append> {
        self.jobs.iter().flat_map(|job| &job.appends)
    }

    /// The streams of the batch, in the order in which they first occur, and the retention asked for last.
    fn streams(&self) -> (Vec<&Append>, FxHashMap<&ChannelPath, usize>) {
        let mut streams = Vec::new();
        let mut numbers = FxHashMap::default();
        for append in self.appends() {
            let number = *numbers.entry(&append.channel).or_insert(streams.len());
            match streams.get_mut(number) {
                Some(newest) => *newest = append,
                None => streams.push(append),
            }
        }
        (streams, numbers)
    }

    /// The call of `append.lua`; `lane_slot` is where the server keeps the answer for this node.
    pub(super) fn call(&self, scripts: &Scripts, answers: &[u8], lane_slot: u64, floors: &Floors) -> Command {
        let (streams, numbers) = self.streams();
        let marks = self.appends().filter(|append| append.dedup.is_some()).count();
        let bytes = self.jobs.iter().map(Job::bytes).sum::<usize>() * 5 / 4 + 512 * (streams.len() + marks);
        let mut call = scripts.call(Script::Append, 1 + 2 * streams.len() + marks, bytes);
        call.push(answers);
        for append in &streams {
            call.push(keys::stream(&append.channel).as_bytes());
            call.push(keys::meta(&append.channel).as_bytes());
        }
        for append in self.appends() {
            if let Some(dedup) = &append.dedup {
                call.push(keys::dedup(&append.channel, &dedup.id).as_bytes());
            }
        }
        push_number(&mut call, lane_slot);
        push_number(&mut call, self.number);
        call.push(if self.was_sent { b"1" } else { b"0" });
        call.push(Epoch::random().to_string().as_bytes());
        push_number(&mut call, streams.len() as u64);
        push_number(&mut call, self.appends().count() as u64);
        streams.iter().for_each(|append| push_stream(&mut call, append, floors));
        let mut marks = 0;
        // Asked for once per channel of a batch, not once per event.
        let channels: Vec<String> = streams.iter().map(|append| keys::channel(&append.channel)).collect();
        for append in self.appends() {
            let number = numbers.get(&append.channel).copied().unwrap_or_default();
            push_event(
                &mut call,
                append,
                number,
                channels.get(number).map_or("", String::as_str),
                &mut marks,
            );
        }
        call
    }

    /// Gives each job its part of the script's answer, and remembers the positions confirmed.
    pub(super) fn answer(self, answer: &[u8], floors: &mut Floors) {
        let text = String::from_utf8_lossy(answer);
        let mut lines = text.split('\n');
        let (streams, numbers) = self.streams();
        let epochs: Vec<Option<Epoch>> =
            streams.iter().map(|_| lines.next().and_then(|line| line.parse().ok())).collect();
        let mut outcomes = Vec::new();
        for append in self.appends() {
            let number = numbers.get(&append.channel).copied().unwrap_or_default();
            let epoch = epochs.get(number).copied().flatten();
            let outcome = read_outcome(append, epoch, lines.next().unwrap_or_default());
            if let Ok(Appended { position: Some(position), is_duplicate: false }) = &outcome {
                match floors.get_mut(&append.channel) {
                    Some(floor) => *floor = *position,
                    None => drop(floors.insert(append.channel.clone(), *position)),
                }
            }
            outcomes.push(outcome);
        }
        let mut outcomes = outcomes.into_iter();
        for job in self.jobs {
            let part = outcomes.by_ref().take(job.appends.len()).collect();
            // The caller may have gone away.
            drop(job.outcome.send(Ok(part)));
        }
    }

    /// Tells everyone in the batch that nothing came of it.
    pub(super) fn fail(self, kind: ErrorKind, text: &str) {
        self.jobs.into_iter().for_each(|job| job.fail(kind, text));
    }
}

fn push_stream(call: &mut Command, newest: &Append, floors: &Floors) {
    let retention = newest.retention;
    for bound in [retention.events_max, retention.age_max.map(millis), retention.bytes_max] {
        match bound {
            Some(bound) => push_number(call, bound),
            None => call.push(b""),
        }
    }
    match floors.get(&newest.channel) {
        Some(floor) => {
            call.push(floor.epoch.to_string().as_bytes());
            push_number(call, floor.offset);
        }
        None => {
            call.push(b"");
            call.push(b"0");
        }
    }
    call.push(newest.channel.channel().as_bytes());
}

fn push_event(call: &mut Command, append: &Append, stream: usize, channel: &str, marks: &mut u64) {
    push_number(call, stream as u64 + 1);
    match &append.dedup {
        Some(dedup) => {
            *marks += 1;
            push_number(call, *marks);
            push_number(call, millis(dedup.window).max(1));
        }
        None => {
            call.push(b"0");
            call.push(b"0");
        }
    }
    match &append.announce {
        Announce::Here => {
            call.push(channel.as_bytes());
            call.push(b"");
        }
        Announce::AlsoOn(other) => {
            call.push(channel.as_bytes());
            call.push(keys::channel(other).as_bytes());
        }
        Announce::Quiet => {
            call.push(b"");
            call.push(b"");
        }
    }
    call.push(&append.envelope);
}

fn push_number(call: &mut Command, number: u64) {
    call.push_int(i64::try_from(number).unwrap_or(i64::MAX));
}

/// One line of the answer: `7`, `d7` or `!ERROR`.
fn read_outcome(append: &Append, epoch: Option<Epoch>, line: &str) -> Result<Appended> {
    if let Some(refusal) = line.strip_prefix('!') {
        let text = format!("redis refused to append to {}: {refusal}", append.channel);
        return Err(Error::new(ErrorKind::Engine, text));
    }
    let (is_duplicate, digits) = match line.strip_prefix('d') {
        Some(digits) => (true, digits),
        None => (false, line),
    };
    let offset = parse_int(digits.as_bytes()).and_then(|offset| u64::try_from(offset).ok());
    let (Some(epoch), Some(offset)) = (epoch, offset) else { return Err(malformed("append.lua")) };
    Ok(Appended { position: Some(Position { epoch, offset }), is_duplicate })
}
