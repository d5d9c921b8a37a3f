//! Connections, as their operators see them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use tidewire_protocol::v1::ClosedConnections;

use super::exchange::{bad_request, query, respond};
use crate::api::exchange::Caller;
use crate::journal::Sought;
use crate::node::Node;

/// Connections in one answer.
const LIMIT_MAX: usize = 1_000;
const LIMIT: usize = 100;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClosedQuery {
    user: Option<String>,
    code: Option<u32>,
    limit: Option<usize>,
}

pub(super) async fn closed(State(node): State<Arc<Node>>, Caller(tenant, _): Caller, uri: Uri) -> Response {
    let outcome = async {
        let ClosedQuery { user, code, limit } = query(&uri)?;
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(bad_request(format!("limit is {limit}, not 1 to {LIMIT_MAX}")));
        }
        let sought = Sought { user, code, limit };
        let closed = node.peers.closed(tenant.handle.name(), &sought).await?;
        Ok(ClosedConnections { closed })
    };
    respond(&node, "closed_connections", outcome.await)
}
