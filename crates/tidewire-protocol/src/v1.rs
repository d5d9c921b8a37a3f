//! Bodies of the REST API under `/v1`: events as CloudEvents, groups, their dead letters, webhooks, schemas, and
//! where an event is.
//!
//! Times are RFC 3339 text, durations milliseconds, positions `EPOCH:OFFSET`. What a request does not know of is refused, so
//! that a filter with a typing error does not pick everything. An error is `{"error": {"code", "message"}}`, with the
//! status that says whose turn it is.

mod connection;
mod event;
mod presence;
mod schema;
mod tap;
mod webhook;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::connection::{ClosedConnection, ClosedConnections};
pub use self::event::{AcceptedEvent, EventError, EventOutcome, EventOutcomes, RefusedEvent};
pub use self::presence::{Member, Members};
pub use self::schema::{Schema, SchemaSummary, SchemaVersions, Schemas};
pub use self::tap::{TapEvent, TapLine};
pub use self::webhook::{DisableRequest, Webhook, WebhookTest, Webhooks};

use crate::omit::is_default;

/// Ids in one filter.
pub const IDS_MAX: usize = 1_000;

/// `GET /v1/channels/{channel}/groups`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Groups {
    /// The groups that the channel's stream has.
    pub groups: Vec<String>,
}

/// `PUT .../groups/{group}`: makes a group if it is not there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeclareRequest {
    /// Where it begins: `earliest`, `latest`, a position, or a time.
    pub start: String,
    /// Partitions of a group with order by key; 0 without.
    #[serde(default, skip_serializing_if = "is_default")]
    pub partitions: u16,
}

/// What a declaration found or made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Declared {
    /// It was not there before.
    pub is_new: bool,
    /// It was lost and goes on from its checkpoint.
    pub is_rebuilt: bool,
    /// The first event that nobody has claimed.
    pub next: String,
}

/// `GET .../groups/{group}`: how far a group is, and who works on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    /// The channel.
    pub channel: String,
    /// The group.
    pub group: String,
    /// Partitions; 0 for a group without order.
    pub partitions: u16,
    /// The stream's epoch.
    pub epoch: String,
    /// Offset of the oldest event that the stream keeps.
    pub first: u64,
    /// Offset of the newest event of the stream.
    pub last: u64,
    /// The first offset that was not delivered to anybody.
    pub next: u64,
    /// Every event before this offset is settled, or waits beside the stream.
    pub floor: u64,
    /// Events that are not settled.
    pub lag_events: u64,
    /// Age of the oldest event that is not settled.
    pub lag_ms: u64,
    /// Events that were delivered and not settled.
    pub in_flight: u64,
    /// Events that wait to be tried again.
    pub waiting: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Appends that follow from what was settled, until they are made.
    pub outbox: u64,
    /// How often it was moved.
    pub moves: u64,
    /// The sessions that work on it.
    pub sessions: Vec<Session>,
    /// The engine's clock.
    pub now: String,
}

/// A session of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Session {
    /// Its name.
    pub name: String,
    /// How long it holds on without a sign of life.
    pub lease_left_ms: u64,
    /// Partitions that it holds.
    pub partitions: u64,
    /// Events that it has and has not settled.
    pub in_flight: u64,
}

/// `POST .../groups/{group}/seek`: goes on from another position.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SeekRequest {
    /// Where to: `earliest`, `latest`, a position, or a time.
    pub to: String,
    /// Moves nothing and says what it would do.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preview: bool,
    /// Who does it, for the audit trail.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by: String,
}

/// What a move does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Seek {
    /// Where the group was.
    pub from: String,
    /// Where it goes on.
    pub to: String,
    /// Events that are delivered again.
    pub again_count: u64,
    /// Events that are passed over.
    pub skipped_count: u64,
}

/// `GET .../groups/{group}/dead-letters`: a page of dead letters, the oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetters {
    /// The letters, without the data of their events.
    pub letters: Vec<DeadLetter>,
    /// What the next page goes on `after`; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which dead letters; what is left out picks all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetterFilter {
    /// Those with these ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Those of this fingerprint of their reason.
    #[serde(skip_serializing_if = "is_default")]
    pub reason: Option<String>,
    /// Those of this kind.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: Option<String>,
    /// Those whose event has this type.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub event_type: Option<String>,
    /// Those that died at or after this time.
    #[serde(skip_serializing_if = "is_default")]
    pub since: Option<String>,
    /// Those that died before this time.
    #[serde(skip_serializing_if = "is_default")]
    pub before: Option<String>,
}

/// A delivery that was given up on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetter {
    /// Its id.
    pub id: String,
    /// Why, for programs: `rejected`, `attempts_used_up`, `undecodable` or `crashed_process`.
    pub kind: String,
    /// Why, in words.
    pub reason: String,
    /// The reason without what differs from one event to the next.
    pub fingerprint: String,
    /// How often it was delivered.
    pub attempts: u32,
    /// How many of those ended with their process.
    pub crashes: u32,
    /// Where the event was in the stream.
    pub position: String,
    /// When the event was appended.
    pub appended: String,
    /// When it was delivered first.
    pub first_delivered: String,
    /// When it was delivered last.
    pub last_delivered: String,
    /// When it was given up on.
    pub died: String,
    /// The session that had it last.
    pub session: String,
    /// The node of that session.
    pub node: String,
    /// The event, if it can be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// What was appended, of a letter that was asked for by its id and whose event cannot be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Box<RawValue>>,
}

/// The event of a dead letter.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it happened.
    pub time: String,
    /// Its other attributes, by their CloudEvents names.
    pub attributes: std::collections::BTreeMap<String, String>,
    /// Its data, of a letter that was asked for by its id; what is no JSON is told as a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

/// `GET .../dead-letters/reasons`: dead letters by their reasons.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadReasons {
    /// The reasons, the most frequent first.
    pub reasons: Vec<DeadReason>,
    /// Dead letters of further reasons.
    pub others: u64,
}

/// Dead letters of one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadReason {
    /// Why, for programs.
    pub kind: String,
    /// What their reasons have in common.
    pub fingerprint: String,
    /// How many there are.
    pub count: u64,
    /// When the oldest of them died.
    pub first: String,
    /// When the newest of them died.
    pub last: String,
    /// The id of the newest.
    pub example: String,
}

/// `POST .../dead-letters/replay` and `POST .../dead-letters/purge`.
///
/// One request does a bounded part of the work; with the `next` of its answer as `resume` the next one goes on, as the same
/// operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SweepRequest {
    /// Which letters.
    #[serde(skip_serializing_if = "is_default")]
    pub filter: DeadLetterFilter,
    /// Of a purge: all of them. A purge without a filter has to say so.
    #[serde(skip_serializing_if = "is_default")]
    pub all: bool,
    /// Of a replay: into this channel, not the group's own.
    #[serde(skip_serializing_if = "is_default")]
    pub to_channel: Option<String>,
    /// Of a replay: at most so many events a second.
    #[serde(skip_serializing_if = "is_default")]
    pub rate: Option<u32>,
    /// Changes nothing and counts.
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: bool,
    /// At most so many letters in this request; the server has a bound of its own.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: Option<u64>,
    /// Where the request before stopped.
    #[serde(skip_serializing_if = "is_default")]
    pub resume: Option<String>,
    /// Who does it, for the audit trail.
    #[serde(skip_serializing_if = "is_default")]
    pub by: String,
}

/// What a replay or a purge did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Swept {
    /// Letters that were replayed or purged by this request.
    pub count: u64,
    /// Of those, letters whose events an earlier replay had appended before it was cut short.
    #[serde(default, skip_serializing_if = "is_default")]
    pub duplicate_count: u64,
    /// Where it stopped; left out at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET .../groups/{group}/audit`: who did what, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Audit {
    /// What was done.
    pub entries: Vec<AuditEntry>,
}

/// One thing that somebody did to a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    /// When it began.
    pub time: String,
    /// Who.
    pub who: String,
    /// `replay`, `purge` or `seek`.
    pub action: String,
    /// To which letters, or from where to where.
    pub detail: String,
    /// How many events or letters it has changed.
    pub count: u64,
}

/// `GET /v1/channels/{channel}/trace/{event}`: where an event is, and why.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Trace {
    /// The event's id.
    pub event: String,
    /// Its copies in the stream, the oldest first.
    pub copies: Vec<TracedCopy>,
    /// What each group has made of each copy.
    pub groups: Vec<TracedInGroup>,
    /// Offset of the first event that was looked at.
    pub first: u64,
    /// Offset of the last event that was looked at.
    pub last: u64,
    /// The stream goes on after that.
    pub has_more: bool,
}

/// A copy of an event in the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TracedCopy {
    /// Where it is.
    pub position: String,
    /// When it was appended.
    pub time: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The dead letter that it is a replay of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<String>,
}

/// What one group has made of one copy of an event.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TracedInGroup {
    /// The group.
    pub group: String,
    /// Where the copy is, or was.
    pub position: String,
    /// `before_start`, `not_for_this_group`, `ahead`, `in_flight`, `waiting`, `dead` or `settled`.
    pub state: String,
    /// Ahead: events that come before it, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_before: Option<u64>,
    /// In flight: the session that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// In flight or waiting: attempts that have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// In flight or waiting: what went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Waiting: until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Dead: the letter, without the data of its event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letter: Option<DeadLetter>,
}

/// `POST .../groups/{group}/fetch`: takes deliveries under a lease; waits for the first one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct FetchRequest {
    /// At most so many deliveries; 1 to 1,000.
    pub limit: usize,
    /// How long to wait for the first one; at most 30 s.
    pub wait_ms: u64,
    /// How long they are held for whoever fetched them; 100 ms to an hour. What is not settled by then was attempted and
    /// failed.
    pub lease_ms: u64,
}

impl Default for FetchRequest {
    fn default() -> Self {
        Self { limit: 1, wait_ms: 0, lease_ms: 30_000 }
    }
}

/// Deliveries under a lease.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fetched {
    /// The lease that they are held under; left out if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
}

/// One event handed to one consumer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Delivery {
    /// What it is settled by: the event's position.
    pub id: String,
    /// When the event was appended.
    pub time: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When it was delivered first.
    pub first_delivered: String,
    /// Larger than that of every holder before.
    pub fence: u64,
    /// The event.
    pub event: Event,
}

/// `POST .../groups/{group}/settle`: says what became of deliveries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    /// The lease that they are held under.
    pub lease: String,
    /// What became of each.
    pub outcomes: Vec<Settlement>,
}

/// What became of one delivery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Settlement {
    /// The delivery.
    pub id: String,
    /// `ack`, `retry`, `reject`, `park` or `hand_back`.
    pub outcome: String,
    /// Of a retry: how long it waits. Left out: longer with each attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// Of a retry, a reject and a park: why.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reason: String,
}

/// What a settlement came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Settled {
    /// Deliveries that are settled.
    pub settled: u64,
    /// Those that were not held under the lease any more: they were settled before, or come again.
    pub lost: Vec<String>,
}

/// `POST .../groups/{group}/extend`: holds what a lease has for longer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExtendRequest {
    /// The lease.
    pub lease: String,
    /// How long from now; 100 ms to an hour.
    pub lease_ms: u64,
}

/// What is held under a lease now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Extended {
    /// Deliveries that are held.
    pub held: Vec<String>,
    /// Those that are not held any more though they are not settled: they come again.
    pub lost: Vec<String>,
}
