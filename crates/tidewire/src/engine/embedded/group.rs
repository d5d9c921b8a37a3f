//! A group of an embedded engine: the steps of its sessions over its records, in memory.
//!
//! It knows neither the stream's events nor its own items nor where it is kept: who calls it reads the first, changes
//! the second and writes the third.

mod page;
mod shelves;

use std::collections::BTreeMap;
use std::mem;

use bytes::Bytes;

pub(super) use self::page::read_turn;
pub(super) use self::shelves::{ItemPage, Shelves};
use super::dedup::DedupWindow;
use crate::clock::Timestamp;
use crate::engine::{Adopted, Commit, GroupStats, Opening, RecordStats, Start, Turn, Turned};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::{ChannelPath, GroupPath};
use crate::position::Epoch;

/// The bounds of the stream that a group reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) epoch: Epoch,
    /// Offset of the oldest event kept; `last + 1` if none is.
    pub(super) first: u64,
    /// Offset of the newest event ever appended.
    pub(super) last: u64,
}

/// What a group is beside its records and items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) partitions: u16,
    /// The first offset that nobody has claimed.
    pub(super) next: u64,
    /// How often it was moved, and where to; the first time is its creation.
    pub(super) generation: (u64, u64),
    /// The last fence that was given.
    pub(super) fence: u64,
}

/// What a session holds, or held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) state: Bytes,
    pub(super) claims: Vec<(u64, u64)>,
    pub(super) floor: u64,
    pub(super) owner: Option<Box<str>>,
    /// Who held it last did not let go of it.
    pub(super) was_lost: bool,
}

#[derive(Debug)]
struct Session {
    number: u64,
    deadline: Timestamp,
    has_left: bool,
    answer: Turned,
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) head: Head,
    pub(super) records: BTreeMap<Box<str>, Record>,
    marks: DedupWindow,
    sessions: BTreeMap<Box<str>, Session>,
    /// A session waits for an append.
    is_hungry: bool,
}

/// What a turn did beside its answer.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) answer: Turned,
    /// Other sessions may have something to do.
    pub(super) is_news: bool,
    /// The turn was taken before and has changed nothing now.
    pub(super) is_again: bool,
    /// Names of records that are not as they were before.
    pub(super) touched: Vec<Box<str>>,
    /// Marks that are not remembered any more, and when their windows end.
    pub(super) forgotten: Vec<(Timestamp, Box<str>)>,
}

impl Group {
    /// A group that begins at offset `next`.
    pub(super) fn new(opening: Opening, next: u64) -> Self {
        let head = Head { partitions: opening.partitions, next, generation: (1, next), fence: 0 };
        let record = Record { floor: next, ..Record::default() };
        let records = (0..opening.partitions).map(|number| (partition(number), record.clone())).collect();
        Self::from_parts(head, records, [])
    }

    /// A group as it was kept: without sessions, so that nobody holds its records. Marks are given with the end of their
    /// windows.
    pub(super) fn from_parts(
        head: Head,
        records: BTreeMap<Box<str>, Record>,
        kept_marks: impl IntoIterator<Item = (Timestamp, Box<str>)>,
    ) -> Self {
        let mut marks = DedupWindow::bounded(limits::MARKS_MAX);
        kept_marks.into_iter().for_each(|(expires, id)| marks.remember(id, 0, expires));
        Self { head, records, marks, sessions: BTreeMap::new(), is_hungry: false }
    }

    /// Goes back to the end of a stream that has lost what was after `last`, so that what is appended there is claimed.
    /// False if there was no need.
    pub(super) fn cut(&mut self, last: u64) -> bool {
        let end = last + 1;
        let mut is_cut = lower(&mut self.head.next, end);
        for record in self.records.values_mut() {
            if self.head.partitions > 0 {
                is_cut |= lower(&mut record.floor, end);
            }
            if record.claims.last().is_some_and(|claim| claim.1 > last) {
                is_cut = true;
                record.claims.retain_mut(|claim| {
                    claim.1 = claim.1.min(last);
                    claim.0 <= claim.1
                });
            }
        }
        is_cut
    }

    /// Whether a session's lease has not run out at `now`.
    pub(super) fn has_sessions(&self, now: Timestamp) -> bool {
        self.sessions.values().any(|session| session.deadline > now)
    }

    /// Whether somebody who opens it means the same group.
    pub(super) fn check_opening(&self, path: &GroupPath, opening: Opening) -> Result<()> {
        let partitions = self.head.partitions;
        if partitions == opening.partitions {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!("group {:?} has {partitions} partitions, not {}", path.group(), opening.partitions),
        ))
    }

    /// Nothing before this offset is needed from the stream.
    pub(super) fn floor(&self) -> u64 {
        let claimed = if self.head.partitions == 0 { self.head.next } else { u64::MAX };
        self.records.values().map(|record| record.floor).chain([claimed]).min().unwrap_or(u64::MAX)
    }

    /// Whether a session waits for an append; after this none does.
    pub(super) fn take_hunger(&mut self) -> bool {
        mem::take(&mut self.is_hungry)
    }

    /// Takes a turn of a session. The events of its ranges are for the caller to read.
    pub(super) fn turn(&mut self, turn: &Turn, stream: Bounds, now: Timestamp) -> Result<Taken> {
        match self.sessions.get(&turn.session) {
            Some(session) if session.number == turn.number => {
                return Ok(Taken { is_again: true, ..Taken::of(session.answer.clone()) });
            }
            Some(session) if session.number + 1 == turn.number && !session.has_left => {}
            // A record of its name is what the engine has left of a session that it has lost.
            None if turn.number == 1 && !self.has_record_of(&turn.session) => {}
            _ => return Err(lost(&turn.session)),
        }
        let is_new = turn.number == 1;
        if is_new && self.sessions.len() >= limits::SESSIONS_MAX {
            return Err(Error::new(
                ErrorKind::Backpressure,
                format!(
                    "group has {} sessions, the most there may be (limits.SESSIONS_MAX)",
                    limits::SESSIONS_MAX
                ),
            ));
        }
        self.check(turn)?;
        let mut taken = Taken::of(Turned {
            epoch: stream.epoch,
            first: stream.first,
            last: stream.last,
            now,
            marked: turn.lookups.iter().map(|id| self.marks.find(id, now).is_some()).collect(),
            ..Turned::default()
        });
        if is_new {
            self.head.fence += 1;
        }
        taken.answer.fence = self.head.fence;
        taken.is_news = is_new | turn.is_last | self.reap(&turn.session, now, &mut taken.touched);
        taken.is_news |= turn.commits.iter().any(|commit| commit.is_released);
        let floor_max = self.floor_max(&turn.session, &stream);
        for commit in &turn.commits {
            self.commit(&turn.session, commit, floor_max);
            taken.touched.push(commit.record.clone());
        }
        for mark in &turn.marks {
            self.marks.remember(mark.id.clone(), 0, now.saturating_add(mark.window));
        }
        // Some at a time, so that no turn has many to remove, and more than come in.
        let forgotten = std::iter::from_fn(|| self.marks.forget(now));
        taken.forgotten.extend(forgotten.take(turn.marks.len() + limits::BATCH_EVENTS_MAX));
        self.claim(&turn.session, turn.claim, &stream, &mut taken);
        self.adopt(&turn.session, turn.adopt, &mut taken);
        let claimed = taken.answer.claimed.map_or(0, |(first, last)| last + 1 - first);
        let is_past_end = turn.reads.iter().any(|(_, last)| *last > stream.last);
        self.is_hungry |= claimed < turn.claim as u64 || is_past_end;
        self.end_turn(turn, now.saturating_add(turn.lease), &mut taken);
        Ok(taken)
    }

    /// Whether there is a record that this session has made.
    fn has_record_of(&self, session: &str) -> bool {
        self.head.partitions == 0 && self.records.contains_key(session)
    }

    /// Whether a session may do what it asks for.
    fn check(&self, turn: &Turn) -> Result<()> {
        for Commit { record, state, .. } in &turn.commits {
            let is_held = match self.records.get(record) {
                Some(held) => held.owner.as_ref() == Some(&turn.session),
                None => self.head.partitions == 0 && (is_named_by(record, &turn.session) || state.is_none()),
            };
            if !is_held {
                return Err(lost(&turn.session));
            }
        }
        Ok(())
    }

    /// The highest floor that a commit of the session may set.
    fn floor_max(&self, session: &str, stream: &Bounds) -> u64 {
        if self.head.partitions == 0 {
            return u64::MAX;
        }
        // A floor past the end says that nothing there is needed now; what is appended later will be.
        let end = stream.last + 1;
        let seen = self.sessions.get(session).map_or(self.head.generation, |last| last.answer.generation);
        // Who has not been told of a move does not know what is needed since.
        if seen == self.head.generation { end } else { end.min(self.head.generation.1) }
    }

    fn commit(&mut self, session: &str, commit: &Commit, floor_max: u64) {
        let Some(state) = &commit.state else {
            self.records.remove(&commit.record);
            return;
        };
        let record = self.records.entry(commit.record.clone()).or_default();
        record.state = state.clone();
        record.claims.clear();
        record.floor = commit.floor.min(floor_max);
        record.owner = (!commit.is_released).then(|| session.into());
        record.was_lost = false;
    }

    fn claim(&mut self, session: &str, wanted: usize, stream: &Bounds, taken: &mut Taken) {
        let Taken { answer, touched, .. } = taken;
        if self.head.partitions > 0 {
            return;
        }
        if self.head.next < stream.first {
            answer.skipped = Some((self.head.next, stream.first - 1));
            self.head.next = stream.first;
        }
        let first = self.head.next;
        let last = stream.last.min(first.saturating_add(wanted as u64).saturating_sub(1));
        if wanted == 0 || last < first {
            return;
        }
        self.head.next = last + 1;
        answer.claimed = Some((first, last));
        touched.push(session.into());
        let unclaimed = Record { floor: u64::MAX, ..Record::default() };
        let record = self.records.entry(session.into()).or_insert(unclaimed);
        record.owner = Some(session.into());
        record.floor = record.floor.min(first);
        match record.claims.last_mut() {
            Some(claim) if claim.1 + 1 == first => claim.1 = last,
            _ => record.claims.push((first, last)),
        }
    }

    fn adopt(&mut self, session: &str, wanted: usize, taken: &mut Taken) {
        let free = self.records.iter_mut().filter(|(_, record)| record.owner.is_none());
        for (name, record) in free.take(wanted) {
            self.head.fence += 1;
            record.owner = Some(session.into());
            taken.touched.push(name.clone());
            taken.answer.adopted.push(Adopted {
                name: name.clone(),
                fence: self.head.fence,
                state: record.state.clone(),
                claims: record.claims.clone(),
                was_lost: record.was_lost,
            });
        }
    }

    /// Takes away sessions whose lease has run out; true if there was one.
    fn reap(&mut self, but: &str, now: Timestamp, touched: &mut Vec<Box<str>>) -> bool {
        let is_over = |name: &str, session: &Session| name != but && session.deadline <= now;
        let over = self.sessions.extract_if(.., |name, session| is_over(name, session));
        let over: Vec<Box<str>> =
            over.filter(|(_, session)| !session.has_left).map(|(name, _)| name).collect();
        over.iter().for_each(|session| self.free_records_of(session, true, touched));
        !over.is_empty()
    }

    fn free_records_of(&mut self, session: &str, is_loss: bool, touched: &mut Vec<Box<str>>) {
        for (name, record) in &mut self.records {
            if record.owner.as_deref() == Some(session) {
                (record.owner, record.was_lost) = (None, is_loss);
                touched.push(name.clone());
            }
        }
    }

    fn end_turn(&mut self, turn: &Turn, deadline: Timestamp, taken: &mut Taken) {
        let session = &turn.session;
        if turn.is_last {
            self.free_records_of(session, false, &mut taken.touched);
        }
        let answer = &mut taken.answer;
        answer.generation = self.head.generation;
        answer.floor = self.floor().min(answer.last + 1);
        answer.free = self.records.values().filter(|record| record.owner.is_none()).count() as u64;
        let is_holder =
            |name: &str| self.records.values().any(|record| record.owner.as_deref() == Some(name));
        let holders = self.sessions.iter().filter(|(name, _)| *name != session && is_holder(name));
        let first_over = holders.map(|(_, session)| session.deadline).min();
        answer.look_again = first_over.map(|deadline| deadline.since(answer.now));
        let others = self.sessions.iter().filter(|(name, other)| *name != session && !other.has_left);
        answer.sessions = others.count() as u64 + u64::from(!turn.is_last);
        let ended = Session { number: turn.number, deadline, has_left: turn.is_last, answer: answer.clone() };
        // One that has left is remembered until its lease would have ended, for its last turn may be sent again.
        self.sessions.insert(session.clone(), ended);
    }

    /// Goes on from offset `to`; says over how many events that is.
    pub(super) fn seek(&mut self, to: u64) -> u64 {
        let before = mem::replace(&mut self.head.next, to);
        self.head.generation = (self.head.generation.0 + 1, to);
        if self.head.partitions > 0 {
            // Their holders go back or forth when they see the generation; until then nothing from `to` on may go.
            self.records.values_mut().for_each(|record| record.floor = record.floor.min(to));
        }
        before.abs_diff(to)
    }

    /// The group as a whole, without its items.
    pub(super) fn stats(&self, stream: Bounds, now: Timestamp) -> GroupStats {
        let sessions =
            self.sessions.iter().filter(|(_, session)| session.deadline > now && !session.has_left);
        let records = self.records.iter().map(|(name, record)| RecordStats {
            name: name.clone(),
            owner: record.owner.clone(),
            state: record.state.clone(),
            claims: record.claims.clone(),
        });
        GroupStats {
            epoch: stream.epoch,
            first: stream.first,
            last: stream.last,
            next: self.head.next,
            floor: self.floor(),
            partitions: self.head.partitions,
            generation: self.head.generation,
            sessions: sessions.map(|(name, session)| (name.clone(), session.deadline.since(now))).collect(),
            records: records.collect(),
            items: [0; 4],
            now,
        }
    }
}

impl Taken {
    fn of(answer: Turned) -> Self {
        Self { answer, is_news: false, is_again: false, touched: Vec::new(), forgotten: Vec::new() }
    }
}

/// The offset that a group begins with.
pub(super) fn begin(start: Start, stream: Bounds, seek: impl FnOnce(Timestamp) -> u64) -> Result<u64> {
    match start {
        Start::Earliest => Ok(stream.first),
        Start::Latest => Ok(stream.last + 1),
        Start::Since(time) => Ok(seek(time)),
        // History that is gone: whatever there is may be other than what was there.
        Start::At(position) if position.epoch != stream.epoch => Ok(stream.first),
        Start::At(position) if position.offset <= stream.last + 1 => Ok(position.offset.max(stream.first)),
        Start::At(position) => Err(Error::new(
            ErrorKind::PositionLost,
            format!("position {position} is past the end of the stream, which is at {}", stream.last),
        )),
    }
}

/// Lowers an offset to the end of its stream; false if there was no need.
fn lower(offset: &mut u64, end: u64) -> bool {
    mem::replace(offset, end.min(*offset)) > end
}

/// Whether a session may make a record of this name: its own, or one beside it.
fn is_named_by(record: &str, session: &str) -> bool {
    record.strip_prefix(session).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The name of a partition's record: they are listed in the order of their numbers.
fn partition(number: u16) -> Box<str> {
    format!("{number:03}").into()
}

fn lost(session: &str) -> Error {
    Error::new(ErrorKind::LockLost, format!("session {session} of the group is over: its lease ran out"))
}

/// That a group is not there.
pub(super) fn no_such_group(group: &GroupPath) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("channel {} has no group {:?}", group.channel().channel(), group.group()),
    )
}

/// That groups have not settled what the stream may hold at most.
pub(super) fn full(channel: &ChannelPath) -> Error {
    Error::new(
        ErrorKind::Backpressure,
        format!(
            "stream of {} is full of events that a group has not settled (retention.at_bound)",
            channel.channel()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STREAM: Bounds = Bounds { epoch: Epoch::from_u64(1), first: 1, last: 10 };

    fn turn(session: &str, number: u64) -> Turn {
        let lease = Duration::from_secs(5);
        Turn { session: session.into(), number, lease, claim: 1, ..Turn::default() }
    }

    #[test]
    fn sessions_are_bounded_until_those_before_are_over() {
        let mut group = Group::new(Opening { start: Start::Earliest, partitions: 0 }, 1);
        let now = Timestamp::from_millis(0);
        for number in 0..limits::SESSIONS_MAX {
            group.turn(&turn(&number.to_string(), 1), STREAM, now).unwrap();
        }
        let refused = group.turn(&turn("one-more", 1), STREAM, now).map(drop).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::Backpressure));
        let later = now.saturating_add(Duration::from_secs(5));
        group.turn(&turn("0", 2), STREAM, later).unwrap();
        group.turn(&turn("one-more", 1), STREAM, later).unwrap();
    }

    #[test]
    fn a_session_whose_records_outlived_it_does_not_begin_again() {
        let mut group = Group::new(Opening { start: Start::Earliest, partitions: 0 }, 1);
        let now = Timestamp::from_millis(0);
        group.turn(&turn("a", 1), STREAM, now).unwrap();
        let mut records = mem::take(&mut group.records);
        records.values_mut().for_each(|record| (record.owner, record.was_lost) = (None, true));
        let mut group = Group::from_parts(group.head, records, []);
        let refused = group.turn(&turn("a", 1), STREAM, now).map(drop).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::LockLost), "what it claimed before is not told by this turn");
        let heir = Turn { adopt: 1, ..turn("b", 1) };
        let adopted = group.turn(&heir, STREAM, now).unwrap().answer.adopted;
        assert_eq!((&*adopted[0].claims, adopted[0].was_lost), (&[(1, 1)][..], true));
    }
}
