//! Where a stream goes on: its active segment, and what is written to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Stream;
use super::append::{Entry, Place};
use crate::clock::Timestamp;
use crate::engine::embedded::dedup::DedupWindow;
use crate::engine::embedded::file::directory::Directory;
use crate::engine::embedded::file::record;
use crate::engine::embedded::file::segment::{
    BLOCK_BYTES, Block, Extent, RECORDS_START, Segment, SegmentHeader, VersionBefore,
};
use crate::engine::embedded::file::tail::Chunk;
use crate::engine::{Append, Effect, Retention, Version};
use crate::limits;

/// Events that a segment may hold however few a stream keeps: one batch, as the bound of retention allows.
const SEGMENT_EVENTS_MIN: u64 = limits::BATCH_EVENTS_MAX as u64;
/// Bytes that a segment may hold however few a stream keeps.
const SEGMENT_BYTES_MIN: u64 = 256 * 1024;
/// Time that a segment may span however short events are kept, so that a slow stream is not a file per event.
const SEGMENT_AGE_MIN: Duration = Duration::from_secs(60);

/// The writer's side of a stream.
pub(super) struct Appender {
    pub(super) next_offset: u64,
    /// Of the last event: times in a stream do not go back, though a clock may.
    pub(super) last_time: Timestamp,
    /// `None` until the first append.
    pub(super) active: Option<Active>,
    pub(super) dedup: DedupWindow,
    /// When the last dedup id is forgotten.
    pub(super) dedup_until: Timestamp,
    /// Of the newest record written that has one.
    pub(super) version: Option<Version>,
    pub(super) retention: Retention,
    /// What the database knows of it.
    pub(super) saved_retention: Retention,
    /// Whether the device knows the names of its files.
    pub(super) is_directory_synced: bool,
}

/// The segment that is appended to.
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    pub(super) created: Timestamp,
    pub(super) end: u64,
    /// Where its last block begins, if it has one.
    pub(super) block_start: Option<u64>,
}

/// Records that are written at once and cannot be read yet.
pub(super) struct Write {
    pub(super) segment: Arc<Segment>,
    pub(super) first: Block,
    pub(super) next_offset: u64,
    /// Blocks that begin in it.
    pub(super) blocks: Vec<Block>,
    pub(super) bytes: Vec<u8>,
}

/// When a segment is followed by a new one: at a tenth of what the stream keeps, so that dropping whole segments
/// keeps its bounds.
struct SegmentBounds {
    events: u64,
    bytes: u64,
    age: Duration,
}

impl Appender {
    /// Writes as many of `places` as go into one write, to a new segment if the active one is full. Answers how
    /// many those were, and what was written if any of them is new.
    pub(super) fn write(
        &mut self,
        stream: &Stream,
        directory: &Directory,
        places: &[Place],
        entries: &[Entry],
    ) -> io::Result<(usize, Option<Write>)> {
        let Some(first) = places.iter().find(|place| place.effect == Effect::New) else {
            return Ok((places.len(), None));
        };
        let bounds = self.segment_bounds(directory);
        let is_full = |active: &Active| bounds.are_reached(active, active.end, first.offset, first.time);
        let active = match self.active.take_if(|active| !is_full(active)) {
            Some(active) => self.active.insert(active),
            None => self.add_segment(stream, directory, first.time)?,
        };
        let mut write = Write::new(active, first);
        let mut count = 0;
        for place in places {
            let append = entries.get(place.entry).map(|entry| &entry.append);
            if let Some(append) = append.filter(|_| place.effect == Effect::New) {
                if write.is_full(active, &bounds, append) {
                    break;
                }
                write.add(active, directory, place, append);
            }
            count += 1;
        }
        let file = active.segment.open(&directory.files)?;
        directory.files.write(&file, &write.bytes, write.first.position)?;
        active.end = write.end();
        active.block_start = write.blocks.last().map(|block| block.position).or(active.block_start);
        (self.next_offset, self.last_time) = (write.next_offset, first.time);
        let written = places.iter().take(count).rev().filter(|place| place.effect == Effect::New);
        let mut versions = written.filter_map(|place| entries.get(place.entry)?.append.version.as_ref());
        if let Some(version) = versions.next() {
            self.version = Some(version.clone());
        }
        Ok((count, Some(write)))
    }

    /// Makes a new segment the active one.
    pub(super) fn add_segment(
        &mut self,
        stream: &Stream,
        directory: &Directory,
        created: Timestamp,
    ) -> io::Result<&mut Active> {
        let path = stream.path();
        std::fs::create_dir_all(path)?;
        let header = SegmentHeader {
            channel: stream.channel().as_str().into(),
            base: self.next_offset,
            epoch: stream.view().read().epoch,
            salt: directory.salt,
            created,
            dedup_until: self.dedup_until,
            version: VersionBefore::Is(self.version.clone()),
        };
        let segment = Arc::new(Segment::create(&directory.files, stream.id(), path, header)?);
        self.is_directory_synced = false;
        Ok(self.active.insert(Active { segment, created, end: RECORDS_START, block_start: None }))
    }

    /// Cuts off what a failed write may have left. False if the disk does not let it.
    pub(super) fn take_back(&self, directory: &Directory) -> bool {
        let Some(active) = &self.active else { return false };
        let cut = active.segment.open(&directory.files).and_then(|file| file.set_len(active.end));
        cut.is_ok()
    }

    fn segment_bounds(&self, directory: &Directory) -> SegmentBounds {
        let Retention { events_max, age_max, bytes_max, .. } = self.retention;
        let bytes_max = bytes_max.map_or(u64::MAX, |bytes_max| (bytes_max / 10).max(SEGMENT_BYTES_MIN));
        SegmentBounds {
            events: events_max.map_or(u64::MAX, |events_max| (events_max / 10).max(SEGMENT_EVENTS_MIN)),
            bytes: bytes_max.min(directory.segment_bytes),
            age: age_max.map_or(Duration::MAX, segment_age_max),
        }
    }
}

/// The time that a segment spans at most, where events are kept for `age_max`.
pub(in super::super) fn segment_age_max(age_max: Duration) -> Duration {
    (age_max / 10).max(SEGMENT_AGE_MIN)
}

impl SegmentBounds {
    fn are_reached(&self, active: &Active, end: u64, next_offset: u64, time: Timestamp) -> bool {
        let events = next_offset - active.segment.base();
        let age = time.since(active.created);
        events > 0 && (events >= self.events || end >= self.bytes || age >= self.age)
    }
}

impl Write {
    fn new(active: &Active, place: &Place) -> Self {
        Self {
            segment: Arc::clone(&active.segment),
            first: Block { offset: place.offset, time: place.time, position: active.end },
            next_offset: place.offset,
            blocks: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Past its last record.
    pub(super) fn end(&self) -> u64 {
        self.first.position + self.bytes.len() as u64
    }

    fn is_full(&self, active: &Active, bounds: &SegmentBounds, append: &Append) -> bool {
        let record_bytes =
            record::encoded_bytes(append.dedup.as_ref(), append.version.as_ref(), &append.envelope);
        !self.bytes.is_empty()
            && (self.bytes.len() + record_bytes > limits::BATCH_BYTES_MAX
                || bounds.are_reached(active, self.end(), self.next_offset, self.first.time))
    }

    fn add(&mut self, active: &Active, directory: &Directory, place: &Place, append: &Append) {
        let position = self.end();
        let block_start = self.blocks.last().map(|block| block.position).or(active.block_start);
        if block_start.is_none_or(|start| position - start >= BLOCK_BYTES) {
            self.blocks.push(Block { offset: place.offset, time: place.time, position });
        }
        let Append { dedup, version, envelope, .. } = append;
        let (dedup, version) = (dedup.as_ref(), version.as_ref());
        record::encode(&mut self.bytes, directory.salt, place.offset, place.time, dedup, version, envelope);
        self.next_offset = place.offset + 1;
    }

    /// The records for the tail of the stream, each chunk at most a block.
    pub(super) fn into_chunks(self) -> Vec<Chunk> {
        let end = self.end();
        let mut starts = self.blocks;
        if starts.first().is_none_or(|block| block.position > self.first.position) {
            starts.insert(0, self.first);
        }
        let mut bytes = bytes::Bytes::from(self.bytes);
        let mut chunks = Vec::with_capacity(starts.len());
        for (index, &block) in starts.iter().enumerate() {
            let (end, next_offset) =
                starts.get(index + 1).map_or((end, self.next_offset), |next| (next.position, next.offset));
            let length = usize::try_from(end - block.position).unwrap_or(usize::MAX).min(bytes.len());
            let extent = Extent { block, end, next_offset };
            chunks.push(Chunk { extent, bytes: bytes.split_to(length) });
        }
        chunks
    }
}
