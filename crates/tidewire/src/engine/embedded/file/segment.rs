//! One segment of a stream: a file of records in the order of their offsets, and where to find them in it.

mod header;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;

pub(super) use self::header::{HEADER_BYTES, SegmentHeader, VersionBefore};
use super::files::{self, FileKey, Files};
use super::record::{Body, Header, Salt};
use super::scan::{End, Slice, Step, Walk, Window};
use crate::clock::Timestamp;
use crate::engine::Stored;

/// Where the first record is.
pub(super) const RECORDS_START: u64 = HEADER_BYTES as u64;
/// A block, the unit of a read, ends with the first record that passes this.
pub(super) const BLOCK_BYTES: u64 = 64 * 1024;

/// Where a block starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) time: Timestamp,
    pub(super) position: u64,
}

/// What can be read of a segment, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) blocks: Vec<Block>,
    /// Past the last record.
    pub(super) end: u64,
    /// The offset after that of the last record.
    pub(super) next_offset: u64,
    /// Offsets whose events are damaged.
    pub(super) lost: Vec<Range<u64>>,
}

impl Index {
    fn empty(base: u64) -> Self {
        Self { end: RECORDS_START, next_offset: base, ..Self::default() }
    }

    /// Takes note of a record. Its block begins here if the current one is full.
    fn add(&mut self, header: Header, position: u64) {
        if self.blocks.last().is_none_or(|block| position - block.position >= BLOCK_BYTES) {
            self.blocks.push(Block { offset: header.offset, time: header.time, position });
        }
        self.end = position + header.record_bytes();
        self.next_offset = header.offset + 1;
    }

    /// Takes note of damage. At the start of a segment it is in a block of its own, so that reads find it.
    fn add_lost(&mut self, offsets: Range<u64>, position: u64) {
        if self.blocks.is_empty() {
            self.blocks.push(Block { offset: offsets.start, time: Timestamp::default(), position });
        }
        self.lose(offsets);
    }

    /// False if it is known already.
    fn lose(&mut self, offsets: Range<u64>) -> bool {
        let is_new = !self.lost.iter().any(|known| known.start <= offsets.start && offsets.end <= known.end);
        if is_new {
            self.lost.push(offsets);
        }
        is_new
    }
}

/// A part of a segment that is read at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) block: Block,
    pub(super) end: u64,
    pub(super) next_offset: u64,
}

/// A segment. Its file is opened when it is needed.
pub(super) struct Segment {
    key: FileKey,
    path: PathBuf,
    salt: Salt,
    header: OnceLock<Option<SegmentHeader>>,
    /// Bytes of the file that hold readable records, and its header.
    length: AtomicU64,
    /// `None` until the first read of a segment that was there when its stream was opened.
    index: RwLock<Option<Index>>,
}

impl Segment {
    /// The segment with the base offset `base` in the directory of its stream; it exists.
    pub(super) fn existing(stream: u64, directory: &Path, base: u64, length: u64, salt: Salt) -> Self {
        Self {
            key: (stream, base),
            path: directory.join(file_name(base)),
            salt,
            header: OnceLock::new(),
            length: AtomicU64::new(length),
            index: RwLock::default(),
        }
    }

    /// Creates a segment without records.
    pub(super) fn create(
        files: &Files,
        stream: u64,
        directory: &Path,
        header: SegmentHeader,
    ) -> io::Result<Self> {
        let segment = Self::existing(stream, directory, header.base, RECORDS_START, header.salt);
        let file = files.create(segment.key, &segment.path)?;
        if let Err(error) = files.write(&file, &header.encode(), 0) {
            // If it stays, the stream is opened again and writes the header then.
            if let Err(error) = segment.remove(files) {
                tracing::warn!(file = %segment.path.display(), %error, "empty segment was not removed");
            }
            return Err(error);
        }
        *segment.index.write() = Some(Index::empty(header.base));
        // A fresh cell is empty, so this sets it.
        let _header = segment.header.get_or_init(|| Some(header));
        Ok(segment)
    }

    /// Writes a header that a process was killed before writing. The segment has no records.
    pub(super) fn write_header(&self, files: &Files, header: &SegmentHeader) -> io::Result<()> {
        files.write(&*self.open(files)?, &header.encode(), 0)
    }

    pub(super) fn base(&self) -> u64 {
        self.key.1
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn open(&self, files: &Files) -> io::Result<Arc<File>> {
        files.open(self.key, &self.path)
    }

    pub(super) fn remove(&self, files: &Files) -> io::Result<()> {
        files.remove(self.key, &self.path)
    }

    /// Its header, `None` if that is damaged.
    pub(super) fn header(&self, files: &Files) -> io::Result<Option<&SegmentHeader>> {
        if let Some(header) = self.header.get() {
            return Ok(header.as_ref());
        }
        let mut bytes = [0; HEADER_BYTES];
        files::read_exact_at(&*self.open(files)?, &mut bytes, 0)?;
        let header = SegmentHeader::decode(&bytes)?;
        match &header {
            Some(header) if (header.base, header.salt) != (self.base(), self.salt) => {
                return Err(io::Error::other("segment belongs to another directory or was renamed"));
            }
            Some(_) => {}
            // It repeats what others know: the stream is in the database, the base in the file's name.
            None => tracing::warn!(file = %self.path.display(), byte = 0, "segment header is damaged"),
        }
        Ok(self.header.get_or_init(|| header).as_ref())
    }

    /// No record of it is earlier than this, none of the segments before it is later.
    pub(super) fn created(&self, files: &Files, next_base: Option<u64>) -> io::Result<Timestamp> {
        if let Some(header) = self.header(files)? {
            return Ok(header.created);
        }
        self.load(files, next_base)?;
        let index = self.index.read();
        let mut times = index.iter().flat_map(|index| &index.blocks).map(|block| block.time);
        // A block that begins with damage has no time.
        Ok(times.find(|time| *time > Timestamp::default()).unwrap_or(Timestamp::from_millis(u64::MAX)))
    }

    /// Walks over all its records, builds the index, and says how the walk ended. Damage is logged.
    pub(super) fn scan(
        &self,
        files: &Files,
        mut visit: impl FnMut(&Header, &Body<'_>),
    ) -> io::Result<(Index, End)> {
        let file = self.open(files)?;
        let window = Window::new(&file, file.metadata()?.len());
        let mut walk = Walk::new(window, self.salt, RECORDS_START, self.base());
        let mut index = Index::empty(self.base());
        let end = loop {
            match walk.step()? {
                Step::Record { header, position, body } => {
                    index.add(header, position);
                    visit(&header, &body);
                }
                Step::Lost { offsets, position } => {
                    self.warn_lost(&offsets, position);
                    index.add_lost(offsets, position);
                }
                Step::End(end) => break end,
            }
        };
        (index.end, index.next_offset) = (walk.position(), walk.next_offset());
        Ok((index, end))
    }

    fn warn_lost(&self, offsets: &Range<u64>, position: u64) {
        tracing::warn!(
            file = %self.path.display(),
            byte = position,
            first = offsets.start,
            last = offsets.end - 1,
            "segment is damaged: events are lost"
        );
    }

    /// Sets the index that a scan has built.
    pub(super) fn set_index(&self, index: Index) {
        self.length.store(index.end, Ordering::Relaxed);
        *self.index.write() = Some(index);
    }

    /// Makes sure that there is an index. A segment that has a next one ends before that one's base.
    pub(super) fn load(&self, files: &Files, next_base: Option<u64>) -> io::Result<()> {
        if self.index.read().is_some() {
            return Ok(());
        }
        let mut slot = self.index.write();
        if slot.is_some() {
            return Ok(());
        }
        let (mut index, _end) = self.scan(files, |_, _| {})?;
        if let Some(next_base) = next_base.filter(|next_base| *next_base > index.next_offset) {
            let offsets = index.next_offset..next_base;
            self.warn_lost(&offsets, index.end);
            index.lose(offsets);
            index.next_offset = next_base;
        }
        *slot = Some(index);
        Ok(())
    }

    /// Makes records readable that were written to its end.
    pub(super) fn publish(&self, blocks: &[Block], end: u64, next_offset: u64) {
        if let Some(index) = self.index.write().as_mut() {
            index.blocks.extend_from_slice(blocks);
            (index.end, index.next_offset) = (end, next_offset);
        }
        self.length.store(end, Ordering::Relaxed);
    }

    /// Bytes of its readable records.
    pub(super) fn bytes(&self) -> u64 {
        self.length.load(Ordering::Relaxed).saturating_sub(RECORDS_START)
    }

    /// How many of `offsets` are known to be lost.
    pub(super) fn count_lost(&self, offsets: &Range<u64>) -> u64 {
        let index = self.index.read();
        let lost = index.iter().flat_map(|index| &index.lost);
        lost.map(|lost| lost.end.min(offsets.end).saturating_sub(lost.start.max(offsets.start))).sum()
    }

    /// The block that `offset`, which is in this segment, is in; `None` without an index.
    pub(super) fn extent_of(&self, offset: u64) -> Option<Extent> {
        self.extent(|blocks| blocks.partition_point(|block| block.offset <= offset).saturating_sub(1))
    }

    /// The last block that begins before `time`, or the first one.
    pub(super) fn extent_before(&self, time: Timestamp) -> Option<Extent> {
        self.extent(|blocks| blocks.partition_point(|block| block.time < time).saturating_sub(1))
    }

    fn extent(&self, find: impl FnOnce(&[Block]) -> usize) -> Option<Extent> {
        let index = self.index.read();
        let index = index.as_ref()?;
        let at = find(&index.blocks);
        // A segment without a record still spans the offsets that it has lost.
        let whole = Block { offset: self.base(), time: Timestamp::default(), position: RECORDS_START };
        let block = index.blocks.get(at).copied().unwrap_or(whole);
        let next = index.blocks.get(at + 1);
        let (end, next_offset) =
            next.map_or((index.end, index.next_offset), |next| (next.position, next.offset));
        Some(Extent { block, end, next_offset })
    }

    /// The events of `wanted` that are in the block. New damage is noted and logged.
    pub(super) fn read(&self, files: &Files, extent: Extent, wanted: Range<u64>) -> io::Result<Vec<Stored>> {
        let length = usize::try_from(extent.end - extent.block.position)
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut bytes = vec![0; length];
        files::read_exact_at(&*self.open(files)?, &mut bytes, extent.block.position)?;
        let (events, lost) = decode(&bytes.into(), self.salt, extent, wanted)?;
        for (offsets, position) in lost {
            let is_new = self.index.write().as_mut().is_some_and(|index| index.lose(offsets.clone()));
            if is_new {
                self.warn_lost(&offsets, position);
            }
        }
        Ok(events)
    }
}

/// Offsets that are lost, and where the damage is.
type Lost = Vec<(Range<u64>, u64)>;

/// The events of `wanted` in a block's bytes, and what of the block is lost.
pub(super) fn decode(
    bytes: &Bytes,
    salt: Salt,
    extent: Extent,
    wanted: Range<u64>,
) -> io::Result<(Vec<Stored>, Lost)> {
    let slice = Slice { start: extent.block.position, bytes };
    let mut walk = Walk::new(slice, salt, extent.block.position, extent.block.offset);
    let (mut events, mut lost) = (Vec::new(), Vec::new());
    while walk.next_offset() < wanted.end {
        match walk.step()? {
            Step::Record { header, body, .. } if wanted.contains(&header.offset) => {
                let envelope = bytes.slice_ref(body.envelope);
                events.push(Stored { offset: header.offset, time: header.time, envelope });
            }
            Step::Record { .. } => {}
            Step::Lost { offsets, position } => lost.push((offsets, position)),
            Step::End(_) => {
                let rest = walk.next_offset()..extent.next_offset;
                if !rest.is_empty() {
                    lost.push((rest, walk.position()));
                }
                break;
            }
        }
    }
    // An event that is kept for long must not keep a whole block with it.
    let kept: usize = events.iter().map(|event| event.envelope.len()).sum();
    if kept < bytes.len() / 2 {
        for event in &mut events {
            event.envelope = Bytes::copy_from_slice(&event.envelope);
        }
    }
    Ok((events, lost))
}

/// The name of the file of a segment.
pub(super) fn file_name(base: u64) -> String {
    format!("{base:020}.log")
}

/// The base offset of the segment in a file of this name; `None` if it is no segment's.
pub(super) fn base_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".log")?;
    let is_base = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_base.then(|| digits.parse().ok()).flatten()
}
