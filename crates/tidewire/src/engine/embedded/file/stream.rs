//! One stream: its segments, what can be read of them, and what is appended next.

mod append;
mod appender;
mod open;
mod read;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

pub(super) use self::append::{Entry, Run};
use self::appender::Appender;
pub(super) use self::appender::segment_age_max;
use super::directory::Directory;
use super::files;
use super::groups::StreamGroups;
use super::segment::Segment;
use super::state::StreamRow;
use super::tail::Tail;
use crate::clock::Timestamp;
use crate::engine::embedded::group::Bounds;
use crate::engine::{AtBound, Retention, StreamStats, Trimmed};
use crate::name::ChannelPath;
use crate::position::Epoch;

/// An open stream. Appends, trims and retention come from the writer alone; reads from anywhere.
pub(super) struct Stream {
    id: u64,
    channel: ChannelPath,
    directory: PathBuf,
    view: RwLock<View>,
    appender: Mutex<Appender>,
    groups: Arc<StreamGroups>,
    /// When it was last used, in uses of any stream.
    used: AtomicU64,
}

/// What readers see of a stream.
pub(super) struct View {
    pub(super) epoch: Epoch,
    /// Offset of the oldest event kept, its age apart.
    first: u64,
    /// Offset of the newest event that can be read.
    last: u64,
    retention: Retention,
    segments: VecDeque<Arc<Segment>>,
    pub(super) tail: Tail,
    /// What may not be removed.
    groups: Arc<StreamGroups>,
    /// An event that is no older than this time: later ones are not either.
    known_age: (u64, Timestamp),
}

impl Stream {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn channel(&self) -> &ChannelPath {
        &self.channel
    }

    pub(super) fn view(&self) -> &RwLock<View> {
        &self.view
    }

    pub(super) fn path(&self) -> &Path {
        &self.directory
    }

    pub(super) fn groups(&self) -> &Arc<StreamGroups> {
        &self.groups
    }

    /// The bounds, as groups see them.
    pub(super) fn bounds(&self) -> Bounds {
        let View { epoch, first, last, .. } = *self.view.read();
        Bounds { epoch, first, last }
    }

    /// Calls `begin` with `next`, or with the oldest event if `next` is gone. Nothing is removed meanwhile.
    pub(super) fn hold_first<T>(&self, next: u64, begin: impl FnOnce(u64) -> T) -> T {
        let view = self.view.write();
        begin(next.max(view.first))
    }

    /// Notes that it was used.
    pub(super) fn touch(&self, use_: u64) {
        self.used.store(use_, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What the database should know of it.
    pub(super) fn row(&self, directory: &Directory) -> StreamRow {
        let view = self.view.read();
        StreamRow {
            id: self.id,
            epoch: Some(view.epoch).filter(|epoch| *epoch != directory.epoch),
            first: view.first,
            retention: view.retention,
        }
    }

    /// Size and bounds at `now`.
    pub(super) fn stats(&self, directory: &Directory, now: Timestamp) -> io::Result<StreamStats> {
        let first = self.first_at(directory, now)?;
        let view = self.view.read();
        let kept = first..view.last + 1;
        let lost = view.count_lost(&kept);
        Ok(StreamStats {
            epoch: view.epoch,
            first,
            last: view.last,
            length: (kept.end - kept.start).saturating_sub(lost),
            bytes: view.segments.iter().map(|segment| segment.bytes()).sum(),
            removed: first - 1 + lost,
        })
    }

    /// What a trim before `before` does: how many events it removes, and the first that is left.
    pub(super) fn plan_trim(
        &self,
        directory: &Directory,
        before: u64,
        now: Timestamp,
    ) -> io::Result<Trimmed> {
        let old_first = self.first_at(directory, now)?;
        let view = self.view.read();
        let first = before.clamp(old_first, view.last + 1);
        let lost = view.count_lost(&(old_first..first));
        Ok(Trimmed { removed: (first - old_first).saturating_sub(lost), first })
    }

    /// Hides every event before `first`. True if none is left.
    pub(super) fn trim(&self, first: u64) -> bool {
        let mut view = self.view.write();
        view.first = view.first.max(first);
        view.first > view.last
    }

    /// Whether all its events are too old at `now`.
    pub(super) fn is_expired(&self, directory: &Directory, now: Timestamp) -> io::Result<bool> {
        let first = self.first_at(directory, now)?;
        Ok(first > self.view.read().last)
    }

    /// Gives back the disk of segments whose events are all trimmed or past retention.
    pub(super) fn drop_segments(&self, directory: &Directory, now: Timestamp) -> io::Result<()> {
        while let Some(first) = self.first_without_oldest_segment(directory, now)? {
            let dropped = {
                let mut view = self.view.write();
                if first > view.first && first > view.floor() {
                    // A group has come to need it just now.
                    return Ok(());
                }
                view.first = view.first.max(first);
                view.segments.pop_front()
            };
            if let Some(segment) = dropped {
                segment.remove(&directory.files)?;
            }
        }
        Ok(())
    }

    /// The base of the second segment, if nothing in the one before it is kept at `now`.
    fn first_without_oldest_segment(&self, directory: &Directory, now: Timestamp) -> io::Result<Option<u64>> {
        let (next, after_next, oldest_time) = {
            let view = self.view.read();
            let Some(next) = view.segments.get(1) else { return Ok(None) };
            let is_crowded = view.retention.bytes_max.is_some_and(|bytes_max| {
                view.segments.iter().skip(1).map(|segment| segment.bytes()).sum::<u64>() >= bytes_max
            });
            if next.base() <= view.first {
                return Ok(Some(next.base()));
            }
            if next.base() > view.floor() {
                return Ok(None);
            }
            if is_crowded {
                return Ok(Some(next.base()));
            }
            let Some(age_max) = view.retention.age_max else { return Ok(None) };
            let after_next = view.segments.get(2).map(|segment| segment.base());
            (Arc::clone(next), after_next, now.saturating_sub(age_max))
        };
        Ok((next.created(&directory.files, after_next)? < oldest_time).then(|| next.base()))
    }

    /// Makes the names of its files durable.
    fn sync_directory(&self, directory: &Directory) -> io::Result<()> {
        files::sync_directory(&self.directory)?;
        files::sync_directory(&directory.streams())
    }
}

impl View {
    /// Retention removes nothing from this offset on: a group has not settled it.
    fn floor(&self) -> u64 {
        match self.retention.at_bound {
            AtBound::DropOldest => u64::MAX,
            AtBound::Block | AtBound::Reject => self.groups.floor(),
        }
    }

    /// The oldest of as many events as are kept.
    fn first_by_count(&self) -> u64 {
        self.retention.events_max.map_or(0, |max| (self.last + 1).saturating_sub(max.max(1)))
    }

    /// Bytes of the records from `offset` on, about.
    fn bytes_from(&self, offset: u64) -> u64 {
        let mut next_offset = self.last + 1;
        let mut bytes = 0;
        for segment in self.segments.iter().rev() {
            let base = segment.base();
            if base < offset {
                let share = u128::from(segment.bytes()) * u128::from(next_offset.saturating_sub(offset));
                let share = share / u128::from(next_offset.saturating_sub(base).max(1));
                return bytes + u64::try_from(share).unwrap_or(u64::MAX);
            }
            bytes += segment.bytes();
            next_offset = base;
        }
        bytes
    }

    /// How many events of `offsets` are known to be lost.
    fn count_lost(&self, offsets: &Range<u64>) -> u64 {
        self.segments.iter().map(|segment| segment.count_lost(offsets)).sum()
    }

    /// The segment that `offset` is in, and the base of the one after it.
    fn segment_of(&self, offset: u64) -> Option<(Arc<Segment>, Option<u64>)> {
        let next = self.segments.partition_point(|segment| segment.base() <= offset);
        let segment = self.segments.get(next.checked_sub(1)?)?;
        Some((Arc::clone(segment), self.segments.get(next).map(|next| next.base())))
    }
}
