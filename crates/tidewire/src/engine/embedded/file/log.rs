//! The log of `file:`: checks what comes in, and hands it to the writer or reads beside it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use super::fault::Fault;
use super::groups::GroupLog;
use super::queue::Queue;
use super::schedule::Schedule;
use super::stream::Stream;
use super::streams::Streams;
use super::writer::{AppendJob, Job};
use crate::clock::{Clock, Timestamp};
use crate::engine::{
    Answer, Append, Appended, Change, Durability, GroupStats, Listing, Log, Opened, Opening, Page, Range,
    Retention, Shelf, ShelfItem, StreamStats, Trimmed, Turn, Turned,
};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::{ChannelPath, GroupPath};

/// What an append takes in the queue beside its envelope, about.
const APPEND_BYTES: usize = 128;

/// Streams in files. Dropping it stops the writer, which first does what it was given.
pub(super) struct FileLog {
    streams: LogStreams,
    schedule: Schedule,
    groups: GroupLog,
}

/// The way to the streams, without the schedule before it. Clones share it.
#[derive(Clone)]
pub(super) struct LogStreams {
    pub(super) directory: Arc<Directory>,
    pub(super) streams: Arc<Streams>,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) clock: Clock,
    pub(super) call_time_max: Duration,
}

/// What becomes of an entry of a batch.
enum Way {
    Now,
    Later,
    Refused(Error),
}

impl FileLog {
    pub(super) fn new(streams: LogStreams, schedule: Schedule, groups: GroupLog) -> Self {
        Self { streams, schedule, groups }
    }

    async fn append_now_or_later(&self, batch: Vec<Append>) -> Result<Vec<Result<Appended>>> {
        check_batch(&batch)?;
        let time = self.streams.clock.now();
        let (mut now, mut later) = (Vec::with_capacity(batch.len()), Vec::new());
        let mut ways = Vec::with_capacity(batch.len());
        for append in batch {
            ways.push(match check(&append) {
                Err(error) => Way::Refused(error),
                Ok(()) if append.deliver_at.is_some_and(|due| due > time) => {
                    later.push(append);
                    Way::Later
                }
                Ok(()) => {
                    now.push(append);
                    Way::Now
                }
            });
        }
        if later.is_empty() && now.len() == ways.len() {
            return self.streams.append(now).await;
        }
        let mut now_outcomes = match now.len() {
            0 => Vec::new(),
            count => self.streams.append(now).await.unwrap_or_else(|error| repeat(&error, count)),
        }
        .into_iter();
        let mut later_outcomes = match later.len() {
            0 => Vec::new(),
            count => self.schedule.add(later).await.unwrap_or_else(|error| repeat(&error, count)),
        }
        .into_iter();
        let outcomes = ways.into_iter().filter_map(|way| match way {
            Way::Now => now_outcomes.next(),
            Way::Later => later_outcomes.next(),
            Way::Refused(error) => Some(Err(error)),
        });
        Ok(outcomes.collect())
    }

    async fn read_page(&self, channel: &ChannelPath, range: Range) -> Result<Page> {
        let LogStreams { directory, streams, clock, .. } = &self.streams;
        let in_memory =
            streams.get(channel).and_then(|stream| stream.read_tail(directory, range, clock.now()));
        if let Some(page) = in_memory {
            return Ok(page);
        }
        let read = move |directory: &Directory, stream: &Stream, now| stream.read(directory, range, now);
        let page = self.streams.work(channel, read).await?;
        Ok(page.unwrap_or_else(|| Page { epoch: directory.epoch, first: 1, ..Page::default() }))
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.streams.queue.close();
    }
}

impl LogStreams {
    /// Appends a batch that was checked.
    pub(super) async fn append(&self, batch: Vec<Append>) -> Result<Vec<Result<Appended>>> {
        let bytes = batch.iter().map(|append| append.envelope.len() + APPEND_BYTES).sum();
        self.queue.ask(bytes, |asked| Job::Append(AppendJob { batch, asked })).await
    }

    /// Creates the stream of a channel that has none.
    pub(super) async fn create(&self, channel: &ChannelPath) -> Result<()> {
        if self.streams.get(channel).is_some() {
            return Ok(());
        }
        let channel = channel.clone();
        self.block(move |Self { directory, .. }| {
            directory.state.create_streams(&[(channel.as_str(), Retention::default())])
        })
        .await
    }

    /// Works on a stream beside the writer, on a thread that may block; `None` if there is no stream.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        channel: &ChannelPath,
        work: impl FnOnce(&Directory, &Stream, Timestamp) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let (channel, now) = (channel.clone(), self.clock.now());
        self.block(move |Self { directory, streams, .. }| {
            let Some(stream) = streams.open(directory, &channel, now)? else { return Ok(None) };
            let answer = work(directory, &stream, now);
            answer.map(Some).map_err(|error| Fault::io("read the stream in", stream.path(), error))
        })
        .await
    }

    /// Does something on a thread that may block.
    async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let log = self.clone();
        let worked = tokio::task::spawn_blocking(move || work(&log));
        match tokio::time::timeout(self.call_time_max, worked).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_ended)) => Err(Error::closed("engine")),
            Err(_elapsed) => Err(Error::new(
                ErrorKind::TimedOut,
                format!("disk did not answer within {:?} (limits.call_time_max)", self.call_time_max),
            )),
        }
    }
}

impl Log for FileLog {
    fn append(&self, batch: Vec<Append>) -> Answer<'_, Vec<Result<Appended>>> {
        Box::pin(self.append_now_or_later(batch))
    }

    fn read(&self, channel: &ChannelPath, range: Range) -> Answer<'_, Page> {
        let channel = channel.clone();
        Box::pin(async move { self.read_page(&channel, range).await })
    }

    fn seek(&self, channel: &ChannelPath, time: Timestamp) -> Answer<'_, u64> {
        let channel = channel.clone();
        Box::pin(async move {
            let seek = move |directory: &Directory, stream: &Stream, now| stream.seek(directory, time, now);
            Ok(self.streams.work(&channel, seek).await?.unwrap_or(1))
        })
    }

    fn trim(&self, channel: &ChannelPath, before: u64) -> Answer<'_, Trimmed> {
        let channel = channel.clone();
        Box::pin(self.streams.queue.ask(APPEND_BYTES, move |asked| Job::Trim { channel, before, asked }))
    }

    fn stats(&self, channel: &ChannelPath) -> Answer<'_, StreamStats> {
        let channel = channel.clone();
        Box::pin(async move {
            let stats = self.streams.work(&channel, |directory, stream, now| stream.stats(directory, now));
            let none = StreamStats { epoch: self.streams.directory.epoch, first: 1, ..Default::default() };
            Ok(stats.await?.unwrap_or(none))
        })
    }

    fn cancel(&self, channel: &ChannelPath, key: &str) -> Answer<'_, bool> {
        let (channel, key) = (channel.clone(), key.to_owned());
        Box::pin(async move { self.schedule.cancel(channel, &key).await })
    }

    fn group_open(&self, group: &GroupPath, opening: Opening) -> Answer<'_, Opened> {
        Box::pin(self.groups.open(group.clone(), opening))
    }

    fn groups(&self, channel: &ChannelPath) -> Answer<'_, Vec<Box<str>>> {
        Box::pin(self.groups.names(channel.clone()))
    }

    fn group_turn(&self, group: &GroupPath, turn: Turn) -> Answer<'_, Turned> {
        Box::pin(self.groups.turn(group.clone(), turn))
    }

    fn group_stats(&self, group: &GroupPath) -> Answer<'_, GroupStats> {
        Box::pin(self.groups.stats(group.clone()))
    }

    fn group_items(&self, group: &GroupPath, shelf: Shelf, listing: Listing) -> Answer<'_, Vec<ShelfItem>> {
        Box::pin(self.groups.items(group.clone(), shelf, listing))
    }

    fn group_change(&self, group: &GroupPath, change: Change) -> Answer<'_, u64> {
        Box::pin(self.groups.change(group.clone(), change))
    }
}

fn repeat(error: &Error, count: usize) -> Vec<Result<Appended>> {
    std::iter::repeat_with(|| Err(Error::new(error.kind(), error.to_string()))).take(count).collect()
}

fn check_batch(batch: &[Append]) -> Result<()> {
    if batch.len() > limits::BATCH_EVENTS_MAX {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "batch has {} events, limit is {} (limits.BATCH_EVENTS_MAX)",
                batch.len(),
                limits::BATCH_EVENTS_MAX
            ),
        ));
    }
    let bytes = batch.iter().map(|append| append.envelope.len()).sum();
    if bytes > limits::BATCH_BYTES_MAX {
        return Err(Error::too_large("batch", bytes, limits::BATCH_BYTES_MAX, "BATCH_BYTES_MAX"));
    }
    Ok(())
}

fn check(append: &Append) -> Result<()> {
    if let Durability::Replicated(copies) = append.durability {
        return Err(Error::new(
            ErrorKind::Engine,
            format!("engine file: keeps one copy; durability Replicated({copies}) needs a Redis engine"),
        ));
    }
    match &append.dedup {
        Some(dedup) if dedup.id.len() > limits::DEDUP_ID_BYTES_MAX => Err(Error::too_large(
            "dedup id",
            dedup.id.len(),
            limits::DEDUP_ID_BYTES_MAX,
            "DEDUP_ID_BYTES_MAX",
        )),
        _ => Ok(()),
    }
}
