//! What a node has in one channel, what it wants to have there, and the way from one to the other in batches.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::row::{Row, SessionId};
use crate::engine::{MembersChange, MembersChanged};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// Names in one step. Each takes some 16 microseconds of a server that does nothing else meanwhile.
pub(super) const STEP_NAMES_MAX: usize = 250;

/// The members of this node in one channel.
#[derive(Default)]
pub(super) struct Attendance {
    /// Boxed, so that a channel with one member takes little.
    attendees: FxHashMap<Bytes, Box<Attendee>>,
    /// Those for whom something is to be written.
    due: VecDeque<Bytes>,
    /// The session in whose index the channel is.
    pub(super) indexed: Option<SessionId>,
    /// A task writes; there is one at a time.
    pub(super) is_writing: bool,
    /// What was written last may have been done: that the channel was occupied or vacated by it is still to be told.
    is_unsure: bool,
}

#[derive(Default)]
struct Attendee {
    /// What is to be there; none: nothing is.
    wanted: Option<Row>,
    /// What was written of it last.
    last: Option<Row>,
    /// Sessions under which it may be there.
    traces: Vec<SessionId>,
    /// Somebody was told that it has joined.
    is_told: bool,
    is_due: bool,
    /// What was written last may have been done, or not.
    is_unsure: bool,
    waits: Vec<Wait>,
}

/// Who waits for an outcome.
struct Wait {
    is_join: bool,
    /// Since when.
    since: Duration,
    sender: oneshot::Sender<Result<Outcome>>,
}

/// What became of a join or a leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The member was there before.
    pub(super) was_there: bool,
    /// It was the first of the channel that came, or the last that went.
    pub(super) is_flip: bool,
}

/// What is written in one step.
pub(super) struct Batch {
    session: SessionId,
    pub(super) change: MembersChange,
    /// The channel has to be in the index first.
    pub(super) needs_index: bool,
    steps: Vec<Step>,
}

struct Step {
    id: Bytes,
    /// What is put.
    row: Option<Row>,
    /// From where it is removed.
    traces: Vec<SessionId>,
    is_unsure: bool,
    waits: Vec<Wait>,
}

/// What a step has found.
struct Found {
    was_there: bool,
    /// Somebody was told that it had joined.
    was_told: bool,
}

/// Whether a channel got its first member, and whether it lost its last, until somebody is told.
struct Flips {
    occupied: bool,
    vacated: bool,
}

/// What has happened that nobody waited for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Left(Bytes, Row),
    Returned(Bytes, Row),
    Occupied,
    Vacated,
}

impl Attendance {
    /// A member is to be there, or with `None` is not to be.
    pub(super) fn want(
        &mut self,
        id: Bytes,
        row: Option<Row>,
        now: Duration,
    ) -> oneshot::Receiver<Result<Outcome>> {
        let (sender, receiver) = oneshot::channel();
        let attendee = self.attendees.entry(id.clone()).or_default();
        attendee.waits.push(Wait { is_join: row.is_some(), since: now, sender });
        attendee.wanted = row;
        attendee.be_due(id, &mut self.due);
        receiver
    }

    /// The node goes on under another session: all of it is to be written again.
    pub(super) fn come_back(&mut self) {
        for (id, attendee) in &mut self.attendees {
            if attendee.wanted.is_some() {
                attendee.be_due(id.clone(), &mut self.due);
            }
        }
    }

    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether there is nobody, and nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.attendees.is_empty()
    }

    /// As much of what is due as one step may take.
    pub(super) fn take(&mut self, session: SessionId) -> Batch {
        let needs_index = self.indexed != Some(session);
        let mut batch = Batch { session, change: MembersChange::default(), needs_index, steps: Vec::new() };
        let (mut entries, mut bytes) = (0, 0);
        while let Some(id) = self.due.pop_front() {
            let Some(attendee) = self.attendees.get_mut(&id) else { continue };
            entries += attendee.traces.len() + 1;
            bytes += attendee.bytes(id.len());
            let is_full = entries > STEP_NAMES_MAX || bytes > limits::BATCH_BYTES_MAX;
            if is_full && !batch.steps.is_empty() {
                self.due.push_front(id);
                break;
            }
            let step = attendee.begin(id, session, &mut batch.change);
            batch.steps.push(step);
        }
        if self.due.is_empty() {
            self.due = VecDeque::new();
        }
        batch.needs_index &= !batch.change.puts.is_empty();
        batch
    }

    /// What was written is there: answers who waits, and gives what nobody waited for.
    pub(super) fn settle(&mut self, batch: Batch, changed: &MembersChanged) -> Vec<Told> {
        let Batch { session, steps, needs_index, .. } = batch;
        if needs_index {
            self.indexed = Some(session);
        }
        let mut flips = self.flips(changed);
        let found = self.found(&steps, changed);
        let mut told = Vec::new();
        for (step, Found { was_there, was_told }) in steps.into_iter().zip(found) {
            let Some(attendee) = self.attendees.get_mut(&step.id) else { continue };
            attendee.traces.retain(|trace| !step.traces.contains(trace));
            attendee.is_told = step.row.is_some();
            let is_waited_for = !step.waits.is_empty();
            for wait in step.waits {
                // What was joined and left before it was written is as if it had never been.
                let is_flip = wait.is_join == step.row.is_some() && flips.take(wait.is_join);
                // Who does not wait any more is not told.
                drop(wait.sender.send(Ok(Outcome { was_there, is_flip })));
            }
            match step.row {
                _ if is_waited_for || !was_told => {}
                // Under the same session it was written again because it may have been lost, and nobody was told that it was.
                Some(row) if !was_there && !step.traces.is_empty() => {
                    told.push(Told::Returned(step.id.clone(), row));
                }
                None if was_there => {
                    told.extend(attendee.last.take().map(|row| Told::Left(step.id.clone(), row)));
                }
                _ => {}
            }
            self.forget(&step.id);
        }
        told.extend(flips.take(true).then_some(Told::Occupied));
        told.extend(flips.take(false).then_some(Told::Vacated));
        told
    }

    /// Whether a step has occupied or vacated the channel, or one before it that was not answered.
    fn flips(&mut self, changed: &MembersChanged) -> Flips {
        let is_unsure = std::mem::take(&mut self.is_unsure);
        // Those who are there only because of steps that were not answered.
        let untold = || self.attendees.values().filter(|attendee| !attendee.traces.is_empty());
        let are_untold = || untold().all(|attendee| !attendee.is_told);
        let are_ours = || are_untold() && changed.before <= untold().count() as u64;
        Flips {
            occupied: changed.after > 0 && (changed.before == 0 || (is_unsure && are_ours())),
            vacated: changed.after == 0 && (changed.before > 0 || is_unsure),
        }
    }

    /// Whether a member may be there under a session.
    pub(super) fn has_trace(&self, session: SessionId) -> bool {
        self.attendees.values().any(|attendee| attendee.traces.contains(&session))
    }

    /// What each step has found. One whose first try was done finds its own effect; then what is known here counts.
    fn found(&self, steps: &[Step], changed: &MembersChanged) -> Vec<Found> {
        let (mut were_there, mut are_new) = (changed.were_there.iter(), changed.are_new.iter());
        let found = steps.iter().map(|step| {
            let were_there = were_there.by_ref().take(step.traces.len()).filter(|was_there| **was_there);
            let was_moved = were_there.count() > 0;
            let was_told = self.attendees.get(&step.id).is_some_and(|attendee| attendee.is_told);
            let is_old = step.row.is_some() && are_new.next() != Some(&true);
            let was_there = match &step.row {
                Some(_) => was_told && (was_moved || is_old),
                None => was_moved || (step.is_unsure && was_told),
            };
            Found { was_there, was_told }
        });
        found.collect()
    }

    /// Nothing is known of what was written: it is written again. Who has waited for long enough, or for what cannot be done, is
    /// answered; if it was to join, it is to be removed.
    pub(super) fn fail(&mut self, batch: Batch, error: &Error, now: Duration, patience: Duration) {
        let is_unsure = !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Backpressure);
        self.is_unsure |= is_unsure;
        let may_wait = |wait: &Wait| error.is_retryable() && now.saturating_sub(wait.since) < patience;
        for step in batch.steps {
            let Some(attendee) = self.attendees.get_mut(&step.id) else { continue };
            attendee.is_unsure |= is_unsure || step.is_unsure;
            let (waiting, given_up): (Vec<_>, Vec<_>) = step.waits.into_iter().partition(may_wait);
            attendee.waits.splice(0..0, waiting);
            // Unless somebody still waits for it, or has asked for it again meanwhile.
            if !given_up.is_empty() && attendee.waits.is_empty() && !attendee.is_told {
                attendee.wanted = None;
            }
            for wait in given_up {
                drop(wait.sender.send(Err(Error::new(error.kind(), error.to_string()))));
            }
            attendee.be_due(step.id, &mut self.due);
        }
    }

    /// The session of a batch is over, and nothing of the batch was written: it is for the next one.
    pub(super) fn put_back(&mut self, batch: Batch) {
        for step in batch.steps {
            if let Some(attendee) = self.attendees.get_mut(&step.id) {
                attendee.waits.splice(0..0, step.waits);
                attendee.is_unsure |= step.is_unsure;
                attendee.be_due(step.id, &mut self.due);
            }
        }
    }

    /// Forgets an attendee of whom nothing is there, and nothing is to be.
    fn forget(&mut self, id: &Bytes) {
        let is_gone = self.attendees.get(id).is_some_and(|attendee| {
            attendee.wanted.is_none() && attendee.traces.is_empty() && !attendee.is_due
        });
        if is_gone {
            self.attendees.remove(id);
        }
    }
}

impl Flips {
    fn take(&mut self, is_join: bool) -> bool {
        std::mem::take(if is_join { &mut self.occupied } else { &mut self.vacated })
    }
}

impl Attendee {
    fn be_due(&mut self, id: Bytes, due: &mut VecDeque<Bytes>) {
        if !std::mem::replace(&mut self.is_due, true) {
            due.push_back(id);
        }
    }

    /// Adds to a change what is to be written.
    fn begin(&mut self, id: Bytes, session: SessionId, change: &mut MembersChange) -> Step {
        self.is_due = false;
        let row = self.wanted.clone();
        let mut traces = self.traces.clone();
        if let Some(row) = &row {
            traces.retain(|trace| *trace != session);
            change.puts.push(row.member(session, &id));
            if !self.traces.contains(&session) {
                self.traces.push(session);
            }
            self.last = Some(row.clone());
        }
        change.removes.extend(traces.iter().map(|trace| trace.name_of(&id)));
        let is_unsure = std::mem::take(&mut self.is_unsure);
        Step { id, row, traces, is_unsure, waits: std::mem::take(&mut self.waits) }
    }

    /// What it takes in a batch, at most.
    fn bytes(&self, id_bytes: usize) -> usize {
        const NAME_BYTES: usize = 32;
        let names = (id_bytes + NAME_BYTES) * (self.traces.len() + 1);
        self.wanted.as_ref().map_or(0, |row| row.user.len() + row.info.len()) + names
    }
}

#[cfg(test)]
mod tests;
