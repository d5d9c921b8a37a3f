//! Groups of streams in memory.

use super::MemoryLog;
use super::stream::Stream;
use crate::clock::Timestamp;
use crate::engine::embedded::group::{Group, Shelves, begin, no_such_group};
use crate::engine::{Change, GroupStats, Opened, Opening, Turn, Turned};
use crate::error::Result;
use crate::limits;
use crate::name::{ChannelPath, GroupPath};

/// A group and its items.
pub(super) struct MemoryGroup {
    pub(super) group: Group,
    pub(super) shelves: Shelves,
}

impl MemoryLog {
    /// Works on a group and its stream.
    pub(super) fn on_group<T>(
        &self,
        path: &GroupPath,
        work: impl FnOnce(&mut Stream, &mut MemoryGroup) -> Result<T>,
    ) -> Result<T> {
        let stream = self.stream(path.channel()).ok_or_else(|| no_such_group(path))?;
        let mut stream = stream.lock();
        // Taken out meanwhile, so that both can be changed.
        let (name, mut group) =
            stream.groups.remove_entry(path.group()).ok_or_else(|| no_such_group(path))?;
        let outcome = work(&mut stream, &mut group);
        stream.groups.insert(name, group);
        outcome
    }

    pub(super) fn group_names(&self, channel: &ChannelPath) -> Vec<Box<str>> {
        let Some(stream) = self.stream(channel) else { return Vec::new() };
        let stream = stream.lock();
        stream.groups.keys().take(limits::BATCH_EVENTS_MAX).cloned().collect()
    }

    pub(super) fn open_group(&self, path: &GroupPath, opening: Opening) -> Result<Opened> {
        let stream = self.open_stream(path.channel());
        let mut stream = stream.lock();
        stream.expire(self.clock.now());
        if let Some(MemoryGroup { group, .. }) = stream.groups.get(path.group()) {
            group.check_opening(path, opening)?;
            let next = self.position(group.head.next);
            return Ok(Opened { is_new: false, is_rebuilt: false, next });
        }
        let next = begin(opening.start, stream.bounds(self.epoch), |time| stream.seek(time))?;
        let opened = MemoryGroup { group: Group::new(opening, next), shelves: Shelves::default() };
        stream.groups.insert(path.group().into(), opened);
        Ok(Opened { is_new: true, is_rebuilt: false, next: self.position(next) })
    }

    pub(super) fn turn(&self, path: &GroupPath, turn: Turn) -> Result<Turned> {
        let now = self.clock.now();
        let taken = self.on_group(path, |stream, MemoryGroup { group, shelves }| {
            let mut taken = group.turn(&turn, stream.bounds(self.epoch), now)?;
            if !taken.is_again {
                shelves.change(&turn.removes, turn.puts);
            }
            stream.read_turn(&turn.reads, &mut taken.answer);
            Ok(taken)
        })?;
        if taken.is_news {
            self.pubsub.tell_work(path.channel());
        }
        Ok(taken.answer)
    }

    pub(super) fn group_stats_now(&self, path: &GroupPath) -> Result<GroupStats> {
        let now = self.clock.now();
        self.on_group(path, |stream, MemoryGroup { group, shelves }| {
            Ok(GroupStats { items: shelves.counts(), ..group.stats(stream.bounds(self.epoch), now) })
        })
    }

    pub(super) fn change_group(&self, path: &GroupPath, change: Change) -> Result<u64> {
        let count = match change {
            Change::Seek(start) => self.on_group(path, |stream, kept| {
                Ok(kept.group.seek(begin(start, stream.bounds(self.epoch), |time| stream.seek(time))?))
            })?,
            Change::Items { removes, puts } => {
                return self.on_group(path, |_, kept| Ok(kept.shelves.change(&removes, puts)));
            }
            Change::Delete => {
                let stream = self.stream(path.channel()).ok_or_else(|| no_such_group(path))?;
                let removed = stream.lock().groups.remove(path.group());
                removed.ok_or_else(|| no_such_group(path))?.group.records.len() as u64
            }
        };
        self.pubsub.tell_work(path.channel());
        Ok(count)
    }

    /// Takes back what waits for its time.
    pub(super) fn cancel_now(&self, channel: &ChannelPath, key: &str) -> bool {
        let Some((due, order)) = key.split_once('-') else { return false };
        let (Ok(due), Ok(order)) = (due.parse(), order.parse()) else { return false };
        let mut scheduled = self.scheduled.lock();
        let place = (Timestamp::from_millis(due), order);
        let is_waiting = due > self.clock.now().as_millis()
            && scheduled.get(&place).is_some_and(|append| append.channel == *channel);
        if is_waiting {
            scheduled.remove(&place);
        }
        is_waiting
    }
}
