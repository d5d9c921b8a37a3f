//! What operators and load balancers ask: is it alive, is it ready, what did it count.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::node::Node;

/// `GET /health`: the process answers.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    engine: &'static str,
    links: Vec<Link>,
}

#[derive(Serialize)]
struct Link {
    link: String,
    is_healthy: bool,
}

/// `GET /ready`: every link of the engine answered just now. 503 if one did not; the log says why.
pub(super) async fn ready(State(node): State<Arc<Node>>) -> Response {
    let health = node.tidewire.health().await;
    for probe in &health.links {
        if let Err(detail) = &probe.outcome {
            tracing::error!(link = probe.link, detail, "link is not healthy");
        }
    }
    let is_ready = health.is_healthy() && !node.tasks.stopping().is_cancelled();
    let links =
        health.links.into_iter().map(|probe| Link { is_healthy: probe.outcome.is_ok(), link: probe.link });
    let readiness = Readiness {
        status: if is_ready { "ready" } else { "not ready" },
        engine: health.engine,
        links: links.collect(),
    };
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// `GET /metrics`: the counters of this node, in OpenMetrics text.
pub(super) async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        node.metrics.render(),
    )
}
