//! The one thread that changes entries, the schedule and groups: all changes that wait become one commit.

use std::time::Duration;

use bytes::Bytes;
use redb::WriteTransaction;

use super::directory::Directory;
use super::groups::GroupChange;
use super::queue::{Asked, Queue};
use super::{schedule, store};
use crate::clock::{Clock, Timestamp};
use crate::engine::Condition;
use crate::engine::embedded::pubsub::LocalPubSub;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{ChannelPath, EntryPath};

/// A change, and who waits for it.
pub(super) struct StateJob {
    pub(super) change: Change,
    pub(super) asked: Asked<Done>,
}

/// What is changed. Each answers one thing about itself.
pub(super) enum Change {
    /// Whether the condition held.
    Put { key: EntryPath, value: Bytes, ttl: Option<Duration>, condition: Condition },
    /// Whether there was one.
    Remove { key: EntryPath },
    /// Whether more has expired.
    Sweep,
    /// Where they wait.
    Schedule(Vec<(Timestamp, Vec<u8>)>),
    /// Whether it was there and its time had not come.
    Cancel { channel: ChannelPath, key: schedule::Key },
    /// True.
    Unschedule(Vec<schedule::Key>),
    /// How many items were removed.
    Group(Box<GroupChange>),
}

/// What a change answers.
pub(super) enum Done {
    Flag(bool),
    Count(u64),
    Scheduled(Vec<schedule::Key>),
    /// A change before it failed, and it follows from that one.
    Refused,
}

impl Done {
    pub(super) fn is_true(&self) -> bool {
        matches!(self, Self::Flag(true))
    }
}

/// Works until the queue is closed and empty.
pub(super) fn run(directory: &Directory, queue: &Queue<StateJob>, clock: &Clock, pubsub: &LocalPubSub) {
    while let Some(jobs) = queue.take_all() {
        let now = clock.now();
        let outcomes = directory.state.write(|transaction| {
            jobs.iter().map(|job| job.change.apply(transaction, now)).collect::<Result<Vec<_>, _>>()
        });
        let (changes, asked): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.change, job.asked)).unzip();
        // Before anybody is answered: what they ask for next finds the groups as the database has them.
        for change in changes {
            if let Change::Group(change) = change {
                change.finish(outcomes.is_ok(), pubsub);
            }
        }
        match outcomes {
            Ok(outcomes) => {
                for (asked, done) in asked.into_iter().zip(outcomes) {
                    asked.answer(if matches!(done, Done::Refused) { Err(refused()) } else { Ok(done) });
                }
            }
            Err(fault) => {
                for asked in asked {
                    asked.answer(Err(fault.clone().into()));
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, transaction: &WriteTransaction, now: Timestamp) -> Result<Done, redb::Error> {
        match self {
            Self::Put { key, value, ttl, condition } => {
                store::put(transaction, key, value, *ttl, condition, now).map(Done::Flag)
            }
            Self::Remove { key } => store::remove(transaction, key, now).map(Done::Flag),
            Self::Sweep => store::sweep(transaction, now).map(Done::Flag),
            Self::Schedule(appends) => schedule::add(transaction, appends).map(Done::Scheduled),
            Self::Cancel { channel, key } => {
                schedule::cancel(transaction, channel, *key, now).map(Done::Flag)
            }
            Self::Unschedule(keys) => schedule::remove(transaction, keys).map(|()| Done::Flag(true)),
            Self::Group(change) => change.apply(transaction),
        }
    }
}

fn refused() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "an earlier change of the group could not be written: nothing was done",
    )
}
