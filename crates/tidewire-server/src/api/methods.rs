//! The methods of the server API, `POST /api/<method>`, by name.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use schemars::JsonSchema;
use tidewire_protocol::ChannelRequest;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::http::{
    ApiReply, BatchRequest, BatchResult, BroadcastRequest, BroadcastResult, ChannelsRequest, ChannelsResult,
    DisconnectRequest, EmptyResult, HistoryRequest, HistoryResult, InfoResult, PublishRequest, PublishResult,
    RefreshRequest, SubscribeRequest, UnsubscribeRequest,
};
use tidewire_protocol::{PresenceResult, PresenceStatsResult};

use super::exchange::{Body, Caller, Refusal, answer};
use super::openapi::Operation;
use super::{batch, broadcast, channels, history, info, presence, publish, users};
use crate::node::Node;
use crate::tenants::Tenant;

/// The methods that there are, as metrics name them.
pub(super) const NAMES: [&str; 13] = [
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

/// What the document says of each.
pub(super) fn described() -> [(&'static str, Operation); NAMES.len()] {
    fn method<Q: JsonSchema, R: JsonSchema>(
        name: &'static str,
        summary: &'static str,
    ) -> (&'static str, Operation) {
        (name, Operation::new(name, summary).takes::<Q>().answers::<ApiReply<'_, R>>())
    }
    let batch = Operation::new("batch", "Several calls in one request");
    [
        method::<PublishRequest<'_>, PublishResult<'_>>("publish", "Publish an event to a channel"),
        method::<BroadcastRequest<'_>, BroadcastResult<'_>>("broadcast", "Publish an event to many channels"),
        method::<SubscribeRequest<'_>, EmptyResult>(
            "subscribe",
            "Subscribe a user's connections to a channel",
        ),
        method::<UnsubscribeRequest<'_>, EmptyResult>(
            "unsubscribe",
            "End a user's subscriptions to a channel",
        ),
        method::<DisconnectRequest<'_>, EmptyResult>("disconnect", "End a user's connections"),
        method::<RefreshRequest<'_>, EmptyResult>("refresh", "Let a user's connections end at another time"),
        method::<HistoryRequest<'_>, HistoryResult<'_>>("history", "Read what a channel keeps"),
        method::<ChannelRequest<'_>, EmptyResult>("history_remove", "Remove what a channel keeps"),
        method::<ChannelRequest<'_>, PresenceResult<'_>>("presence", "List who is in a channel"),
        method::<ChannelRequest<'_>, PresenceStatsResult>("presence_stats", "Count who is in a channel"),
        method::<ChannelsRequest<'_>, ChannelsResult<'_>>("channels", "List the channels with subscribers"),
        method::<EmptyResult, InfoResult>("info", "Tell the nodes that serve"),
        ("batch", batch.takes::<BatchRequest<'_>>().answers::<BatchResult<'_>>()),
    ]
}

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
