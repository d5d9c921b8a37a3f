//! What groups ask of an engine: turns of sessions over records, and items beside them.

use std::time::Duration;

use bytes::Bytes;

use super::Stored;
use crate::clock::Timestamp;
use crate::position::{Epoch, Position};

/// Where a group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest event that is kept.
    Earliest,
    /// With the first event appended after the group was created.
    Latest,
    /// With the event at this position. In history that is gone it is the first event that may be another one than
    /// at that position, so that none is left out.
    At(Position),
    /// With the first event appended at or after this time.
    Since(Timestamp),
}

/// How a group is made if it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Where it begins.
    pub start: Start,
    /// How many partitions it has, at most [`PARTITIONS_MAX`](crate::limits::PARTITIONS_MAX); 0 for a group without
    /// order, whose sessions claim events.
    pub partitions: u16,
}

/// What an opening found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// It was not there before, or only a checkpoint of it.
    pub is_new: bool,
    /// It was lost and goes on from its checkpoint: some events may be delivered again.
    pub is_rebuilt: bool,
    /// The first event that nobody has claimed. Of a group with partitions: where it began.
    pub next: Position,
}

/// One step of a session: it renews its lease, commits what it did, and takes what it has room for.
///
/// A session numbers its turns from 1. The same turn sent again is answered with the first answer and changes
/// nothing; an earlier one changes nothing. The first turn makes the session.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// Its name, which no other session of the group ever has; at most
    /// [`SESSION_BYTES_MAX`](crate::limits::SESSION_BYTES_MAX) of `A-Z a-z 0-9 - _ .`.
    pub session: Box<str>,
    /// Which turn of the session this is.
    pub number: u64,
    /// How long from now the session holds its records without another turn.
    pub lease: Duration,
    /// What changes in records that the session holds.
    pub commits: Vec<Commit>,
    /// Items that are put; one that is there under the same key is replaced.
    pub puts: Vec<ShelfItem>,
    /// Items that are removed, if they are there.
    pub removes: Vec<(Shelf, Box<str>)>,
    /// Ids that are marked as handled, for their window.
    pub marks: Vec<super::Dedup>,
    /// Ids to look up among the marks, as they are before this turn.
    pub lookups: Vec<Box<str>>,
    /// At most so many new events are claimed. Only in a group without partitions.
    pub claim: usize,
    /// At most so many records that nobody holds are adopted.
    pub adopt: usize,
    /// Offsets, first and last of each range, whose events are read.
    pub reads: Vec<(u64, u64)>,
    /// The session ends with this turn: it lets go of every record that it holds.
    pub is_last: bool,
}

/// What becomes of a record in a turn.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its name. A session of a group without partitions makes records called as itself, or that and `.` and more.
    pub record: Box<str>,
    /// What it holds from now on; claims that were told in earlier turns are in it. `None` removes the record, where the
    /// group has no partitions.
    pub state: Option<Bytes>,
    /// The lowest offset whose event is still needed from the stream; `u64::MAX` if none is.
    pub floor: u64,
    /// Nobody holds it any more: another session may adopt it.
    pub is_released: bool,
}

/// A record that a session has adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Its name: in a group with partitions their number, else the name of the session that made it.
    pub name: Box<str>,
    /// Larger than that of any adoption before in this group.
    pub fence: u64,
    /// What was committed last; empty if nothing was.
    pub state: Bytes,
    /// What was claimed for it since: first and last offset of each range.
    pub claims: Vec<(u64, u64)>,
    /// Who held it did not let go of it: its lease ran out.
    pub was_lost: bool,
}

/// The answer to a turn.
#[derive(Debug, Clone, Default)]
pub struct Turned {
    /// The stream's epoch.
    pub epoch: Epoch,
    /// Offset of the oldest event kept; `last + 1` if none is.
    pub first: u64,
    /// Offset of the newest event ever appended; 0 before the first.
    pub last: u64,
    /// No event before this offset is needed for the group: from here on it can be made again if it is lost. It may be
    /// lower than it could be.
    pub floor: u64,
    /// How often the group was moved by [`Change::Seek`], and the offset that the last move, or its start, went to.
    pub generation: (u64, u64),
    /// In the answer to the first turn of a session: its fence, larger than any given before in this group.
    pub fence: u64,
    /// What was claimed: first and last offset.
    pub claimed: Option<(u64, u64)>,
    /// Events before what was claimed that were removed unclaimed: first and last offset.
    pub skipped: Option<(u64, u64)>,
    /// The records that were adopted.
    pub adopted: Vec<Adopted>,
    /// Records that nobody holds now.
    pub free: u64,
    /// Sessions whose lease has not run out, this one included.
    pub sessions: u64,
    /// For each lookup, whether the id is marked.
    pub marked: Vec<bool>,
    /// Events of what was claimed and of what was to be read, in the order of their offsets.
    pub events: Vec<Stored>,
    /// Those of the same offsets that were left for another turn: a page has its bounds. What is in neither is gone.
    pub unread: Vec<(u64, u64)>,
    /// The engine's clock.
    pub now: Timestamp,
    /// When the first lease of another session that holds records runs out, if it is not renewed.
    pub look_again: Option<Duration>,
}

/// Where an item is kept beside the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shelf {
    /// Events that are to be delivered again later, so that the stream need not keep them.
    Waiting,
    /// Dead letters.
    Dead,
    /// Appends that follow from what was settled, until they are made.
    Outbox,
    /// Who did what to the group.
    Audit,
}

/// Bytes under a key, beside the records of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShelfItem {
    /// Where.
    pub shelf: Shelf,
    /// At most [`ITEM_KEY_BYTES_MAX`](crate::limits::ITEM_KEY_BYTES_MAX) visible ASCII characters; items are listed in
    /// the order of their keys.
    pub key: Box<str>,
    /// What.
    pub bytes: Bytes,
}

/// Which items of a shelf.
#[derive(Debug, Clone)]
pub enum Listing {
    /// Up to so many after this key, which need not exist; the empty key comes before all.
    After(Box<str>, usize),
    /// Those with these keys.
    Keys(Vec<Box<str>>),
}

/// What is done to a group from outside of its sessions.
#[derive(Debug, Clone)]
pub enum Change {
    /// Goes on from here. Answers how many events are behind that were not before, or before that were not claimed.
    Seek(Start),
    /// Removes items and puts others, in one step. Answers how many were there of those to be removed.
    Items {
        /// Those that are removed.
        removes: Vec<(Shelf, Box<str>)>,
        /// Those that are put.
        puts: Vec<ShelfItem>,
    },
    /// Removes the group with all that it has. Answers how many records it had.
    Delete,
}

/// A group as a whole.
#[derive(Debug, Clone, Default)]
pub struct GroupStats {
    /// The stream's epoch.
    pub epoch: Epoch,
    /// Offset of the oldest event kept; `last + 1` if none is.
    pub first: u64,
    /// Offset of the newest event ever appended; 0 before the first.
    pub last: u64,
    /// The first offset that nobody has claimed. Of a group with partitions: where it began.
    pub next: u64,
    /// Nothing before this offset is needed from the stream for this group.
    pub floor: u64,
    /// Partitions; 0 for a group without order.
    pub partitions: u16,
    /// How often the group was moved, and where to.
    pub generation: (u64, u64),
    /// The sessions and how long each holds on without another turn.
    pub sessions: Vec<(Box<str>, Duration)>,
    /// The records.
    pub records: Vec<RecordStats>,
    /// How many items each shelf has: waiting, dead, outbox, audit.
    pub items: [u64; 4],
    /// The engine's clock.
    pub now: Timestamp,
}

/// A record of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordStats {
    /// Its name.
    pub name: Box<str>,
    /// The session that holds it.
    pub owner: Option<Box<str>>,
    /// What was committed last.
    pub state: Bytes,
    /// What was claimed for it since.
    pub claims: Vec<(u64, u64)>,
}
