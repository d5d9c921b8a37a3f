//! One stream in memory.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use bytes::Bytes;

use super::groups::MemoryGroup;
use crate::clock::Timestamp;
use crate::engine::embedded::dedup::DedupWindow;
use crate::engine::embedded::group::{Bounds, read_turn};
use crate::engine::{
    AtBound, Direction, Page, Range, Retention, Stored, StreamStats, Trimmed, Turned, Version,
};
use crate::limits;
use crate::position::Epoch;

/// The events of one channel, oldest first; their offsets are contiguous and end at `last`.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) dedup: DedupWindow,
    pub(super) version: Option<Version>,
    pub(super) groups: BTreeMap<Box<str>, MemoryGroup>,
    events: VecDeque<Stored>,
    last: u64,
    bytes: u64,
    removed: u64,
    retention: Retention,
}

impl Stream {
    /// Appends an event, applies `retention` from now on, and returns the event's offset.
    pub(super) fn push(&mut self, now: Timestamp, envelope: Bytes, retention: Retention) -> u64 {
        self.last += 1;
        self.bytes += envelope.len() as u64;
        self.events.push_back(Stored { offset: self.last, time: now, envelope });
        self.retention = retention;
        self.expire(now);
        self.last
    }

    /// The offset of the newest event ever.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Nothing from this offset on may be removed: a group has not settled it.
    fn floor(&self) -> u64 {
        match self.retention.at_bound {
            AtBound::DropOldest => u64::MAX,
            AtBound::Block | AtBound::Reject => {
                self.groups.values().map(|kept| kept.group.floor()).min().unwrap_or(u64::MAX)
            }
        }
    }

    /// Whether a session of a group waits for an append; after this none does.
    pub(super) fn take_hunger(&mut self) -> bool {
        self.groups.values_mut().fold(false, |any, kept| kept.group.take_hunger() | any)
    }

    /// Whether an event of so many bytes finds the stream at a bound by what groups have not settled.
    pub(super) fn is_full(&mut self, now: Timestamp, bytes: usize, retention: Retention) -> bool {
        self.retention = retention;
        self.expire(now);
        let unsettled = (self.last + 1).saturating_sub(self.floor());
        unsettled > 0
            && (retention.events_max.is_some_and(|max| unsettled >= max)
                || retention
                    .bytes_max
                    .is_some_and(|max| self.bytes + bytes as u64 > max && self.first() >= self.floor()))
    }

    /// The bounds, as groups see them.
    pub(super) fn bounds(&self, epoch: Epoch) -> Bounds {
        Bounds { epoch, first: self.first(), last: self.last }
    }

    /// Reads what a turn has claimed and what it asked for.
    pub(super) fn read_turn(&self, reads: &[(u64, u64)], turned: &mut Turned) {
        let Ok(()) = read_turn(reads, turned, |range| Ok::<_, Infallible>(self.read(range)));
    }

    /// Removes what retention does not keep at `now`. The newest event stays unless its age removes it.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let Retention { events_max, age_max, bytes_max, .. } = self.retention;
        let oldest_time = age_max.map(|age| now.saturating_sub(age));
        let floor = self.floor();
        while let Some(oldest) = self.events.front().filter(|oldest| oldest.offset < floor) {
            let is_crowded = self.events.len() > 1
                && (events_max.is_some_and(|max| self.events.len() as u64 > max)
                    || bytes_max.is_some_and(|max| self.bytes > max));
            let is_old = oldest_time.is_some_and(|time| oldest.time < time);
            if !is_crowded && !is_old {
                break;
            }
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(oldest) = self.events.pop_front() {
            self.bytes -= oldest.envelope.len() as u64;
            self.removed += 1;
        }
    }

    fn first(&self) -> u64 {
        self.last + 1 - self.events.len() as u64
    }

    pub(super) fn read(&self, range: Range) -> Page {
        let (first, last) = (range.first.max(self.first()), range.last.min(self.last));
        let mut page = Page { first: self.first(), last: self.last, ..Page::default() };
        if first > last {
            return page;
        }
        #[expect(clippy::cast_possible_truncation, reason = "an index below the length of a deque fits")]
        let index = |offset: u64| (offset - self.first()) as usize;
        let wanted = self.events.range(index(first)..=index(last));
        let mut bytes = 0;
        let mut take = |event: &Stored| {
            bytes += event.envelope.len();
            let fits = page.events.is_empty() || bytes <= limits::BATCH_BYTES_MAX;
            if fits {
                page.events.push(event.clone());
            }
            fits
        };
        let count = range.events_max.min(limits::BATCH_EVENTS_MAX);
        match range.direction {
            Direction::Forwards => wanted.take(count).all(&mut take),
            Direction::Backwards => wanted.rev().take(count).all(&mut take),
        };
        page
    }

    pub(super) fn seek(&self, time: Timestamp) -> u64 {
        self.first() + self.events.partition_point(|event| event.time < time) as u64
    }

    pub(super) fn trim(&mut self, before: u64) -> Trimmed {
        let removed = before.saturating_sub(self.first()).min(self.events.len() as u64);
        for _ in 0..removed {
            self.remove_oldest();
        }
        Trimmed { removed, first: self.first() }
    }

    pub(super) fn stats(&self) -> StreamStats {
        StreamStats {
            first: self.first(),
            last: self.last,
            length: self.events.len() as u64,
            bytes: self.bytes,
            removed: self.removed,
            ..StreamStats::default()
        }
    }
}
