//! The streams that are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use super::directory::Directory;
use super::fault::Fault;
use super::groups::Groups;
use super::stream::Stream;
use crate::clock::Timestamp;
use crate::name::ChannelPath;

/// Streams kept open. One takes about a kilobyte beside its index and its dedup ids; opening one again costs a
/// scan of its last segment.
const STREAMS_OPEN_MAX: usize = 16 * 1024;

/// The open streams of an engine, the most recently used ones.
#[derive(Default)]
pub(super) struct Streams {
    open: RwLock<FxHashMap<ChannelPath, Arc<Stream>>>,
    /// Held while one is opened, so that none is opened twice.
    opening: Mutex<()>,
    uses: AtomicU64,
    groups: Groups,
}

impl Streams {
    /// The stream, if it is open.
    pub(super) fn get(&self, channel: &ChannelPath) -> Option<Arc<Stream>> {
        let stream = self.open.read().get(channel).cloned()?;
        stream.touch(self.uses.fetch_add(1, Ordering::Relaxed));
        Some(stream)
    }

    /// The stream, opened if it is not; `None` if there is none. Reads from the disk.
    pub(super) fn open(
        &self,
        directory: &Directory,
        channel: &ChannelPath,
        now: Timestamp,
    ) -> Result<Option<Arc<Stream>>, Fault> {
        let _opening = self.opening.lock();
        if let Some(stream) = self.get(channel) {
            return Ok(Some(stream));
        }
        let Some(row) = directory.state.stream(channel.as_str())? else { return Ok(None) };
        let stream = Arc::new(Stream::open(directory, channel.clone(), row, &self.groups, now)?);
        stream.touch(self.uses.fetch_add(1, Ordering::Relaxed));
        let mut open = self.open.write();
        if open.len() >= STREAMS_OPEN_MAX {
            close_oldest(&mut open);
            self.groups.forget_idle(now);
        }
        open.insert(channel.clone(), Arc::clone(&stream));
        Ok(Some(stream))
    }

    /// Closes the stream: whoever needs it next opens it again.
    pub(super) fn close(&self, channel: &ChannelPath) {
        self.open.write().remove(channel);
    }
}

/// Closes the eighth that was not used for longest, those apart that somebody uses at the moment.
fn close_oldest(open: &mut FxHashMap<ChannelPath, Arc<Stream>>) {
    let mut uses: Vec<u64> = open.values().map(|stream| stream.used()).collect();
    let (_, &mut limit, _) = uses.select_nth_unstable(STREAMS_OPEN_MAX / 8);
    open.retain(|_, stream| stream.used() > limit || Arc::strong_count(stream) > 1);
}
