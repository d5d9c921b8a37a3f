//! What a session holds: entries by record, in which order they are handed out, and where their events are.

use super::{
    AHEAD_MAX, BODIES_MAX, ENTRIES_MAX, IDLE_LEASE, OWN, SHELVE_AFTER, SUSPECT_CRASHES, Session, WAITING_MAX,
    WAITING_PER_RECORD,
};
use crate::bus::group::dead_letter::{DeadKind, is_replay_for_another};
use crate::bus::group::delivery::{Delivery, Parts};
use crate::bus::group::ledger::{Entry, Ledger};
use crate::bus::group::queue::{Job, Token};
use crate::clock::Timestamp;
use crate::engine::{Shelf, ShelfItem, Stored};
use crate::event::Event;
use crate::limits;
use crate::position::{Epoch, Position};

/// A record that the session holds.
pub(super) struct Holding {
    pub(super) name: Box<str>,
    pub(super) fence: u64,
    pub(super) ledger: Ledger,
    /// It differs from what was committed last.
    pub(super) is_dirty: bool,
    /// It is another session's share: nothing of it is begun any more.
    pub(super) is_leaving: bool,
}

impl Holding {
    /// The record of a session in a group without partitions.
    pub(super) fn own(name: Box<str>) -> Self {
        Self { name, fence: 0, ledger: Ledger::default(), is_dirty: false, is_leaving: false }
    }

    /// How many of its entries are ready or with a handler.
    pub(super) fn out_count(&self) -> usize {
        self.ledger.entries.values().filter(|entry| entry.is_out).count()
    }
}

impl Session {
    pub(super) fn entry_mut(&mut self, record: u16, offset: u64) -> Option<&mut Entry> {
        self.holdings.get_mut(&record)?.ledger.entries.get_mut(&offset)
    }

    fn entry(&self, record: u16, offset: u64) -> Option<&Entry> {
        self.holdings.get(&record)?.ledger.entries.get(&offset)
    }

    pub(super) fn entry_count(&self) -> usize {
        self.holdings.values().map(|holding| holding.ledger.entries.len()).sum()
    }

    /// Adds an entry that is handed out once it is committed. With order it takes its place behind those of its key.
    pub(super) fn add_entry(&mut self, record: u16, offset: u64, entry: Entry) {
        self.fresh.push((record, offset));
        if let Some(chain) = entry.chain {
            self.chains.entry(chain).or_default().insert(offset);
        }
        if let Some(due) = entry.due {
            self.waiting.insert((due, record, offset));
        }
        if let Some(holding) = self.holdings.get_mut(&record) {
            holding.ledger.entries.insert(offset, Entry { is_fresh: true, ..entry });
        }
    }

    /// Removes a settled entry; the next of its key may go on.
    pub(super) fn remove_entry(&mut self, record: u16, offset: u64) -> Option<Entry> {
        let entry = self.drop_entry(record, offset)?;
        if let Some(chain) = entry.chain
            && let Some(next) = self.chains.get(&chain).and_then(|offsets| offsets.first().copied())
        {
            self.activate(record, next);
        }
        Some(entry)
    }

    /// Removes an entry, and lets the next of its key be.
    pub(super) fn drop_entry(&mut self, record: u16, offset: u64) -> Option<Entry> {
        let holding = self.holdings.get_mut(&record)?;
        let entry = holding.ledger.entries.remove(&offset)?;
        holding.is_dirty = true;
        self.pending.is_due = true;
        if entry.is_out {
            self.out_count -= 1;
        }
        if let Some(due) = entry.due {
            self.waiting.remove(&(due, record, offset));
        }
        if let Some(epoch) = entry.shelved {
            self.pending.removes.push((Shelf::Waiting, shelf_key(epoch, offset)));
        }
        self.bodies.remove(&(record, offset));
        self.wanted.remove(&offset);
        if let Some(chain) = entry.chain
            && let Some(offsets) = self.chains.get_mut(&chain)
        {
            offsets.remove(&offset);
            if offsets.is_empty() {
                self.chains.remove(&chain);
            }
        }
        Some(entry)
    }

    /// Which entries there are in a range. One whose event was lost with its epoch, but for the shelf, gives way to what
    /// has its offset now, and is told.
    pub(super) fn known_in(&mut self, record: u16, first: u64, last: u64) -> Vec<u64> {
        let (mut here, mut gone) = (Vec::new(), Vec::new());
        // Without order an offset is in one of the records, whichever that is.
        let is_meant = |of: &u16| *of == record || self.opening.partitions == 0;
        for (of, holding) in self.holdings.iter().filter(|(of, _)| is_meant(of)) {
            for (offset, entry) in holding.ledger.entries.range(first..=last) {
                match entry.shelved.filter(|epoch| *epoch != self.epoch) {
                    Some(epoch) => gone.push((*of, Position { epoch, offset: *offset })),
                    None => here.push(*offset),
                }
            }
        }
        for (of, position) in gone {
            self.drop_entry(of, position.offset);
            self.miss_of(position);
        }
        here.sort_unstable();
        here
    }

    /// Hands an entry out if nothing is before it.
    pub(super) fn activate(&mut self, record: u16, offset: u64) {
        let Some(holding) = self.holdings.get(&record) else { return };
        let Some(entry) = holding.ledger.entries.get(&offset) else { return };
        let is_next = entry.chain.is_none_or(|chain| {
            self.chains.get(&chain).is_none_or(|offsets| offsets.first() == Some(&offset))
        });
        let is_waiting = entry.is_fresh || entry.due.is_some() || !is_next;
        if entry.is_out || is_waiting || holding.is_leaving || self.is_ending {
            return;
        }
        match self.bodies.remove(&(record, offset)) {
            Some(stored) => self.ready(record, stored),
            None => drop(self.wanted.insert(offset, record)),
        }
    }

    /// The event of an entry is there: it is decoded, and goes to the handlers or, if it cannot, to the dead letters.
    pub(super) fn ready(&mut self, record: u16, stored: Stored) {
        let offset = stored.offset;
        let Some(entry) = self.entry(record, offset).cloned() else { return };
        let now = self.engine_now();
        let event = match Event::try_from(stored.envelope.clone()) {
            Ok(event) => event,
            Err(error) => {
                let reason = format!("cannot be decoded: {error}");
                self.die(record, &stored, DeadKind::Undecodable, &reason);
                return;
            }
        };
        if is_replay_for_another(&event, &self.path) {
            self.remove_entry(record, offset);
            return;
        }
        if entry.attempts >= self.attempts_max(&entry) {
            let kind = if entry.crashes > 0 { DeadKind::CrashedProcess } else { DeadKind::AttemptsUsedUp };
            let reason = entry.error.clone();
            self.die(record, &stored, kind, &reason);
            return;
        }
        let place = (record, offset);
        if entry.crashes >= SUSPECT_CRASHES && !self.suspects.contains(&place) {
            self.suspects.push_back(place);
        }
        let is_alone = self.suspects.front() == Some(&place) && self.out_count == 0;
        if !self.suspects.is_empty() && !is_alone {
            self.bodies.insert(place, stored);
            self.deferred.push(place);
            return;
        }
        if entry.is_spared {
            self.expose(place, stored);
            return;
        }
        if self.settings.dedup.is_some() && !self.twins.admit(event.id(), place) {
            self.keep_body(record, stored);
            return;
        }
        let job = self.job(record, &entry, stored.offset, stored.time, event, now);
        if self.settings.dedup.is_some() {
            self.unchecked.push(job);
        } else {
            self.push(job);
        }
        if let Some(entry) = self.entry_mut(record, offset) {
            entry.is_out = true;
        }
        self.out_count += 1;
    }

    /// A suspect is handed out once it is committed that the next crash is of its making.
    fn expose(&mut self, place: (u16, u64), stored: Stored) {
        let (record, offset) = place;
        if let Some(holding) = self.holdings.get_mut(&record)
            && let Some(entry) = holding.ledger.entries.get_mut(&offset)
        {
            (entry.is_spared, holding.is_dirty) = (false, true);
            self.bodies.insert(place, stored);
            self.fresh.push(place);
        }
    }

    /// Attempts that a delivery has: one that only ever ended with its process may have been innocent of that.
    fn attempts_max(&self, entry: &Entry) -> u32 {
        let most = self.settings.retries.attempts_max.max(1);
        if entry.attempts == entry.crashes { most.max(SUSPECT_CRASHES + 1) } else { most }
    }

    pub(super) fn push(&self, job: Job) {
        self.queue.push([job]);
    }

    fn job(
        &self,
        record: u16,
        entry: &Entry,
        offset: u64,
        time: Timestamp,
        event: Event,
        now: Timestamp,
    ) -> Job {
        let fence =
            self.holdings.get(&record).map_or(0, |holding| holding.fence).max(entry.fence).max(self.fence);
        let delivery = Delivery::new(Parts {
            group: self.shared.clone(),
            position: self.position_of(entry, offset),
            time,
            event,
            attempt: entry.attempts + 1,
            first_delivered: entry.first.unwrap_or(now),
            fence,
            emitted: Default::default(),
        });
        Job { token: Token { session: self.serial, record, offset }, delivery }
    }

    /// Where the event of an entry was appended.
    pub(super) fn position_of(&self, entry: &Entry, offset: u64) -> Position {
        Position { epoch: entry.shelved.unwrap_or(self.epoch), offset }
    }

    /// What was handed out comes back as if it had not been.
    pub(super) fn put_back(&mut self, token: Token) {
        if token.session != self.serial {
            return;
        }
        if let Some(entry) = self.entry_mut(token.record, token.offset)
            && entry.is_out
        {
            entry.is_out = false;
            self.out_count -= 1;
            self.wanted.insert(token.offset, token.record);
            self.twins.release_at((token.record, token.offset));
        }
    }

    /// Has an entry wait until `due`; for long, its event goes to the shelf.
    pub(super) fn set_aside(&mut self, record: u16, stored: Stored, due: Timestamp) {
        let offset = stored.offset;
        let is_long = due.since(self.engine_now()) > SHELVE_AFTER;
        let epoch = self.epoch;
        let record = if is_long { self.move_to_wait(record, offset) } else { record };
        let Some(entry) = self.entry_mut(record, offset) else { return };
        entry.due = Some(due);
        let is_new_there = is_long && entry.shelved.is_none();
        if is_new_there {
            entry.shelved = Some(epoch);
        }
        self.waiting.insert((due, record, offset));
        if is_new_there {
            self.pending.puts.push(shelve(shelf_key(epoch, offset), &stored));
        } else if !is_long {
            self.keep_body(record, stored);
        }
    }

    /// Without order, moves an entry to a record of those that wait: the one of those that are at work is written with every
    /// turn and stays small. Gives the record that it is in then.
    fn move_to_wait(&mut self, record: u16, offset: u64) -> u16 {
        if self.opening.partitions > 0 || record != OWN {
            return record;
        }
        let to = self.record_to_wait_in();
        let Some(entry) = self.holdings.get_mut(&record).and_then(|held| held.ledger.entries.remove(&offset))
        else {
            return record;
        };
        if let Some(holding) = self.holdings.get_mut(&to) {
            holding.ledger.entries.insert(offset, entry);
            holding.is_dirty = true;
        }
        to
    }

    /// The record that takes one more entry that waits.
    pub(super) fn record_to_wait_in(&mut self) -> u16 {
        let has_room = self.holdings.get(&self.waiting_in).is_some_and(|holding| {
            self.waiting_in != OWN && holding.ledger.entries.len() < WAITING_PER_RECORD
        });
        if !has_room {
            // Numbers come again only after thousands of others, when nothing is left under them.
            let mut next = (1..u16::MAX).map(|step| self.waiting_in.wrapping_add(step));
            let free = next.find(|record| *record != OWN && !self.holdings.contains_key(record));
            self.waiting_in = free.unwrap_or(OWN);
            let name = format!("{}.{}", self.name, self.waiting_in).into();
            self.holdings.entry(self.waiting_in).or_insert_with(|| Holding::own(name));
        }
        self.waiting_in
    }

    /// Keeps an event in memory if there is room; else it is read again.
    pub(super) fn keep_body(&mut self, record: u16, stored: Stored) {
        if self.bodies.len() < BODIES_MAX {
            self.bodies.insert((record, stored.offset), stored);
        }
    }

    /// Hands out what has waited long enough, and a suspect when nothing else is out.
    pub(super) fn hand_out(&mut self) {
        let now = self.engine_now();
        while let Some(&(due, record, offset)) = self.waiting.first()
            && due <= now
        {
            self.waiting.pop_first();
            // Committed as no longer waiting before it is handed out, so that an end of this process counts as an attempt.
            if let Some(holding) = self.holdings.get_mut(&record)
                && let Some(entry) = holding.ledger.entries.get_mut(&offset)
            {
                (entry.due, entry.is_fresh) = (None, true);
                holding.is_dirty = true;
                self.fresh.push((record, offset));
            }
        }
        self.hand_out_suspects();
        for (record, offset) in self.twins.take_waiting() {
            self.activate(record, offset);
        }
        self.queue.set_low(self.target / 2);
    }

    /// Hands out the first suspect when nothing else is out, and what waited for suspects when there is none left.
    fn hand_out_suspects(&mut self) {
        while let Some(&(record, offset)) = self.suspects.front() {
            if self.out_count > 0 {
                return;
            }
            match self.entry(record, offset) {
                Some(entry) if entry.due.is_none() => return self.activate(record, offset),
                // Settled, or it waits.
                _ => drop(self.suspects.pop_front()),
            }
        }
        for (record, offset) in std::mem::take(&mut self.deferred) {
            self.activate(record, offset);
        }
    }

    /// Deliveries that the session has room for.
    pub(super) fn room(&self) -> usize {
        let own = self.holdings.get(&OWN).map_or(0, |holding| holding.ledger.entries.len());
        let most = if self.opening.partitions == 0 { WAITING_MAX } else { ENTRIES_MAX };
        if !self.suspects.is_empty() || own >= ENTRIES_MAX || self.entry_count() >= most {
            return 0;
        }
        let busy = self.out_count + self.wanted.len() + self.fresh.len();
        self.target.saturating_sub(busy).min(limits::BATCH_EVENTS_MAX)
    }

    /// Takes more ahead while the handlers run out of work, and less when they do not.
    pub(super) fn adapt(&mut self, wanted: usize, got: usize) {
        let ready = self.queue.len();
        let is_quick = 2 * std::mem::take(&mut self.settled_count) >= self.target;
        if wanted > 0 && got >= wanted && is_quick && ready <= self.target / 4 {
            self.target = (self.target * 2).min(AHEAD_MAX.max(self.settings.concurrency));
        } else if ready > self.target / 2 && self.target > self.settings.concurrency {
            self.target = (self.target - self.target / 16).max(self.settings.concurrency);
        }
    }

    /// How long the session holds on without another turn: what nobody waits for may take longer.
    pub(super) fn lease_of(&self, claim: usize) -> std::time::Duration {
        let is_idle = claim == 0 && self.opening.partitions == 0 && self.entry_count() == 0;
        if is_idle { IDLE_LEASE.max(self.settings.lease) } else { self.settings.lease }
    }

    /// Which record an event is in.
    pub(super) fn record_of(&self, offset: u64, chain: Option<u64>) -> u16 {
        match self.opening.partitions {
            0 => OWN,
            partitions => partition_of(offset, chain, partitions),
        }
    }
}

/// With order: the partition that an event is in.
pub(in crate::bus::group) fn partition_of(offset: u64, chain: Option<u64>, partitions: u16) -> u16 {
    u16::try_from(chain.unwrap_or(offset) % u64::from(partitions.max(1))).unwrap_or_default()
}

/// The key of an event on the shelf.
pub(super) fn shelf_key(epoch: Epoch, offset: u64) -> Box<str> {
    Position { epoch, offset }.to_string().into()
}

/// An event on the shelf: when it was appended (ms, 8 bytes, big-endian), and its envelope.
pub(super) fn shelve(key: Box<str>, stored: &Stored) -> ShelfItem {
    let mut bytes = Vec::with_capacity(8 + stored.envelope.len());
    bytes.extend_from_slice(&stored.time.as_millis().to_be_bytes());
    bytes.extend_from_slice(&stored.envelope);
    ShelfItem { shelf: Shelf::Waiting, key, bytes: bytes.into() }
}

/// The event that was shelved at `offset`; none of other bytes.
pub(super) fn unshelve(offset: u64, item: &ShelfItem) -> Option<Stored> {
    let (time, _) = item.bytes.split_first_chunk::<8>()?;
    let time = Timestamp::from_millis(u64::from_be_bytes(*time));
    Some(Stored { offset, time, envelope: item.bytes.slice(8..) })
}
