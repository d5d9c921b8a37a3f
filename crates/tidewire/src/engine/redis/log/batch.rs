//! A batch of appends to streams of one slot: how it is written for `append.lua`, how its answer is read.

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::elsewhere::{Elsewhere, apart};
use crate::clock::millis;
use crate::engine::redis::announcement::{Place, write_term};
use crate::engine::redis::command::Command;
use crate::engine::redis::connection::Reached;
use crate::engine::redis::keys;
use crate::engine::redis::pubsub::malformed;
use crate::engine::redis::refusal::{self, Explained};
use crate::engine::redis::scripts::{Publish, Script};
use crate::engine::redis::topology::Topology;
use crate::engine::{Announce, Append, Appended, AtBound, Durability, Effect, Retention, Seen, Version};
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
    /// Streams to be looked at though nothing may be appended to them: whether they have lost what was confirmed.
    pub(super) looks: Vec<ChannelPath>,
    /// It may have been executed already.
    pub(super) was_sent: bool,
}

/// What a lane saw confirmed last, so that a stream that fell behind it is noticed.
pub(super) type Floors = FxHashMap<ChannelPath, Seen>;

/// The events of a batch that go to one stream, each with its place in the batch.
struct Group<'a> {
    channel: &'a ChannelPath,
    events: Vec<(usize, &'a Append)>,
}

impl Batch {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.jobs.iter().map(|job| job.deadline).min()
    }

    /// Streams in the order in which they first occur, events in their order.
    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        let mut numbers = FxHashMap::default();
        for (place, append) in self.jobs.iter().flat_map(|job| &job.appends).enumerate() {
            // Most often the same as before.
            if let Some(group) = groups.last_mut().filter(|group| group.channel == &append.channel) {
                group.events.push((place, append));
                continue;
            }
            let number = *numbers.entry(&append.channel).or_insert(groups.len());
            match groups.get_mut(number) {
                Some(group) => group.events.push((place, append)),
                None => groups.push(Group { channel: &append.channel, events: vec![(place, append)] }),
            }
        }
        let looks = self.looks.iter().filter(|channel| !numbers.contains_key(channel));
        groups.extend(looks.map(|channel| Group { channel, events: Vec::new() }));
        groups
    }

    /// The call of `append.lua`; `answer` is the key under which the server keeps its answer.
    pub(super) fn call(&self, topology: &Topology, answer: &str, floors: &Floors) -> Command {
        let scripts = &topology.scripts;
        let groups = self.groups();
        let appends = || groups.iter().flat_map(|group| &group.events).map(|(_, append)| *append);
        let marks = appends().filter(|append| append.dedup.is_some()).count();
        let bytes = self.jobs.iter().map(Job::bytes).sum::<usize>() + 1_024 * groups.len() + 512 * marks;
        let mut call = scripts.call(Script::Append, 1 + 2 * groups.len() + marks, bytes);
        call.push(answer.as_bytes());
        for group in &groups {
            call.push(keys::stream(group.channel).as_bytes());
            call.push(keys::meta(group.channel).as_bytes());
        }
        for append in appends() {
            if let Some(dedup) = &append.dedup {
                call.push(keys::dedup(&append.channel, &dedup.id).as_bytes());
            }
        }
        push_number(&mut call, self.number);
        call.push(Epoch::random().to_string().as_bytes());
        push_number(&mut call, groups.len() as u64);
        let mut marks = 0;
        for group in &groups {
            push_stream(&mut call, group, floors, scripts.publish);
            let options = |(_, append): &(usize, &Append)| {
                options(append, &mut marks, apart(append, topology).is_some())
            };
            let options: Vec<String> = group.events.iter().map(options).collect();
            let is_plain = options.iter().all(String::is_empty);
            call.push(if is_plain { b"1" } else { b"2" });
            for ((_, append), options) in group.events.iter().zip(options) {
                if !is_plain {
                    call.push(options.as_bytes());
                }
                let length = u32::try_from(append.envelope.len()).unwrap_or(u32::MAX);
                call.push_parts(&length.to_le_bytes(), &append.envelope);
            }
        }
        call
    }

    /// Gives each job its part of the script's answer, and remembers the positions confirmed; `reached` is who has them.
    pub(super) fn answer(self, answer: &[u8], reached: Reached, floors: &mut Floors, elsewhere: &Elsewhere) {
        let text = String::from_utf8_lossy(answer);
        let mut lines = text.split('\n');
        let groups = self.groups();
        let start = |line: &str| Place::read(&mut line.split(' '));
        let starts: Vec<_> = groups.iter().map(|_| lines.next().and_then(start)).collect();
        let mut exceptions = lines.filter_map(|line| line.split_once(' ')).peekable();
        let mut outcomes: Vec<Option<Result<Appended>>> = Vec::new();
        outcomes.resize_with(groups.iter().map(|group| group.events.len()).sum(), || None);
        let mut notices = Vec::new();
        let mut number = 0_usize;
        for (group, start) in groups.iter().zip(starts) {
            let first = start.map(|start| start.position);
            let mut next = first;
            for (place, append) in &group.events {
                number += 1;
                let is_exception = |(of, _): &(&str, &str)| of.parse() == Ok(number);
                let outcome = match exceptions.next_if(is_exception) {
                    Some((_, exception)) => read_exception(append, first, exception),
                    None => appended(&mut next),
                };
                notices.extend(elsewhere.notice(append, &outcome, start));
                if let Some(outcomes) = outcomes.get_mut(*place) {
                    *outcomes = Some(outcome.and_then(|appended| confirm(append, appended, reached)));
                }
            }
            if let (Some(Place { term, .. }), Some(next)) = (start, next)
                && (next.offset > 1 || floors.contains_key(group.channel))
            {
                let position = Position { offset: next.offset - 1, ..next };
                floors.insert(group.channel.clone(), Seen { position, term });
            }
        }
        drop(groups);
        let mut outcomes = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(unreadable())));
        let jobs: Vec<_> = self
            .jobs
            .into_iter()
            .map(|job| {
                let part = outcomes.by_ref().take(job.appends.len()).collect();
                (job.outcome, part)
            })
            .collect();
        let tell = move || {
            for (outcome, part) in jobs {
                // The caller may have gone away.
                drop(outcome.send(Ok(part)));
            }
        };
        elsewhere.announce(notices, tell);
    }

    /// Tells everyone in the batch that nothing came of it.
    pub(super) fn fail(self, kind: ErrorKind, text: &str) {
        self.jobs.into_iter().for_each(|job| job.fail(kind, text));
    }
}

fn push_stream(call: &mut Command, group: &Group<'_>, floors: &Floors, publish: Publish) {
    // What the newest event says is what the stream keeps from now on.
    let retention = group.events.last().map_or_else(Retention::default, |(_, append)| append.retention);
    for bound in [retention.events_max, retention.age_max.map(millis), retention.bytes_max] {
        match bound {
            Some(bound) => push_number(call, bound),
            None => call.push(b""),
        }
    }
    call.push(if retention.at_bound == AtBound::DropOldest { b"1" } else { b"" });
    push_seen(call, floors.get(group.channel).copied());
    call.push(group.channel.channel().as_bytes());
    call.push(keys::channel(group.channel).as_bytes());
    call.push(publish.patterns(group.channel).as_bytes());
    push_number(call, group.events.len() as u64);
}

/// Adds what the caller has of a stream: epoch, term and offset.
pub(in crate::engine::redis) fn push_seen(call: &mut Command, seen: Option<Seen>) {
    match seen {
        Some(Seen { position, term }) => {
            call.push(position.epoch.to_string().as_bytes());
            call.push(write_term(term).as_bytes());
            push_number(call, position.offset);
        }
        None => [&b""[..], b"", b"0"].iter().for_each(|argument| call.push(argument)),
    }
}

/// What is special about an event; `marks` counts the dedup keys of the batch.
fn options(append: &Append, marks: &mut u64, is_apart: bool) -> String {
    let (mark, window) = match &append.dedup {
        Some(dedup) => {
            *marks += 1;
            (*marks, millis(dedup.window).max(1))
        }
        None => (0, 0),
    };
    // So many digits that they compare as text: a script's numbers are not exact to 64 bits.
    let version = append.version.as_ref();
    let version =
        version.map_or_else(String::new, |Version { epoch, number }| format!("\n{number:020}{epoch}"));
    match &append.announce {
        Announce::Quiet => format!("q {mark} {window} {version}"),
        Announce::AlsoOn(other) if !is_apart => {
            format!("b {mark} {window} {}{version}", keys::channel(other))
        }
        Announce::Here | Announce::AlsoOn(_) if mark == 0 && version.is_empty() => String::new(),
        Announce::Here | Announce::AlsoOn(_) => format!("h {mark} {window} {version}"),
    }
}

fn push_number(call: &mut Command, number: u64) {
    call.push_int(i64::try_from(number).unwrap_or(i64::MAX));
}

/// The outcome of an event that got the next offset.
fn appended(next: &mut Option<Position>) -> Result<Appended> {
    let next = next.as_mut().ok_or_else(unreadable)?;
    let position = *next;
    next.offset += 1;
    Ok(Appended {
        position: Some(position),
        scheduled: None,
        effect: Effect::New,
        durability: Durability::Fast,
    })
}

/// The outcome of an event that did not: `d7`, `s7` or `!ERROR`.
fn read_exception(append: &Append, start: Option<Position>, exception: &str) -> Result<Appended> {
    if exception == "!FULL" {
        let text = format!(
            "stream of {} is full of events that a group has not settled (retention.at_bound)",
            append.channel.channel()
        );
        return Err(Error::new(ErrorKind::Backpressure, text));
    }
    if let Some(refusal) = exception.strip_prefix('!') {
        let text =
            format!("redis refused to append to {}: {}", append.channel, Explained(refusal.as_bytes()));
        return Err(Error::new(refusal::kind_of(refusal.as_bytes()), text));
    }
    let effects = [('d', Effect::Duplicate), ('s', Effect::Stale)];
    let read = |(letter, effect)| Some((exception.strip_prefix(letter)?.parse().ok()?, effect));
    let (Some(start), Some((offset, effect))) = (start, effects.into_iter().find_map(read)) else {
        return Err(unreadable());
    };
    let position = Some(Position { offset, ..start });
    Ok(Appended { position, scheduled: None, effect, durability: Durability::Fast })
}

/// Confirms an append that is kept, if as much holds as was asked for.
fn confirm(append: &Append, appended: Appended, reached: Reached) -> Result<Appended> {
    if let Some(durability) = reached.confirms(append.durability) {
        return Ok(Appended { durability, ..appended });
    }
    let text = format!(
        "appended to {}, but only {} replicas confirmed it in time and {:?} was asked for; try again under a dedup id, \
         and see whether the server has its replicas (limits.call_time_max)",
        append.channel, reached.copies, append.durability
    );
    Err(Error::new(ErrorKind::TimedOut, text))
}

fn unreadable() -> Error {
    malformed("append.lua")
}
