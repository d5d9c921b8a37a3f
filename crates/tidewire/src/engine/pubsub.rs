//! The live half of the seam.

use std::time::Duration;

use bytes::Bytes;

use super::{Answer, Term};
use crate::clock::Timestamp;
use crate::name::{ChannelPath, PatternPath};
use crate::position::Position;

/// Moves live events and announcements between nodes.
///
/// # Guarantees
/// - **At most once.** `publish` reaches the nodes that hold an interest and whose link is up.
/// - **Stream order.** Announcements of one stream reach a sink in the order of their offsets, each once per
///   matching interest, unless the link was lost in between; then [`Heard::Relinked`] follows.
/// - **Told.** After the engine may have missed anything (link lost, buffer overrun, slot moved), it restores
///   every interest and then delivers [`Heard::Relinked`], or [`Heard::Moved`] where it knows that the others cannot
///   have missed anything. The layer above repairs from the stream.
/// - **Confirmed.** When `subscribe` answers, every later `publish` and append by anyone is heard.
///
/// # Atomicity and cost
/// Nothing is atomic across interests. Connections are O(nodes of the engine), never O(channels). On a Cluster
/// a channel's announcements travel by sharded pub/sub in the slot of its stream; a batch of interests becomes
/// one command per slot.
pub trait PubSub: Send + Sync + 'static {
    /// Sends a live event to whoever listens now.
    ///
    /// `TimedOut` means that it may have been sent: the caller may send it again marked as retried, and
    /// receivers drop the second copy.
    fn publish<'a>(&'a self, channel: &'a ChannelPath, envelope: Bytes) -> Answer<'a, ()>;

    /// Starts to hear `interests`. Asking for one that is held already changes nothing.
    fn subscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()>;

    /// Stops to hear `interests`. What is in flight may still be delivered.
    fn unsubscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()>;

    /// Nodes that hold an interest in exactly this channel (patterns do not count), this one included.
    fn subscribers(&self, channel: &ChannelPath) -> Answer<'_, u64>;

    /// Proves a round trip on every link: a link is healthy only if an answer came back over it just now.
    fn probe(&self) -> Answer<'_, Vec<Probe>>;
}

/// What a node wants to hear.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Interest {
    /// One channel.
    Channel(ChannelPath),
    /// Every channel of a tenant whose name matches.
    Pattern(PatternPath),
    /// What the groups of a channel's stream have to do: see [`Log`](super::Log).
    Work(ChannelPath),
}

/// Where an engine delivers what it hears. Implemented by the hub.
///
/// Calls come from the engine's reader or writer, one at a time per link: an implementation must not block,
/// wait or call the engine.
pub trait Sink: Send + Sync + 'static {
    /// Takes one thing heard.
    fn hear(&self, heard: Heard);
}

/// One thing that an engine hears.
#[derive(Debug, Clone)]
pub enum Heard {
    /// An event, heard because of `interest`; one that matches several interests is heard once for each.
    Event {
        /// Which interest matched.
        interest: Interest,
        /// The channel it was published on or announced under.
        channel: ChannelPath,
        /// For an announcement of a kept event: where it is.
        kept: Option<Kept>,
        /// The event as it travels.
        envelope: Bytes,
    },
    /// Groups of this channel's stream may have something to do.
    Work(ChannelPath),
    /// The link was lost and is back, every interest is restored; anything may have been missed before this.
    Relinked,
    /// The same of these interests only: they are heard over another link, or again over the same, or a stream of theirs
    /// has lost history.
    Moved(Vec<Interest>),
}

/// Where an announced event is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its position in its stream.
    pub position: Position,
    /// The term that the stream was in then.
    pub term: Term,
    /// When it was appended.
    pub time: Timestamp,
    /// The stream's channel, where that is not the channel it was announced under (`announce_on`).
    pub stream: Option<ChannelPath>,
}

/// The outcome of a probe of one link.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The link for people: `data 127.0.0.1:6379`, `pub/sub 127.0.0.1:6379`, `log /var/lib/tidewire`.
    pub link: String,
    /// Time of the round trip, or what is wrong.
    pub outcome: Result<Duration, String>,
    /// Whether the engine is not well without it. A sentinel is not needed while another one answers.
    pub is_needed: bool,
    /// How often it was opened until now, the first time included; 0 of what is no connection.
    pub opened: u64,
    /// How long it has been open; `None` while it is not, and of what is no connection.
    pub open_for: Option<Duration>,
}
