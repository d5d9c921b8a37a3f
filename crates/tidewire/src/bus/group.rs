//! Groups: consumers that share a stream, each event to one of them, at least once.
//!
//! Policy over the seam's sessions and records, written once for all engines: what a record holds, when a delivery
//! comes again, in which order, and when it is given up on.

mod audit;
mod breaker;
mod consumer;
mod consumers;
mod counters;
mod dead_letter;
mod delivery;
mod extract;
mod gate;
mod handler;
mod ledger;
mod letters;
mod operate;
mod outbox;
mod outcome;
mod pool;
mod queue;
mod retries;
mod session;
mod settings;
mod span;
mod sweep;
mod trace;

use std::fmt;
use std::sync::Arc;

pub use audit::{AuditAction, AuditEntry};
pub use breaker::{BreakerState, Breaking};
pub use consumer::{Consumer, Consuming, Deliveries, Pulled, Settling};
pub(crate) use consumers::Consumers;
pub use consumers::GroupActivity;
pub use counters::{ConsumerStats, HandlerTimes};
pub use dead_letter::{DeadKind, DeadLetter, fingerprint};
pub use delivery::{Delivery, States};
pub use extract::{Emit, FromDelivery, Json, Lost, State, Unknown, typed};
pub use handler::{EventHandler, HandlerService, Handling};
pub use letters::{DeadLetterPage, DeadLetters, DeadReason, DeadReasons};
pub use operate::{GroupStatus, SeekPreview, SessionStatus};
pub use outcome::{IntoOutcome, Outcome};
pub use pool::{Pool, Rate, Share};
pub use retries::Retries;
pub use sweep::{Purge, Replay, Swept};
pub use trace::{Trace, TracedCopy, TracedInGroup, Tracing, Whereabouts};

use super::Bus;
use crate::engine::{Log, Opened, Opening, Start};
use crate::error::Result;
use crate::name::GroupPath;

/// A group of a channel's stream. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    bus: Arc<Bus>,
    path: GroupPath,
    opening: Opening,
}

impl Group {
    pub(super) fn new(bus: Arc<Bus>, path: GroupPath, start: Start) -> Self {
        Self { bus, path, opening: Opening { start, partitions: 0 } }
    }

    /// Its name beside the channel.
    pub fn name(&self) -> &str {
        self.path.group()
    }

    /// The channel and the group.
    pub fn path(&self) -> &GroupPath {
        &self.path
    }

    /// Handles the events of each key one at a time and in their order: keys are spread over `partitions`, 1 to 128, which
    /// processes share out among them. All who open the group say the same.
    pub fn ordered(mut self, partitions: u16) -> Self {
        self.opening.partitions = partitions.clamp(1, crate::limits::PARTITIONS_MAX);
        self
    }

    /// Makes the group if it is not there: from then on every event from its start on is kept until the group has settled
    /// it. Publishers declare the groups of their channels, so that no event comes before its group.
    ///
    /// # Errors
    /// `Conflict` if it is there with another number of partitions; errors of the engine.
    pub async fn declare(&self) -> Result<Opened> {
        let _in_flight = self.bus.enter()?;
        self.bus.engine.log.group_open(&self.path, self.opening).await
    }

    /// The engine under it, for cases that look below the bus.
    pub(crate) fn log(&self) -> &dyn Log {
        &*self.bus.engine.log
    }

    /// Consumes it on this node.
    pub fn consume(&self) -> Consuming {
        Consuming::new(self.clone())
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({})", self.path)
    }
}
