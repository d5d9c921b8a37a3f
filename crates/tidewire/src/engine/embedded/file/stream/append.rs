//! Appending to a stream in three steps: write the records, sync the files if that was asked for, and only then
//! let readers and listeners see them.

use std::io;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Stream;
use super::appender::{Appender, Write};
use crate::clock::Timestamp;
use crate::engine::embedded::file::directory::Directory;
use crate::engine::embedded::file::fault::Fault;
use crate::engine::embedded::file::segment::{RECORDS_START, Segment};
use crate::engine::embedded::file::state::StreamRow;
use crate::engine::embedded::file::tail::TailBound;
use crate::engine::embedded::group::full;
use crate::engine::embedded::pubsub::LocalPubSub;
use crate::engine::{Append, Appended, AtBound, Durability, Effect, Kept, Retention, Term, Version};
use crate::error::Result;
use crate::position::{Epoch, Position};

/// An append on its way.
pub(in super::super) struct Entry {
    pub(in super::super) append: Append,
    pub(in super::super) outcome: Option<Result<Appended>>,
}

/// What one commit appends to one stream.
pub(in super::super) struct Run {
    pub(in super::super) stream: Arc<Stream>,
    /// Its entries among those of the commit.
    pub(in super::super) entries: Vec<usize>,
    /// Whether an entry wants the device to have it.
    pub(in super::super) is_sync_wanted: bool,
    places: Vec<Place>,
    /// Entries that find the stream full.
    refused: Vec<usize>,
    writes: Vec<Write>,
    fault: Option<Fault>,
}

/// Where an entry goes; a duplicate to where the first one went, a stale one to the end before it.
pub(super) struct Place {
    pub(super) entry: usize,
    pub(super) offset: u64,
    pub(super) time: Timestamp,
    pub(super) effect: Effect,
}

impl Run {
    pub(in super::super) fn new(stream: Arc<Stream>, entries: Vec<usize>) -> Self {
        Self {
            stream,
            entries,
            is_sync_wanted: false,
            places: Vec::new(),
            refused: Vec::new(),
            writes: Vec::new(),
            fault: None,
        }
    }

    /// The segments that it has written to.
    pub(in super::super) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.writes.iter().map(|write| &write.segment)
    }

    /// Gives every entry its place from the offset where the appender is.
    fn place(&mut self, appender: &mut Appender, entries: &[Entry], now: Timestamp) {
        let time = now.max(appender.last_time);
        let mut next_offset = appender.next_offset;
        let mut placed: FxHashMap<&str, u64> = FxHashMap::default();
        let mut version: Option<&Version> = appender.version.as_ref();
        let mut unsettled = self.stream.unsettled(next_offset);
        for &index in &self.entries {
            let Some(Entry { append, .. }) = entries.get(index) else { continue };
            self.is_sync_wanted |= append.durability == Durability::Fsynced;
            let id = append.dedup.as_ref().map(|dedup| &*dedup.id);
            let seen = id.and_then(|id| appender.dedup.find(id, now).or_else(|| placed.get(id).copied()));
            let is_stale = append.version.as_ref().is_some_and(|new| new.is_stale(version));
            let (offset, effect) = match seen {
                Some(offset) => (offset, Effect::Duplicate),
                // If what made it stale fails, so does it.
                None if is_stale => (next_offset - 1, Effect::Stale),
                None => (next_offset, Effect::New),
            };
            if effect == Effect::New && !unsettled.as_mut().is_none_or(|unsettled| unsettled.take(append)) {
                self.refused.push(index);
                continue;
            }
            self.places.push(Place { entry: index, offset, time, effect });
            if effect != Effect::New {
                continue;
            }
            next_offset += 1;
            version = append.version.as_ref().or(version);
            if let Some(dedup) = &append.dedup {
                placed.insert(&dedup.id, offset);
                // Before the writes: a segment that begins among them says when the ids before it are forgotten.
                appender.dedup_until = appender.dedup_until.max(time.saturating_add(dedup.window));
            }
        }
    }
}

/// How much of a stream may not be removed, because a group has not settled it.
struct Unsettled {
    events: u64,
    bytes: u64,
}

impl Unsettled {
    /// Takes an append. False if it finds the stream at a bound.
    fn take(&mut self, append: &Append) -> bool {
        let Retention { events_max, bytes_max, at_bound, .. } = append.retention;
        let bytes = append.envelope.len() as u64;
        let is_full = self.events > 0
            && at_bound != AtBound::DropOldest
            && (events_max.is_some_and(|max| self.events >= max)
                || bytes_max.is_some_and(|max| self.bytes + bytes > max));
        if !is_full {
            self.events += 1;
            self.bytes += bytes;
        }
        !is_full
    }
}

impl Stream {
    /// Writes the records of the run's entries. Nobody sees them before [`publish`](Self::publish).
    ///
    /// When a write fails, it is taken back, and its entries and those after it fail. False if it cannot be
    /// taken back: then the stream must be opened again.
    pub(in super::super) fn write(
        &self,
        directory: &Directory,
        run: &mut Run,
        entries: &[Entry],
        now: Timestamp,
    ) -> bool {
        let mut appender = self.appender.lock();
        run.place(&mut appender, entries, now);
        if let Some(last) = run.entries.last().and_then(|last| entries.get(*last)) {
            appender.retention = last.append.retention;
        }
        let mut places = run.places.as_slice();
        while !places.is_empty() {
            match appender.write(self, directory, places, entries) {
                Ok((count, write)) => {
                    run.writes.extend(write);
                    places = places.get(count..).unwrap_or_default();
                }
                Err(error) => {
                    run.fault = Some(Fault::io("append to", &self.directory, error));
                    return appender.take_back(directory);
                }
            }
        }
        true
    }

    /// Waits until the device has `segments`: all that were written since the last sync.
    pub(in super::super) fn sync(
        &self,
        directory: &Directory,
        segments: &[Arc<Segment>],
    ) -> Result<(), Fault> {
        let fault = |error| Fault::io("sync", &self.directory, error);
        for segment in segments {
            match segment.open(&directory.files) {
                Ok(file) => directory.files.sync(&file).map_err(fault)?,
                // Retention has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fault(error)),
            }
        }
        let mut appender = self.appender.lock();
        if !appender.is_directory_synced {
            self.sync_directory(directory).map_err(fault)?;
            appender.is_directory_synced = true;
        }
        Ok(())
    }

    /// Lets readers see what the run has written, announces it in the order of the offsets, and sets the
    /// outcome of every entry.
    pub(in super::super) fn publish(
        self: &Arc<Self>,
        run: &mut Run,
        entries: &mut [Entry],
        pubsub: &LocalPubSub,
        tails: &mut TailBound,
    ) {
        let mut appender = self.appender.lock();
        let epoch = self.show(run, &appender, tails);
        for index in run.refused.drain(..) {
            if let Some(entry) = entries.get_mut(index) {
                entry.outcome = Some(Err(full(&self.channel)));
            }
        }
        let mut is_appended = false;
        for place in &run.places {
            let Some(entry) = entries.get_mut(place.entry) else { continue };
            if place.offset >= appender.next_offset {
                entry.outcome = run.fault.clone().map(|fault| Err(fault.into()));
                continue;
            }
            let position = Position { epoch, offset: place.offset };
            if place.effect == Effect::New {
                is_appended = true;
                if let Some(dedup) = &entry.append.dedup {
                    appender.dedup.insert(dedup, place.offset, place.time);
                }
                pubsub.announce(
                    &entry.append,
                    &Kept { position, term: Term::default(), time: place.time, stream: None },
                );
            }
            let (position, effect) = (Some(position), place.effect);
            let durability = entry.append.durability;
            entry.outcome = Some(Ok(Appended { position, scheduled: None, effect, durability }));
        }
        if is_appended && self.groups.take_hunger() {
            pubsub.tell_work(&self.channel);
        }
    }

    /// What groups have not settled of a stream that goes on with `next_offset`; `None` if it has no groups.
    fn unsettled(&self, next_offset: u64) -> Option<Unsettled> {
        let floor = self.groups.floor();
        if floor == u64::MAX {
            return None;
        }
        let view = self.view.read();
        let first = floor.max(view.first);
        Some(Unsettled { events: next_offset.saturating_sub(first), bytes: view.bytes_from(first) })
    }

    /// Moves the view on to what the run has written.
    fn show(self: &Arc<Self>, run: &mut Run, appender: &Appender, tails: &mut TailBound) -> Epoch {
        let mut chunk_bytes = Vec::new();
        let mut view = self.view.write();
        for write in run.writes.drain(..) {
            write.segment.publish(&write.blocks, write.end(), write.next_offset);
            if view.segments.is_empty() {
                view.known_age = (write.first.offset, write.first.time);
            }
            if view.segments.back().is_none_or(|last| !Arc::ptr_eq(last, &write.segment)) {
                view.segments.push_back(Arc::clone(&write.segment));
            }
            view.last = write.next_offset - 1;
            for chunk in write.into_chunks() {
                chunk_bytes.push(chunk.bytes.len());
                view.tail.push(chunk);
            }
        }
        view.retention = appender.retention;
        view.first = view.first.max(view.first_by_count().min(view.floor()));
        let epoch = view.epoch;
        // Counting may drop a chunk of this very stream.
        drop(view);
        chunk_bytes.into_iter().for_each(|bytes| tails.count(self, bytes));
        epoch
    }

    /// Takes what the run has written out of its files, as far as the disk lets it, and makes its entries fail. The
    /// stream must be opened again before anything is appended.
    pub(in super::super) fn take_back(&self, directory: &Directory, run: &mut Run, fault: &Fault) {
        let mut appender = self.appender.lock();
        for write in run.writes.drain(..).rev() {
            appender.next_offset = write.first.offset;
            let taken_back = if write.first.position == RECORDS_START {
                write.segment.remove(&directory.files)
            } else {
                write.segment.open(&directory.files).and_then(|file| file.set_len(write.first.position))
            };
            if let Err(error) = taken_back {
                tracing::warn!(file = %write.segment.path().display(), %error, "unconfirmed events stay");
            }
        }
        run.fault = Some(fault.clone());
    }

    /// Follows a segment whose events are all removed with an empty one, so that its disk is given back.
    pub(in super::super) fn renew_segment(&self, directory: &Directory, now: Timestamp) -> io::Result<()> {
        let mut appender = self.appender.lock();
        if appender.active.as_ref().is_none_or(|active| active.end == RECORDS_START) {
            return Ok(());
        }
        let time = now.max(appender.last_time);
        let segment = Arc::clone(&appender.add_segment(self, directory, time)?.segment);
        self.view.write().segments.push_back(segment);
        Ok(())
    }

    /// What the database should know of it, if it does not.
    pub(in super::super) fn unsaved_row(&self, directory: &Directory) -> Option<StreamRow> {
        let appender = self.appender.lock();
        (appender.retention != appender.saved_retention).then(|| self.row(directory))
    }

    /// Notes that the database knows the row.
    pub(in super::super) fn note_saved(&self, row: &StreamRow) {
        self.appender.lock().saved_retention = row.retention;
    }
}
