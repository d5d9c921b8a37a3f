//! What waits for one subscription: a bounded queue that never blocks who fills it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::Kept;
use crate::event::{self, NodeId};
use crate::limits::Limits;
use crate::name::ChannelPath;

/// One event as the engine delivered it.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) channel: ChannelPath,
    pub(super) kept: Option<Kept>,
    pub(super) envelope: Bytes,
}

/// All that arrived since the last look.
#[derive(Debug, Default)]
pub(super) struct Burst {
    pub(super) arrivals: VecDeque<Arrival>,
    /// Live events that found the lane full.
    pub(super) dropped_count: u64,
    /// Kept events found the lane full, or the link was lost: the stream may hold events that never arrived.
    pub(super) is_behind: bool,
    /// The link was lost: live events may have been missed.
    pub(super) is_relinked: bool,
}

impl Burst {
    fn is_empty(&self) -> bool {
        self.arrivals.is_empty() && self.dropped_count == 0 && !self.is_behind && !self.is_relinked
    }
}

/// A lane of the hub. At its bounds, live events are dropped and counted, kept ones are left to the stream.
pub(super) struct Lane {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    is_closed: AtomicBool,
    skipped_node: Option<NodeId>,
    events_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    burst: Burst,
    bytes: usize,
}

impl Lane {
    /// A lane that leaves out what `skipped_node` published.
    pub(super) fn new(limits: &Limits, skipped_node: Option<NodeId>) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            is_closed: AtomicBool::new(false),
            skipped_node,
            events_max: limits.subscription_events_max,
            bytes_max: limits.subscription_bytes_max,
        }
    }

    pub(super) fn skips(&self, envelope: &[u8]) -> bool {
        self.skipped_node.is_some_and(|node| event::node_of(envelope) == node)
    }

    pub(super) fn push(&self, arrival: Arrival) {
        // A skipped kept event still moves the position, so only live ones are left out here.
        if arrival.kept.is_none() && self.skips(&arrival.envelope) {
            return;
        }
        let mut waiting = self.waiting.lock();
        let Waiting { burst, bytes } = &mut *waiting;
        if burst.arrivals.len() >= self.events_max || *bytes + arrival.envelope.len() > self.bytes_max {
            match arrival.kept {
                Some(_) => burst.is_behind = true,
                None => burst.dropped_count += 1,
            }
        } else {
            *bytes += arrival.envelope.len();
            burst.arrivals.push_back(arrival);
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    pub(super) fn relink(&self) {
        let mut waiting = self.waiting.lock();
        waiting.burst.is_behind = true;
        waiting.burst.is_relinked = true;
        drop(waiting);
        self.arrived.notify_one();
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.arrived.notify_one();
    }

    /// Waits for something to arrive and takes all of it. `None` once the lane is closed and empty.
    ///
    /// Dropping the future takes nothing.
    pub(super) async fn take(&self) -> Option<Burst> {
        loop {
            let is_closed = self.is_closed.load(Ordering::Acquire);
            let Waiting { burst, .. } = std::mem::take(&mut *self.waiting.lock());
            if !burst.is_empty() {
                return Some(burst);
            }
            if is_closed {
                return None;
            }
            self.arrived.notified().await;
        }
    }
}
