//! One turn: what it asks of the engine, and what follows from the answer.

use std::collections::BTreeSet;

use super::holding::unshelve;
use super::{LINGER, OWN, READS_MAX, Session};
use crate::bus::GapReason;
use crate::bus::group::counters::add;
use crate::bus::group::ledger::Entry;
use crate::engine::{Commit, ShelfItem, Turn, Turned};
use crate::position::{Epoch, Position};

impl Session {
    /// Whether there is something that a turn should do now.
    pub(super) fn is_turn_due(&self) -> bool {
        let now = self.bus.clock.now();
        if now >= self.turned_at.saturating_add(self.lease / 3) || self.look_at.is_some_and(|at| at <= now) {
            return true;
        }
        if !self.unchecked.is_empty() || !self.wanted.is_empty() || !self.fresh.is_empty() {
            return true;
        }
        let is_short = self.queue.len() <= self.target / 2;
        // Without a partition there is nothing to read, whatever there is.
        let can_take = self.opening.partitions == 0 || self.next_to_read().is_some();
        if self.is_unbalanced || (self.may_have_more && can_take && is_short && self.room() > 0) {
            return true;
        }
        self.pending.is_due && (is_short || now >= self.turned_at.saturating_add(LINGER))
    }

    /// Puts together what is to be done since the last turn.
    pub(super) fn build(&mut self, is_last: bool) -> Turn {
        self.let_go();
        let is_taking = !is_last && !self.is_ending;
        let is_claiming = self.opening.partitions == 0 && self.may_have_more && is_taking;
        let claim = if is_claiming { self.room() } else { 0 };
        let ids = self.unchecked.iter().map(|job| job.delivery.event().id().to_string().into());
        let mut turn = Turn {
            session: self.name.clone(),
            number: self.number + 1,
            lease: self.lease_of(claim),
            lookups: ids.collect(),
            puts: std::mem::take(&mut self.pending.puts),
            removes: std::mem::take(&mut self.pending.removes),
            marks: std::mem::take(&mut self.pending.marks),
            claim,
            adopt: if is_taking { self.adopt_count() } else { 0 },
            is_last,
            ..Turn::default()
        };
        self.pending.is_due = false;
        self.committing.following.append(&mut self.pending.following);
        self.committing.kept.append(&mut self.pending.kept);
        self.commit(&mut turn);
        if is_taking {
            self.read(&mut turn);
        }
        turn
    }

    fn commit(&mut self, turn: &mut Turn) {
        let is_ordered = self.opening.partitions > 0;
        for holding in self.holdings.values_mut() {
            if !holding.is_dirty {
                continue;
            }
            holding.is_dirty = false;
            holding.ledger.epoch = self.epoch;
            let is_empty = !is_ordered && holding.ledger.entries.is_empty();
            turn.commits.push(Commit {
                record: holding.name.clone(),
                state: (!is_empty).then(|| holding.ledger.encode()),
                floor: holding.ledger.floor(),
                is_released: holding.is_leaving && holding.out_count() == 0,
            });
        }
        let absorbed = self.absorbed.iter().map(|record| Commit {
            record: record.clone(),
            state: None,
            floor: u64::MAX,
            is_released: false,
        });
        turn.commits.extend(absorbed);
    }

    /// What is to be read: events of entries that are not in memory, and with order what comes next.
    fn read(&mut self, turn: &mut Turn) {
        let in_stream = self.wanted.iter().filter(|(offset, record)| {
            let entry = self.holdings.get(record).and_then(|held| held.ledger.entries.get(offset));
            entry.is_some_and(|entry| entry.shelved.is_none())
        });
        for (&offset, _) in in_stream.take(READS_MAX) {
            match turn.reads.last_mut() {
                Some((_, last)) if *last + 1 == offset => *last = offset,
                _ => turn.reads.push((offset, offset)),
            }
        }
        self.ahead = self.next_to_read().filter(|_| self.may_have_more).and_then(|next| {
            let room = self.room() as u64;
            (room > 0).then(|| (next, next.saturating_add(room - 1)))
        });
        turn.reads.extend(self.ahead);
    }

    /// Does what follows from a turn that the engine has taken.
    pub(super) fn absorb(&mut self, turn: &Turn, turned: &Turned) {
        self.number = turn.number;
        self.lease = turn.lease;
        self.engine_time = turned.now;
        self.look_at = turned.look_again.map(|after| self.turned_at.saturating_add(after));
        // What follows from settlements is committed, whatever became of the stream.
        self.to_make.append(&mut self.committing.following);
        for kept in self.committing.kept.drain(..) {
            // Who asked may have gone, which is their affair.
            let _gone = kept.send(()).is_err();
        }
        if self.epoch != turned.epoch && self.epoch != Epoch::default() {
            tracing::warn!(group = %self.path, epoch = %turned.epoch, "the stream goes on under another epoch");
            self.is_astray = true;
            return;
        }
        self.epoch = turned.epoch;
        self.absorbed.clear();
        self.twins.committed();
        self.sessions = turned.sessions;
        self.floor = turned.floor;
        if turn.number == 1 {
            self.fence = turned.fence;
            self.tell_of_history();
        }
        self.forget_released(turn);
        // What was committed can be handed out now.
        for (record, offset) in std::mem::take(&mut self.fresh) {
            if let Some(entry) = self.entry_mut(record, offset) {
                entry.is_fresh = false;
            }
            self.activate(record, offset);
        }
        self.check_marks(&turned.marked);
        self.absorb_claim(turn, turned);
        self.absorb_reads(turn, turned);
        turned.adopted.iter().for_each(|adopted| self.adopt(adopted, turned.generation));
        self.follow_generation(turned.generation);
        // Whatever became of a wake: the stream says whether there is more.
        self.may_have_more |= self.next_to_read().is_some_and(|next| next <= turned.last);
        self.is_unbalanced = self.is_share_wrong(turned.free);
    }

    /// Drops deliveries whose id was handled before; hands out the others.
    fn check_marks(&mut self, marked: &[bool]) {
        let jobs: Vec<_> = self.unchecked.drain(..marked.len().min(self.unchecked.len())).collect();
        for (job, is_marked) in jobs.into_iter().zip(marked) {
            if *is_marked {
                add(&self.counters.duplicates, 1);
                self.twins.release(job.delivery.event().id());
                self.remove_entry(job.token.record, job.token.offset);
            } else {
                self.queue.push([job]);
            }
        }
    }

    fn absorb_claim(&mut self, turn: &Turn, turned: &Turned) {
        if let Some((first, last)) = turned.skipped {
            self.miss(first, last);
        }
        let count = turned.claimed.map_or(0, |(first, last)| last + 1 - first);
        if turn.claim > 0 {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            self.adapt(turn.claim, count);
            self.may_have_more = count >= turn.claim;
        }
        let Some((first, last)) = turned.claimed else { return };
        // Where the group was moved back, some of it may be here: what is in flight or waits is let be.
        let known = self.known_in(OWN, first, last);
        let is_new = |offset: &u64| known.binary_search(offset).is_err();
        if let Some(own) = self.holdings.get_mut(&OWN) {
            let new = (first..=last).filter(is_new).map(|offset| (offset, Entry::default()));
            own.ledger.entries.extend(new);
        }
        // Until its event is there an entry is wanted; most events are there.
        let mut expected = first;
        for stored in turned.events.iter().filter(|stored| (first..=last).contains(&stored.offset)) {
            self.wanted.extend((expected..stored.offset).filter(is_new).map(|offset| (offset, OWN)));
            expected = stored.offset + 1;
            if is_new(&stored.offset) {
                self.ready(OWN, stored.clone());
            }
        }
        self.wanted.extend((expected..=last).filter(is_new).map(|offset| (offset, OWN)));
        self.forget_gone(turned, first, last);
    }

    fn absorb_reads(&mut self, turn: &Turn, turned: &Turned) {
        let ahead = self.ahead.take();
        let reads = turn.reads.iter().filter(|range| Some(**range) != ahead);
        for (first, last) in reads.copied() {
            for stored in turned.events.iter().filter(|stored| (first..=last).contains(&stored.offset)) {
                if let Some(record) = self.wanted.remove(&stored.offset) {
                    self.ready(record, stored.clone());
                }
            }
            self.forget_gone(turned, first, last);
        }
        if let Some((first, last)) = ahead {
            self.read_ahead(turned, first, last);
            // Only who has asked for more than there is hears of the next append.
            self.may_have_more = last <= turned.last;
        }
    }

    /// Entries whose events were asked for and are neither there nor left for another turn have lost them.
    fn forget_gone(&mut self, turned: &Turned, first: u64, last: u64) {
        let is_unread =
            |offset: u64| turned.unread.iter().any(|(first, last)| (*first..=*last).contains(&offset));
        let wanted = self.wanted.range(first..=last).map(|(offset, record)| (*offset, *record));
        let gone: Vec<(u64, u16)> = wanted.filter(|(offset, _)| !is_unread(*offset)).collect();
        for (offset, record) in gone {
            // Only what the stream should have; what is on the shelf is read there.
            if self.entry_mut(record, offset).is_some_and(|entry| entry.shelved.is_none()) {
                self.remove_entry(record, offset);
                self.miss(offset, offset);
            }
        }
    }

    /// Takes over events that waited on the shelf.
    pub(super) fn unshelve(&mut self, wanted: Vec<(u64, u16, Box<str>)>, items: &[ShelfItem]) {
        // A page may end early; what it does not have though others behind it are there is gone.
        let found: BTreeSet<&str> = items.iter().map(|item| &*item.key).collect();
        let is_whole = items.len() == wanted.len() || items.is_empty();
        for (offset, record, key) in wanted {
            let item = items.iter().find(|item| item.key == key);
            match item.and_then(|item| unshelve(offset, item)) {
                Some(stored) => {
                    self.wanted.remove(&offset);
                    self.ready(record, stored);
                }
                None if is_whole || found.iter().any(|found| **found > *key) => {
                    self.remove_entry(record, offset);
                    self.miss(offset, offset);
                }
                None => {}
            }
        }
    }

    /// Counts and tells of events that the group does not get.
    pub(super) fn miss(&mut self, first: u64, last: u64) {
        add(&self.counters.missed, last + 1 - first);
        self.tell(Some(self.stored(first)), Some(self.stored(last)), GapReason::Trimmed);
    }

    /// Counts and tells of an event that was lost with the history it was in.
    pub(super) fn miss_of(&mut self, position: Position) {
        add(&self.counters.missed, 1);
        self.tell(Some(position), Some(position), GapReason::HistoryLost);
    }
}
