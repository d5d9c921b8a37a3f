//! Reading a stream: a range by position or time, forwards or backwards.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use super::Bus;
use super::item::Received;
use crate::clock::Timestamp;
use crate::engine::{Direction, Range};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::ChannelPath;
use crate::position::{Epoch, Position};

/// A range of a stream to read; awaiting it reads one page.
#[must_use = "a read happens when it is awaited"]
#[derive(Clone)]
pub struct Reading {
    bus: Arc<Bus>,
    channel: ChannelPath,
    after: Option<Position>,
    before: Option<Position>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    events_max: usize,
    direction: Direction,
}

/// A page of a stream.
#[derive(Debug, Clone)]
pub struct History {
    /// The stream's epoch.
    pub epoch: Epoch,
    /// Offset of the oldest event kept; one past the last if none is.
    pub first: u64,
    /// Offset of the newest event; 0 before the first.
    pub last: u64,
    /// The events, in the direction asked for.
    pub events: Vec<Received>,
    /// Events in the range that are there no more: trimmed or damaged.
    pub missing_count: u64,
}

impl History {
    /// The position of the newest event of the stream, from which a subscription can go on.
    pub fn end(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last }
    }
}

impl Reading {
    pub(super) fn new(bus: Arc<Bus>, channel: ChannelPath) -> Self {
        let (after, before, since, until) = (None, None, None, None);
        let (events_max, direction) = (limits::BATCH_EVENTS_MAX, Direction::Forwards);
        Self { bus, channel, after, before, since, until, events_max, direction }
    }

    /// Only events after `position`.
    pub fn after(mut self, position: Position) -> Self {
        self.after = Some(position);
        self
    }

    /// Only events before `position`.
    pub fn before(mut self, position: Position) -> Self {
        self.before = Some(position);
        self
    }

    /// Only events appended at or after `time`.
    pub fn since(mut self, time: impl Into<Timestamp>) -> Self {
        self.since = Some(time.into());
        self
    }

    /// Only events appended before `time`.
    pub fn until(mut self, time: impl Into<Timestamp>) -> Self {
        self.until = Some(time.into());
        self
    }

    /// At most so many events; 1,000 unless said otherwise, and never more. A page may hold fewer: it is also
    /// bounded to 4 MiB.
    pub fn limit(mut self, events_max: usize) -> Self {
        self.events_max = events_max.min(limits::BATCH_EVENTS_MAX);
        self
    }

    /// Newest first.
    pub fn backwards(mut self) -> Self {
        self.direction = Direction::Backwards;
        self
    }

    async fn run(self) -> Result<History> {
        let Self { bus, channel, after, before, since, until, events_max, direction } = self;
        let _in_flight = bus.enter()?;
        let log = &bus.engine.log;
        let mut first = after.map_or(1, |position| position.offset.saturating_add(1));
        let mut last = before.map_or(u64::MAX, |position| position.offset.saturating_sub(1));
        if let Some(time) = since {
            first = first.max(log.seek(&channel, time).await?);
        }
        if let Some(time) = until {
            last = last.min(log.seek(&channel, time).await?.saturating_sub(1));
        }
        let page = log.read(&channel, Range { first, last, events_max, direction, seen: None }).await?;
        if let Some(lost) = after.into_iter().chain(before).find(|position| position.epoch != page.epoch) {
            let end = Position { epoch: page.epoch, offset: page.last };
            return Err(Error::new(
                ErrorKind::PositionLost,
                format!(
                    "position {lost} is of another epoch than {:?}, which ends at {end}",
                    channel.channel()
                ),
            ));
        }
        let mut missing_count = match direction {
            // Only a range that names its start can miss what was before the first event kept.
            Direction::Forwards if after.is_some() => page.first.saturating_sub(first),
            _ => 0,
        };
        let mut events = Vec::with_capacity(page.events.len());
        let mut previous: Option<u64> = None;
        for stored in page.events {
            let offset = stored.offset;
            missing_count += previous.map_or(0, |previous| previous.abs_diff(offset) - 1);
            previous = Some(offset);
            match Received::stored(&channel, Position { epoch: page.epoch, offset }, stored) {
                Ok(event) => events.push(event),
                Err(error) => {
                    tracing::warn!(%error, channel = channel.as_str(), offset, "an event that cannot be decoded");
                    missing_count += 1;
                }
            }
        }
        Ok(History { epoch: page.epoch, first: page.first, last: page.last, events, missing_count })
    }
}

impl IntoFuture for Reading {
    type Output = Result<History>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
