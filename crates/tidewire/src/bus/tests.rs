//! Retries over an engine that fails on demand: before an effect, or after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Bus, Channel, GapReason, Hub, Item, RetryPolicy, Settings};
use crate::clock::{Clock, Timestamp};
use crate::engine::Sink as _;
use crate::engine::{
    Answer, Append, Appended, Change, Engine, GroupStats, Heard, Interest, Listing, Log, Opened, Opening,
    Page, Probe, PubSub, Range, Retention, Setup, Shelf, ShelfItem, Start, StreamStats, Trimmed, Turn,
    Turned, embedded,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Catalog, Event, Keys};
use crate::limits::Limits;
use crate::name::{ChannelPath, GroupPath};
use crate::tasks::Tasks;

/// How the next call fails.
enum Fault {
    /// Nothing is done.
    Before(ErrorKind),
    /// All is done, but the answer is lost.
    Lost,
}

/// A memory engine whose `publish` and `append` fail as scripted, and whose streams can lose their end.
struct Faulty {
    pubsub: Arc<dyn PubSub>,
    log: Arc<dyn Log>,
    faults: Mutex<VecDeque<Fault>>,
    /// No stream shows an event past this offset.
    end_max: AtomicU64,
    /// Turns that groups have taken.
    turns: AtomicU64,
}

impl Faulty {
    async fn fail<T>(&self, call: Answer<'_, T>) -> Result<T> {
        let fault = self.faults.lock().pop_front();
        match fault {
            None => call.await,
            Some(Fault::Before(kind)) => Err(Error::new(kind, "scripted")),
            Some(Fault::Lost) => {
                call.await?;
                Err(Error::new(ErrorKind::TimedOut, "scripted"))
            }
        }
    }
}

impl PubSub for Faulty {
    fn publish<'a>(&'a self, channel: &'a ChannelPath, envelope: Bytes) -> Answer<'a, ()> {
        let channel = channel.clone();
        // The effect happens when the inner call is made, so it is made only inside.
        Box::pin(async move {
            let call = Box::pin(async move { self.pubsub.publish(&channel, envelope).await });
            self.fail(call).await
        })
    }

    fn subscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        self.pubsub.subscribe(interests)
    }

    fn unsubscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        self.pubsub.unsubscribe(interests)
    }

    fn subscribers(&self, channel: &ChannelPath) -> Answer<'_, u64> {
        self.pubsub.subscribers(channel)
    }

    fn probe(&self) -> Answer<'_, Vec<Probe>> {
        self.pubsub.probe()
    }
}

impl Log for Faulty {
    fn append(&self, batch: Vec<Append>) -> Answer<'_, Vec<Result<Appended>>> {
        Box::pin(async move {
            let call = Box::pin(async move { self.log.append(batch).await });
            self.fail(call).await
        })
    }

    fn read(&self, channel: &ChannelPath, range: Range) -> Answer<'_, Page> {
        let (channel, end_max) = (channel.clone(), self.end_max.load(Relaxed));
        Box::pin(async move {
            let mut page = self.log.read(&channel, range).await?;
            page.last = page.last.min(end_max);
            page.events.retain(|event| event.offset <= end_max);
            Ok(page)
        })
    }

    fn seek(&self, channel: &ChannelPath, time: Timestamp) -> Answer<'_, u64> {
        self.log.seek(channel, time)
    }

    fn trim(&self, channel: &ChannelPath, before: u64) -> Answer<'_, Trimmed> {
        self.log.trim(channel, before)
    }

    fn stats(&self, channel: &ChannelPath) -> Answer<'_, StreamStats> {
        self.log.stats(channel)
    }

    fn cancel(&self, channel: &ChannelPath, key: &str) -> Answer<'_, bool> {
        self.log.cancel(channel, key)
    }

    fn group_open(&self, group: &GroupPath, opening: Opening) -> Answer<'_, Opened> {
        self.log.group_open(group, opening)
    }

    fn groups(&self, channel: &ChannelPath) -> Answer<'_, Vec<Box<str>>> {
        self.log.groups(channel)
    }

    fn group_turn(&self, group: &GroupPath, turn: Turn) -> Answer<'_, Turned> {
        self.turns.fetch_add(1, Relaxed);
        self.log.group_turn(group, turn)
    }

    fn group_stats(&self, group: &GroupPath) -> Answer<'_, GroupStats> {
        self.log.group_stats(group)
    }

    fn group_items(&self, group: &GroupPath, shelf: Shelf, listing: Listing) -> Answer<'_, Vec<ShelfItem>> {
        self.log.group_items(group, shelf, listing)
    }

    fn group_change(&self, group: &GroupPath, change: Change) -> Answer<'_, u64> {
        self.log.group_change(group, change)
    }
}

fn channel(faults: impl IntoIterator<Item = Fault>) -> Channel {
    rig(faults).0
}

fn rig(faults: impl IntoIterator<Item = Fault>) -> (Channel, Arc<Faulty>, Arc<Hub>) {
    let hub = Arc::new(Hub::new());
    let tasks = Tasks::new();
    let (clock, limits) = (Clock::system(), Limits::default());
    let setup =
        Setup { sink: hub.clone(), clock: clock.clone(), limits: limits.clone(), tasks: tasks.clone() };
    let memory = embedded::open_memory(&setup);
    let faults = Mutex::new(faults.into_iter().collect());
    let end_max = AtomicU64::new(u64::MAX);
    let (pubsub, log) = (memory.pubsub.clone(), memory.log.clone());
    let faulty = Arc::new(Faulty { pubsub, log, faults, end_max, turns: AtomicU64::new(0) });
    let engine = Engine { pubsub: faulty.clone(), log: faulty.clone(), ..memory };
    hub.attach(engine.pubsub.clone());
    let retry = RetryPolicy { first_delay: Duration::ZERO, ..RetryPolicy::default() };
    let (catalog, keys) = (Catalog::new(), Keys::default());
    let settings = Settings { clock, limits, retry, retention: Retention::BOUNDED, catalog, keys };
    let bus = Bus::new(engine, hub.clone(), tasks, settings);
    let path = ChannelPath::new("dev", "default", "orders").unwrap();
    (Channel::new(Arc::new(bus), path), faulty, hub)
}

fn event(data: &'static str) -> Event {
    Event::new("test", data)
}

async fn stored(channel: &Channel) -> Vec<Bytes> {
    channel.read().await.unwrap().events.into_iter().map(|received| received.event.into_data()).collect()
}

#[tokio::test]
async fn a_publish_whose_answer_is_lost_is_heard_once() {
    let channel = channel([Fault::Lost, Fault::Lost]);
    let mut subscription = channel.subscribe().open().await.unwrap();
    channel.publish(event("one")).await.unwrap();
    channel.publish(event("two")).await.unwrap();
    for expected in ["one", "two"] {
        let heard = subscription.next().await.and_then(Item::into_event).unwrap();
        assert_eq!(heard.event.data(), expected);
    }
    assert_eq!(channel.stats().await.unwrap().published.succeeded, 2);
}

#[tokio::test]
async fn a_publish_is_given_up_after_its_retries_and_counted() {
    let channel = channel((0..4).map(|_| Fault::Before(ErrorKind::Unavailable)));
    let error = channel.publish(event("lost")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let published = channel.stats().await.unwrap().published;
    assert_eq!((published.total, published.failed), (1, 1));
    channel.publish(event("next")).await.unwrap();
}

#[tokio::test]
async fn a_refused_append_is_tried_again_and_kept_once() {
    let channel = channel([Fault::Before(ErrorKind::Unavailable), Fault::Before(ErrorKind::Backpressure)]);
    channel.append(event("one")).await.unwrap();
    assert_eq!(stored(&channel).await, ["one"]);
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_tried_again_only_under_a_dedup_id() {
    let channel = channel([Fault::Lost, Fault::Lost]);
    let error = channel.append(event("one")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "the outcome is unknown, and the caller is told");
    let receipt = channel.append(event("two")).dedup("two").await.unwrap();
    assert!(receipt.is_duplicate(), "the first try took effect");
    assert_eq!(stored(&channel).await, ["one", "two"]);
}

#[tokio::test]
async fn an_error_that_a_retry_cannot_mend_is_returned_at_once() {
    let channel = channel([Fault::Before(ErrorKind::Engine)]);
    assert_eq!(channel.append(event("one")).await.unwrap_err().kind(), ErrorKind::Engine);
    assert!(stored(&channel).await.is_empty());
}

#[tokio::test]
async fn a_stream_that_lost_its_end_is_told_even_in_the_same_epoch() {
    let (channel, engine, hub) = rig([]);
    let mut subscription = channel.subscribe().open().await.unwrap();
    for data in ["one", "two", "three"] {
        channel.append(event(data)).await.unwrap();
        assert!(subscription.next().await.and_then(Item::into_event).is_some());
    }
    engine.end_max.store(1, Relaxed);
    hub.hear(Heard::Relinked);
    let mut told = Vec::new();
    for _ in 0..2 {
        match subscription.next().await {
            Some(Item::Gap(gap)) => told.push((gap.reason, gap.from.map(|from| from.offset))),
            other => panic!("expected a gap, got {other:?}"),
        }
    }
    assert_eq!(told, [(GapReason::LinkLost, None), (GapReason::HistoryLost, Some(4))]);
}

#[tokio::test]
async fn a_consumer_whose_group_has_no_partition_left_for_it_waits() {
    let (channel, faulty, _) = rig([]);
    let group = channel.group("shipping", Start::Earliest).unwrap().ordered(1);
    let _holder = group.consume().run(|| std::future::ready(())).await.unwrap();
    while group.status().await.unwrap().sessions.is_empty() {
        tokio::task::yield_now().await;
    }
    let _other = group.consume().run(|| std::future::ready(())).await.unwrap();
    while group.status().await.unwrap().sessions.len() < 2 {
        tokio::task::yield_now().await;
    }
    channel.append(event("more")).await.unwrap();
    let before = faulty.turns.load(Relaxed);
    Clock::system().sleep(Duration::from_millis(100)).await; // tidy: nothing is to happen
    let turns = faulty.turns.load(Relaxed) - before;
    assert!(turns < 20, "{turns} turns in a tenth of a second, for one event");
}
