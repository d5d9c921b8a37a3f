//! Bodies about who is in a channel.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::omit::is_default;

/// `GET /v1/channels/{channel}/presence`: a page of the members of a channel, on all nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Members {
    /// At most as many as were asked for. Who is there from the first page to the last is on one of them, once.
    pub members: Vec<Member>,
    /// The next page's `after`; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Who is in a channel.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Member {
    /// Its id: that of a connection, or what a service gave it.
    pub id: String,
    /// Its user; left out for an anonymous connection.
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: String,
    /// The node that it is on.
    pub node: String,
    /// The connection token's `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conn_info: Option<Box<RawValue>>,
    /// The subscription token's `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chan_info: Option<Box<RawValue>>,
}
