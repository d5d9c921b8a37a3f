//! Which records the session holds: those it adopts, and with order its share of the partitions.

use super::holding::Holding;
use super::{OWN, SUSPECT_CRASHES, Session};
use crate::bus::GapReason;
use crate::bus::group::counters::add;
use crate::bus::group::ledger::{Entry, Ledger};
use crate::bus::group::queue::Token;
use crate::engine::{Adopted, Fork, Turn, Turned};
use crate::event::Event;

/// Records without order that one turn adopts: few, for others may have more room.
const ADOPTED_MAX: usize = 4;

impl Session {
    /// How many partitions are this session's share.
    fn share(&self) -> usize {
        let partitions = u64::from(self.opening.partitions);
        usize::try_from(partitions.div_ceil(self.sessions.max(1))).unwrap_or(usize::MAX)
    }

    /// How many records to adopt, if they are free.
    pub(super) fn adopt_count(&self) -> usize {
        match self.opening.partitions {
            // Only when there is room: others may have more of it.
            0 => usize::from(self.room() > 0) * ADOPTED_MAX,
            _ => self.share().saturating_sub(self.holdings.len()),
        }
    }

    /// Whether records should change hands.
    pub(super) fn is_share_wrong(&self, free: u64) -> bool {
        (free > 0 && self.adopt_count() > 0)
            || (self.opening.partitions > 0
                && self.holdings.values().any(|held| held.is_leaving && held.out_count() == 0))
            || (self.opening.partitions > 0 && self.staying() > self.share())
    }

    fn staying(&self) -> usize {
        self.holdings.values().filter(|holding| !holding.is_leaving).count()
    }

    /// Begins to let go of partitions that are others' share, and commits those of which nothing is with a handler.
    pub(super) fn let_go(&mut self) {
        if self.opening.partitions == 0 {
            return;
        }
        let extra = self.staying().saturating_sub(self.share());
        if extra > 0 {
            let mut staying: Vec<(usize, u16)> = self
                .holdings
                .iter()
                .filter(|(_, holding)| !holding.is_leaving)
                .map(|(record, holding)| (holding.out_count(), *record))
                .collect();
            staying.sort_unstable();
            for (_, record) in staying.into_iter().take(extra) {
                if let Some(holding) = self.holdings.get_mut(&record) {
                    holding.is_leaving = true;
                }
                let back = self.queue.take_back(|token: &Token| token.record == record);
                back.into_iter().for_each(|token| self.put_back(token));
                self.wanted.retain(|_, of| *of != record);
            }
        }
        for holding in self.holdings.values_mut().filter(|holding| holding.is_leaving) {
            holding.is_dirty |= holding.out_count() == 0;
        }
    }

    /// Forgets the records that a turn let go of, and those of entries that waited when none is left.
    pub(super) fn forget_released(&mut self, turn: &Turn) {
        if self.opening.partitions == 0 {
            let is_removed = |held: &Holding| {
                held.ledger.entries.is_empty()
                    && turn.commits.iter().any(|commit| commit.state.is_none() && commit.record == held.name)
            };
            self.holdings.retain(|record, held| *record == OWN || !is_removed(held));
            return;
        }
        for commit in turn.commits.iter().filter(|commit| commit.is_released) {
            let Some(record) =
                self.holdings.iter().find(|(_, held)| held.name == commit.record).map(|(at, _)| *at)
            else {
                continue;
            };
            let Some(holding) = self.holdings.remove(&record) else { continue };
            for (offset, entry) in holding.ledger.entries {
                if let Some(chain) = entry.chain {
                    self.chains.remove(&chain);
                }
                if let Some(due) = entry.due {
                    self.waiting.remove(&(due, record, offset));
                }
                self.bodies.remove(&(record, offset));
                self.wanted.remove(&offset);
            }
            self.fresh.retain(|(of, _)| *of != record);
            self.suspects.retain(|(of, _)| *of != record);
            self.deferred.retain(|(of, _)| *of != record);
            self.twins.forget(record);
        }
    }

    /// Takes over a record that nobody held. `generation` is where the group was moved last.
    pub(super) fn adopt(&mut self, adopted: &Adopted, generation: (u64, u64)) {
        let Some(mut ledger) = Ledger::decode(&adopted.state) else {
            tracing::error!(group = %self.path, record = %adopted.name, "a record of the group is damaged: it is let be");
            return;
        };
        let claims = adopted.claims.iter().flat_map(|(first, last)| *first..=*last);
        for offset in claims {
            ledger.entries.entry(offset).or_default();
        }
        if adopted.was_lost {
            let now = self.engine_now();
            let crashed = ledger.entries.values_mut().map(|entry| entry.crash(now)).filter(|is| *is).count();
            add(&self.counters.crashed, crashed as u64);
            // Who held it may have left something in the outbox as well.
            self.outbox_at = self.bus.clock.now();
        }
        for entry in ledger.entries.values_mut() {
            entry.is_spared = entry.crashes >= SUSPECT_CRASHES;
        }
        let lost = self.part_with_history(&mut ledger);
        let entries = std::mem::take(&mut ledger.entries);
        if self.opening.partitions > 0 && ledger.next == 0 {
            // Nobody has held it yet: it begins where the group does, and from there on all is needed.
            (ledger.generation, ledger.next) = (generation.0, generation.1.max(1));
        }
        let record = if self.opening.partitions == 0 {
            self.absorbed.push(adopted.name.clone());
            OWN
        } else {
            let record = adopted.name.parse().unwrap_or_default();
            let (name, fence) = (adopted.name.clone(), adopted.fence);
            self.holdings.insert(record, Holding { name, fence, ledger, is_dirty: true, is_leaving: false });
            record
        };
        let now = self.engine_now();
        for (offset, mut entry) in entries.into_iter().chain(lost) {
            let is_of_lost_history = entry.shelved.is_some_and(|epoch| epoch != self.epoch);
            let is_waiting = entry.shelved.is_some() && entry.due.is_some_and(|due| due > now);
            let record = if is_waiting && record == OWN && self.opening.partitions == 0 {
                self.record_to_wait_in()
            } else {
                record
            };
            if let Some(holding) = self.holdings.get_mut(&record) {
                holding.is_dirty = true;
            }
            if self.known_in(record, offset, offset).is_empty() {
                entry.fence = adopted.fence;
                self.add_entry(record, offset, entry);
            } else if is_of_lost_history {
                self.miss_of(self.position_of(&entry, offset));
            }
        }
        if let Some(holding) = self.holdings.get_mut(&record) {
            holding.is_dirty = true;
        }
        self.pending.is_due = true;
        self.may_have_more = true;
    }

    /// Drops entries of a ledger whose events were lost with an earlier epoch. Gives those back whose events are on the
    /// shelf: they are delivered all the same.
    fn part_with_history(&mut self, ledger: &mut Ledger) -> Vec<(u64, Entry)> {
        if ledger.epoch == self.epoch || ledger.epoch == Default::default() {
            return Vec::new();
        }
        let fork = self.forks.iter().find(|fork| fork.epoch == ledger.epoch);
        let Fork { last, .. } = fork.copied().unwrap_or(Fork { epoch: ledger.epoch, last: 0 });
        if ledger.next > 0 {
            ledger.next = ledger.next.min(last + 1).max(1);
        }
        let gone = ledger.entries.split_off(&(last + 1));
        let (shelved, lost): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|(_, entry)| entry.shelved.is_some());
        if let (Some((first, _)), Some((end, _))) = (lost.first(), lost.last()) {
            add(&self.counters.missed, lost.len() as u64);
            let at = |offset| crate::position::Position { epoch: ledger.epoch, offset };
            self.tell(Some(at(*first)), Some(at(*end)), GapReason::HistoryLost);
        }
        shelved
    }

    /// The next offset that some partition has not looked at.
    pub(super) fn next_to_read(&self) -> Option<u64> {
        let staying = self.holdings.values().filter(|holding| !holding.is_leaving);
        let next = staying.map(|holding| holding.ledger.next).min()?;
        (self.opening.partitions > 0).then_some(next)
    }

    /// Takes over events of the partitions that were read ahead: they become entries, which are handed out once they are
    /// committed.
    pub(super) fn read_ahead(&mut self, turned: &Turned, first: u64, last: u64) {
        let unread =
            turned.unread.iter().map(|(first, _)| *first).filter(|at| (first..=last).contains(at)).min();
        let end = unread.unwrap_or(last.min(turned.last) + 1);
        if first < turned.first.min(end) {
            self.miss(first, turned.first.min(end) - 1);
        }
        let mut expected = first.max(turned.first);
        let count = |range: std::ops::Range<u64>| {
            usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
        };
        self.adapt(count(first..last + 1), count(first..end));
        for stored in turned.events.iter().filter(|stored| (first..end).contains(&stored.offset)) {
            if stored.offset > expected {
                self.miss(expected, stored.offset - 1);
            }
            expected = stored.offset + 1;
            let chain = chain_of(stored.envelope.clone());
            let record = self.record_of(stored.offset, chain);
            let Some(holding) = self.holdings.get(&record).filter(|holding| !holding.is_leaving) else {
                continue;
            };
            let is_next = stored.offset >= holding.ledger.next;
            if is_next && self.known_in(record, stored.offset, stored.offset).is_empty() {
                self.add_entry(record, stored.offset, Entry { chain, ..Entry::default() });
                self.keep_body(record, stored.clone());
            }
        }
        if expected < end {
            self.miss(expected, end - 1);
        }
        let generation = self.generation;
        for holding in self.holdings.values_mut().filter(|holding| !holding.is_leaving) {
            if holding.ledger.next < end {
                holding.ledger.next = end;
                holding.ledger.generation = generation.0;
                holding.is_dirty = true;
            }
        }
        self.pending.is_due |= end > first;
    }

    /// Goes where the group was moved to.
    pub(super) fn follow_generation(&mut self, generation: (u64, u64)) {
        let (number, to) = generation;
        self.generation = generation;
        if self.opening.partitions == 0 {
            return;
        }
        let moved: Vec<u16> = self
            .holdings
            .iter()
            .filter(|(_, held)| held.ledger.next > 0 && held.ledger.generation < number)
            .map(|(record, _)| *record)
            .collect();
        for record in moved {
            let again: Vec<u64> = match self.holdings.get_mut(&record) {
                Some(holding) => {
                    holding.ledger.next = to;
                    holding.ledger.generation = number;
                    holding.is_dirty = true;
                    let waiting = holding.ledger.entries.range(to..).filter(|(_, entry)| !entry.is_out);
                    waiting.map(|(offset, _)| *offset).collect()
                }
                None => Vec::new(),
            };
            // They come again as they are read.
            self.fresh.retain(|(of, offset)| *of != record || *offset < to);
            again.into_iter().for_each(|offset| drop(self.drop_entry(record, offset)));
            self.may_have_more = true;
        }
    }
}

/// The hash of an event's key; none if it has no key, or cannot be decoded.
pub(in crate::bus::group) fn chain_of(envelope: bytes::Bytes) -> Option<u64> {
    let event = Event::try_from(envelope).ok()?;
    event.key().map(hash_of)
}

/// By what partitions are chosen: it never changes, for records are kept under it.
///
/// FNV-1a, 64 bits (<https://datatracker.ietf.org/doc/draft-eastlake-fnv/>).
fn hash_of(key: &str) -> u64 {
    key.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
