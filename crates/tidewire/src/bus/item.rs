//! What subscribers and readers get: events, and word of events that they cannot get.

use std::fmt;

use crate::clock::Timestamp;
use crate::engine::Stored;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::name::ChannelPath;
use crate::position::Position;

/// What a subscription yields: an event, or word of events that it cannot yield.
#[derive(Debug, Clone)]
pub enum Item {
    /// An event.
    Event(Received),
    /// Events are missing here.
    Gap(Gap),
}

impl Item {
    /// The event, if this is one.
    pub fn into_event(self) -> Option<Received> {
        match self {
            Self::Event(received) => Some(received),
            Self::Gap(_) => None,
        }
    }
}

/// An event as a subscriber or reader gets it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The channel that it was published on, appended to, or announced on.
    pub channel: ChannelPath,
    /// Where it is kept; `None` for a live event.
    pub position: Option<Position>,
    /// When it was appended; for a live event, when it happened.
    pub time: Timestamp,
    /// The event.
    pub event: Event,
}

/// Events that a subscriber does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The channel, or for a pattern whose link was lost `None`: any.
    pub channel: Option<ChannelPath>,
    /// The first position missed, where known.
    pub from: Option<Position>,
    /// The last position missed, where known.
    pub to: Option<Position>,
    /// Why.
    pub reason: GapReason,
}

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapReason {
    /// Retention or a trim removed them before they were read.
    Trimmed,
    /// The engine found them damaged and cannot give them back.
    Damaged,
    /// The stream goes on under a new epoch: what the old one had from [`Gap::from`] on is gone, unless it comes again. An
    /// event that was yielded before it was lost and is appended again is not yielded twice.
    HistoryLost,
    /// The subscriber was too slow; so many **live** events were dropped. Kept ones never are.
    Overflow(u64),
    /// The link to the engine was lost and is back. **Live** events may have been missed; kept ones were not:
    /// they follow from the stream.
    LinkLost,
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trimmed => f.write_str("trimmed"),
            Self::Damaged => f.write_str("damaged"),
            Self::HistoryLost => f.write_str("history lost"),
            Self::Overflow(count) => write!(f, "{count} live events dropped"),
            Self::LinkLost => f.write_str("link lost"),
        }
    }
}

impl Received {
    /// Decodes an event of a stream.
    pub(super) fn stored(channel: &ChannelPath, position: Position, stored: Stored) -> Result<Self> {
        let event = Event::try_from(stored.envelope)?;
        Ok(Self { channel: channel.clone(), position: Some(position), time: stored.time, event })
    }
}

impl Gap {
    /// A gap of unknown extent.
    pub(super) fn anywhere(channel: Option<ChannelPath>, reason: GapReason) -> Self {
        Self { channel, from: None, to: None, reason }
    }

    /// A gap where an event cannot be decoded.
    pub(super) fn undecodable(channel: ChannelPath, position: Option<Position>, error: &Error) -> Self {
        tracing::warn!(%error, channel = channel.as_str(), "an event that cannot be decoded");
        Self { channel: Some(channel), from: position, to: position, reason: GapReason::Damaged }
    }
}
