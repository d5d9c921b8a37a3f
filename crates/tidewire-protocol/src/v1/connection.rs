//! Bodies about connections.

use serde::{Deserialize, Serialize};

use crate::omit::is_default;

/// `GET /v1/connections/closed`: connections of the caller's tenant that have ended, the newest first, of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClosedConnections {
    /// At most as many as were asked for; nodes remember some thousands.
    pub closed: Vec<ClosedConnection>,
}

/// How a connection ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClosedConnection {
    /// When.
    pub at: String,
    /// Its user; empty for an anonymous one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: String,
    /// Its id, as its client knew it.
    pub client: String,
    /// The node that held it.
    pub node: String,
    /// What carried it: `websocket`, `sse`, `http_stream`.
    pub transport: String,
    /// The code that it ended with; 0 where the client was gone without a word.
    pub code: u32,
    /// The reason in words.
    pub reason: String,
    /// How long it was open, in milliseconds.
    pub lasted_ms: u64,
}
