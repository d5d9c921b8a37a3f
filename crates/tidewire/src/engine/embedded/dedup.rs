//! The dedup ids that a stream remembers.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::clock::Timestamp;
use crate::engine::Dedup;
use crate::limits;

/// Dedup ids of one stream and the offsets of the appends that took effect.
///
/// Holds at most so many; past it the oldest is forgotten before its window ends.
#[derive(Debug)]
pub(super) struct DedupWindow {
    offsets: FxHashMap<Box<str>, Mark>,
    oldest_first: VecDeque<(Timestamp, Box<str>)>,
    ids_max: usize,
}

impl Default for DedupWindow {
    /// Of a stream: [`limits::DEDUP_IDS_MAX`].
    fn default() -> Self {
        Self::bounded(limits::DEDUP_IDS_MAX)
    }
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    offset: u64,
    expires: Timestamp,
}

impl DedupWindow {
    /// A window of at most so many ids.
    pub(super) fn bounded(ids_max: usize) -> Self {
        Self { offsets: FxHashMap::default(), oldest_first: VecDeque::new(), ids_max }
    }

    /// The offset of the append that took effect under this id, if its window is open at `now`.
    pub(super) fn find(&self, id: &str, now: Timestamp) -> Option<u64> {
        self.offsets.get(id).filter(|mark| mark.expires > now).map(|mark| mark.offset)
    }

    /// Remembers that `dedup` took effect at `offset`, and forgets what is past its window.
    pub(super) fn insert(&mut self, dedup: &Dedup, offset: u64, now: Timestamp) {
        self.remember(dedup.id.clone(), offset, now.saturating_add(dedup.window));
        while self.forget(now).is_some() {}
    }

    /// Remembers an id until `expires`. The bound holds after the next [`forget`](Self::forget) that answers `None`.
    pub(super) fn remember(&mut self, id: Box<str>, offset: u64, expires: Timestamp) {
        self.offsets.insert(id.clone(), Mark { offset, expires });
        self.oldest_first.push_back((expires, id));
    }

    /// Forgets the oldest id if its window is over at `now` or there are too many; `None` if none is to be forgotten.
    pub(super) fn forget(&mut self, now: Timestamp) -> Option<(Timestamp, Box<str>)> {
        let (expires, id) = self.oldest_first.front()?;
        if *expires > now && self.oldest_first.len() <= self.ids_max {
            return None;
        }
        if self.offsets.get(id).is_some_and(|mark| mark.expires == *expires) {
            self.offsets.remove(id);
        }
        self.oldest_first.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn dedup(id: &str, seconds: u64) -> Dedup {
        Dedup { id: id.into(), window: Duration::from_secs(seconds) }
    }

    #[test]
    fn an_id_is_found_until_its_window_closes() {
        let (start, mut window) = (Timestamp::from_millis(0), DedupWindow::default());
        window.insert(&dedup("a", 10), 7, start);
        assert_eq!(window.find("a", start.saturating_add(Duration::from_secs(9))), Some(7));
        assert_eq!(window.find("a", start.saturating_add(Duration::from_secs(10))), None);
    }

    #[test]
    fn the_oldest_id_is_forgotten_at_the_bound() {
        let (now, mut window) = (Timestamp::from_millis(0), DedupWindow::default());
        for offset in 0..=limits::DEDUP_IDS_MAX as u64 {
            window.insert(&dedup(&offset.to_string(), 60), offset, now);
        }
        assert_eq!(window.find("0", now), None);
        assert_eq!(window.find("1", now), Some(1));
        assert_eq!(window.offsets.len(), limits::DEDUP_IDS_MAX);
    }

    #[test]
    fn an_id_used_again_after_its_window_lives_its_new_window() {
        let (start, mut window) = (Timestamp::from_millis(0), DedupWindow::default());
        window.insert(&dedup("a", 1), 1, start);
        let later = start.saturating_add(Duration::from_secs(5));
        window.insert(&dedup("a", 10), 2, later);
        window.insert(&dedup("b", 10), 3, later);
        assert_eq!(window.find("a", later), Some(2));
    }
}
