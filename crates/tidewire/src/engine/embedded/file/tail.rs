//! The newest records of a stream, in memory: whoever follows it does not touch the disk.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::segment::Extent;
use super::stream::Stream;

/// Memory for the newest records of all streams together.
const TAILS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a chunk takes beside its records, about.
const CHUNK_BYTES: usize = 160;

/// Records as they were written, without a hole up to the newest.
#[derive(Default)]
pub(super) struct Tail {
    chunks: VecDeque<Chunk>,
}

#[derive(Clone)]
pub(super) struct Chunk {
    pub(super) extent: Extent,
    pub(super) bytes: Bytes,
}

impl Tail {
    /// Adds the records that follow.
    pub(super) fn push(&mut self, chunk: Chunk) {
        self.chunks.push_back(chunk);
    }

    fn pop_oldest(&mut self) {
        self.chunks.pop_front();
    }

    /// The chunk that `offset` is in.
    pub(super) fn chunk_of(&self, offset: u64) -> Option<&Chunk> {
        let next = self.chunks.partition_point(|chunk| chunk.extent.block.offset <= offset);
        self.chunks.get(next.checked_sub(1)?)
    }
}

/// The bound over the tails of all streams: what was written first goes first.
#[derive(Default)]
pub(super) struct TailBound {
    oldest_first: VecDeque<(Weak<Stream>, usize)>,
    bytes: usize,
}

impl TailBound {
    /// Counts a chunk that was pushed to the tail of `stream`, and drops what is over the bound.
    pub(super) fn count(&mut self, stream: &Arc<Stream>, chunk_bytes: usize) {
        let bytes = chunk_bytes + CHUNK_BYTES;
        self.bytes += bytes;
        self.oldest_first.push_back((Arc::downgrade(stream), bytes));
        while self.bytes > TAILS_BYTES_MAX {
            let Some((stream, bytes)) = self.oldest_first.pop_front() else { break };
            self.bytes -= bytes;
            if let Some(stream) = stream.upgrade() {
                stream.view().write().tail.pop_oldest();
            }
        }
    }
}
