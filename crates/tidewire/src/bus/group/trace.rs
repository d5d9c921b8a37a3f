//! Where an event is, and why: its copies in the stream, and what each group has made of them.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::dead_letter::{DeadLetter, is_replay_for_another, replay_of};
use super::ledger::{Entry, Ledger};
use super::letters::{DeadLetters, Walk};
use super::operate::reached;
use super::session::{chain_of, partition_of};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::engine::{GroupStats, Range, RecordStats, Stored};
use crate::error::{ErrorKind, Result};
use crate::event::{Event, identity_of};
use crate::limits;
use crate::name::{ChannelPath, GroupPath};
use crate::position::{Epoch, Position};

/// How much earlier than its id says an event may have been appended: the clocks of its publisher and of the engine differ.
const CLOCKS_APART: Duration = Duration::from_secs(600);

/// A look for an event in a channel's stream and groups; awaiting it looks.
#[derive(Clone)]
#[must_use = "a trace happens when it is awaited"]
pub struct Tracing {
    bus: Arc<Bus>,
    channel: ChannelPath,
    event: Uuid,
    since: Option<Timestamp>,
}

/// Where an event is, and why.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The event's id.
    pub event: Uuid,
    /// Its copies in the stream, the oldest first: more than one if it was replayed, or appended again without a dedup id.
    pub copies: Vec<TracedCopy>,
    /// What each group has made of each copy, and dead letters whose copy is not in the stream any more.
    pub groups: Vec<TracedInGroup>,
    /// The offsets that were looked at: first and last.
    pub looked_at: (u64, u64),
    /// The stream goes on after those: the event may be there.
    pub has_more: bool,
    /// The engine's clock.
    pub now: Timestamp,
}

/// A copy of an event in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedCopy {
    /// Where it is.
    pub position: Position,
    /// When it was appended.
    pub time: Timestamp,
    /// Its type.
    pub event_type: Box<str>,
    /// The dead letter that it is a replay of.
    pub replay_of: Option<Box<str>>,
}

/// What one group has made of one copy of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedInGroup {
    /// The group.
    pub group: Box<str>,
    /// Where the copy is, or was.
    pub position: Position,
    /// What the group has made of it.
    pub whereabouts: Whereabouts,
}

/// What a group has made of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Whereabouts {
    /// It comes before the group's start: it is not delivered.
    BeforeStart,
    /// It was replayed for another group: it is not delivered.
    NotForThisGroup,
    /// It is still to be delivered.
    Ahead {
        /// Events that come before it, at most.
        events_before: u64,
    },
    /// It was delivered and is not settled, or is about to be.
    InFlight {
        /// The session that has it; none if that is gone and no other has taken over.
        session: Option<Box<str>>,
        /// Attempts that have failed.
        attempts: u32,
        /// What went wrong last.
        error: Box<str>,
    },
    /// It failed, and is delivered again later.
    Waiting {
        /// When.
        due: Timestamp,
        /// Attempts that have failed.
        attempts: u32,
        /// What went wrong last.
        error: Box<str>,
    },
    /// It was given up on.
    Dead(Box<DeadLetter>),
    /// It is settled: acknowledged, or a dead letter that was replayed or purged since.
    Settled,
}

impl Whereabouts {
    /// Its name for programs: `before_start`, `not_for_this_group`, `ahead`, `in_flight`, `waiting`, `dead`, `settled`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::BeforeStart => "before_start",
            Self::NotForThisGroup => "not_for_this_group",
            Self::Ahead { .. } => "ahead",
            Self::InFlight { .. } => "in_flight",
            Self::Waiting { .. } => "waiting",
            Self::Dead(_) => "dead",
            Self::Settled => "settled",
        }
    }
}

impl Tracing {
    pub(in crate::bus) fn new(bus: Arc<Bus>, channel: ChannelPath, event: Uuid) -> Self {
        Self { bus, channel, event, since: None }
    }

    /// Only events appended at or after `time`. Otherwise the id says where to begin if it holds a time, as those do that
    /// Tidewire makes; else the last 100,000 events are looked at.
    pub fn since(mut self, time: impl Into<Timestamp>) -> Self {
        self.since = Some(time.into());
        self
    }

    async fn run(self) -> Result<Trace> {
        let _in_flight = self.bus.enter()?;
        let bounds = self.bus.engine.log.read(&self.channel, Range::BOUNDS).await?;
        let first = self.begin(bounds.first, bounds.last).await?;
        let last = bounds.last.min(first.saturating_add(limits::TRACE_EVENTS_MAX - 1));
        let mut trace = Trace {
            event: self.event,
            copies: Vec::new(),
            groups: Vec::new(),
            looked_at: (first, last),
            has_more: last < bounds.last,
            now: Timestamp::default(),
        };
        let mut events = Vec::new();
        let mut next = first;
        while next <= last {
            let range = Range { last, ..Range::from(next, limits::BATCH_EVENTS_MAX) };
            let page = self.bus.engine.log.read(&self.channel, range).await?;
            let Some(end) = page.events.last() else { break };
            next = end.offset + 1;
            events.extend(page.events.into_iter().filter(|stored| self.is_it(stored)));
        }
        trace.copies = events.iter().map(|stored| copy(stored, bounds.epoch)).collect();
        for name in self.bus.engine.log.groups(&self.channel).await? {
            let path = GroupPath::new(self.channel.clone(), &name)?;
            match self.in_group(&path, &events, &mut trace).await {
                // It was deleted in between.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                outcome => outcome?,
            }
        }
        Ok(trace)
    }

    /// The offset to begin with.
    async fn begin(&self, first: u64, last: u64) -> Result<u64> {
        let offset = match self.earliest() {
            Some(time) => self.bus.engine.log.seek(&self.channel, time).await?,
            None => (last + 1).saturating_sub(limits::TRACE_EVENTS_MAX),
        };
        Ok(offset.max(first))
    }

    /// Before this time it was not there.
    fn earliest(&self) -> Option<Timestamp> {
        let of_id = || {
            let is_v7 = self.event.get_version_num() == 7;
            let (seconds, nanos) = self.event.get_timestamp().filter(|_| is_v7)?.to_unix();
            let time = Timestamp::from_millis(seconds.saturating_mul(1_000) + u64::from(nanos) / 1_000_000);
            Some(time.saturating_sub(CLOCKS_APART))
        };
        self.since.or_else(of_id)
    }

    fn is_it(&self, stored: &Stored) -> bool {
        identity_of(&stored.envelope).is_some_and(|(id, _)| id == self.event.as_u128())
    }

    async fn in_group(&self, path: &GroupPath, events: &[Stored], trace: &mut Trace) -> Result<()> {
        let stats = self.bus.engine.log.group_stats(path).await?;
        trace.now = stats.now;
        let group: Box<str> = path.group().into();
        let mut letters = self.letters(path, &stats).await?;
        for stored in events {
            let position = Position { epoch: stats.epoch, offset: stored.offset };
            let letter = letters.iter().position(|letter| letter.position == position);
            let whereabouts = match letter {
                Some(at) => Whereabouts::Dead(Box::new(letters.swap_remove(at))),
                None => whereabouts(stored, path, &stats),
            };
            trace.groups.push(TracedInGroup { group: group.clone(), position, whereabouts });
        }
        let gone = letters.into_iter().map(|letter| {
            let (group, position) = (group.clone(), letter.position);
            TracedInGroup { group, position, whereabouts: Whereabouts::Dead(Box::new(letter)) }
        });
        trace.groups.extend(gone);
        Ok(())
    }

    /// The group's dead letters of this event.
    async fn letters(&self, path: &GroupPath, stats: &GroupStats) -> Result<Vec<DeadLetter>> {
        let mut found = Vec::new();
        let [_, count, ..] = stats.items;
        if count == 0 {
            return Ok(found);
        }
        let letters = DeadLetters::new(self.bus.clone(), path.clone());
        let letters = self.earliest().into_iter().fold(letters, DeadLetters::since);
        let mut walk = Walk::after("");
        while let Some(items) = walk.next(&letters, limits::BATCH_EVENTS_MAX).await? {
            let read = items.into_iter().filter_map(|item| letters.picked(item));
            found.extend(read.filter(|letter| letter.event_id() == Some(self.event)));
        }
        Ok(found)
    }
}

fn copy(stored: &Stored, epoch: Epoch) -> TracedCopy {
    let event = Event::try_from(stored.envelope.clone()).ok();
    TracedCopy {
        position: Position { epoch, offset: stored.offset },
        time: stored.time,
        event_type: event.as_ref().map(Event::event_type).unwrap_or_default().into(),
        replay_of: event.as_ref().and_then(replay_of).map(Box::from),
    }
}

/// What the group has made of an event that is in the stream and not among its dead letters.
fn whereabouts(stored: &Stored, path: &GroupPath, stats: &GroupStats) -> Whereabouts {
    let offset = stored.offset;
    let event = Event::try_from(stored.envelope.clone());
    let is_for_another = event.is_ok_and(|event| is_replay_for_another(&event, path));
    let ledgers: Vec<_> = stats
        .records
        .iter()
        .map(|record| (record, Ledger::decode(&record.state).unwrap_or_default()))
        .collect();
    for (record, ledger) in &ledgers {
        if let Some(entry) = ledger.entries.get(&offset) {
            return pending(record, entry);
        }
        if record.claims.iter().any(|(first, last)| (*first..=*last).contains(&offset)) {
            return pending(record, &Entry::default());
        }
    }
    let reached = match stats.partitions {
        0 => stats.next,
        partitions => {
            let partition = partition_of(offset, chain_of(stored.envelope.clone()), partitions);
            let name = format!("{partition:03}");
            let ledger = ledgers.iter().find(|(record, _)| *record.name == *name).map(|(_, ledger)| ledger);
            ledger.map_or(stats.next, |ledger| reached(ledger, stats))
        }
    };
    match (offset < stats.generation.1 && stats.generation.0 == 1, offset >= reached) {
        (true, _) => Whereabouts::BeforeStart,
        _ if is_for_another => Whereabouts::NotForThisGroup,
        (_, true) => Whereabouts::Ahead { events_before: offset - reached.max(stats.first).min(offset) },
        (_, false) => Whereabouts::Settled,
    }
}

fn pending(record: &RecordStats, entry: &Entry) -> Whereabouts {
    let Entry { attempts, error, .. } = entry.clone();
    match entry.due {
        Some(due) => Whereabouts::Waiting { due, attempts, error },
        None => Whereabouts::InFlight { session: record.owner.clone(), attempts, error },
    }
}

impl IntoFuture for Tracing {
    type Output = Result<Trace>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracing({} in {})", self.event, self.channel)
    }
}

#[cfg(test)]
mod tests;
