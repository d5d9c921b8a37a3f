//! Copies of an event that a session has at the same time: one is handled, the others wait for what becomes of it.

use std::mem;

use rustc_hash::{FxHashMap, FxHashSet};
use uuid::Uuid;

/// Where an entry is: its record, and its offset.
type Place = (u16, u64);

/// The ids of what is with a handler or about to be, where ids are remembered.
#[derive(Default)]
pub(super) struct Twins {
    in_hand: FxHashMap<Uuid, Place>,
    /// Acknowledged by a turn that is not taken yet: until then their marks are not found.
    acked: FxHashSet<Uuid>,
    waiting: Vec<Place>,
}

impl Twins {
    /// Whether the event may go on. If not, another copy of it is in hand, and it waits.
    pub(super) fn admit(&mut self, id: Uuid, place: Place) -> bool {
        let is_free = !self.acked.contains(&id) && self.in_hand.get(&id).is_none_or(|held| *held == place);
        if is_free {
            self.in_hand.insert(id, place);
        } else {
            self.waiting.push(place);
        }
        is_free
    }

    /// A copy is out of hand without an ack: the next may go on.
    pub(super) fn release(&mut self, id: Uuid) {
        self.in_hand.remove(&id);
    }

    /// The same where only its place is known.
    pub(super) fn release_at(&mut self, place: Place) {
        self.in_hand.retain(|_, held| *held != place);
    }

    /// A copy was acknowledged. Its mark is committed with the next turn.
    pub(super) fn ack(&mut self, id: Uuid) {
        self.in_hand.remove(&id);
        self.acked.insert(id);
    }

    /// Every mark is committed.
    pub(super) fn committed(&mut self) {
        self.acked.clear();
    }

    /// A record is another session's.
    pub(super) fn forget(&mut self, record: u16) {
        self.in_hand.retain(|_, (of, _)| *of != record);
        self.waiting.retain(|(of, _)| *of != record);
    }

    /// What may look again.
    pub(super) fn take_waiting(&mut self) -> Vec<Place> {
        mem::take(&mut self.waiting)
    }
}
