//! `memory:`: streams and entries that end with the process.

mod groups;
mod store;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use self::store::MemoryStore;
use self::stream::Stream;
use super::group::full;
use super::pubsub::LocalPubSub;
use crate::clock::{Clock, Timestamp};
use crate::engine::finding::nothing_to_examine;
use crate::engine::{
    Answer, Append, Appended, Change, Durability, Effect, Engine, GroupStats, Kept, Listing, Log, Opened,
    Opening, Page, Range, Setup, Shelf, ShelfItem, StreamStats, Term, Trimmed, Turn, Turned,
};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{ChannelPath, GroupPath};
use crate::position::{Epoch, Position};

/// Time until the next attempt to append what is due to a stream that is full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Opens an engine that keeps everything in this process's memory, under a fresh epoch.
pub fn open_memory(setup: &Setup) -> Engine {
    let pubsub = LocalPubSub::new(setup.sink.clone());
    let log = Arc::new(MemoryLog {
        epoch: Epoch::random(),
        clock: setup.clock.clone(),
        pubsub: pubsub.clone(),
        streams: RwLock::default(),
        scheduled: Mutex::default(),
        rescheduled: Notify::new(),
    });
    let stop = setup.tasks.stopping().clone();
    let mover = log.clone();
    setup.tasks.spawn(async move { stop.run_until_cancelled(mover.append_when_due()).await });
    Engine {
        pubsub: Arc::new(pubsub),
        log,
        store: Arc::new(MemoryStore::new(setup.clock.clone())),
        examine: nothing_to_examine(),
        name: "memory",
        is_durable: false,
        is_shared: false,
        tasks: setup.tasks.clone(),
    }
}

struct MemoryLog {
    epoch: Epoch,
    clock: Clock,
    pubsub: LocalPubSub,
    streams: RwLock<FxHashMap<ChannelPath, Arc<Mutex<Stream>>>>,
    /// What waits for its time, by time and then in the order of the calls.
    scheduled: Mutex<BTreeMap<(Timestamp, u64), Append>>,
    rescheduled: Notify,
}

impl MemoryLog {
    fn stream(&self, channel: &ChannelPath) -> Option<Arc<Mutex<Stream>>> {
        self.streams.read().get(channel).cloned()
    }

    fn open_stream(&self, channel: &ChannelPath) -> Arc<Mutex<Stream>> {
        match self.stream(channel) {
            Some(stream) => stream,
            None => self.streams.write().entry(channel.clone()).or_default().clone(),
        }
    }

    fn append_one(&self, append: Append, now: Timestamp) -> Result<Appended> {
        if let Durability::Replicated(copies) = append.durability {
            return Err(Error::new(
                ErrorKind::Engine,
                format!(
                    "engine memory: keeps one copy; durability Replicated({copies}) needs an engine with replicas"
                ),
            ));
        }
        if append.durability == Durability::Fsynced {
            return Err(Error::new(
                ErrorKind::Engine,
                "engine memory: has no device; durability Fsynced needs engine file:DIR",
            ));
        }
        let durability = append.durability;
        if let Some(due) = append.deliver_at.filter(|due| *due > now) {
            return Ok(self.schedule(due, append));
        }
        let stream = self.open_stream(&append.channel);
        // Held over the announcement: announcement order is stream order.
        let mut stream = stream.lock();
        if let Some(offset) = append.dedup.as_ref().and_then(|dedup| stream.dedup.find(&dedup.id, now)) {
            let position = Some(self.position(offset));
            return Ok(Appended { position, scheduled: None, effect: Effect::Duplicate, durability });
        }
        if append.version.as_ref().is_some_and(|version| version.is_stale(stream.version.as_ref())) {
            let position = Some(self.position(stream.last()));
            return Ok(Appended { position, scheduled: None, effect: Effect::Stale, durability });
        }
        if stream.is_full(now, append.envelope.len(), append.retention) {
            return Err(full(&append.channel));
        }
        let offset = stream.push(now, append.envelope.clone(), append.retention);
        if let Some(dedup) = &append.dedup {
            stream.dedup.insert(dedup, offset, now);
        }
        if let Some(version) = &append.version {
            stream.version = Some(version.clone());
        }
        let position = self.position(offset);
        self.pubsub.announce(&append, &Kept { position, term: Term::default(), time: now, stream: None });
        if stream.take_hunger() {
            self.pubsub.tell_work(&append.channel);
        }
        Ok(Appended { position: Some(position), scheduled: None, effect: Effect::New, durability })
    }

    fn position(&self, offset: u64) -> Position {
        Position { epoch: self.epoch, offset }
    }

    fn schedule(&self, due: Timestamp, append: Append) -> Appended {
        let mut scheduled = self.scheduled.lock();
        let order =
            scheduled.range((due, 0)..=(due, u64::MAX)).next_back().map_or(0, |((_, order), _)| order + 1);
        scheduled.insert((due, order), append);
        let key = format!("{}-{order}", due.as_millis());
        drop(scheduled);
        self.rescheduled.notify_one();
        Appended {
            position: None,
            scheduled: Some(key.into()),
            effect: Effect::New,
            durability: Durability::Fast,
        }
    }

    /// Appends what is due; answers when to look again.
    fn append_due(&self, now: Timestamp) -> Option<Timestamp> {
        let mut scheduled = self.scheduled.lock();
        let later = scheduled.split_off(&(now.saturating_add(Duration::from_millis(1)), 0));
        let due = std::mem::replace(&mut *scheduled, later);
        let next = scheduled.first_key_value().map(|((time, _), _)| *time);
        drop(scheduled);
        let mut refused = BTreeMap::new();
        for (place, append) in due {
            // What else `append_one` can refuse was refused when the event was scheduled.
            match self.append_one(append.clone(), now) {
                Err(error) if error.kind() == ErrorKind::Backpressure => {
                    refused.insert(place, append);
                }
                Err(error) => tracing::error!(%error, "scheduled event was not appended"),
                Ok(_) => {}
            }
        }
        if refused.is_empty() {
            return next;
        }
        self.scheduled.lock().append(&mut refused);
        let again = now.saturating_add(RETRY_AFTER);
        Some(next.map_or(again, |next| next.min(again)))
    }

    /// Appends each scheduled event at its time. Runs until it is dropped.
    async fn append_when_due(self: Arc<Self>) {
        loop {
            let now = self.clock.now();
            let next = self.append_due(now);
            let rescheduled = self.rescheduled.notified();
            match next {
                None => rescheduled.await,
                Some(time) => tokio::select! {
                    () = self.clock.sleep(time.since(now)) => {}
                    () = rescheduled => {}
                },
            }
        }
    }

    fn read_now(&self, channel: &ChannelPath, range: Range) -> Page {
        let now = self.clock.now();
        let mut page = match self.stream(channel) {
            Some(stream) => {
                let mut stream = stream.lock();
                stream.expire(now);
                stream.read(range)
            }
            None => Stream::default().read(range),
        };
        page.epoch = self.epoch;
        page
    }
}

impl Log for MemoryLog {
    fn append(&self, batch: Vec<Append>) -> Answer<'_, Vec<Result<Appended>>> {
        let now = self.clock.now();
        let outcomes = batch.into_iter().map(|append| self.append_one(append, now)).collect();
        Box::pin(std::future::ready(Ok(outcomes)))
    }

    fn read(&self, channel: &ChannelPath, range: Range) -> Answer<'_, Page> {
        Box::pin(std::future::ready(Ok(self.read_now(channel, range))))
    }

    fn seek(&self, channel: &ChannelPath, time: Timestamp) -> Answer<'_, u64> {
        let offset = self.stream(channel).map_or(1, |stream| stream.lock().seek(time));
        Box::pin(std::future::ready(Ok(offset)))
    }

    fn trim(&self, channel: &ChannelPath, before: u64) -> Answer<'_, Trimmed> {
        let trimmed = self
            .stream(channel)
            .map_or(Trimmed { removed: 0, first: 1 }, |stream| stream.lock().trim(before));
        Box::pin(std::future::ready(Ok(trimmed)))
    }

    fn stats(&self, channel: &ChannelPath) -> Answer<'_, StreamStats> {
        let now = self.clock.now();
        let mut stats = match self.stream(channel) {
            Some(stream) => {
                let mut stream = stream.lock();
                stream.expire(now);
                stream.stats()
            }
            None => Stream::default().stats(),
        };
        stats.epoch = self.epoch;
        Box::pin(std::future::ready(Ok(stats)))
    }

    fn cancel(&self, channel: &ChannelPath, key: &str) -> Answer<'_, bool> {
        Box::pin(std::future::ready(Ok(self.cancel_now(channel, key))))
    }

    fn group_open(&self, group: &GroupPath, opening: Opening) -> Answer<'_, Opened> {
        Box::pin(std::future::ready(self.open_group(group, opening)))
    }

    fn groups(&self, channel: &ChannelPath) -> Answer<'_, Vec<Box<str>>> {
        Box::pin(std::future::ready(Ok(self.group_names(channel))))
    }

    fn group_turn(&self, group: &GroupPath, turn: Turn) -> Answer<'_, Turned> {
        Box::pin(std::future::ready(self.turn(group, turn)))
    }

    fn group_stats(&self, group: &GroupPath) -> Answer<'_, GroupStats> {
        Box::pin(std::future::ready(self.group_stats_now(group)))
    }

    fn group_items(&self, group: &GroupPath, shelf: Shelf, listing: Listing) -> Answer<'_, Vec<ShelfItem>> {
        Box::pin(std::future::ready(self.on_group(group, |_, kept| Ok(kept.shelves.list(shelf, listing)))))
    }

    fn group_change(&self, group: &GroupPath, change: Change) -> Answer<'_, u64> {
        Box::pin(std::future::ready(self.change_group(group, change)))
    }
}
