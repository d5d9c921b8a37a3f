//! What operators and load balancers ask: is it alive, is it ready, what did it count.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::timeout;

use crate::metrics;
use crate::node::Node;

/// `GET /health`: the process answers.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Whether a node is ready.
#[derive(Serialize, JsonSchema)]
pub(super) struct Readiness {
    /// `ready`, or `not ready`.
    status: &'static str,
    /// The engine's links, if they were heard of in time.
    links: Vec<Link>,
}

/// A link of the engine.
#[derive(Serialize, JsonSchema)]
struct Link {
    /// Where it goes.
    link: String,
    /// Whether it answered.
    is_healthy: bool,
}

/// How long a link may take to answer before the node is not ready. Load balancers give a probe a few seconds.
const READY_WITHIN: Duration = Duration::from_millis(2_500);

/// `GET /ready`: every link that the engine needs answered just now. 503 if one did not; the log says why.
pub(super) async fn ready(State(node): State<Arc<Node>>) -> Response {
    let Ok(health) = timeout(READY_WITHIN, node.tidewire.health()).await else {
        tracing::error!(within = ?READY_WITHIN, "the engine's links do not answer");
        return not_ready(Vec::new());
    };
    for probe in &health.links {
        match &probe.outcome {
            Ok(_) => {}
            Err(detail) if probe.is_needed => {
                tracing::error!(link = probe.link, detail, "link is not healthy");
            }
            Err(detail) => {
                tracing::warn!(link = probe.link, detail, "link is not healthy, and not needed now")
            }
        }
    }
    let are_healthy = health.is_healthy();
    let links =
        health.links.into_iter().map(|probe| Link { is_healthy: probe.outcome.is_ok(), link: probe.link });
    if !are_healthy || node.tasks.stopping().is_cancelled() {
        return not_ready(links.collect());
    }
    Json(Readiness { status: "ready", links: links.collect() }).into_response()
}

fn not_ready(links: Vec<Link>) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness { status: "not ready", links })).into_response()
}

/// `GET /metrics`: the counters of this node and how far its groups are, in OpenMetrics text.
pub(super) async fn counters(State(node): State<Arc<Node>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        metrics::render(&node).await,
    )
}
