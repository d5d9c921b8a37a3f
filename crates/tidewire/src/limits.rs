//! Every bound of the library: its value, its unit, why it is that large, and who notices.
//!
//! Values that a program may change are fields of [`Limits`]; the rest are constants, because a stored
//! format or the engines depend on them.

use std::time::Duration;

/// Channel name, bytes. The Centrifuge SDKs and server API use the same bound; a name is part of every key.
pub const CHANNEL_NAME_BYTES_MAX: usize = 255;
/// Tenant name, bytes. Part of every key and metric label.
pub const TENANT_NAME_BYTES_MAX: usize = 64;
/// Environment name (`dev`, `prod`), bytes. Part of every key.
pub const ENVIRONMENT_NAME_BYTES_MAX: usize = 32;
/// Wildcards in a pattern. Each costs a scan of the name, so the bound keeps matching cheap.
pub const PATTERN_WILDCARDS_MAX: usize = 4;
/// Bytes of the type of an event that has a contract: it stands in every envelope, and in names of schemas.
pub const EVENT_TYPE_BYTES_MAX: usize = 128;
/// All attributes of an event together, bytes, as encoded. Metadata is read on paths that never read data.
pub const METADATA_BYTES_MAX: usize = 8 * 1024;
/// A dedup id, bytes. Kept in memory and beside each record for the length of its window.
pub const DEDUP_ID_BYTES_MAX: usize = 255;
/// Epoch of a version, bytes. It stands in each record that has a version and in the head of each segment, whose room it fills.
pub const VERSION_EPOCH_BYTES_MAX: usize = 64;
/// Dedup ids that one stream of an embedded engine remembers; past it the oldest is forgotten early.
pub const DEDUP_IDS_MAX: usize = 100_000;
/// Events in one batch, append or page. Bounds the time that one script or one commit may take.
pub const BATCH_EVENTS_MAX: usize = 1_000;
/// Bytes in one batch, append or page.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Live events that a subscription remembers to drop the second copy of a retried publish.
pub const RECENT_IDS_MAX: usize = 256;
/// Channels whose positions one pattern subscription tracks; past it a new channel is told as a gap.
pub const PATTERN_CHANNELS_MAX: usize = 100_000;
/// Channels with statistics of their own on a node; past it they count in the node's totals only.
pub const STATS_CHANNELS_MAX: usize = 100_000;
/// Groups whose consumers have counts of their own on a node; past it those that nobody consumes any more are counted
/// together, and new ones if there are none. Each is some thirty lines of metrics.
pub const STATS_GROUPS_MAX: usize = 1_000;
/// Key of the store, bytes, without the tenant.
pub const STORE_KEY_BYTES_MAX: usize = 512;
/// Name of a fold, bytes. With the channel's name it is the key of a snapshot.
pub const FOLD_NAME_BYTES_MAX: usize = 64;

/// Id of a member of a channel, and of its user, bytes each. Every listing carries them.
pub const MEMBER_ID_BYTES_MAX: usize = 255;
/// What is kept of a member beside its ids, bytes. Every listing carries it, and each node keeps those of its own members.
pub const MEMBER_INFO_BYTES_MAX: usize = 16 * 1024;
/// Members of dead nodes that one call removes; the next call goes on.
pub const REAPED_MEMBERS_MAX: usize = 10_000;
/// Changes of members that wait on a node until somebody asks for them; past it the oldest are dropped and logged.
pub const PRESENCE_CHANGES_MAX: usize = 100_000;

/// Group name, bytes. Part of every key and metric label.
pub const GROUP_NAME_BYTES_MAX: usize = 64;
/// Partitions of a group with order. Each is a record that its holder writes; more would not spread 128 processes better.
pub const PARTITIONS_MAX: u16 = 128;
/// Sessions of one group at a time; past it a new one is refused as backpressure.
pub const SESSIONS_MAX: usize = 1_024;
/// Session name, bytes.
pub const SESSION_BYTES_MAX: usize = 64;
/// Key of an item beside a group's records, bytes.
pub const ITEM_KEY_BYTES_MAX: usize = 255;
/// Ids that one group of an embedded engine remembers as handled; past it the oldest is forgotten early.
pub const MARKS_MAX: usize = 100_000;
/// Events that one delivery emits. They are settled in one step with it, so they have to fit into a turn beside others.
pub const EMITTED_EVENTS_MAX: usize = 100;
/// Bytes of what one delivery emits: half of a turn, so that it fits beside the records.
pub const EMITTED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Reason of a dead letter, bytes; a longer one is cut. People read it in lists, and it is kept beside each letter.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Dead letters of one group. Past it the oldest are dropped, counted and logged: by then nobody reads them one by one, and
/// what fails without end must not fill the engine.
pub const DEAD_LETTERS_MAX: u64 = 100_000;
/// Entries of a group's audit trail; past it the oldest go.
pub const AUDIT_ENTRIES_MAX: usize = 1_000;
/// Text of an audit entry, who and what apart, bytes; a longer one is cut.
pub const AUDIT_TEXT_BYTES_MAX: usize = 255;
/// Events of a stream that one trace looks at; past it the trace says how far it came.
pub const TRACE_EVENTS_MAX: u64 = 100_000;

/// Keys of one ring of a tenant. Only one signs or seals; the others are there until what they signed or sealed is gone.
pub const RING_KEYS_MAX: usize = 16;
/// Id of a key, bytes. It stands in an attribute of each event that is signed or sealed with it.
pub const KEY_ID_BYTES_MAX: usize = 64;
/// Keys of all tenants as JSON, bytes; some 50,000 tenants with keys of their own.
pub const KEYS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Tenants whose keys, derived from a master's, a node remembers; past it all are forgotten and derived again, each in some
/// microseconds.
pub const DERIVED_TENANTS_MAX: usize = 10_000;

/// The bounds that a program may change, with [`crate::Builder::limits`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Data of one event, bytes; 1 MiB. The publisher notices: [`crate::ErrorKind::TooLarge`].
    pub event_bytes_max: usize,
    /// Events waiting in one subscription; 4,096. Past it live events are dropped and told as a gap, kept
    /// ones are read again from the stream: the subscriber notices only that it is slow.
    pub subscription_events_max: usize,
    /// Bytes waiting in one subscription; 8 MiB. As above.
    pub subscription_bytes_max: usize,
    /// Bytes of events handed to the engine and not yet confirmed, per node; 64 MiB. The publisher waits.
    pub in_flight_bytes_max: usize,
    /// How long one call to the engine may take, retries apart; 5 s. Past it: [`crate::ErrorKind::TimedOut`].
    pub call_time_max: Duration,
    /// How long the members of a node are there after it was heard of last; 1.5 s, renewed every third of it. A dead node's
    /// members are listed for at most a sixth longer. Shorter, and a node that stands still for a moment loses its members;
    /// all nodes should have the same.
    pub presence_lease: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes_max: 1024 * 1024,
            subscription_events_max: 4_096,
            subscription_bytes_max: 8 * 1024 * 1024,
            in_flight_bytes_max: 64 * 1024 * 1024,
            call_time_max: Duration::from_secs(5),
            presence_lease: Duration::from_millis(1_500),
        }
    }
}
