//! The one thread that changes entries and the schedule: all changes that wait become one commit.

use std::time::Duration;

use bytes::Bytes;
use redb::WriteTransaction;

use super::directory::Directory;
use super::queue::{Asked, Queue};
use super::{schedule, store};
use crate::clock::{Clock, Timestamp};
use crate::engine::Condition;
use crate::error::Result;
use crate::name::EntryPath;

/// A change, and who waits for it.
pub(super) struct StateJob {
    pub(super) change: Change,
    pub(super) asked: Asked<bool>,
}

/// What is changed. Each answers one thing about itself.
pub(super) enum Change {
    /// Whether the condition held.
    Put { key: EntryPath, value: Bytes, ttl: Option<Duration>, condition: Condition },
    /// Whether there was one.
    Remove { key: EntryPath },
    /// Whether more has expired.
    Sweep,
    /// True.
    Schedule(Vec<(Timestamp, Vec<u8>)>),
    /// True.
    Unschedule(Vec<schedule::Key>),
}

/// Works until the queue is closed and empty.
pub(super) fn run(directory: &Directory, queue: &Queue<StateJob>, clock: &Clock) {
    while let Some(jobs) = queue.take_all() {
        let now = clock.now();
        let outcomes = directory.state.write(|transaction| {
            jobs.iter().map(|job| job.change.apply(transaction, now)).collect::<Result<Vec<_>, _>>()
        });
        match outcomes {
            Ok(outcomes) => {
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    job.asked.answer(Ok(outcome));
                }
            }
            Err(fault) => {
                for job in jobs {
                    job.asked.answer(Err(fault.clone().into()));
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, transaction: &WriteTransaction, now: Timestamp) -> Result<bool, redb::Error> {
        match self {
            Self::Put { key, value, ttl, condition } => {
                store::put(transaction, key, value, *ttl, condition, now)
            }
            Self::Remove { key } => store::remove(transaction, key, now),
            Self::Sweep => store::sweep(transaction, now),
            Self::Schedule(appends) => schedule::add(transaction, appends).map(|()| true),
            Self::Unschedule(keys) => schedule::remove(transaction, keys).map(|()| true),
        }
    }
}
