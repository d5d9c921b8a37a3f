//! The groups of streams: steps are taken in memory and confirmed when the database has what they changed.
//!
//! What changes in memory goes to the state writer in the same order, because both happen under one lock. When a commit
//! fails, memory is ahead of the database: then all that followed from it is refused, and the groups of the stream are read
//! again. Their sessions are over with that, as they are when the process ends.

pub(super) mod rows;
mod steps;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use redb::WriteTransaction;
use rustc_hash::FxHashMap;

use self::rows::Rows;
pub(super) use self::steps::GroupLog;
use super::directory::Directory;
use super::fault::Fault;
use super::state_writer::Done;
use super::stream::Stream;
use crate::clock::Timestamp;
use crate::engine::embedded::group::Group;
use crate::engine::embedded::pubsub::LocalPubSub;
use crate::name::ChannelPath;

/// The groups that are in memory, by the ids of their streams: those of all open streams, and those that have sessions.
#[derive(Default)]
pub(super) struct Groups {
    of_streams: Mutex<FxHashMap<u64, Arc<StreamGroups>>>,
}

/// The groups of one stream.
pub(super) struct StreamGroups {
    stream: u64,
    /// Nothing from this offset on may be removed by retention.
    floor: AtomicU64,
    held: Mutex<Held>,
}

/// What is in memory of the groups of a stream.
struct Held {
    groups: BTreeMap<Box<str>, FileGroup>,
    /// Changes on their way to the database are of this; it breaks when one of them fails.
    lineage: Arc<Lineage>,
    /// The floors after the changes that are on their way, oldest first.
    on_their_way: VecDeque<u64>,
    /// The floor as the database has it.
    committed_floor: u64,
}

struct FileGroup {
    id: u64,
    group: Group,
}

/// Changes that follow from each other.
#[derive(Default)]
struct Lineage {
    is_broken: AtomicBool,
}

/// A change of a group on its way to the database.
pub(super) struct GroupChange {
    groups: Arc<StreamGroups>,
    lineage: Arc<Lineage>,
    rows: Rows,
    channel: ChannelPath,
    /// Other sessions may have something to do.
    is_news: bool,
}

impl Groups {
    /// The groups of a stream that ends with offset `last`, read from the database if they are not in memory.
    pub(super) fn of_stream(
        &self,
        directory: &Directory,
        stream: u64,
        last: u64,
    ) -> Result<Arc<StreamGroups>, Fault> {
        let mut of_streams = self.of_streams.lock();
        if let Some(groups) = of_streams.get(&stream) {
            groups.check_end(directory, last)?;
            return Ok(Arc::clone(groups));
        }
        let held = Held::read(directory, stream, last)?;
        let floor = AtomicU64::new(held.committed_floor);
        let groups = Arc::new(StreamGroups { stream, floor, held: Mutex::new(held) });
        of_streams.insert(stream, Arc::clone(&groups));
        Ok(groups)
    }

    /// Forgets groups whose streams are closed and that have no session.
    pub(super) fn forget_idle(&self, now: Timestamp) {
        let is_used = |groups: &Arc<StreamGroups>| Arc::strong_count(groups) > 1 || groups.is_busy(now);
        self.of_streams.lock().retain(|_, groups| is_used(groups));
    }
}

impl StreamGroups {
    /// Nothing from this offset on may be removed by retention.
    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Whether a session of a group waits for an append; after this none does.
    ///
    /// Under the lock that turns are taken under: one that did not see the newest event has said by now that it waits.
    pub(super) fn take_hunger(&self) -> bool {
        let groups = &mut self.held.lock().groups;
        groups.values_mut().fold(false, |any, kept| kept.group.take_hunger() | any)
    }

    /// What is in memory, read again if it is not what the database has.
    fn lock(&self, directory: &Directory, stream: &Stream) -> Result<MutexGuard<'_, Held>, Fault> {
        let mut held = self.held.lock();
        if held.lineage.is_broken() {
            self.read_again(&mut held, directory, stream.bounds().last)?;
        }
        Ok(held)
    }

    /// The stream was opened again: if it has lost its end, so have its groups.
    fn check_end(&self, directory: &Directory, last: u64) -> Result<(), Fault> {
        let mut held = self.held.lock();
        if held.groups.values().all(|kept| kept.group.head.next <= last + 1) {
            return Ok(());
        }
        held.lineage.break_off();
        // Waits for what is being committed: after that nothing of these groups is.
        directory.state.write(|_| Ok(()))?;
        self.read_again(&mut held, directory, last)
    }

    fn read_again(&self, held: &mut Held, directory: &Directory, last: u64) -> Result<(), Fault> {
        *held = Held::read(directory, self.stream, last)?;
        self.floor.store(held.committed_floor, Ordering::Release);
        Ok(())
    }

    fn is_busy(&self, now: Timestamp) -> bool {
        let held = self.held.lock();
        held.is_waiting() || held.groups.values().any(|kept| kept.group.has_sessions(now))
    }

    /// A change is on its way. The floor sinks at once; it rises when the database has what raised it.
    fn begin(&self, held: &mut Held) {
        self.sink(held);
        held.on_their_way.push_back(held.floor());
    }

    /// Sinks the floor to what is in memory now.
    fn sink(&self, held: &Held) {
        self.floor.fetch_min(held.floor(), Ordering::AcqRel);
    }

    /// The oldest change of `lineage` that was on its way has arrived, or not.
    fn finish(&self, lineage: &Arc<Lineage>, is_committed: bool) {
        let mut held = self.held.lock();
        if !is_committed {
            lineage.break_off();
        }
        if !Arc::ptr_eq(&held.lineage, lineage) || lineage.is_broken() {
            return;
        }
        if let Some(floor) = held.on_their_way.pop_front() {
            held.committed_floor = floor;
        }
        let floor = held.on_their_way.iter().copied().fold(held.committed_floor, u64::min);
        self.floor.store(floor, Ordering::Release);
    }
}

impl Held {
    fn read(directory: &Directory, stream: u64, last: u64) -> Result<Self, Fault> {
        let mut groups = rows::read(directory, stream)?;
        let cut: Vec<_> = groups
            .iter_mut()
            .filter_map(|(name, kept)| kept.group.cut(last).then_some((name, &*kept)))
            .collect();
        if !cut.is_empty() {
            // Before anything is appended after `last`, else it would be taken for what was there.
            directory.state.write(|transaction| {
                cut.iter().try_for_each(|(name, kept)| rows::write(transaction, stream, name, kept))
            })?;
        }
        let held =
            Self { groups, lineage: Arc::default(), on_their_way: VecDeque::new(), committed_floor: 0 };
        Ok(Self { committed_floor: held.floor(), ..held })
    }

    /// Whether a change is on its way.
    fn is_waiting(&self) -> bool {
        !self.on_their_way.is_empty()
    }

    /// Nothing from this offset on may be removed, by what is in memory.
    fn floor(&self) -> u64 {
        self.groups.values().map(|kept| kept.group.floor()).min().unwrap_or(u64::MAX)
    }
}

impl Lineage {
    fn break_off(&self) {
        self.is_broken.store(true, Ordering::Release);
    }

    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }
}

impl GroupChange {
    pub(super) fn apply(&self, transaction: &WriteTransaction) -> Result<Done, redb::Error> {
        if self.lineage.is_broken() {
            return Ok(Done::Refused);
        }
        self.rows.apply(transaction, self.groups.stream).map(Done::Count)
    }

    /// Takes note of what became of it, and tells sessions that there may be work.
    pub(super) fn finish(self, is_committed: bool, pubsub: &LocalPubSub) {
        self.groups.finish(&self.lineage, is_committed);
        // After a failure all records are free.
        if !is_committed || self.is_news {
            pubsub.tell_work(&self.channel);
        }
    }
}
