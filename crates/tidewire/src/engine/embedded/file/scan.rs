//! Walks the records of a segment, over damage where there is some.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::files;
use super::record::{Body, HEADER_BYTES, Header, Salt};

/// Bytes read from a file at once.
const WINDOW_BYTES: u64 = 256 * 1024;
/// Bytes searched at once for the next record after damage.
const SEARCH_BYTES: u64 = 64 * 1024;

/// Bytes at positions of a segment.
pub(super) trait Source {
    /// Where they end.
    fn end(&self) -> u64;
    /// The bytes of `range`, which lies before the end.
    fn bytes(&mut self, range: Range<u64>) -> io::Result<&[u8]>;
}

/// A part of a segment in memory.
pub(super) struct Slice<'a> {
    pub(super) start: u64,
    pub(super) bytes: &'a [u8],
}

impl Source for Slice<'_> {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn bytes(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        slice(self.bytes, self.start, range)
    }
}

/// A segment's file, read through a window that moves on.
pub(super) struct Window<'a> {
    file: &'a File,
    end: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    /// The file's bytes up to `end`.
    pub(super) fn new(file: &'a File, end: u64) -> Self {
        Self { file, end, start: 0, buffer: Vec::new() }
    }
}

impl Source for Window<'_> {
    fn end(&self) -> u64 {
        self.end
    }

    fn bytes(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        if range.start < self.start || range.end > self.start + self.buffer.len() as u64 {
            let end = (range.start + WINDOW_BYTES).max(range.end).min(self.end);
            self.start = range.start;
            self.buffer.resize(length(range.start..end)?, 0);
            files::read_exact_at(self.file, &mut self.buffer, range.start)?;
        }
        slice(&self.buffer, self.start, range)
    }
}

fn slice(bytes: &[u8], start: u64, range: Range<u64>) -> io::Result<&[u8]> {
    let from = length(start..range.start)?;
    bytes.get(from..from + length(range)?).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn length(range: Range<u64>) -> io::Result<usize> {
    let bytes = range.end.checked_sub(range.start).ok_or(io::ErrorKind::UnexpectedEof)?;
    usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// What a walk comes upon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A whole record at `position`.
    Record { header: Header, position: u64, body: Body<'a> },
    /// Damage at `position`: the events of these offsets are lost, the walk goes on after them.
    Lost { offsets: Range<u64>, position: u64 },
    /// Nothing more.
    End(End),
}

/// How a walk ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// After a whole record.
    Clean,
    /// Inside of a record, as a write does that was cut short.
    Torn,
    /// In bytes that are no record, with none after them. What they were is not known.
    Broken,
}

/// A walk over the records of a segment or of a part of it.
pub(super) struct Walk<S> {
    source: S,
    salt: Salt,
    position: u64,
    next_offset: u64,
}

impl<S: Source> Walk<S> {
    /// A walk from `position`, where the record of `offset` is expected.
    pub(super) fn new(source: S, salt: Salt, position: u64, offset: u64) -> Self {
        Self { source, salt, position, next_offset: offset }
    }

    /// Where it is: after the last step, or where it ended.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The offset after that of the last record.
    pub(super) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The next step. After the end it stays there.
    pub(super) fn step(&mut self) -> io::Result<Step<'_>> {
        let position = self.position;
        let left = self.source.end().saturating_sub(position);
        if left == 0 {
            return Ok(Step::End(End::Clean));
        }
        if left < HEADER_BYTES as u64 {
            return Ok(Step::End(End::Torn));
        }
        let Some(header) = self.header(position)?.filter(|header| header.offset == self.next_offset) else {
            return self.search();
        };
        if left < header.record_bytes() {
            return Ok(Step::End(End::Torn));
        }
        self.position += header.record_bytes();
        self.next_offset += 1;
        let data = self.source.bytes(data_range(header, position))?;
        Ok(match header.open(data) {
            Some(body) => Step::Record { header, position, body },
            None => Step::Lost { offsets: header.offset..header.offset + 1, position },
        })
    }

    fn header(&mut self, position: u64) -> io::Result<Option<Header>> {
        let bytes = self.source.bytes(position..position + HEADER_BYTES as u64)?;
        Ok(bytes.first_chunk().and_then(|bytes| Header::decode(bytes, self.salt)))
    }

    /// Goes to the next whole record after bytes that are none.
    fn search(&mut self) -> io::Result<Step<'_>> {
        let damage = self.position;
        let last = self.source.end() - HEADER_BYTES as u64;
        let mut start = damage + 1;
        while start <= last {
            let end = (start + SEARCH_BYTES).min(last + 1);
            let bytes = self.source.bytes(start..end + HEADER_BYTES as u64 - 1)?;
            let candidates: Vec<_> = (start..)
                .zip(bytes.windows(HEADER_BYTES))
                .filter_map(|(at, bytes)| Some((at, Header::decode(bytes.first_chunk()?, self.salt)?)))
                .collect();
            for (position, header) in candidates {
                if self.is_next(damage, position, header)? {
                    let offsets = self.next_offset..header.offset;
                    (self.position, self.next_offset) = (position, header.offset);
                    return Ok(Step::Lost { offsets, position: damage });
                }
            }
            start = end;
        }
        Ok(Step::End(End::Broken))
    }

    /// Whether `header` can be that of the first whole record after `damage`: at least one record was lost, and
    /// no more than fit.
    fn is_next(&mut self, damage: u64, position: u64, header: Header) -> io::Result<bool> {
        let lost_max = (position - damage) / HEADER_BYTES as u64;
        let offsets = self.next_offset + 1..=self.next_offset + lost_max;
        if !offsets.contains(&header.offset) || position + header.record_bytes() > self.source.end() {
            return Ok(false);
        }
        Ok(header.open(self.source.bytes(data_range(header, position))?).is_some())
    }
}

fn data_range(header: Header, position: u64) -> Range<u64> {
    position + HEADER_BYTES as u64..position + header.record_bytes()
}
