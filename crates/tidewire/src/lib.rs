//! Publish once: your services process it without loss, your users see it at once, and tenants never see
//! each other.

mod bus;
pub mod circuit;
pub mod clock;
pub mod conformance;

pub mod engine;
mod error;
mod event;
mod kit;
pub mod limits;
pub mod name;
mod position;
pub mod tasks;
mod tenant;
pub mod testing;
mod tidewire;

pub use bus::{
    Appending, Batcher, Batching, BreakerState, Breaking, Channel, ChannelActivity, ChannelStats,
    Confirmation, Consumer, ConsumerStats, Consuming, DeadKind, DeadLetter, Deliveries, Delivery,
    EVENT_LOG_TARGET, Emit, EventHandler, Events, Folded, Folding, FromDelivery, Gap, GapReason, Group,
    GroupActivity, HandlerService, HandlerTimes, Handling, History, IntoOutcome, Item, Json, Lost, Outcome,
    Pool, PublisherStats, Pulled, Rate, Rates, Reading, Receipt, Received, Retries, RetryPolicy, Settling,
    Share, State, States, SubscriberStats, Subscribing, Subscription, Typed, TypedItem, TypedSubscription,
    Unknown, fingerprint,
};
pub use bus::{
    AuditAction, AuditEntry, DeadLetterPage, DeadLetters, DeadReason, DeadReasons, GroupStatus, Purge,
    Replay, SeekPreview, SessionStatus, Swept, Trace, TracedCopy, TracedInGroup, Tracing, Whereabouts,
};
pub use clock::{Clock, Timestamp};
pub use engine::{
    AtBound, Condition, Direction, Durability, Effect, Finding, Probe, Retention, Start, StreamStats, Trimmed,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{
    Catalog, Change, ChangeKind, Contract, Definition, Event, EventChannel, EventSet, EventType, HIDDEN,
    JsonFault, JsonLimits, JsonRule, Keys, Mark, NodeId, Priority, Receiving, Sending, Unreadable, Violation,
    check_json, cloudevents,
};
pub use kit::{
    Departed, Departing, Joined, MemberPage, Presence, PresenceChange, PresenceNews, PresenceStats, Present,
    Reaped, Standing,
};
pub use limits::Limits;
pub use position::{Epoch, Position};
pub use tenant::Tenant;
pub use tidewire::{Builder, Health, Tidewire};
/// Makes a struct, or an enum with a name, one version of an event type; and an enum of such, without a name, a set of them.
///
/// `docs/events.md` shows what can be said.
pub use tidewire_macros::Event;

/// What `#[derive(Event)]` writes. Nothing of it is for people.
#[doc(hidden)]
pub mod derive {
    pub use schemars;
    pub use serde;

    pub use crate::bus::typed;
    pub use crate::event::{contract, from_event, is_same, read, to_event, unknown_type, unknown_version};
}

/// Pages whose examples are compiled and run.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../docs/events.md")]
    struct Events;
    #[doc = include_str!("../../../docs/groups.md")]
    struct Groups;
    #[doc = include_str!("../../../docs/presence.md")]
    struct Presence;
    #[doc = include_str!("../../../docs/schemas.md")]
    struct Schemas;
    #[doc = include_str!("../../../docs/testing.md")]
    struct Testing;
}
