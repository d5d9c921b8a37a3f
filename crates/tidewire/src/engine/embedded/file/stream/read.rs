//! Reading a stream: from its tail where that is enough, else from its segments.

use std::io;
use std::ops::Range as Offsets;

use super::{Stream, View};
use crate::clock::Timestamp;
use crate::engine::embedded::file::directory::Directory;
use crate::engine::embedded::file::fault::Fault;
use crate::engine::embedded::file::segment::{self, Extent};
use crate::engine::embedded::group::begin;
use crate::engine::{Direction, Page, Range, Start, Stored};
use crate::limits;

impl Stream {
    /// The page, if memory has all of it.
    pub(in super::super) fn read_tail(
        &self,
        directory: &Directory,
        range: Range,
        now: Timestamp,
    ) -> Option<Page> {
        let mut reading = {
            let view = self.view.read();
            view.is_settled(now).then(|| Reading::new(&view, view.first, range))?
        };
        while let Some(wanted) = reading.wanted() {
            let chunk = self.view.read().tail.chunk_of(reading.at())?.clone();
            let (events, _) =
                segment::decode(&chunk.bytes, directory.salt, chunk.extent, wanted.clone()).ok()?;
            reading.take(wanted, events, chunk.extent);
        }
        Some(reading.page)
    }

    /// The page. Reads from the disk.
    pub(in super::super) fn read(
        &self,
        directory: &Directory,
        range: Range,
        now: Timestamp,
    ) -> io::Result<Page> {
        let first = self.first_at(directory, now)?;
        let mut reading = Reading::new(&self.view.read(), first, range);
        while let Some(wanted) = reading.wanted() {
            match self.read_block(directory, reading.at(), wanted.clone()) {
                Ok((events, extent)) => reading.take(wanted, events, extent),
                Err(error) => {
                    // Retention may have removed it meanwhile: the page begins after it, or ends before it.
                    let first = self.view.read().first;
                    if error.kind() != io::ErrorKind::NotFound || first <= reading.at() {
                        return Err(error);
                    }
                    if !reading.skip_to(first) {
                        break;
                    }
                }
            }
        }
        Ok(reading.page)
    }

    /// The events of `wanted` in the block of offset `at`, and what the block spans.
    fn read_block(
        &self,
        directory: &Directory,
        at: u64,
        wanted: Offsets<u64>,
    ) -> io::Result<(Vec<Stored>, Extent)> {
        let segment = self.view.read().segment_of(at);
        let (segment, next_base) = segment.ok_or(io::ErrorKind::NotFound)?;
        segment.load(&directory.files, next_base)?;
        let extent = segment.extent_of(at).ok_or(io::ErrorKind::InvalidData)?;
        Ok((segment.read(&directory.files, extent, wanted)?, extent))
    }

    /// Offset of the oldest event that is kept at `now`; `last + 1` if none is.
    pub(super) fn first_at(&self, directory: &Directory, now: Timestamp) -> io::Result<u64> {
        let oldest_time = {
            let view = self.view.read();
            if view.is_settled(now) {
                return Ok(view.first);
            }
            let age_max = view.retention.age_max.filter(|_| !view.is_young(view.first, now));
            age_max.map(|age_max| now.saturating_sub(age_max))
        };
        let found = oldest_time.map(|time| self.find(directory, time)).transpose()?;
        let mut view = self.view.write();
        let mut first = view.first_by_count();
        if let Some((offset, time)) = found {
            first = first.max(offset);
            if let Some(time) = time {
                view.known_age = (offset, time);
            }
        }
        view.first = view.first.max(first.min(view.floor()));
        Ok(view.first)
    }

    /// Whether its first event is kept at `now`, as far as that is known without the disk.
    pub(in super::super) fn is_settled(&self, now: Timestamp) -> bool {
        self.view.read().is_settled(now)
    }

    /// Hides what is not kept at `now`.
    pub(in super::super) fn settle(&self, directory: &Directory, now: Timestamp) -> Result<(), Fault> {
        let fault = |error| Fault::io("read the stream in", &self.directory, error);
        self.first_at(directory, now).map(drop).map_err(fault)
    }

    /// Where a group begins that begins with `start`; an error inside if it cannot begin there.
    pub(in super::super) fn begin(
        &self,
        directory: &Directory,
        start: Start,
        now: Timestamp,
    ) -> Result<crate::Result<u64>, Fault> {
        self.settle(directory, now)?;
        let fault = |error| Fault::io("read the stream in", &self.directory, error);
        let found = match start {
            Start::Since(time) => self.seek(directory, time, now).map_err(fault)?,
            _ => 0,
        };
        Ok(begin(start, self.bounds(), |_| found))
    }

    /// The offset of the first event at or after `time` that is kept at `now`; one past the last if none is.
    pub(in super::super) fn seek(
        &self,
        directory: &Directory,
        time: Timestamp,
        now: Timestamp,
    ) -> io::Result<u64> {
        let first = self.first_at(directory, now)?;
        Ok(self.find(directory, time)?.0.max(first))
    }

    /// The first event at or after `time`, and its time; one past the last if there is none.
    fn find(&self, directory: &Directory, time: Timestamp) -> io::Result<(u64, Option<Timestamp>)> {
        let files = &directory.files;
        let (segments, last) = {
            let view = self.view.read();
            (view.segments.clone(), view.last)
        };
        let next_base = |index: usize| segments.get(index + 1).map(|next| next.base());
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let Some(segment) = segments.get(middle) else { break };
            if segment.created(files, next_base(middle))? < time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // The last segment that begins before `time` may have it, else the next one begins with it.
        for (index, segment) in segments.iter().enumerate().skip(low.saturating_sub(1)) {
            segment.load(files, next_base(index))?;
            let mut extent = segment.extent_before(time);
            while let Some(block) = extent {
                let events = segment.read(files, block, block.block.offset..block.next_offset)?;
                if let Some(event) = events.into_iter().find(|event| event.time >= time) {
                    return Ok((event.offset, Some(event.time)));
                }
                extent = segment.extent_of(block.next_offset).filter(|next| next.end > block.end);
            }
        }
        Ok((last + 1, None))
    }
}

impl View {
    /// Whether neither count nor age removes the oldest event at `now`, as far as that is known without the disk.
    fn is_settled(&self, now: Timestamp) -> bool {
        self.first >= self.floor() || (self.first >= self.first_by_count() && self.is_young(self.first, now))
    }

    /// Whether the event at `offset` is known to be within its age at `now`.
    fn is_young(&self, offset: u64, now: Timestamp) -> bool {
        let Some(age_max) = self.retention.age_max else { return true };
        let (known, time) = self.known_age;
        offset > self.last || (offset >= known && time >= now.saturating_sub(age_max))
    }
}

/// A page that is being read.
struct Reading {
    page: Page,
    /// Offsets that are not read yet.
    left: Offsets<u64>,
    direction: Direction,
    events_left: u64,
    bytes_left: usize,
}

impl Reading {
    fn new(view: &View, first: u64, range: Range) -> Self {
        Self {
            page: Page { epoch: view.epoch, first, last: view.last, ..Page::default() },
            left: range.first.max(first)..range.last.min(view.last) + 1,
            direction: range.direction,
            events_left: range.events_max.min(limits::BATCH_EVENTS_MAX) as u64,
            bytes_left: limits::BATCH_BYTES_MAX,
        }
    }

    /// The offset to read next.
    fn at(&self) -> u64 {
        match self.direction {
            Direction::Forwards => self.left.start,
            Direction::Backwards => self.left.end.saturating_sub(1),
        }
    }

    /// The offsets to read next; `None` if the page is complete.
    fn wanted(&self) -> Option<Offsets<u64>> {
        if self.left.is_empty() || self.events_left == 0 {
            return None;
        }
        let Offsets { start, end } = self.left;
        Some(match self.direction {
            Direction::Forwards => start..end.min(start.saturating_add(self.events_left)),
            Direction::Backwards => end.saturating_sub(self.events_left).max(start)..end,
        })
    }

    /// Takes the events of `wanted` that a block had, until the page is full.
    fn take(&mut self, wanted: Offsets<u64>, mut events: Vec<Stored>, extent: Extent) {
        match self.direction {
            Direction::Forwards => self.left.start = wanted.end.min(extent.next_offset),
            Direction::Backwards => {
                self.left.end = wanted.start.max(extent.block.offset);
                events.reverse();
            }
        }
        for event in events {
            let bytes = event.envelope.len();
            if bytes > self.bytes_left && !self.page.events.is_empty() {
                self.events_left = 0;
                return;
            }
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
            self.events_left = self.events_left.saturating_sub(1);
            self.page.events.push(event);
        }
    }

    /// Goes on at `first`, as nothing before it is kept any more. False if the page ends here.
    fn skip_to(&mut self, first: u64) -> bool {
        self.left.start = self.left.start.max(first);
        self.page.first = first;
        self.direction == Direction::Forwards && self.page.events.is_empty()
    }
}
