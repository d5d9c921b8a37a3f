//! What is done with groups: each step is taken in memory, and confirmed when the database has it.

use std::sync::Arc;

use super::rows::{self, ChangedRows, Rows};
use super::{FileGroup, GroupChange, Held};
use crate::clock::Timestamp;
use crate::engine::embedded::file::directory::Directory;
use crate::engine::embedded::file::log::LogStreams;
use crate::engine::embedded::file::queue::{Asking, Queue, Room};
use crate::engine::embedded::file::state_writer::{Change as StateChange, Done, StateJob};
use crate::engine::embedded::file::stream::Stream;
use crate::engine::embedded::group::{Group, Head, Taken, no_such_group, read_turn};
use crate::engine::embedded::pubsub::LocalPubSub;
use crate::engine::{Change, GroupStats, Listing, Opened, Opening, Shelf, ShelfItem, Start, Turn, Turned};
use crate::error::{Error, Result};
use crate::limits;
use crate::name::{ChannelPath, GroupPath};
use crate::position::Position;

/// What a step takes in the queue beside its states and items, about.
const STEP_BYTES: usize = 512;

/// The way to the groups. Clones share it.
#[derive(Clone)]
pub(in super::super) struct GroupLog {
    pub(in super::super) log: LogStreams,
    pub(in super::super) queue: Arc<Queue<StateJob>>,
    pub(in super::super) pubsub: LocalPubSub,
}

/// A step that was taken in memory, and the question whether the database has it.
type Step<T> = (T, Option<Asking<Done>>);

impl GroupLog {
    pub(in super::super) async fn open(&self, path: GroupPath, opening: Opening) -> Result<Opened> {
        let room = self.queue.room(STEP_BYTES).await?;
        self.log.create(path.channel()).await?;
        let opened = self.on_stream(path, move |steps, path, directory, stream, now| {
            let next = stream.begin(directory, opening.start, now)?;
            let mut held = stream.groups().lock(directory, stream)?;
            let is_new = !held.groups.contains_key(path.group());
            let rows = if is_new {
                let next = next?;
                stream.hold_first(next, |next| held.add(directory, stream, path, opening, next))
            } else {
                Rows::None
            };
            let kept = held.groups.get(path.group()).ok_or_else(|| no_such_group(path))?;
            kept.group.check_opening(path, opening)?;
            let next = Position { epoch: stream.bounds().epoch, offset: kept.group.head.next };
            let asking = if is_new || held.is_waiting() {
                Some(steps.push(&mut held, stream, rows, News::None, room)?)
            } else {
                None
            };
            Ok((Opened { is_new, is_rebuilt: false, next }, asking))
        });
        Ok(self.confirm(opened.await?).await?.0)
    }

    /// The names of the groups of a channel's stream.
    pub(in super::super) async fn names(&self, channel: ChannelPath) -> Result<Vec<Box<str>>> {
        let names = |directory: &Directory, stream: &Stream, _| {
            let held = stream.groups().lock(directory, stream);
            Ok(held.map(|held| held.groups.keys().take(limits::BATCH_EVENTS_MAX).cloned().collect()))
        };
        let names = self.log.work(&channel, names).await?;
        Ok(names.transpose()?.unwrap_or_default())
    }

    pub(in super::super) async fn turn(&self, path: GroupPath, turn: Turn) -> Result<Turned> {
        let room = self.queue.room(bytes_of(&turn)).await?;
        let (reads, now) = (turn.reads.clone(), self.log.clock.now());
        let stream = self.log.streams.get(path.channel()).filter(|stream| stream.is_settled(now));
        let (mut turned, asking) = match stream {
            Some(stream) => self.take_turn(&path, &self.log.directory, &stream, turn, now, room)?,
            None => {
                let take = |steps: &Self, path: &GroupPath, directory: &Directory, stream: &Stream, now| {
                    stream.settle(directory, now)?;
                    steps.take_turn(path, directory, stream, turn, now, room)
                };
                self.on_stream(path.clone(), take).await?
            }
        };
        // While the database is written.
        if turned.claimed.is_some() || !reads.is_empty() {
            turned = self.read_events(path, reads, turned).await?;
        }
        Ok(self.confirm((turned, asking)).await?.0)
    }

    fn take_turn(
        &self,
        path: &GroupPath,
        directory: &Directory,
        stream: &Stream,
        turn: Turn,
        now: Timestamp,
        room: Room,
    ) -> Result<Step<Turned>> {
        let mut held = stream.groups().lock(directory, stream)?;
        // Under the lock: an append that is not in these bounds finds whoever waits for it.
        let bounds = stream.bounds();
        let kept = held.groups.get_mut(path.group()).ok_or_else(|| no_such_group(path))?;
        let head = kept.group.head;
        let mut taken = kept.group.turn(&turn, bounds, now)?;
        let (is_news, is_again) = (taken.is_news, taken.is_again);
        let rows = changed_by(path, kept, head, turn, &mut taken);
        if rows.is_empty() && !(is_again && held.is_waiting()) {
            if is_news {
                self.pubsub.tell_work(path.channel());
            }
            return Ok((taken.answer, None));
        }
        // The same turn again is answered when the first one would have been.
        let rows = if rows.is_empty() { Rows::None } else { Rows::Changed(Box::new(rows)) };
        let news = if is_news { News::Work } else { News::None };
        Ok((taken.answer, Some(self.push(&mut held, stream, rows, news, room)?)))
    }

    /// Reads what a turn has claimed and asked for: from the tail of the stream if that has it, else from the disk.
    async fn read_events(
        &self,
        path: GroupPath,
        reads: Vec<(u64, u64)>,
        mut turned: Turned,
    ) -> Result<Turned> {
        let LogStreams { directory, streams, clock, .. } = &self.log;
        let now = clock.now();
        if let Some(stream) = streams.get(path.channel()) {
            let from_tail = |range| stream.read_tail(directory, range, now).ok_or(());
            if let Ok(()) = read_turn(&reads, &mut turned, from_tail) {
                return Ok(turned);
            }
            turned.events.clear();
            turned.unread.clear();
        }
        let read = move |directory: &Directory, stream: &Stream, now| {
            read_turn(&reads, &mut turned, |range| stream.read(directory, range, now))?;
            Ok(turned)
        };
        let read = self.log.work(path.channel(), read).await?;
        read.ok_or_else(|| no_such_group(&path))
    }

    pub(in super::super) async fn stats(&self, path: GroupPath) -> Result<GroupStats> {
        self.on_stream(path, |_, path, directory, stream, now| {
            stream.settle(directory, now)?;
            let (stats, id) = {
                let held = stream.groups().lock(directory, stream)?;
                let kept = held.groups.get(path.group()).ok_or_else(|| no_such_group(path))?;
                (kept.group.stats(stream.bounds(), now), kept.id)
            };
            Ok(GroupStats { items: rows::count_items(directory, id)?, ..stats })
        })
        .await
    }

    pub(in super::super) async fn items(
        &self,
        path: GroupPath,
        shelf: Shelf,
        listing: Listing,
    ) -> Result<Vec<ShelfItem>> {
        self.on_stream(path, move |_, path, directory, stream, _| {
            let id = {
                let held = stream.groups().lock(directory, stream)?;
                held.groups.get(path.group()).ok_or_else(|| no_such_group(path))?.id
            };
            Ok(rows::list_items(directory, id, shelf, listing)?)
        })
        .await
    }

    pub(in super::super) async fn change(&self, path: GroupPath, change: Change) -> Result<u64> {
        let bytes = if let Change::Items { puts, .. } = &change { bytes_of_items(puts) } else { 0 };
        let room = self.queue.room(STEP_BYTES + bytes).await?;
        let are_items = matches!(change, Change::Items { .. });
        let step = self.on_stream(path, move |steps, path, directory, stream, now| match change {
            Change::Seek(start) => steps.seek(path, directory, stream, start, now, room),
            Change::Items { removes, puts } => {
                let mut held = stream.groups().lock(directory, stream)?;
                let kept = held.groups.get(path.group()).ok_or_else(|| no_such_group(path))?;
                let rows = ChangedRows { removes, puts, ..ChangedRows::of(path, kept) };
                let rows = Rows::Changed(Box::new(rows));
                Ok((0, Some(steps.push(&mut held, stream, rows, News::None, room)?)))
            }
            Change::Delete => {
                let mut held = stream.groups().lock(directory, stream)?;
                let removed = held.groups.remove_entry(path.group());
                let (name, kept) = removed.ok_or_else(|| no_such_group(path))?;
                let rows = Rows::Deleted { name, id: kept.id };
                let asking = steps.push(&mut held, stream, rows, News::Work, room)?;
                Ok((kept.group.records.len() as u64, Some(asking)))
            }
        });
        let (count, done) = self.confirm(step.await?).await?;
        Ok(if let (true, Some(Done::Count(removed))) = (are_items, done) { removed } else { count })
    }

    fn seek(
        &self,
        path: &GroupPath,
        directory: &Directory,
        stream: &Stream,
        start: Start,
        now: Timestamp,
        room: Room,
    ) -> Result<Step<u64>> {
        let next = stream.begin(directory, start, now)??;
        let mut held = stream.groups().lock(directory, stream)?;
        let (count, rows) = stream.hold_first(next, |next| {
            let kept = held.groups.get_mut(path.group()).ok_or_else(|| no_such_group(path))?;
            let count = kept.group.seek(next);
            let records =
                kept.group.records.iter().map(|(name, record)| (name.clone(), Some(record.clone())));
            let records = if kept.group.head.partitions > 0 { records.collect() } else { Vec::new() };
            let head = Some(kept.group.head);
            let rows = ChangedRows { head, records, ..ChangedRows::of(path, kept) };
            stream.groups().sink(&held);
            Ok::<_, Error>((count, rows))
        })?;
        let rows = Rows::Changed(Box::new(rows));
        Ok((count, Some(self.push(&mut held, stream, rows, News::Work, room)?)))
    }

    /// Hands what has changed in memory to the state writer. The lock is held since before the change.
    fn push(
        &self,
        held: &mut Held,
        stream: &Stream,
        rows: Rows,
        news: News,
        room: Room,
    ) -> Result<Asking<Done>> {
        let groups = Arc::clone(stream.groups());
        groups.begin(held);
        let lineage = Arc::clone(&held.lineage);
        let is_news = matches!(news, News::Work);
        let change = GroupChange { groups, lineage, rows, channel: stream.channel().clone(), is_news };
        let job = |asked| StateJob { change: StateChange::Group(Box::new(change)), asked };
        // The queue is closed with the engine: nobody goes on from what is in memory now.
        self.queue.ask_in(room, job).inspect_err(|_| held.lineage.break_off())
    }

    /// Waits until the database has a step; the answer, and what the database says.
    async fn confirm<T>(&self, (answer, asking): Step<T>) -> Result<(T, Option<Done>)> {
        match asking {
            Some(asking) => Ok((answer, Some(self.queue.answer(asking).await?))),
            None => Ok((answer, None)),
        }
    }

    /// Works on the stream of a group, on a thread that may block.
    async fn on_stream<T: Send + 'static>(
        &self,
        path: GroupPath,
        work: impl FnOnce(&Self, &GroupPath, &Directory, &Stream, Timestamp) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (steps, channel, own_path) = (self.clone(), path.channel().clone(), path.clone());
        let work = move |directory: &Directory, stream: &Stream, now| {
            Ok(work(&steps, &own_path, directory, stream, now))
        };
        self.log.work(&channel, work).await?.ok_or_else(|| no_such_group(&path))?
    }
}

/// Whether a change is told to sessions.
enum News {
    None,
    Work,
}

impl Held {
    /// Adds a group that begins with `next`; what is to be written of it.
    fn add(
        &mut self,
        directory: &Directory,
        stream: &Stream,
        path: &GroupPath,
        opening: Opening,
        next: u64,
    ) -> Rows {
        let kept = FileGroup { id: directory.next_group(), group: Group::new(opening, next) };
        let records = kept.group.records.iter().map(|(name, record)| (name.clone(), Some(record.clone())));
        let (head, records) = (Some(kept.group.head), records.collect());
        let rows = ChangedRows { head, records, ..ChangedRows::of(path, &kept) };
        self.groups.insert(path.group().into(), kept);
        stream.groups().sink(self);
        Rows::Changed(Box::new(rows))
    }
}

impl ChangedRows {
    fn of(path: &GroupPath, kept: &FileGroup) -> Self {
        Self { name: path.group().into(), id: kept.id, ..Self::default() }
    }
}

/// What is to be written after a turn of a group that had this head before.
fn changed_by(
    path: &GroupPath,
    kept: &FileGroup,
    before: Head,
    turn: Turn,
    taken: &mut Taken,
) -> ChangedRows {
    let mut rows = ChangedRows::of(path, kept);
    if taken.is_again {
        return rows;
    }
    rows.head = Some(kept.group.head).filter(|head| *head != before);
    let mut touched = std::mem::take(&mut taken.touched);
    touched.sort_unstable();
    touched.dedup();
    let record = |name: Box<str>| {
        let record = kept.group.records.get(&name).cloned();
        (name, record)
    };
    rows.records = touched.into_iter().map(record).collect();
    let now = taken.answer.now;
    rows.marks = turn.marks.into_iter().map(|mark| (now.saturating_add(mark.window), mark.id)).collect();
    rows.forgotten = std::mem::take(&mut taken.forgotten);
    (rows.removes, rows.puts) = (turn.removes, turn.puts);
    rows
}

fn bytes_of(turn: &Turn) -> usize {
    let states: usize = turn.commits.iter().flat_map(|commit| &commit.state).map(bytes::Bytes::len).sum();
    STEP_BYTES + states + bytes_of_items(&turn.puts)
}

fn bytes_of_items(puts: &[ShelfItem]) -> usize {
    puts.iter().map(|item| item.key.len() + item.bytes.len()).sum()
}
