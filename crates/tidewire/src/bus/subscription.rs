//! Listening to a channel, without a hole that is not told.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use rustc_hash::FxHashMap;

use super::Bus;
use super::events::TypedSubscription;
use super::item::{Gap, GapReason, Item, Received};
use super::lane::{Arrival, Burst, Lane};
use super::stats::{Counters, SubscriberStats};
use super::wanted::Wanted;
use crate::clock::Timestamp;
use crate::engine::{Interest, Kept, Page, Range, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventSet};
use crate::limits;
use crate::name::ChannelPath;
use crate::position::Position;

/// Events that one read asks for while a hole is filled.
const FILL_EVENTS: usize = 256;

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Start {
    #[default]
    Now,
    After(Position),
    Earliest,
    Since(Timestamp),
}

/// How to listen; [`open`](Self::open) starts it.
#[must_use = "a subscription starts with open()"]
pub struct Subscribing<E = Event> {
    bus: Arc<Bus>,
    interest: Interest,
    start: Start,
    skips_own: bool,
    set: PhantomData<fn() -> E>,
}

impl<E> Subscribing<E> {
    pub(crate) fn new(bus: Arc<Bus>, interest: Interest) -> Self {
        Self { bus, interest, start: Start::Now, skips_own: false, set: PhantomData }
    }

    /// First every kept event after `position`, then what comes.
    pub fn after(mut self, position: Position) -> Self {
        self.start = Start::After(position);
        self
    }

    /// First every event that is kept, then what comes.
    pub fn earliest(mut self) -> Self {
        self.start = Start::Earliest;
        self
    }

    /// First every kept event appended at or after `time`, then what comes.
    pub fn since(mut self, time: impl Into<Timestamp>) -> Self {
        self.start = Start::Since(time.into());
        self
    }

    /// Leaves out what this node published or appended.
    pub fn skip_own(mut self) -> Self {
        self.skips_own = true;
        self
    }

    async fn listen(self) -> Result<Subscription> {
        let Self { bus, interest, start, skips_own, .. } = self;
        let channel = match &interest {
            Interest::Channel(channel) => Some(channel.clone()),
            Interest::Pattern(pattern) if start != Start::Now => {
                return Err(Error::new(
                    ErrorKind::InvalidName,
                    format!(
                        "pattern {:?} has no one stream to start from; patterns start now",
                        pattern.pattern()
                    ),
                ));
            }
            Interest::Pattern(_) | Interest::Work(_) => None,
        };
        let counters = match &channel {
            Some(channel) => bus.stats.channel(channel),
            None => bus.stats.uncounted(),
        };
        let lane = Arc::new(Lane::new(&bus.limits, skips_own.then_some(bus.node)));
        // Made before it listens, so that dropping this future leaves the hub as it was.
        let mut subscription = Subscription {
            lane: lane.clone(),
            interest: interest.clone(),
            ready: VecDeque::new(),
            burst: Burst::default(),
            fills: VecDeque::new(),
            wanted: FxHashMap::default(),
            counters,
            bus,
        };
        let bus = subscription.bus.clone();
        bus.hub.listen(&interest, lane).await?;
        if let Some(channel) = channel {
            subscription.start(channel, start).await?;
        }
        Ok(subscription)
    }
}

impl Subscribing {
    /// Starts to listen. When this returns, everything published or appended from then on arrives.
    ///
    /// # Errors
    /// `PositionLost` if the position is past the end of its stream; `InvalidName` if a pattern is to start
    /// anywhere but now; errors of the engine.
    pub async fn open(self) -> Result<Subscription> {
        self.listen().await
    }
}

impl<E: EventSet> Subscribing<E> {
    /// As [`Subscribing::open`], for typed events.
    ///
    /// # Errors
    /// As [`Subscribing::open`].
    pub async fn open(self) -> Result<TypedSubscription<E>> {
        Ok(TypedSubscription::new(self.listen().await?))
    }
}

/// A running subscription. Dropping it stops it.
///
/// # Guarantees
/// Each kept event once and in order, or an [`Item::Gap`] that says which are missing. Live events at most once,
/// and a gap where some may have been missed. A slow subscriber holds at most
/// [`Limits::subscription_bytes_max`](crate::Limits::subscription_bytes_max) and reads the rest from the stream.
///
/// Kept events announced here from another channel's stream ([`Appending::announce_on`](super::Appending)) arrive
/// like live ones, with their position: only their own channel fills holes.
pub struct Subscription {
    bus: Arc<Bus>,
    interest: Interest,
    lane: Arc<Lane>,
    counters: Arc<Counters>,
    ready: VecDeque<Item>,
    burst: Burst,
    /// Streams that are read before the burst goes on, and the last offset wanted of each.
    fills: VecDeque<(ChannelPath, u64)>,
    /// What is wanted next of each stream heard.
    wanted: FxHashMap<ChannelPath, Wanted>,
}

impl Subscription {
    /// The next item; `None` once the subscription is closed with the node.
    ///
    /// Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                match item {
                    Item::Event(_) => self.counters.received(),
                    Item::Gap(_) => self.counters.gap(),
                }
                return Some(item);
            }
            if let Some((channel, until)) = self.fills.front().cloned() {
                if self.fill(&channel, until).await {
                    self.fills.pop_front();
                }
            } else if let Some(arrival) = self.burst.arrivals.pop_front() {
                self.arrive(arrival);
            } else if !self.settle_burst() {
                self.burst = self.lane.take().await?;
            }
        }
    }

    /// The items as a stream, for combinators.
    pub fn into_stream(self) -> impl Stream<Item = Item> + Send {
        stream::unfold(self, async |mut subscription| {
            let item = subscription.next().await?;
            Some((item, subscription))
        })
    }

    /// Hands every item to `handler`, one at a time, until the node closes; counts what it processed and what
    /// failed. A failed item is logged and not repeated: for that, use a group.
    pub async fn handle<F, E>(mut self, mut handler: impl FnMut(Item) -> F)
    where
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        while let Some(item) = self.next().await {
            let outcome = handler(item).await;
            if let Err(error) = &outcome {
                tracing::warn!(%error, interest = ?self.interest, "handler failed");
            }
            self.counters.handled(outcome.is_ok());
        }
    }

    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// What this subscription's channel received, processed and failed on this node.
    pub fn stats(&self) -> SubscriberStats {
        self.counters.subscriber()
    }

    /// Sets the first position wanted, once the channel is being heard.
    async fn start(&mut self, channel: ChannelPath, start: Start) -> Result<()> {
        let log = &self.bus.engine.log;
        let bounds = log.read(&channel, Range::BOUNDS).await?;
        let first_wanted = match start {
            Start::Now => bounds.last + 1,
            Start::Earliest => bounds.first,
            Start::Since(time) => log.seek(&channel, time).await?,
            Start::After(position) if position.epoch != bounds.epoch => {
                let next = Position { offset: position.offset + 1, ..position };
                self.tell_lost_history(&channel, next, &bounds);
                bounds.parting(next).unwrap_or(1)
            }
            Start::After(position) if position.offset > bounds.last => {
                let end = Position { epoch: bounds.epoch, offset: bounds.last };
                return Err(Error::new(
                    ErrorKind::PositionLost,
                    format!("position {position} is past the end of {:?}, which is {end}", channel.channel()),
                ));
            }
            Start::After(position) => position.offset + 1,
        };
        let next = Position { epoch: bounds.epoch, offset: first_wanted };
        self.wanted.insert(channel.clone(), Wanted::new(next, bounds.term));
        if first_wanted <= bounds.last {
            self.fills.push_back((channel, bounds.last));
        }
        Ok(())
    }

    /// Sorts one arrival: ready, old, or a sign that the stream must be read first.
    fn arrive(&mut self, arrival: Arrival) {
        let Some(Kept { position, term, time, stream: None }) = arrival.kept else {
            self.make_ready(arrival);
            return;
        };
        let known_max = limits::PATTERN_CHANNELS_MAX;
        let Some(wanted) = self.wanted.get_mut(&arrival.channel) else {
            // A pattern hears this stream for the first time.
            if self.wanted.len() >= known_max {
                self.wanted.clear();
                self.ready.push_back(Item::Gap(Gap::anywhere(None, GapReason::LinkLost)));
            }
            self.wanted.insert(arrival.channel.clone(), Wanted::new(position, term));
            self.arrive(arrival);
            return;
        };
        // In another term an offset may have been given a second time.
        let is_comparable = wanted.next.epoch == position.epoch && wanted.term == term;
        if is_comparable && position.offset < wanted.next.offset {
            return;
        }
        if is_comparable && wanted.next == position {
            wanted.next.offset += 1;
            let Arrival { channel, envelope, .. } = arrival;
            let stored = Stored { offset: position.offset, time, envelope };
            if wanted.is_new(&stored) {
                self.yield_stored(&channel, position, stored);
            }
            return;
        }
        // A hole, or a new epoch or term, which reading will tell.
        self.fills.push_back((arrival.channel, position.offset));
    }

    /// Yields a live event, or one kept in another channel's stream.
    fn make_ready(&mut self, arrival: Arrival) {
        let Arrival { channel, kept, envelope } = arrival;
        if kept.is_some() && self.lane.skips(&envelope) {
            return;
        }
        let position = kept.as_ref().map(|kept| kept.position);
        self.ready.push_back(match Event::try_from(envelope) {
            Ok(event) => {
                let time = kept.map_or(event.time(), |kept| kept.time);
                Item::Event(Received { channel, position, time, event })
            }
            Err(error) => Item::Gap(Gap::undecodable(channel, position, &error)),
        });
    }

    fn yield_stored(&mut self, channel: &ChannelPath, position: Position, stored: Stored) {
        if self.lane.skips(&stored.envelope) {
            return;
        }
        self.ready.push_back(match Received::stored(channel, position, stored) {
            Ok(received) => Item::Event(received),
            Err(error) => Item::Gap(Gap::undecodable(channel.clone(), Some(position), &error)),
        });
    }

    /// After the arrivals of a burst: tells what was dropped, and has every stream checked if some may be
    /// missing. False if there was nothing to do.
    fn settle_burst(&mut self) -> bool {
        let Burst { dropped_count, is_behind, is_relinked, .. } = std::mem::take(&mut self.burst);
        let channel = match &self.interest {
            Interest::Channel(channel) => Some(channel.clone()),
            Interest::Pattern(_) | Interest::Work(_) => None,
        };
        if dropped_count > 0 {
            self.ready
                .push_back(Item::Gap(Gap::anywhere(channel.clone(), GapReason::Overflow(dropped_count))));
        }
        if is_relinked {
            self.ready.push_back(Item::Gap(Gap::anywhere(channel, GapReason::LinkLost)));
        }
        if is_behind {
            self.fills.extend(self.wanted.keys().map(|channel| (channel.clone(), u64::MAX)));
        }
        dropped_count > 0 || is_behind || is_relinked
    }

    /// Reads one page of a stream from the next offset wanted on, and yields it. True once `until` or the end
    /// of the stream is reached.
    async fn fill(&mut self, channel: &ChannelPath, until: u64) -> bool {
        let Some(wanted) = self.wanted.get(channel) else { return true };
        let next = wanted.next;
        let range = Range { seen: Some(wanted.seen()), ..Range::from(next.offset, FILL_EVENTS) };
        let page = match self.bus.engine.log.read(channel, range).await {
            Ok(page) => page,
            Err(error) if error.kind() == ErrorKind::Closed => return true,
            Err(error) => {
                // The stream is the only source of what is missing: wait for it as long as it takes.
                tracing::warn!(%error, channel = channel.as_str(), "reading a stream to fill a hole");
                self.bus.clock.sleep(self.bus.retry.first_delay).await;
                return false;
            }
        };
        if page.epoch != next.epoch {
            self.tell_lost_history(channel, next, &page);
            let offset = page.parting(next).unwrap_or(1);
            self.go_on(channel, offset, &page);
            return offset > page.last;
        }
        if page.last + 1 < next.offset {
            // A stream that ends before what was seen of it has lost its end, whatever its epoch says.
            self.tell_lost_history(channel, next, &page);
            self.go_on(channel, page.last + 1, &page);
            return true;
        }
        let at = |offset| Position { epoch: next.epoch, offset };
        let mut wanted = next.offset;
        if wanted < page.first {
            self.tell_missing(channel, at(wanted), page.first - 1, GapReason::Trimmed);
            wanted = page.first;
        }
        let end = if page.events.is_empty() { until.min(page.last) } else { 0 };
        let Page { last, term, events, .. } = page;
        for stored in events {
            if wanted < stored.offset {
                self.tell_missing(channel, at(wanted), stored.offset - 1, GapReason::Damaged);
            }
            wanted = stored.offset + 1;
            if self.wanted.get_mut(channel).is_none_or(|wanted| wanted.is_new(&stored)) {
                self.yield_stored(channel, at(stored.offset), stored);
            }
        }
        if wanted <= end {
            self.tell_missing(channel, at(wanted), end, GapReason::Damaged);
            wanted = end + 1;
        }
        if let Some(held) = self.wanted.get_mut(channel) {
            (held.next, held.term) = (at(wanted), term);
        }
        wanted > until || wanted > last
    }

    /// Goes on with what a stream has, from `offset` on, after it lost some.
    fn go_on(&mut self, channel: &ChannelPath, offset: u64, page: &Page) {
        if let Some(wanted) = self.wanted.get_mut(channel) {
            wanted.go_on(Position { epoch: page.epoch, offset }, page.term);
        }
    }

    fn tell_missing(&mut self, channel: &ChannelPath, from: Position, last_missed: u64, reason: GapReason) {
        let to = Some(Position { offset: last_missed, ..from });
        self.ready.push_back(Item::Gap(Gap { channel: Some(channel.clone()), from: Some(from), to, reason }));
    }

    fn tell_lost_history(&mut self, channel: &ChannelPath, wanted: Position, page: &Page) {
        tracing::warn!(channel = channel.as_str(), lost = %wanted, found = %page.epoch, "stream has lost history");
        // What came after the histories parted is missing, also where others have had its offsets since.
        let offset = page.parting(wanted).unwrap_or(wanted.offset);
        let gap = Gap {
            channel: Some(channel.clone()),
            from: Some(Position { offset, ..wanted }),
            to: None,
            reason: GapReason::HistoryLost,
        };
        self.ready.push_back(Item::Gap(gap));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.bus.hub.leave(&self.interest, &self.lane) {
            let (bus, interest) = (self.bus.clone(), self.interest.clone());
            self.bus.tasks.spawn(async move {
                if let Err(error) = bus.hub.release(interest).await {
                    // Harmless: what still arrives finds no lane.
                    tracing::debug!(%error, "giving up an interest");
                }
            });
        }
    }
}
