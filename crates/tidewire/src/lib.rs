//! Publish once: your services process it without loss, your users see it at once, and tenants never see
//! each other.

mod bus;
pub mod clock;
pub mod conformance;

pub mod engine;
mod error;
mod event;
pub mod limits;
pub mod name;
mod position;
pub mod tasks;
mod tenant;
mod tidewire;

pub use bus::{
    Appending, AuditAction, AuditEntry, Batcher, Batching, Channel, ChannelStats, Confirmation, DeadKind,
    DeadLetter, DeadLetterPage, DeadLetters, DeadReason, DeadReasons, Delivery, Emit, EventHandler,
    FromDelivery, Gap, GapReason, Group, GroupStatus, HandlerService, Handling, History, IntoOutcome, Item,
    Json, Lost, Outcome, PublisherStats, Purge, Rates, Reading, Receipt, Received, Replay, Retries,
    RetryPolicy, SeekPreview, SessionStatus, State, States, SubscriberStats, Subscribing, Subscription,
    Swept, fingerprint,
};
pub use clock::{Clock, Timestamp};
pub use engine::{
    AtBound, Condition, Direction, Durability, Finding, Probe, Retention, Start, StreamStats, Trimmed,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, NodeId, Priority};
pub use limits::Limits;
pub use position::{Epoch, Position};
pub use tenant::Tenant;
pub use tidewire::{Builder, Health, Tidewire};
