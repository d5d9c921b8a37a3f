//! The REST API under `/v1`: what is ours - events as CloudEvents, groups, their dead letters, webhooks, and where an
//! event is.

mod connections;
mod dead_letters;
mod events;
mod exchange;
mod fetch;
mod groups;
mod schemas;
mod sweep;
mod tap;
mod trace;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get, post};

use crate::node::Node;

/// All routes under `/v1`. A name in a path is percent-encoded, `/` in it too.
pub(super) fn routes() -> Router<Arc<Node>> {
    let group = Router::new()
        .route("/", get(groups::status).put(groups::declare).delete(groups::delete))
        .route("/seek", post(groups::seek))
        .route("/fetch", post(fetch::fetch))
        .route("/settle", post(fetch::settle))
        .route("/extend", post(fetch::extend))
        .route("/audit", get(groups::audit))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/reasons", get(dead_letters::reasons))
        .route("/dead-letters/replay", post(sweep::replay))
        .route("/dead-letters/purge", post(sweep::purge))
        .route("/dead-letters/{id}", get(dead_letters::get));
    let channel = Router::new()
        .route("/events", post(events::publish))
        .route("/groups", get(groups::list))
        .nest("/groups/{group}", group)
        .route("/trace/{event}", get(trace::trace));
    let webhooks = Router::new()
        .route("/", get(webhooks::list))
        .route("/{name}", get(webhooks::show))
        .route("/{name}/enable", post(webhooks::enable))
        .route("/{name}/disable", post(webhooks::disable))
        .route("/{name}/test", post(webhooks::test));
    Router::new()
        .nest("/v1/channels/{channel}", channel)
        .nest("/v1/webhooks", webhooks)
        .route("/v1/connections/closed", get(connections::closed))
        .route("/v1/users/{user}/tap", get(tap::tap))
        .route("/v1/schemas", get(schemas::list))
        .route("/v1/schemas/{type}", get(schemas::versions))
        .route("/v1/schemas/{type}/{version}", get(schemas::show))
        .route("/v1/catalog.json", get(schemas::catalog))
        .route("/v1/asyncapi.json", get(schemas::asyncapi))
        .route("/v1/{*path}", any(exchange::unknown_path))
}
