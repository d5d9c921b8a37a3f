//! What was written against what was heard and what is kept: the rules, without anything that runs.

use std::collections::{BTreeMap, BTreeSet};

use tidewire::{Durability, Epoch, Gap, GapReason, Position};

use crate::schedule::Loss;

/// An event of the load: who wrote it, and the how many-th of theirs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) writer: usize,
    pub(crate) number: u64,
}

/// What came of an append.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) event: Event,
    /// None where it is not known whether it was appended.
    pub(crate) position: Option<Position>,
    pub(crate) durability: Durability,
}

/// What a subscription yielded of one stream.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Kept(Position, Event),
    Gap(Gap),
}

/// One subscription, as far as it goes for one stream.
#[derive(Clone, Debug)]
pub(crate) struct Ear {
    pub(crate) name: String,
    /// Whether it began with the oldest event, when others were there already.
    pub(crate) is_late: bool,
    pub(crate) heard: Vec<Heard>,
}

/// All that is known of one stream.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) loss: Loss,
    pub(crate) written: Vec<Written>,
    pub(crate) ears: Vec<Ear>,
    /// What the stream keeps at the end: its epoch, and events with their offsets as they were read.
    pub(crate) epoch: Epoch,
    pub(crate) kept: Vec<(u64, Event)>,
}

impl Ear {
    /// What was heard at an offset and beside it, and of losses.
    fn around(&self, offset: u64) -> Vec<&Heard> {
        let is_near = |heard: &&Heard| match heard {
            Heard::Kept(position, _) => position.offset.abs_diff(offset) <= 1,
            Heard::Gap(gap) => gap.reason == GapReason::HistoryLost,
        };
        self.heard.iter().filter(is_near).collect()
    }
}

impl History {
    /// Every rule that was broken, as a sentence.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.check_kept(&mut found);
        self.check_written(&mut found);
        for ear in &self.ears {
            self.check_order(ear, &mut found);
            self.check_whole(ear, &mut found);
        }
        found
    }

    /// Contiguous, each event once, each writer's in order.
    fn check_kept(&self, found: &mut Vec<String>) {
        let mut places = BTreeMap::new();
        let mut newest = BTreeMap::new();
        for (index, (offset, event)) in self.kept.iter().enumerate() {
            if *offset != index as u64 + 1 {
                found.push(format!("offset {offset} is the {}. of the stream", index + 1));
                return;
            }
            if let Some(before) = places.insert(*event, *offset) {
                found.push(format!("{event:?} is kept twice, at {before} and {offset}"));
            }
            if newest.insert(event.writer, event.number).is_some_and(|before| before > event.number) {
                found.push(format!("{event:?} at {offset} is kept after a later one of its writer"));
            }
        }
    }

    /// What is confirmed is there, at its position; but for what the faults may lose.
    fn check_written(&self, found: &mut Vec<String>) {
        for Written { event, position, durability } in &self.written {
            let Some(position) = position else { continue };
            let there = self.at(position.offset);
            if there == Some(*event) {
                continue;
            }
            let may_be_lost = match self.loss {
                Loss::Nothing => false,
                Loss::Unreplicated => *durability == Durability::Fast,
                Loss::Everything => true,
            };
            if position.epoch == self.epoch {
                found.push(format!("{event:?} was confirmed at {position}, where {there:?} is"));
            } else if !may_be_lost {
                found.push(format!("{event:?}, confirmed at {position} ({durability:?}), is lost"));
            }
        }
    }

    /// Offsets follow one another; only a loss that is told begins anew.
    fn check_order(&self, ear: &Ear, found: &mut Vec<String>) {
        let mut last: Option<Position> = None;
        let (mut ever, mut since_loss) = (BTreeSet::new(), BTreeSet::new());
        for heard in &ear.heard {
            match heard {
                Heard::Gap(gap) => match gap.reason {
                    GapReason::HistoryLost if self.loss == Loss::Nothing => {
                        found.push(format!("{}: told of a loss that was none: {gap:?}", ear.name));
                        last = None;
                    }
                    GapReason::HistoryLost => {
                        last = None;
                        since_loss.clear();
                    }
                    // Live events only.
                    GapReason::LinkLost | GapReason::Overflow(_) => {}
                    _ => found.push(format!("{}: nothing was trimmed or damaged: {gap:?}", ear.name)),
                },
                Heard::Kept(position, event) => {
                    if let Some(last) = last
                        && !self.follows(last, *position, &ever)
                    {
                        found.push(format!("{}: {position} {event:?} after {last:?}", ear.name));
                    }
                    if !since_loss.insert(*event) {
                        found.push(format!("{}: {event:?} heard twice, again at {position}", ear.name));
                    }
                    ever.insert(*event);
                    last = Some(*position);
                }
            }
        }
    }

    /// Whether nothing is missing between two positions but what was `heard` before it was lost and appended again.
    fn follows(&self, last: Position, next: Position, heard: &BTreeSet<Event>) -> bool {
        let is_heard =
            |offset| self.was_at(Position { offset, ..last }).is_none_or(|event| heard.contains(&event));
        last.epoch == next.epoch && last.offset < next.offset && (last.offset + 1..next.offset).all(is_heard)
    }

    /// All that is kept was heard; what was confirmed and is lost was heard, or its loss was told.
    fn check_whole(&self, ear: &Ear, found: &mut Vec<String>) {
        let (mut heard, mut losses) = (BTreeSet::new(), Vec::new());
        let mut first = None;
        for item in &ear.heard {
            match item {
                Heard::Kept(position, event) => {
                    first.get_or_insert(position.offset);
                    heard.insert(*event);
                }
                Heard::Gap(gap) if gap.reason == GapReason::HistoryLost => losses.push(gap.from),
                Heard::Gap(_) => {}
            }
        }
        let first = first.unwrap_or(1);
        let missing: Vec<_> = self
            .kept
            .iter()
            .filter(|(offset, _)| ear.is_late || !losses.is_empty() || *offset >= first)
            .filter(|(_, event)| !heard.contains(event))
            .collect();
        if let (Some(from), Some(to)) = (missing.first(), missing.last()) {
            let count = missing.len();
            let around = ear.around(from.0);
            found.push(format!(
                "{}: {count} kept events were not heard, {from:?} to {to:?}, but {around:?}",
                ear.name
            ));
        }
        let is_told = |lost: &Position| {
            losses.iter().flatten().any(|from| from.epoch != lost.epoch || from.offset <= lost.offset)
        };
        for Written { event, position, .. } in &self.written {
            let Some(position) = position else { continue };
            let is_lost = self.at(position.offset) != Some(*event);
            if is_lost && !ear.is_late && !heard.contains(event) && !is_told(position) {
                found.push(format!("{}: {event:?} at {position} is lost, not heard, not told", ear.name));
            }
        }
    }

    /// What was at a position; of an epoch that is lost, only those tell who were told or heard of it.
    fn was_at(&self, position: Position) -> Option<Event> {
        if position.epoch == self.epoch {
            return self.at(position.offset);
        }
        let written = self.written.iter().find(|written| written.position == Some(position));
        let mut heard = self.ears.iter().flat_map(|ear| &ear.heard);
        let heard = || {
            heard.find_map(|heard| match heard {
                Heard::Kept(at, event) if *at == position => Some(*event),
                _ => None,
            })
        };
        written.map(|written| written.event).or_else(heard)
    }

    fn at(&self, offset: u64) -> Option<Event> {
        let index = usize::try_from(offset).ok()?.checked_sub(1)?;
        self.kept.get(index).map(|(_, event)| *event)
    }
}

/// One caller's entry: what it wrote and what it may find.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    last_confirmed: Option<u64>,
    /// Puts of which it is not known whether, or when, they took effect.
    unknown: BTreeSet<u64>,
    tried: u64,
}

impl Entry {
    /// The next value to put.
    pub(crate) fn next(&mut self) -> u64 {
        self.tried += 1;
        self.tried
    }

    pub(crate) fn confirmed(&mut self, value: u64) {
        self.last_confirmed = Some(value);
    }

    pub(crate) fn unknown(&mut self, value: u64) {
        self.unknown.insert(value);
    }

    /// Why this cannot be the entry's value; `owner` is how all its values begin.
    pub(crate) fn refutes(&self, loss: Loss, owner: &str, value: Option<&str>) -> Option<String> {
        let Some(value) = value else {
            let is_due = loss == Loss::Nothing && self.last_confirmed.is_some();
            return is_due.then(|| format!("{owner}: gone, but {:?} was confirmed", self.last_confirmed));
        };
        let Some(number) = value.strip_prefix(owner).and_then(|number| number.parse::<u64>().ok()) else {
            return Some(format!("{owner}: the reply is somebody else's: {value:?}"));
        };
        let may_be = Some(number) == self.last_confirmed || self.unknown.contains(&number);
        let is_own = (1..=self.tried).contains(&number);
        let is_fine = if loss == Loss::Nothing { may_be } else { is_own };
        (!is_fine)
            .then(|| format!("{owner}: found {number}, but {:?} was confirmed last", self.last_confirmed))
    }
}
