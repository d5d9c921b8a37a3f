//! One event handed to one consumer.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio_util::sync::CancellationToken;

use super::extract::Unknown;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Keys};
use crate::limits::{self, Limits};
use crate::name::GroupPath;
use crate::position::Position;

/// One event handed to one consumer, which settles it with an [`Outcome`](super::Outcome). Cheap to clone.
#[derive(Clone)]
pub struct Delivery(Arc<Parts>);

/// What a delivery is made of.
pub(super) struct Parts {
    pub(super) group: Arc<Shared>,
    pub(super) position: Position,
    pub(super) time: Timestamp,
    pub(super) event: Event,
    pub(super) attempt: u32,
    pub(super) first_delivered: Timestamp,
    pub(super) fence: u64,
    pub(super) emitted: Mutex<Emissions>,
}

/// What the deliveries of one session share.
pub(super) struct Shared {
    pub(super) path: GroupPath,
    pub(super) states: States,
    pub(super) limits: Limits,
    /// Fires when the session is over: what it held is or will be another's.
    pub(super) lost: CancellationToken,
    /// What is emitted is dropped, as in a replay into a shadow group.
    pub(super) is_muted: bool,
    pub(super) keys: Keys,
    pub(super) clock: Clock,
    /// What becomes of events that a typed handler does not take.
    pub(super) unknown: Unknown,
}

/// An event that is appended in the same step as its delivery is acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Emitted {
    pub(super) channel: Box<str>,
    pub(super) event: Event,
}

/// What a delivery emits, until it is settled.
#[derive(Debug, Default)]
pub(super) struct Emissions {
    events: Vec<Emitted>,
    bytes: usize,
    is_closed: bool,
}

impl Emissions {
    /// Takes one more event.
    pub(super) fn push(&mut self, emitted: Emitted) -> Result<()> {
        if self.is_closed {
            return Err(Error::closed("the delivery, which is settled,"));
        }
        let bytes = self.bytes + emitted.event.bytes();
        let count = self.events.len() + 1;
        if count > limits::EMITTED_EVENTS_MAX {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "a delivery emits {count} events, limit is {} (limits.EMITTED_EVENTS_MAX)",
                    limits::EMITTED_EVENTS_MAX
                ),
            ));
        }
        if bytes > limits::EMITTED_BYTES_MAX {
            return Err(Error::too_large(
                "what a delivery emits",
                bytes,
                limits::EMITTED_BYTES_MAX,
                "EMITTED_BYTES_MAX",
            ));
        }
        self.events.push(emitted);
        self.bytes = bytes;
        Ok(())
    }
}

impl Delivery {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }

    /// What is to be appended with its ack, when it is settled: from then on more is refused, for nobody would append it.
    pub(super) fn close_emitted(&self) -> Vec<Emitted> {
        let mut emissions = self.0.emitted.lock();
        emissions.is_closed = true;
        let events = std::mem::take(&mut emissions.events);
        if self.0.group.is_muted { Vec::new() } else { events }
    }

    /// The event.
    pub fn event(&self) -> &Event {
        &self.0.event
    }

    /// The channel whose stream it is in, and the group.
    pub fn group(&self) -> &GroupPath {
        &self.0.group.path
    }

    /// Where it is in the stream.
    pub fn position(&self) -> Position {
        self.0.position
    }

    /// When it was appended.
    pub fn time(&self) -> Timestamp {
        self.0.time
    }

    /// Which attempt this is, from 1. Attempts that ended with their process count; those that were handed back do not.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// When it was delivered first.
    pub fn first_delivered(&self) -> Timestamp {
        self.0.first_delivered
    }

    /// A number that is larger than that of every holder before: what this delivery writes elsewhere can be refused there
    /// when a later holder has written. With order it is that of the partition, else that of the session.
    pub fn fence(&self) -> u64 {
        self.0.fence
    }

    /// Fires when this process has lost the delivery: stop, for somebody else handles it or will.
    pub fn lost(&self) -> &CancellationToken {
        &self.0.group.lost
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("group", &self.0.group.path)
            .field("position", &self.0.position)
            .field("attempt", &self.0.attempt)
            .field("event", &self.0.event)
            .finish_non_exhaustive()
    }
}

/// What a program shares with its handlers, by type.
#[derive(Debug, Clone, Default)]
pub struct States(FxHashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    pub(super) fn insert<T: Clone + Send + Sync + 'static>(&mut self, state: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(state));
    }

    pub(super) fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref::<T>().cloned()
    }
}

#[cfg(test)]
impl Delivery {
    /// The first attempt at `event`, by a group that shares `states`.
    pub(super) fn sample(event: Event, states: States) -> Self {
        let channel = crate::name::ChannelPath::new("test", "shop", "orders").unwrap();
        let shared = Shared {
            path: GroupPath::new(channel, "shipping").unwrap(),
            states,
            limits: Limits::default(),
            lost: CancellationToken::new(),
            is_muted: false,
            keys: Keys::default(),
            clock: Clock::system(),
            unknown: Unknown::default(),
        };
        Self::new(Parts {
            group: Arc::new(shared),
            position: Position::default(),
            time: Timestamp::default(),
            event,
            attempt: 1,
            first_delivered: Timestamp::default(),
            fence: 1,
            emitted: Mutex::default(),
        })
    }
}
