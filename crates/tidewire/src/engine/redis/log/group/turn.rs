//! A turn: how it is written for `group_turn.lua`, how its answer is read.

use std::time::Duration;

use super::{offset_of, push_item, push_item_name};
use crate::clock::{Timestamp, millis};
use crate::engine::redis::announcement::take_frame;
use crate::engine::redis::command::Command;
use crate::engine::redis::log::{split_id, to_int};
use crate::engine::redis::resp::Value;
use crate::engine::{Adopted, Commit, Stored, Turn, Turned};
use crate::limits;

/// A lease longer than this, 31 years, is as good as one without an end.
const LEASE_MS_MAX: u64 = 1_000_000_000_000;
/// Bytes that an argument takes beside its own.
const ARGUMENT_BYTES: usize = 64;

/// About how many bytes the arguments of a turn take.
pub(super) fn bytes(turn: &Turn) -> usize {
    let commits = turn.commits.iter().map(|commit| commit.state.as_ref().map_or(0, bytes::Bytes::len));
    let puts = turn.puts.iter().map(|item| item.bytes.len() + item.key.len());
    let arguments =
        3 * turn.commits.len() + 2 * (turn.puts.len() + turn.removes.len()) + 2 * turn.reads.len();
    let marks = 6 * (turn.marks.len() + turn.lookups.len());
    commits.chain(puts).sum::<usize>() + (arguments + marks) * ARGUMENT_BYTES
}

/// Adds the arguments of a turn.
pub(super) fn push(call: &mut Command, turn: &Turn) {
    call.push(turn.session.as_bytes());
    let count = |count: usize| offset_of(count as u64);
    let numbers = [
        turn.number,
        millis(turn.lease).min(LEASE_MS_MAX),
        count(turn.claim),
        count(turn.adopt),
        turn.is_last.into(),
        limits::SESSIONS_MAX as u64,
        count(turn.commits.len()),
        count(turn.puts.len()),
        count(turn.removes.len()),
        count(turn.marks.len()),
        count(turn.lookups.len()),
        count(turn.reads.len()),
    ];
    numbers.iter().for_each(|number| call.push_int(to_int(*number)));
    turn.commits.iter().for_each(|commit| push_commit(call, commit));
    turn.puts.iter().for_each(|item| push_item(call, item));
    turn.removes.iter().for_each(|(shelf, key)| push_item_name(call, *shelf, key));
    turn.marks.iter().for_each(|mark| call.push_int(to_int(millis(mark.window).max(1))));
    for (first, last) in &turn.reads {
        call.push_int(to_int(offset_of(*first)));
        call.push_int(to_int(offset_of(*last)));
    }
}

fn push_commit(call: &mut Command, commit: &Commit) {
    call.push(commit.record.as_bytes());
    let Some(state) = &commit.state else {
        call.push(b"x");
        call.push(b"");
        return;
    };
    let released = u8::from(commit.is_released);
    match commit.floor {
        u64::MAX => call.push(format!("inf {released}").as_bytes()),
        floor => call.push(format!("{} {released}", offset_of(floor)).as_bytes()),
    }
    call.push(state);
}

/// What a turn answered.
pub(super) struct Taken {
    pub(super) answer: Turned,
    /// Bytes of the stream's largest frame, if that is known.
    pub(super) largest: Option<u64>,
    /// The events are in the answer.
    pub(super) is_read: bool,
}

impl Taken {
    /// The offsets that the turn claimed and those that it asked for, as far as the stream has them, in their order and once.
    pub(super) fn ranges(&self, reads: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let Turned { first, last, claimed, .. } = self.answer;
        let mut ranges: Vec<(u64, u64)> = reads.iter().copied().chain(claimed).collect();
        ranges.sort_unstable();
        let mut next = first;
        for (from, to) in &mut ranges {
            (*from, *to) = (next.max(*from), last.min(*to));
            next = next.max(to.saturating_add(1));
        }
        ranges.retain(|(from, to)| from <= to);
        ranges
    }
}

pub(super) fn read(reply: Vec<Value>) -> Option<Taken> {
    let mut reply = reply.into_iter();
    let head = reply.next()?.into_bytes()?;
    let (head, fences) = std::str::from_utf8(&head).ok()?.split_once('|')?;
    let mut answer = read_head(head)?;
    let largest = reply.next()?.as_int().and_then(|bytes| u64::try_from(bytes).ok());
    let is_read = reply.next()?.as_int()? == 1;
    for adopted in fences.split_whitespace() {
        let mut words = adopted.split(':');
        let (name, fence, lost) = (words.next()?, words.next()?, words.next()?);
        let (state, claims) = (reply.next()?.into_bytes()?, reply.next()?);
        answer.adopted.push(Adopted {
            name: name.into(),
            fence: fence.parse().ok()?,
            state,
            claims: read_ranges(std::str::from_utf8(claims.as_bytes()?).ok()?)?,
            was_lost: lost == "1",
        });
    }
    while let Some(id) = reply.next() {
        answer.events.push(stored(&id, reply.next()?)?);
    }
    Some(Taken { answer, largest, is_read })
}

/// An event of an entry's id and its frame.
pub(super) fn stored(id: &Value, frame: Value) -> Option<Stored> {
    let (offset, time) = split_id(id.as_bytes()?)?;
    Some(Stored { offset, time, envelope: take_frame(&mut frame.into_bytes()?)? })
}

fn read_head(head: &str) -> Option<Turned> {
    let mut words = head.split_ascii_whitespace();
    let epoch = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let (first, last, now, floor) = (number()?, number()?, number()?, number()?);
    let generation = (number()?, number()?);
    let (claimed, skipped) = (read_range(words.next()?)?, read_range(words.next()?)?);
    let (free, sessions) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let look_again = match words.next()? {
        "-" => None,
        digits => Some(Duration::from_millis(digits.parse().ok()?)),
    };
    let marked = words.next()?.bytes().filter(|byte| *byte != b'-').map(|byte| byte == b'1').collect();
    let fence = words.next()?.parse().ok()?;
    Some(Turned {
        epoch,
        first,
        last,
        floor,
        generation,
        fence,
        claimed,
        skipped,
        adopted: Vec::new(),
        free,
        sessions,
        marked,
        events: Vec::new(),
        unread: Vec::new(),
        now: Timestamp::from_millis(now),
        look_again,
    })
}

/// Ranges as scripts write them: `FIRST-LAST,FIRST-LAST`.
pub(super) fn read_ranges(text: &str) -> Option<Vec<(u64, u64)>> {
    text.split(',').filter(|range| !range.is_empty()).map(|range| read_range(range)?).collect()
}

/// `FIRST-LAST`, or `-` for none.
fn read_range(text: &str) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.split_once('-')?;
    if first.is_empty() && last.is_empty() {
        return Some(None);
    }
    Some(Some((first.parse().ok()?, last.parse().ok()?)))
}
