//! What goes on at the connections of a user.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::omit::is_default;

/// `GET /v1/users/{user}/tap`: a line of JSON for each of these, until the client goes away. Fields that do not apply are left
/// out; a line may be empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TapLine {
    /// When it happened.
    pub at: String,
    /// What happened.
    pub what: TapEvent,
    /// The node that saw it.
    #[serde(skip_serializing_if = "is_default")]
    pub node: String,
    /// The connection's id, as its client knows it.
    #[serde(skip_serializing_if = "is_default")]
    pub client: String,
    /// The method of a command or of what it is answered with, `error` for any that failed; the kind of a push.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: String,
    /// The number of the command, and of its reply.
    #[serde(skip_serializing_if = "is_default")]
    pub id: u32,
    /// The channel that it is about.
    #[serde(skip_serializing_if = "is_default")]
    pub channel: String,
    /// The offset of an event, or where a subscription begins.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// The code of an error or of an end; 0 for a client that was gone without a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// The same in words.
    #[serde(skip_serializing_if = "is_default")]
    pub reason: String,
    /// How many: connections that are watched, events in a reply, lines that are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Bytes of the data, as it is on the wire.
    #[serde(skip_serializing_if = "is_default")]
    pub bytes: u64,
    /// The data, where it is asked for and not too large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

/// What a [`TapLine`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapEvent {
    /// A node watches from now on: `count` connections, and those that come.
    #[default]
    Watching,
    /// A node does not, and why.
    NotWatching,
    /// A connection has a session.
    Opened,
    /// The client sent a command.
    Command,
    /// It was answered.
    Reply,
    /// It was sent something else.
    Push,
    /// The connection has ended.
    Closed,
    /// So many lines are not told, because there were too many at once.
    LeftOut,
}
