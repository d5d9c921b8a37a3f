//! Giving a subscriber what it missed, from the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidewire::{Channel, ErrorKind, Position, Received};
use tokio::sync::Mutex;

use crate::metrics::{StreamRead, TenantMetrics};

/// Events in one step of a recovery. What is pushed cannot be taken back, so steps are small enough to pass through an
/// outbox, and large enough to recover 1,000 events in a few reads.
const STEP_EVENTS_MAX: usize = 256;

/// A step is shared with the subscribers that need it next if its data is at most this large, in bytes: one is kept for
/// each channel that recoveries ask for.
const SHARED_BYTES_MAX: usize = 256 * 1024;

/// Reads the stream of one channel for its subscribers, one read at a time.
///
/// When a node restarts or a link comes back, all subscribers of a channel return at once and most of them miss the
/// same: the first one reads, the others find it read.
pub(crate) struct Recovery {
    channel: Channel,
    shared: Mutex<Option<Arc<[Received]>>>,
    metrics: Arc<TenantMetrics>,
    newest: Mutex<Option<NewestRead>>,
    /// Reads of the newest events that have begun.
    newest_reads: AtomicU64,
}

/// A read of the newest events.
struct NewestRead {
    number: u64,
    count_max: usize,
    found: Newest,
}

/// The newest events of a stream at a time.
#[derive(Clone, Debug)]
pub(crate) struct Newest {
    /// The end of the stream.
    pub(crate) end: Position,
    /// Newest first.
    pub(crate) events: Arc<[Received]>,
}

/// One step of a recovery.
#[derive(Debug)]
pub(crate) enum Step {
    /// The next events, without a hole; at least one.
    Events(Events),
    /// What follows the position is no longer kept.
    Lost,
}

/// Events of a read, shared by all who need some of them.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    read: Arc<[Received]>,
    skipped: usize,
    until: u64,
}

impl Recovery {
    pub(crate) fn new(channel: Channel, metrics: Arc<TenantMetrics>) -> Self {
        Self {
            channel,
            shared: Mutex::default(),
            metrics,
            newest: Mutex::default(),
            newest_reads: AtomicU64::default(),
        }
    }

    /// The newest `count_max` events, at most 256. Whoever asks while another read goes on shares the one after that: what is
    /// given is never older than the call.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn newest(&self, count_max: usize) -> tidewire::Result<Newest> {
        let begun = self.newest_reads.load(Relaxed);
        let mut shared = self.newest.lock().await;
        let count_max = count_max.min(STEP_EVENTS_MAX);
        if let Some(read) = shared.as_ref().filter(|read| read.number > begun && read.count_max >= count_max)
        {
            return Ok(read.found.clone());
        }
        let number = self.newest_reads.fetch_add(1, Relaxed) + 1;
        *shared = None;
        self.metrics.stream_reads.add(StreamRead::Recovery, 1);
        let history = self.channel.read().backwards().limit(count_max).await?;
        let found = Newest { end: history.end(), events: history.events.into() };
        let bytes: usize = found.events.iter().map(|received| received.event.data().len()).sum();
        *shared = (bytes <= SHARED_BYTES_MAX).then(|| NewestRead { number, count_max, found: found.clone() });
        Ok(found)
    }

    /// What follows `after`, up to offset `until`. There is no cap on a recovery: step again from the last event on until
    /// `until` is reached.
    ///
    /// # Errors
    /// Those of the engine; the same step may succeed later.
    pub(crate) async fn step(&self, after: Position, until: u64) -> tidewire::Result<Step> {
        let step = self.find(after, until).await?;
        if let Step::Events(events) = &step {
            self.metrics.recovered(events.iter().count());
        }
        Ok(step)
    }

    async fn find(&self, after: Position, until: u64) -> tidewire::Result<Step> {
        let mut shared = self.shared.lock().await;
        if let Some(events) = shared.as_ref().and_then(|read| Events::following(read, after, until)) {
            return Ok(Step::Events(events));
        }
        self.metrics.stream_reads.add(StreamRead::Recovery, 1);
        let history = match self.channel.read().after(after).limit(STEP_EVENTS_MAX).await {
            Ok(history) => history,
            Err(error) if error.kind() == ErrorKind::PositionLost => return Ok(Step::Lost),
            Err(error) => return Err(error),
        };
        if history.missing_count > 0 {
            return Ok(Step::Lost);
        }
        let read: Arc<[Received]> = history.events.into();
        let bytes: usize = read.iter().map(|received| received.event.data().len()).sum();
        *shared = (bytes <= SHARED_BYTES_MAX).then(|| read.clone());
        Ok(Events::following(&read, after, until).map_or(Step::Lost, Step::Events))
    }
}

impl Events {
    /// The part of a read without holes that follows `after`, if the event right after it is there.
    fn following(read: &Arc<[Received]>, after: Position, until: u64) -> Option<Self> {
        let first = read.first()?.position?;
        let skipped =
            (after.offset + 1).checked_sub(first.offset).and_then(|count| usize::try_from(count).ok())?;
        let is_there = first.epoch == after.epoch && skipped < read.len() && after.offset < until;
        is_there.then(|| Self { read: read.clone(), skipped, until })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Received> {
        let is_wanted =
            |received: &&Received| received.position.is_some_and(|position| position.offset <= self.until);
        self.read.iter().skip(self.skipped).take_while(is_wanted)
    }

    /// Where the last of them is.
    pub(crate) fn end(&self) -> Option<Position> {
        self.iter().last().and_then(|received| received.position)
    }
}

#[cfg(test)]
mod tests {
    use tidewire::{Event, Retention, Tidewire};

    use super::*;

    async fn channel() -> Channel {
        Tidewire::open("memory:").await.unwrap().tenant("default").unwrap().channel("orders").unwrap()
    }

    async fn append(channel: &Channel, count: usize, bytes: usize) -> Position {
        let mut end = Position::default();
        for _ in 0..count {
            let appended = channel.append(Event::new("test", vec![b'1'; bytes])).await.unwrap();
            end = appended.position.unwrap();
        }
        end
    }

    async fn step(recovery: &Recovery, end: Position, after: u64, until: u64) -> Option<Events> {
        match recovery.step(Position { offset: after, ..end }, until).await.unwrap() {
            Step::Events(events) => Some(events),
            Step::Lost => None,
        }
    }

    fn offsets(events: &Events) -> Vec<u64> {
        events.iter().map(|received| received.position.unwrap().offset).collect()
    }

    #[tokio::test]
    async fn subscribers_that_miss_the_same_share_one_read() {
        let channel = channel().await;
        let end = append(&channel, 10, 1).await;
        let recovery = Recovery::new(channel.clone(), Arc::default());
        let first = step(&recovery, end, 3, 10).await.unwrap();
        assert_eq!(offsets(&first), (4..=10).collect::<Vec<_>>());
        let second = step(&recovery, end, 5, 8).await.unwrap();
        assert_eq!((offsets(&second), second.end()), (vec![6, 7, 8], Some(Position { offset: 8, ..end })));
        assert!(Arc::ptr_eq(&first.read, &second.read));
        // Who missed more than was read, or what came since, reads again.
        let third = step(&recovery, end, 1, 10).await.unwrap();
        assert_eq!(offsets(&third), (2..=10).collect::<Vec<_>>());
        append(&channel, 1, 1).await;
        assert_eq!(offsets(&step(&recovery, end, 10, 11).await.unwrap()), [11]);
        assert_eq!(recovery.metrics.stream_reads.of(StreamRead::Recovery), 3, "one was shared");
    }

    #[tokio::test]
    async fn a_long_recovery_takes_several_steps_and_shares_no_large_ones() {
        let channel = channel().await;
        let end = append(&channel, 600, 1).await;
        let recovery = Recovery::new(channel.clone(), Arc::default());
        let (mut after, mut seen) = (0, Vec::new());
        while after < 600 {
            let events = step(&recovery, end, after, 600).await.unwrap();
            seen.extend(offsets(&events));
            after = events.end().unwrap().offset;
        }
        assert_eq!(seen, (1..=600).collect::<Vec<_>>());
        let end = append(&channel, 2, SHARED_BYTES_MAX).await;
        step(&recovery, end, 600, 602).await.unwrap();
        assert!(recovery.shared.lock().await.is_none());
    }

    #[tokio::test]
    async fn the_newest_events_are_never_older_than_the_call() {
        let channel = channel().await;
        append(&channel, 300, 1).await;
        let recovery = Recovery::new(channel.clone(), Arc::default());
        let one = recovery.newest(1).await.unwrap();
        assert_eq!((one.end.offset, one.events.len()), (300, 1));
        append(&channel, 1, 1).await;
        assert_eq!(recovery.newest(1).await.unwrap().end.offset, 301);
        // Those who ask while somebody else reads share what is read after that.
        let reading = recovery.newest.lock().await;
        let waiting = [(); 9].map(|()| recovery.newest(1));
        let mut waiting = futures_util::future::join_all(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(reading);
        let found = waiting.await;
        let first = found[0].as_ref().unwrap();
        assert!(found.iter().all(|newest| Arc::ptr_eq(&newest.as_ref().unwrap().events, &first.events)));
        assert_eq!(recovery.newest(usize::MAX).await.unwrap().events.len(), STEP_EVENTS_MAX);
    }

    #[tokio::test]
    async fn what_is_trimmed_or_of_another_epoch_is_lost() {
        let channel = channel().await;
        let newest = Retention { events_max: Some(2), ..Retention::default() };
        let mut end = Position::default();
        for _ in 0..5 {
            end = channel.append(Event::new("test", "1")).retention(newest).await.unwrap().position.unwrap();
        }
        let recovery = Recovery::new(channel, Arc::default());
        assert!(step(&recovery, end, 1, 5).await.is_none());
        assert!(step(&recovery, end, 3, 5).await.is_some());
        let other = Position { epoch: tidewire::Epoch::default(), ..end };
        assert!(step(&recovery, other, 3, 5).await.is_none(), "what is shared is of one epoch too");
    }
}
