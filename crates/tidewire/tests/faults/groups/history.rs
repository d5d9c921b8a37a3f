//! What was published against what became of it in a group: the rules, without anything that runs.

#[path = "history/order.rs"]
mod order;

use std::collections::{BTreeMap, BTreeSet};

use tidewire::DeadKind;

use super::notes::{Attempt, Note, Place, Said, Sort};
use super::plan::{ATTEMPTS_MAX, Kind, Plan, Way};
use crate::schedule::Loss;

/// Attempts that may end with a process though the event is not to blame: after so many it is handed out alone.
const CRASHES_BESIDE: usize = 2;

/// A dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) place: Place,
    pub(crate) kind: DeadKind,
}

/// All that is known of one group at the end.
pub(crate) struct History<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) kind: Kind,
    pub(crate) loss: Loss,
    /// The stream was cut off at its beginning.
    pub(crate) is_trimmed: bool,
    /// Of the whole schedule, in their order.
    pub(crate) notes: &'a [Note],
    pub(crate) dead: Vec<Dead>,
    /// What its handlers have emitted, by what they handled.
    pub(crate) made: Vec<Place>,
}

/// An attempt, and the lines of its begin and its end.
#[derive(Clone, Debug)]
struct Effect<'a> {
    attempt: &'a Attempt,
    begin: usize,
    end: Option<(usize, Said)>,
}

/// Lines between which something was wrong, and with which process; none if with servers and links.
struct Trouble {
    process: Option<u32>,
    from: usize,
    to: usize,
}

/// What the notes say, looked at from all sides.
struct Facts<'a> {
    published: BTreeMap<Place, (Sort, u64)>,
    effects: Vec<Effect<'a>>,
    by_place: BTreeMap<Place, Vec<usize>>,
    ended: BTreeMap<u32, usize>,
    troubles: Vec<Trouble>,
    /// Processes that had a session end, and where they told: of whichever group, for they share a link, and the run may be over
    /// before the others are looked at.
    lost: Vec<(u32, usize)>,
    gaps: Vec<(Option<Place>, Option<Place>, bool)>,
}

impl<'a> Facts<'a> {
    fn of(notes: &'a [Note], group: &str) -> Self {
        let mut facts = Self {
            published: BTreeMap::new(),
            effects: Vec::new(),
            by_place: BTreeMap::new(),
            ended: BTreeMap::new(),
            troubles: Vec::new(),
            lost: Vec::new(),
            gaps: Vec::new(),
        };
        let mut open: BTreeMap<(u32, Place, u32, u64), usize> = BTreeMap::new();
        let key = |attempt: &Attempt| (attempt.process, attempt.place, attempt.attempt, attempt.fence);
        for (line, note) in notes.iter().enumerate() {
            match note {
                Note::Published { sort, number, place } => {
                    facts.published.insert(*place, (*sort, *number));
                }

                Note::Begin(attempt) if attempt.group == group => {
                    facts.by_place.entry(attempt.place).or_default().push(facts.effects.len());
                    open.insert(key(attempt), facts.effects.len());
                    facts.effects.push(Effect { attempt, begin: line, end: None });
                }
                Note::End(attempt, said) if attempt.group == group => {
                    if let Some(effect) = open.remove(&key(attempt)) {
                        facts.effects[effect].end = Some((line, *said));
                    }
                }
                Note::Gap { group: of, from, to, is_loss } if of == group => {
                    facts.gaps.push((*from, *to, *is_loss))
                }
                Note::Fault { process, .. } => {
                    let to = if process.is_some() { line } else { usize::MAX };
                    facts.troubles.push(Trouble { process: *process, from: line, to });
                }
                Note::Healed => {
                    let running = facts.troubles.iter_mut().rev().find(|one| one.to == usize::MAX);
                    running.into_iter().for_each(|trouble| trouble.to = line);
                }
                Note::Ended { process } => {
                    facts.ended.insert(*process, line);
                    facts.troubles.push(Trouble { process: Some(*process), from: line, to: line });
                }
                Note::SessionLost { process, .. } => facts.lost.push((*process, line)),
                Note::Stalled { process } => {
                    // Told when it was over.
                    facts.troubles.push(Trouble { process: Some(*process), from: 0, to: line });
                }
                _ => {}
            }
        }
        facts
    }

    fn of_place(&self, place: Place) -> impl Iterator<Item = &Effect<'a>> {
        self.by_place.get(&place).into_iter().flatten().map(|&effect| &self.effects[effect])
    }

    fn acks(&self, place: Place) -> Vec<&Effect<'a>> {
        self.of_place(place).filter(|effect| matches!(effect.end, Some((_, Said::Ack)))).collect()
    }

    /// Whether what this attempt came to may never have reached the engine before a later line.
    fn may_be_lost(&self, effect: &Effect<'_>, before: usize) -> bool {
        let process = effect.attempt.process;
        // Who was held up begins with what it has, and is told later that it had lost that.
        let is_told = self.lost.iter().any(|(of, line)| *of == process && *line > effect.begin);
        self.is_troubled(process, effect.begin, before)
            || (is_told && self.is_troubled(process, 0, effect.begin))
    }

    /// Whether something was wrong with a process, or with servers and links, between two lines.
    fn is_troubled(&self, process: u32, from: usize, to: usize) -> bool {
        self.troubles.iter().any(|trouble| {
            trouble.process.is_none_or(|of| of == process) && trouble.from <= to && trouble.to >= from
        })
    }

    /// Whether the group was told that it does not get the event.
    fn is_told(&self, place: Place) -> bool {
        self.gaps.iter().any(|(from, to, is_loss)| {
            let is_after =
                from.is_none_or(|from| if from.0 == place.0 { from.1 <= place.1 } else { *is_loss });
            let is_before = to.is_none_or(|to| to.0 != place.0 || place.1 <= to.1);
            is_after && is_before
        })
    }
}

impl History<'_> {
    /// Every rule that was broken, as a sentence.
    pub(crate) fn violations(&self) -> Vec<String> {
        let facts = Facts::of(self.notes, self.kind.name);
        let mut found = Vec::new();
        self.check_settled(&facts, &mut found);
        self.check_told(&facts, &mut found);
        self.check_dead(&facts, &mut found);
        self.check_duplicates(&facts, &mut found);
        self.check_made(&facts, &mut found);
        if self.kind.partitions > 0 {
            self.check_order(&facts, &mut found);
        }
        found
    }

    /// How many attempts there were, for the report; how many of them ended in an ack of what had been acked.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let facts = Facts::of(self.notes, self.kind.name);
        let again = facts.by_place.keys().map(|place| facts.acks(*place).len().saturating_sub(1));
        (facts.effects.len(), again.sum())
    }

    fn is_dead(&self, place: Place) -> bool {
        self.dead.iter().any(|dead| dead.place == place)
    }

    /// Every confirmed event is handled, a dead letter, or told of.
    fn check_settled(&self, facts: &Facts<'_>, found: &mut Vec<String>) {
        let handled: BTreeSet<u64> = facts
            .effects
            .iter()
            .filter(|effect| matches!(effect.end, Some((_, Said::Ack))))
            .map(|effect| effect.attempt.number)
            .collect();
        for (place, (sort, number)) in &facts.published {
            let is_handled = match self.kind.is_dedup {
                true => *sort != Sort::Garbage && handled.contains(number),
                false => !facts.acks(*place).is_empty(),
            };
            // Where history was lost it may be handled at another place, and dead letters are lost with it.
            let is_dying = *sort == Sort::Garbage
                || matches!(self.plan.way(self.kind.name, *number), Way::Reject | Way::Fail | Way::Crash);
            let is_handled =
                is_handled || (self.loss != Loss::Nothing && (is_dying || handled.contains(number)));
            if !is_handled && !self.is_dead(*place) && !facts.is_told(*place) {
                found.push(format!(
                    "{sort:?} {number} at {place:?} was confirmed, and is neither handled nor told of"
                ));
            }
        }
    }

    /// Nobody is told of a loss that was none.
    fn check_told(&self, facts: &Facts<'_>, found: &mut Vec<String>) {
        for gap in &facts.gaps {
            let may_be = if gap.2 {
                self.loss != Loss::Nothing
            } else {
                self.is_trimmed || self.loss != Loss::Nothing
            };
            if !may_be {
                found.push(format!("told of a gap that was none: {gap:?}"));
            }
        }
    }

    /// Dead letters are those that should be, once each.
    fn check_dead(&self, facts: &Facts<'_>, found: &mut Vec<String>) {
        let mut places = BTreeSet::new();
        for Dead { place, kind } in &self.dead {
            // A group that was lost may give up on an event again; its dead letters are not looked through for it.
            if !places.insert(*place) && self.loss == Loss::Nothing {
                found.push(format!("{place:?} is twice in the dead letters"));
            }
            if let Some(ack) = facts.acks(*place).last()
                && !facts.may_be_lost(ack, usize::MAX)
            {
                found.push(format!("{place:?} is both handled and dead ({kind})"));
            }
            let Some((sort, number)) = facts.published.get(place).copied() else { continue };
            let way = self.plan.way(self.kind.name, number);
            let is_due = match (sort, way, kind) {
                (Sort::Garbage, _, kind) => *kind == DeadKind::Undecodable,
                (_, _, DeadKind::Undecodable) => false,
                (_, Way::Reject, DeadKind::Rejected) => true,
                (_, _, DeadKind::Rejected) => false,
                (_, Way::Fail, _) | (_, Way::Crash, DeadKind::CrashedProcess) => true,
                _ => self.may_be_blamed(facts, *place),
            };
            if !is_due {
                let attempts: Vec<_> =
                    facts.of_place(*place).map(|effect| (effect.attempt.attempt, effect.end)).collect();
                found.push(format!(
                    "{sort:?} {number} at {place:?} ({way:?}) is dead as {kind}, after {attempts:?}"
                ));
            }
        }
        if self.loss != Loss::Nothing {
            return;
        }
        for (place, (sort, number)) in &facts.published {
            let way = self.plan.way(self.kind.name, *number);
            let is_due = *sort == Sort::Garbage || matches!(way, Way::Reject | Way::Fail | Way::Crash);
            if is_due && !self.is_dead(*place) && !facts.is_told(*place) {
                found.push(format!("{sort:?} {number} at {place:?} ({way:?}) is not in the dead letters"));
            }
        }
    }

    /// Whether enough went wrong around an innocent event that its attempts could be used up.
    fn may_be_blamed(&self, facts: &Facts<'_>, place: Place) -> bool {
        // What was done to processes and servers; that some event ended one is no reason past the first times.
        let faults = self
            .notes
            .iter()
            .filter(|note| matches!(note, Note::Fault { .. } | Note::SessionLost { .. }))
            .count();
        let failed =
            facts.of_place(place).filter(|effect| matches!(effect.end, Some((_, Said::Retry)))).count();
        let beside = if self.plan.has_poison { CRASHES_BESIDE } else { 0 };
        faults + failed + beside >= ATTEMPTS_MAX as usize
    }

    /// Handled again only where the first time may not have been kept.
    fn check_duplicates(&self, facts: &Facts<'_>, found: &mut Vec<String>) {
        for place in facts.by_place.keys() {
            let acks = facts.acks(*place);
            for pair in acks.windows(2) {
                let [first, again] = pair else { continue };
                // Who was held up has it still, for as long as it does not look.
                let is_late = again.attempt.attempt <= first.attempt.attempt
                    && facts.is_troubled(again.attempt.process, 0, again.begin);
                let is_lost = facts.may_be_lost(first, again.begin);
                if !is_lost && !is_late {
                    found.push(format!(
                        "{place:?} is handled twice, by {:?} and by {:?}",
                        first.attempt, again.attempt
                    ));
                }
            }
        }
        if !self.kind.is_dedup || self.loss != Loss::Nothing {
            return;
        }
        let mut first_acks: BTreeMap<u64, &Effect<'_>> = BTreeMap::new();
        for effect in facts.effects.iter().filter(|effect| matches!(effect.end, Some((_, Said::Ack)))) {
            let Some(first) = first_acks.insert(effect.attempt.number, effect) else { continue };
            if first.attempt.place != effect.attempt.place && !facts.may_be_lost(first, effect.begin) {
                let (number, at, other) = (effect.attempt.number, effect.attempt.place, first.attempt.place);
                found.push(format!("{number} is handled at {at:?} though it was at {other:?}"));
            }
        }
    }

    /// What was emitted is there once for each event that was handled, and for no other.
    fn check_made(&self, facts: &Facts<'_>, found: &mut Vec<String>) {
        let mut made: BTreeMap<Place, usize> = BTreeMap::new();
        self.made.iter().for_each(|place| *made.entry(*place).or_default() += 1);
        for (place, count) in &made {
            if facts.acks(*place).is_empty() {
                found.push(format!("emitted for {place:?}, which was not handled"));
            }
            if *count > 1 && self.loss == Loss::Nothing {
                found.push(format!("emitted {count} times for {place:?}"));
            }
        }
        if !self.kind.emits || self.loss != Loss::Nothing {
            return;
        }
        for place in facts.by_place.keys() {
            if !facts.acks(*place).is_empty() && !made.contains_key(place) && !self.is_dead(*place) {
                found.push(format!("{place:?} was handled, and what was emitted is not there"));
            }
        }
    }
}
