//! Sets of members under keys.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::limits;

/// One member of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name in the set, which is in order of these bytes.
    pub name: Bytes,
    /// Whose it is: the set counts how many owners its members have.
    pub owner: Bytes,
    /// What is kept of it.
    pub value: Bytes,
}

/// What a change of a set does: all of it in one step, or nothing.
#[derive(Debug, Clone, Default)]
pub struct MembersChange {
    /// When it takes effect.
    pub condition: MembersCondition,
    /// Who is removed, before others are put.
    pub removes: Vec<Bytes>,
    /// Who is added, or replaced.
    pub puts: Vec<Member>,
    /// When the time of those who are put is over, from now on. Without it, never.
    pub ttl: Option<Duration>,
}

/// When a change of a set takes effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MembersCondition {
    /// Always.
    #[default]
    Always,
    /// Only if this member is there, though its time may be over.
    There(Bytes),
    /// Only if this member is there and its time is over.
    Expired(Bytes),
}

/// What a change of a set found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MembersChanged {
    /// Whether the condition held. If not, nothing was done.
    pub is_done: bool,
    /// How many members there were before.
    pub before: u64,
    /// How many there are now. Of all changes of a set one alone finds it empty, and one alone leaves it so.
    pub after: u64,
    /// Of each remove, whether it was there.
    pub were_there: Vec<bool>,
    /// Of each put, whether it was not there.
    pub are_new: Vec<bool>,
}

/// A part of a set, by names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MembersPage {
    /// The members, and whether the time of each is over.
    pub members: Vec<(Member, bool)>,
    /// How many members the set has.
    pub count: u64,
    /// How many owners they have.
    pub owners: u64,
    /// After which name the next page begins; none if this was the last.
    pub next: Option<Bytes>,
}

impl Member {
    /// About what it takes in a batch.
    pub(crate) fn bytes(&self) -> usize {
        self.name.len() + self.owner.len() + self.value.len()
    }
}

impl MembersChange {
    /// What it takes in a call, about.
    pub(crate) fn bytes(&self) -> usize {
        let removes: usize = self.removes.iter().map(Bytes::len).sum();
        self.puts.iter().map(Member::bytes).sum::<usize>() + removes
    }

    /// Refuses what is more than one step may take.
    pub(crate) fn check(&self) -> Result<()> {
        let entries = self.puts.len() + self.removes.len();
        if entries > limits::BATCH_EVENTS_MAX {
            let max = limits::BATCH_EVENTS_MAX;
            let text = format!("change has {entries} members, limit is {max} (limits.BATCH_EVENTS_MAX)");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let bytes = self.bytes();
        if bytes > limits::BATCH_BYTES_MAX {
            return Err(Error::too_large("change", bytes, limits::BATCH_BYTES_MAX, "BATCH_BYTES_MAX"));
        }
        Ok(())
    }
}
