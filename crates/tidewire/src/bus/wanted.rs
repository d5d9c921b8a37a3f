//! What a subscription wants next of a stream, and what it remembers of it.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashSet;

use crate::clock::Timestamp;
use crate::engine::{Seen, Stored, Term};
use crate::event;
use crate::limits;
use crate::position::Position;

/// How far back an event may have been lost that is appended again: longer than an engine is without a server that
/// writes and somebody tries.
const REMEMBERED: Duration = Duration::from_secs(30);

/// The place of a subscription in one stream.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) next: Position,
    /// The term in which the event before it was there.
    pub(super) term: Term,
    /// What was yielded last, oldest first: its offset, its time and its id.
    recent: VecDeque<(u64, Timestamp, u128)>,
    /// What was yielded, and then lost with an epoch. Who appended it and had no answer appends it again.
    lost: FxHashSet<u128>,
}

impl Wanted {
    pub(super) fn new(next: Position, term: Term) -> Self {
        Self { next, term, recent: VecDeque::new(), lost: FxHashSet::default() }
    }

    /// The end of what was yielded.
    pub(super) fn seen(&self) -> Seen {
        let offset = self.next.offset.saturating_sub(1);
        Seen { position: Position { offset, ..self.next }, term: self.term }
    }

    /// Remembers an event that is about to be yielded. False if it was yielded before, and lost in between.
    pub(super) fn is_new(&mut self, stored: &Stored) -> bool {
        // An engine without terms has no second server, and loses nothing that it has shown.
        if self.term == Term::default() {
            return true;
        }
        let Some((id, _)) = event::identity_of(&stored.envelope) else { return true };
        let is_old = |(_, time, _): &(u64, Timestamp, u128)| stored.time.since(*time) > REMEMBERED;
        while self.recent.len() >= limits::RECENT_IDS_MAX || self.recent.front().is_some_and(is_old) {
            self.recent.pop_front();
        }
        self.recent.push_back((stored.offset, stored.time, id));
        self.lost.is_empty() || !self.lost.remove(&id)
    }

    /// Goes on where another epoch does.
    pub(super) fn go_on(&mut self, next: Position, term: Term) {
        if self.lost.len() > limits::RECENT_IDS_MAX {
            self.lost.clear();
        }
        while let Some((_, _, id)) = self.recent.pop_back_if(|(offset, ..)| *offset >= next.offset) {
            self.lost.insert(id);
        }
        (self.next, self.term) = (next, term);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::Event;
    use crate::position::Epoch;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch: Epoch::from_u64(epoch), offset }
    }

    fn stored(offset: u64, millis: u64, event: &Event) -> Stored {
        Stored { offset, time: Timestamp::from_millis(millis), envelope: Bytes::from(event) }
    }

    #[test]
    fn what_was_lost_with_an_epoch_and_comes_again_is_not_new() {
        let events: Vec<_> = (0..4).map(|n| Event::new("test", n.to_string())).collect();
        let mut wanted = Wanted::new(at(1, 1), Term(7));
        for (offset, event) in (1..).zip(&events) {
            assert!(wanted.is_new(&stored(offset, 0, event)));
        }
        wanted.go_on(at(2, 3), Term(8));
        assert_eq!(wanted.seen(), Seen { position: at(2, 2), term: Term(8) });
        assert!(!wanted.is_new(&stored(3, 1, &events[3])), "lost at offset 4, again at 3");
        assert!(wanted.is_new(&stored(4, 1, &Event::new("test", "new"))));
        assert!(!wanted.is_new(&stored(5, 1, &events[2])));
        assert!(wanted.is_new(&stored(6, 1, &events[2])), "a third copy is somebody's own");
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let event = Event::new("test", "1");
        let mut wanted = Wanted::new(at(1, 1), Term(7));
        assert!(wanted.is_new(&stored(1, 0, &event)));
        assert!(wanted.is_new(&stored(2, 60_000, &Event::new("test", "2"))));
        assert_eq!(wanted.recent.len(), 1);
        for offset in 3..1_000 {
            assert!(wanted.is_new(&stored(offset, 60_000, &Event::new("test", "n"))));
        }
        assert_eq!(wanted.recent.len(), limits::RECENT_IDS_MAX);
    }
}
