//! The kept half of the seam.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use super::{Answer, Change, GroupStats, Listing, Opened, Opening, Shelf, ShelfItem, Turn, Turned};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{ChannelPath, GroupPath};
use crate::position::{Epoch, Position};

/// Keeps streams: one per channel, ordered, each event under the next offset.
///
/// # Guarantees
/// - **Contiguous.** The first event of a stream has offset 1, each next one 1 more. A confirmed append is at
///   the returned position, once. A stream that is trimmed empty goes on counting.
/// - **Atomic.** One append - its offset, its dedup mark, its version, its record and its announcement - happens
///   wholly or not at all. A batch is not one step: each entry has an outcome of its own. Entries of one channel keep
///   the order of the call.
/// - **Announced after it can be read**, in stream order, to interests in the channel (see
///   [`Announce`]). An announcement under another name is in the same step where both names are together
///   (embedded, one Redis, one hash tag of a Cluster); else it follows at once, never before.
/// - **History that is lost is told.** When a stream cannot go on from what it confirmed (flushed, evicted,
///   rolled back, damaged), it goes on under a new [`Epoch`], from what is left of it ([`Page::forks`]) or from
///   nothing; offsets never rewind within one. A loss that only a reader or an appender can know of, because the server
///   that confirmed is gone, is found by what they have ([`Range::seen`]) and then told to all.
/// - **Sent again without a second effect.** Where the link of an engine can fail between an append and its
///   answer, the engine sends the batch again itself, marked, so that it takes effect once. Only when its time
///   runs out does it answer `TimedOut`, and a later append with the same dedup id is safe.
///
/// # Groups
/// - **Sessions and records.** What is delivered and not settled is in records, whose bytes only the layer above reads.
///   A session holds records under its lease. When the lease has run out, the next turn of any other session takes the
///   session away and its records are free; until then the session can still renew. A record has one holder at a time.
/// - **A turn is one step**, under the numbers of its session: sent again it has no second effect.
/// - **Claims are contiguous.** Each event from the start on is claimed once, unless the group is moved.
/// - **Retention waits.** No event at or after the lowest floor of any group is removed, unless [`AtBound`] says so.
/// - **Wakes.** When a session has claimed fewer than it asked for, the next append to the stream, quiet ones too, is told
///   to interests in its work ([`Interest::Work`](super::Interest::Work)); so are records that became free, a session that
///   was made or ended, and a group that was moved.
///
/// # Bounds
/// Dedup ids are remembered for their window, at most [`limits::DEDUP_IDS_MAX`](crate::limits::DEDUP_IDS_MAX)
/// per stream on an embedded engine. Retention is applied after each batch; a stream may exceed it by what
/// shares the oldest segment (file) or node (Redis), never by more than a tenth plus one batch when counted
/// in events, and **reads never show what is past it in count or age**.
pub trait Log: Send + Sync + 'static {
    /// Appends each entry to the stream of its channel; one outcome per entry, in order.
    fn append(&self, batch: Vec<Append>) -> Answer<'_, Vec<crate::Result<Appended>>>;

    /// Reads a page of the stream.
    ///
    /// A channel never appended to answers an empty page with the epoch that its first append will have. A
    /// page holds at least one event if the range has any, and may hold fewer than asked for; a jump in the
    /// offsets inside it means that the events between are damaged.
    fn read(&self, channel: &ChannelPath, range: Range) -> Answer<'_, Page>;

    /// The offset of the first event appended at or after `time`; one past the last if there is none.
    fn seek(&self, channel: &ChannelPath, time: Timestamp) -> Answer<'_, u64>;

    /// Removes every event before offset `before`, which may be one past the last.
    fn trim(&self, channel: &ChannelPath, before: u64) -> Answer<'_, Trimmed>;

    /// Length, bounds and size of the stream.
    fn stats(&self, channel: &ChannelPath) -> Answer<'_, StreamStats>;

    /// Takes back an append that waits for its time, by the key that it was confirmed with. False if its time has come or
    /// it is not known: then it is appended, or was, or was taken back before.
    fn cancel(&self, channel: &ChannelPath, key: &str) -> Answer<'_, bool>;

    /// Makes a group if it is not there. One that was lost is made again at its checkpoint where the engine still has that.
    ///
    /// # Errors
    /// `Conflict` if it is there with another number of partitions; `PositionLost` for a start past the end of the stream.
    fn group_open(&self, group: &GroupPath, opening: Opening) -> Answer<'_, Opened>;

    /// The names of the stream's groups, in their order; at most
    /// [`BATCH_EVENTS_MAX`](crate::limits::BATCH_EVENTS_MAX).
    fn groups(&self, channel: &ChannelPath) -> Answer<'_, Vec<Box<str>>>;

    /// Takes a turn of a session: one step, all of it or nothing.
    ///
    /// # Errors
    /// `NotFound` if there is no such group: it was deleted or lost. `LockLost` if the session is not there any more,
    /// because its lease ran out and another session looked, or because the engine has lost its last turn: nothing was
    /// changed, what it held is or will be another session's.
    fn group_turn(&self, group: &GroupPath, turn: Turn) -> Answer<'_, Turned>;

    /// The group as a whole, with all of its records. `NotFound` if there is none.
    fn group_stats(&self, group: &GroupPath) -> Answer<'_, GroupStats>;

    /// Items of a shelf, in the order of their keys; fewer than asked for if a page is full. `NotFound` if there is no such
    /// group.
    fn group_items(&self, group: &GroupPath, shelf: Shelf, listing: Listing) -> Answer<'_, Vec<ShelfItem>>;

    /// Changes the group from outside of its sessions; answers a count. `NotFound` if there is no such group.
    fn group_change(&self, group: &GroupPath, change: Change) -> Answer<'_, u64>;
}

/// One event to append.
#[derive(Debug, Clone)]
pub struct Append {
    /// The channel whose stream it goes to.
    pub channel: ChannelPath,
    /// The event as it travels.
    pub envelope: Bytes,
    /// Who is told.
    pub announce: Announce,
    /// Kept once per id and window.
    pub dedup: Option<Dedup>,
    /// Kept only if it is above the channel's. A dedup id is looked up first. Not with `deliver_at`.
    pub version: Option<Version>,
    /// What the stream keeps from now on.
    pub retention: Retention,
    /// What must hold before the append is confirmed.
    pub durability: Durability,
    /// Appended at this time, not before: until then it waits in the engine, survives what appended events
    /// survive, and has no position. In the past or `None`: now.
    pub deliver_at: Option<Timestamp>,
}

/// Who is told of an append.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Announce {
    /// Interests in the channel.
    #[default]
    Here,
    /// Interests in the channel, and those in another channel of the tenant.
    AlsoOn(ChannelPath),
    /// Nobody: only readers and groups find it.
    Quiet,
}

/// A version of what a channel tells: an append takes effect only if its version is above the last one that did, or of another
/// epoch. A stream has one, for as long as it is known at all; one that has lost its history has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Numbers of one epoch are compared, those of two are not: whoever counts anew names a new one. At most
    /// [`limits::VERSION_EPOCH_BYTES_MAX`](crate::limits::VERSION_EPOCH_BYTES_MAX) bytes.
    pub epoch: Box<str>,
    /// The number.
    pub number: u64,
}

impl Version {
    /// Whether an append with this version is left out of a stream whose version is `last`.
    pub(crate) fn is_stale(&self, last: Option<&Self>) -> bool {
        last.is_some_and(|last| self.epoch == last.epoch && self.number <= last.number)
    }
}

/// An id under which an append takes effect once within a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dedup {
    /// At most [`limits::DEDUP_ID_BYTES_MAX`](crate::limits::DEDUP_ID_BYTES_MAX) bytes; local to the stream.
    pub id: Box<str>,
    /// How long the id is remembered after the append that took effect.
    pub window: Duration,
}

/// What a stream keeps. Bounds that are `None` do not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// At most so many events, the newest.
    pub events_max: Option<u64>,
    /// Events no older than this.
    pub age_max: Option<Duration>,
    /// At most about so many bytes of envelopes; approximate on every engine.
    pub bytes_max: Option<u64>,
    /// What is done when a bound is reached by events that a group has not settled.
    pub at_bound: AtBound,
}

/// What an append does when the stream is at a bound of its [`Retention`] and a group has not settled the oldest event.
/// Without groups there is no such event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtBound {
    /// Waits for room as long as a call may be tried again, then fails as `Backpressure`. An engine does not wait: to it,
    /// this is `Reject`.
    #[default]
    Block,
    /// Fails at once as `Backpressure`; nothing was appended. Age does not reject: events that are too old stay.
    Reject,
    /// Removes the oldest event all the same. The group is told how many it has missed.
    DropOldest,
}

impl Retention {
    /// What a node keeps of a stream unless told otherwise: 1,000,000 events and 1 GiB.
    pub const BOUNDED: Self = Self {
        events_max: Some(1_000_000),
        age_max: None,
        bytes_max: Some(1 << 30),
        at_bound: AtBound::Block,
    };
}

/// What must hold before an append is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The engine has it. `file:` has written it to the operating system: it survives the end of this process
    /// at any moment, not a power failure. Redis keeps it as its persistence is set.
    #[default]
    Fast,
    /// So many copies beside the first have received it. A failover to one of those keeps it; that every failover
    /// does takes as many as there are replicas, because whoever fails over may choose any. Engines that keep one copy
    /// refuse it. When too few have it in time, the append fails as `TimedOut`, and is kept all the same if nothing
    /// happens to the first copy: an append under a dedup id can be tried again until it is confirmed.
    Replicated(u8),
    /// The device of the first copy has it. Refused by a server that cannot tell.
    Fsynced,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fast => f.write_str("fast"),
            Self::Replicated(copies) => write!(f, "replicated({copies})"),
            Self::Fsynced => f.write_str("fsynced"),
        }
    }
}

impl FromStr for Durability {
    type Err = Error;

    /// Reads `fast`, `replicated(N)` or `fsynced`.
    fn from_str(text: &str) -> Result<Self> {
        let copies = text.strip_prefix("replicated(").and_then(|rest| rest.strip_suffix(')'));
        match (text, copies.and_then(|copies| copies.parse().ok())) {
            ("fast", _) => Ok(Self::Fast),
            ("fsynced", _) => Ok(Self::Fsynced),
            (_, Some(copies @ 1..)) => Ok(Self::Replicated(copies)),
            _ => Err(Error::new(
                ErrorKind::InvalidName,
                format!(
                    "durability {text:?} is unknown; known are fast, replicated(1) to replicated(255), fsynced"
                ),
            )),
        }
    }
}

/// What an append did. Where it is not `New`, nothing was appended or announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The event is kept, or waits for its time.
    New,
    /// The dedup id was seen before: the position is that of the first.
    Duplicate,
    /// The version is not above the stream's: the position is the end of the stream.
    Stale,
}

/// The outcome of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where it is; `None` while it waits for its `deliver_at`.
    pub position: Option<Position>,
    /// By what it can be taken back while it waits for its `deliver_at`.
    pub scheduled: Option<Box<str>>,
    /// What it did.
    pub effect: Effect,
    /// What holds now: as much as was asked for, or more.
    pub durability: Durability,
}

/// Which way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Forwards,
    /// Newest first.
    Backwards,
}

/// A stretch of a stream's history that one server wrote without a break, by a number that no other has. An engine whose
/// server can be replaced by one that lacks the newest events begins another at each takeover; the others stay in 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Term(pub u64);

/// The end of what somebody has of a stream: the last offset, and in which term it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// The last position had; its offset is 0 where there is none.
    pub position: Position,
    /// The term in which it was heard or read.
    pub term: Term,
}

/// Which events to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The lowest offset wanted.
    pub first: u64,
    /// The highest offset wanted.
    pub last: u64,
    /// At most so many events; 0 asks for the bounds only.
    pub events_max: usize,
    /// From which end.
    pub direction: Direction,
    /// What the reader has already. A stream that has lost some of it starts a new epoch.
    pub seen: Option<Seen>,
}

impl Range {
    /// No events: only the epoch and the bounds of the stream.
    pub const BOUNDS: Self =
        Self { first: 0, last: 0, events_max: 0, direction: Direction::Forwards, seen: None };

    /// Up to `events_max` events from `first` on.
    pub const fn from(first: u64, events_max: usize) -> Self {
        Self { first, last: u64::MAX, events_max, ..Self::BOUNDS }
    }
}

/// A page of a stream.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The stream's epoch.
    pub epoch: Epoch,
    /// Offset of the oldest event kept; `last + 1` if none is.
    pub first: u64,
    /// Offset of the newest event ever appended; 0 before the first.
    pub last: u64,
    /// The term that the stream is in now.
    pub term: Term,
    /// The epochs before this one that the stream goes on from, the newest first.
    pub forks: Vec<Fork>,
    /// The events, in the direction asked for.
    pub events: Vec<Stored>,
}

/// Where a new epoch left an earlier one: up to here the events are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The earlier epoch.
    pub epoch: Epoch,
    /// The last offset that both have.
    pub last: u64,
}

impl Page {
    /// The first offset whose event may be another one than in the epoch of `next`, up to `next` itself; none if this
    /// epoch has nothing from that one.
    pub fn parting(&self, next: Position) -> Option<u64> {
        let fork = self.forks.iter().find(|fork| fork.epoch == next.epoch)?;
        Some(next.offset.min(fork.last + 1))
    }
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the stream.
    pub offset: u64,
    /// When it was appended.
    pub time: Timestamp,
    /// The event as it travels.
    pub envelope: Bytes,
}

/// What a trim did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// Events removed.
    pub removed: u64,
    /// Offset of the oldest event kept; `last + 1` if none is.
    pub first: u64,
}

/// Size and bounds of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamStats {
    /// The stream's epoch.
    pub epoch: Epoch,
    /// Offset of the oldest event kept; `last + 1` if none is.
    pub first: u64,
    /// Offset of the newest event; 0 before the first.
    pub last: u64,
    /// Events kept.
    pub length: u64,
    /// Bytes that they take in the engine, approximate.
    pub bytes: u64,
    /// Events that retention, trims and damage have removed in this epoch.
    pub removed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_part_where_the_fork_is_or_where_the_reader_is() {
        let at = |epoch, offset| Position { epoch: Epoch::from_u64(epoch), offset };
        let fork = Fork { epoch: Epoch::from_u64(1), last: 120 };
        let page = Page { epoch: Epoch::from_u64(2), last: 150, forks: vec![fork], ..Page::default() };
        assert_eq!(page.parting(at(1, 131)), Some(121), "121 to 130 were given twice");
        assert_eq!(page.parting(at(1, 100)), Some(100));
        assert_eq!(page.parting(at(3, 100)), None);
    }

    #[test]
    fn a_durability_is_read_as_it_is_written() {
        for durability in [Durability::Fast, Durability::Replicated(2), Durability::Fsynced] {
            assert_eq!(durability.to_string().parse::<Durability>().unwrap(), durability);
        }
        for text in ["", "Fast", "replicated", "replicated(0)", "replicated(256)", "replicated(1"] {
            let error = text.parse::<Durability>().unwrap_err();
            assert!(error.to_string().contains("replicated(1)"), "{error}");
        }
    }
}
