//! The methods of the server API, `POST /api/<method>`, by name.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use tidewire_protocol::codes::ErrorCode;

use super::exchange::{Body, Caller, Refusal, answer};
use super::{batch, broadcast, channels, history, info, presence, publish, users};
use crate::node::Node;
use crate::tenants::Tenant;

/// The methods that there are, as metrics name them.
const NAMES: [&str; 13] = [
    "publish",
    "broadcast",
    "subscribe",
    "unsubscribe",
    "disconnect",
    "refresh",
    "history",
    "history_remove",
    "presence",
    "presence_stats",
    "channels",
    "info",
    "batch",
];

/// `POST /api/{method}`.
pub(super) async fn post(
    State(node): State<Arc<Node>>,
    Path(method): Path<String>,
    Caller(tenant, _): Caller,
    Body(body): Body,
) -> Response {
    let name = NAMES.into_iter().find(|name| *name == method).unwrap_or("unknown");
    answer(&node, name, call(&node, &tenant, &method, &body).await)
}

/// Calls a method.
pub(super) async fn call(
    node: &Arc<Node>,
    tenant: &Tenant,
    name: &str,
    body: &Bytes,
) -> Result<Bytes, Refusal> {
    match name {
        "publish" => publish::run(node, tenant, body).await,
        "broadcast" => broadcast::run(node, tenant, body).await,
        "subscribe" => users::subscribe(node, tenant, body).await,
        "unsubscribe" => users::unsubscribe(node, tenant, body).await,
        "disconnect" => users::disconnect(node, tenant, body).await,
        "refresh" => users::refresh(node, tenant, body).await,
        "history" => history::run(node, tenant, body).await,
        "history_remove" => history::remove(tenant, body).await,
        "presence" => presence::list(node, tenant, body).await,
        "presence_stats" => presence::stats(tenant, body).await,
        "channels" => channels::run(node, tenant, body).await,
        "info" => info::run(node, tenant).await,
        "batch" => batch::run(node, tenant, body).await,
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, ErrorCode::METHOD_NOT_FOUND.into())),
    }
}
