//! The one thread that writes to streams.
//!
//! It takes all that waits and makes one commit of it: the records of each stream are written with one call, the
//! files are synced if an append asked for that, and only then are the events readable, announced, and confirmed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::Fsync;
use super::directory::Directory;
use super::fault::Fault;
use super::files;
use super::queue::{Asked, Queue};
use super::segment::Segment;
use super::stream::{Entry, Run, Stream};
use super::streams::Streams;
use super::tail::TailBound;
use crate::clock::{Clock, Timestamp};
use crate::engine::embedded::pubsub::LocalPubSub;
use crate::engine::{Append, Appended, Retention, Trimmed};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ChannelPath;

/// Streams whose newest events the device may not have yet; past it all are synced.
const UNSYNCED_STREAMS_MAX: usize = 4 * 1024;

/// Coarsest step of a file system's clock, as of FAT.
const FILE_TIME_STEP_MAX: Duration = Duration::from_secs(2);

/// What the writer is asked to do.
pub(super) enum Job {
    Append(AppendJob),
    Trim {
        channel: ChannelPath,
        before: u64,
        asked: Asked<Trimmed>,
    },
    /// Give back the disk of a stream if all its events are too old.
    Expire(ChannelPath),
    /// Sync what was written since the last one.
    Sync,
    /// Say whether appends are taken.
    Probe(Asked<()>),
}

pub(super) struct AppendJob {
    pub(super) batch: Vec<Append>,
    pub(super) asked: Asked<Vec<Result<Appended>>>,
}

/// The writer's thread, and what only it changes.
pub(super) struct Writer {
    directory: Arc<Directory>,
    streams: Arc<Streams>,
    pubsub: LocalPubSub,
    clock: Clock,
    fsync: Fsync,
    tails: TailBound,
    /// Streams, and the segments of them that were written to since their last sync.
    unsynced: FxHashMap<u64, (Arc<Stream>, Vec<Arc<Segment>>)>,
    /// The database knows that confirmed appends may not be on the device.
    is_marked_unsynced: bool,
    /// Why nothing is appended any more.
    refusal: Option<Fault>,
}

impl Writer {
    pub(super) fn new(
        directory: Arc<Directory>,
        streams: Arc<Streams>,
        pubsub: LocalPubSub,
        clock: Clock,
        fsync: Fsync,
    ) -> Self {
        Self {
            is_marked_unsynced: directory.unsynced_since.is_some(),
            directory,
            streams,
            pubsub,
            clock,
            fsync,
            tails: TailBound::default(),
            unsynced: FxHashMap::default(),
            refusal: None,
        }
    }

    /// Works until the queue is closed and empty; then the device has everything.
    pub(super) fn run(mut self, queue: &Queue<Job>) {
        while let Some(jobs) = queue.take_all() {
            let mut appends = Vec::new();
            for job in jobs {
                if let Job::Append(append) = job {
                    appends.push(append);
                } else {
                    // What was asked before is done before.
                    self.append(std::mem::take(&mut appends));
                    self.do_one(job);
                }
            }
            self.append(appends);
        }
        self.finish();
    }

    fn do_one(&mut self, job: Job) {
        match job {
            Job::Append(append) => self.append(vec![append]),
            Job::Trim { channel, before, asked } => asked.answer(self.trim(&channel, before)),
            Job::Expire(channel) => {
                if let Err(error) = self.expire(&channel) {
                    tracing::warn!(%channel, %error, "expired stream stays");
                }
            }
            Job::Sync => self.sync_all(),
            Job::Probe(asked) => {
                asked.answer(self.refusal.clone().map_or(Ok(()), |fault| Err(fault.into())));
            }
        }
    }

    /// Makes one commit of the batches.
    fn append(&mut self, jobs: Vec<AppendJob>) {
        if jobs.is_empty() {
            return;
        }
        if let Some(fault) = &self.refusal {
            for job in jobs {
                job.asked.answer(Err(fault.clone().into()));
            }
            return;
        }
        let now = self.clock.now();
        let mut entries = Vec::with_capacity(jobs.iter().map(|job| job.batch.len()).sum());
        let mut answers = Vec::with_capacity(jobs.len());
        for AppendJob { batch, asked } in jobs {
            answers.push((asked, batch.len()));
            entries.extend(batch.into_iter().map(|append| Entry { append, outcome: None }));
        }
        let mut runs = self.runs(&mut entries, now);
        self.write(&mut runs, &entries, now);
        for run in &mut runs {
            let stream = Arc::clone(&run.stream);
            stream.publish(run, &mut entries, &self.pubsub, &mut self.tails);
        }
        let mut outcomes =
            entries.into_iter().map(|entry| entry.outcome.unwrap_or_else(|| Err(no_outcome())));
        for (asked, count) in answers {
            asked.answer(Ok(outcomes.by_ref().take(count).collect()));
        }
        self.apply_retention(&runs, now);
    }

    /// The entries by stream. Streams are opened, those that do not exist are created in one step; entries of a
    /// stream that cannot be opened have their outcome.
    fn runs(&self, entries: &mut [Entry], now: Timestamp) -> Vec<Run> {
        let mut groups: Vec<(ChannelPath, Vec<usize>)> = Vec::new();
        let mut by_channel: FxHashMap<ChannelPath, usize> = FxHashMap::default();
        let mut group = 0;
        for (index, Entry { append, .. }) in entries.iter().enumerate() {
            // Most batches are for one channel.
            if groups.get(group).is_none_or(|(channel, _)| *channel != append.channel) {
                group = *by_channel.entry(append.channel.clone()).or_insert(groups.len());
                if group == groups.len() {
                    groups.push((append.channel.clone(), Vec::new()));
                }
            }
            if let Some((_, indexes)) = groups.get_mut(group) {
                indexes.push(index);
            }
        }
        let created = self.create_missing(&groups, entries, now);
        let mut runs = Vec::with_capacity(groups.len());
        for (channel, indexes) in groups {
            let stream = created.clone().and_then(|()| self.stream(&channel, now));
            match stream {
                Ok(Some(stream)) => runs.push(Run::new(stream, indexes)),
                Ok(None) => {}
                Err(fault) => {
                    for index in indexes {
                        if let Some(entry) = entries.get_mut(index) {
                            entry.outcome = Some(Err(fault.clone().into()));
                        }
                    }
                }
            }
        }
        runs
    }

    fn stream(&self, channel: &ChannelPath, now: Timestamp) -> Result<Option<Arc<Stream>>, Fault> {
        match self.streams.get(channel) {
            Some(stream) => Ok(Some(stream)),
            None => self.streams.open(&self.directory, channel, now),
        }
    }

    fn create_missing(
        &self,
        groups: &[(ChannelPath, Vec<usize>)],
        entries: &[Entry],
        now: Timestamp,
    ) -> Result<(), Fault> {
        let mut missing: Vec<(&str, Retention)> = Vec::new();
        for (channel, indexes) in groups {
            // One that cannot be opened exists, and is told of when it is needed.
            if let Ok(None) = self.stream(channel, now) {
                let last = indexes.last().and_then(|index| entries.get(*index));
                missing
                    .push((channel.as_str(), last.map(|entry| entry.append.retention).unwrap_or_default()));
            }
        }
        if missing.is_empty() { Ok(()) } else { self.directory.state.create_streams(&missing) }
    }

    /// Writes the runs' records and makes them as durable as was asked for. What fails is noted in its run.
    fn write(&mut self, runs: &mut [Run], entries: &[Entry], now: Timestamp) {
        for run in runs.iter_mut() {
            let stream = Arc::clone(&run.stream);
            if !stream.write(&self.directory, run, entries, now) {
                // Opened again, its end is looked at again.
                self.streams.close(stream.channel());
            }
            for segment in run.segments() {
                self.note_unsynced(&stream, segment);
            }
            if run.is_sync_wanted || self.fsync == Fsync::Always {
                self.sync(run);
            }
        }
        if !self.unsynced.is_empty() && !self.is_marked_unsynced {
            match self.directory.state.set_unsynced_since(Some(self.directory.opened)) {
                Ok(()) => self.is_marked_unsynced = true,
                Err(fault) => {
                    for run in runs {
                        self.take_back(run, &fault);
                    }
                }
            }
        }
    }

    fn note_unsynced(&mut self, stream: &Arc<Stream>, segment: &Arc<Segment>) {
        let (_, segments) =
            self.unsynced.entry(stream.id()).or_insert_with(|| (Arc::clone(stream), Vec::new()));
        if segments.last().is_none_or(|last| !Arc::ptr_eq(last, segment)) {
            // A segment that nobody else knows is removed.
            segments.retain(|segment| Arc::strong_count(segment) > 1);
            segments.push(Arc::clone(segment));
        }
    }

    fn sync(&mut self, run: &mut Run) {
        let Some((_, segments)) = self.unsynced.remove(&run.stream.id()) else { return };
        if let Err(fault) = run.stream.sync(&self.directory, &segments) {
            self.take_back(run, &fault);
            self.refuse(fault);
        }
    }

    /// Takes back what a run has written. Its stream is opened again by whoever needs it next.
    fn take_back(&self, run: &mut Run, fault: &Fault) {
        let stream = Arc::clone(&run.stream);
        stream.take_back(&self.directory, run, fault);
        self.streams.close(stream.channel());
    }

    /// Appends nothing any more: after a failed sync the system may have dropped what it could not write, and
    /// says so once only. Another sync that succeeds proves nothing.
    fn refuse(&mut self, fault: Fault) {
        tracing::error!(
            directory = %self.directory.root().display(),
            %fault,
            "sync failed: nothing is appended until the engine is opened again, under a new epoch"
        );
        if let Err(fault) = self.directory.state.distrust() {
            tracing::error!(%fault, "and this cannot be noted");
        }
        self.refusal = Some(fault);
    }

    fn sync_all(&mut self) {
        for (stream, segments) in std::mem::take(&mut self.unsynced).into_values() {
            if let Err(fault) = stream.sync(&self.directory, &segments) {
                self.refuse(fault);
                return;
            }
        }
    }

    /// After a commit: gives back disk, and lets the database know what the streams keep.
    fn apply_retention(&mut self, runs: &[Run], now: Timestamp) {
        let mut unsaved = Vec::new();
        for Run { stream, .. } in runs {
            if let Err(error) = stream.drop_segments(&self.directory, now) {
                tracing::warn!(directory = %stream.path().display(), %error, "old segments stay");
            }
            unsaved.extend(stream.unsaved_row(&self.directory).map(|row| (stream, row)));
        }
        if !unsaved.is_empty() {
            let rows = unsaved.iter().map(|(stream, row)| (stream.channel().as_str(), *row));
            match self.directory.state.set_streams(rows) {
                Ok(()) => unsaved.iter().for_each(|(stream, row)| stream.note_saved(row)),
                // Tried again after the next append.
                Err(fault) => tracing::warn!(%fault, "retention is not noted"),
            }
        }
        if self.unsynced.len() > UNSYNCED_STREAMS_MAX {
            self.sync_all();
        }
    }

    fn trim(&mut self, channel: &ChannelPath, before: u64) -> Result<Trimmed> {
        let now = self.clock.now();
        let Some(stream) = self.stream(channel, now)? else { return Ok(Trimmed { removed: 0, first: 1 }) };
        let fault = |error| Fault::io("trim the stream in", stream.path(), error);
        let trimmed = stream.plan_trim(&self.directory, before, now).map_err(fault)?;
        // Disk is given back first: on a full one the database can note the trim only then.
        if stream.trim(trimmed.first) {
            let renewed = stream.renew_segment(&self.directory, now);
            renewed.unwrap_or_else(|error| {
                tracing::warn!(directory = %stream.path().display(), %error, "trimmed segment stays");
            });
        }
        stream.drop_segments(&self.directory, now).map_err(fault)?;
        self.directory.state.set_streams([(channel.as_str(), stream.row(&self.directory))])?;
        Ok(trimmed)
    }

    fn expire(&mut self, channel: &ChannelPath) -> Result<()> {
        let now = self.clock.now();
        let Some(stream) = self.stream(channel, now)? else { return Ok(()) };
        let fault = |error| Fault::io("give back disk of", stream.path(), error);
        if stream.is_expired(&self.directory, now).map_err(fault)? {
            stream.renew_segment(&self.directory, now).map_err(fault)?;
        }
        stream.drop_segments(&self.directory, now).map_err(fault)?;
        Ok(())
    }

    /// Makes what was confirmed durable, and notes that it is.
    fn finish(&mut self) {
        self.sync_all();
        if self.refusal.is_some() || !self.is_marked_unsynced {
            return;
        }
        let noted = match self.sync_earlier_sessions() {
            Ok(()) => self.directory.state.set_unsynced_since(None),
            Err(error) => Err(Fault::io("sync", self.directory.root(), error)),
        };
        if let Err(fault) = noted {
            tracing::warn!(%fault, "the engine was not closed cleanly");
        }
    }

    /// Syncs what a killed process may have written to.
    fn sync_earlier_sessions(&self) -> io::Result<()> {
        let Some(since) = self.directory.unsynced_since else { return Ok(()) };
        let since = since.saturating_sub(FILE_TIME_STEP_MAX);
        let is_newer =
            |path: &Path| Ok::<_, io::Error>(Timestamp::from(path.metadata()?.modified()?) >= since);
        for stream in std::fs::read_dir(self.directory.streams())? {
            let stream = stream?.path();
            for file in std::fs::read_dir(&stream)? {
                let file = file?.path();
                if is_newer(&file)? {
                    File::open(file)?.sync_data()?;
                }
            }
            if is_newer(&stream)? {
                files::sync_directory(&stream)?;
            }
        }
        files::sync_directory(&self.directory.streams())
    }
}

fn no_outcome() -> Error {
    Error::new(ErrorKind::Engine, "engine lost an append on its way")
}
