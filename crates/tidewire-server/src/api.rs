//! HTTP: the server API, health, metrics, and the demo page.

mod batch;
mod broadcast;
mod channels;
mod exchange;
mod history;
mod info;
mod methods;
mod presence;
mod probes;
mod publish;
mod users;
mod v1;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware;
use axum::response::{Html, IntoResponse};
use axum::routing::{any, get, post};

use self::exchange::with_request_id;
use crate::edge::visit;
use crate::gateway::{admission, emulation, stream, websocket};
use crate::node::Node;

/// All routes of a node.
pub(crate) fn router(node: Arc<Node>) -> Router {
    // What browsers ask from pages of other origins; a WebSocket needs no such leave.
    let across_origins = Router::new()
        .route("/connection/sse", get(stream::sse).post(stream::sse))
        .route("/connection/uni_sse", get(stream::uni_sse).post(stream::uni_sse))
        .route("/connection/http_stream", post(stream::http_stream))
        .route("/connection/uni_http_stream", post(stream::uni_http_stream))
        .route("/emulation", post(emulation::emulation))
        .layer(middleware::from_fn_with_state(node.clone(), admission::cors));
    let mut router = Router::new()
        .route("/connection/websocket", any(websocket::both_ways))
        .route("/connection/uni_websocket", any(websocket::one_way))
        .merge(across_origins)
        .route("/api/{method}", post(methods::post))
        .merge(v1::routes())
        .route("/health", get(probes::health))
        .route("/ready", get(probes::ready))
        .route("/metrics", get(probes::counters));
    if node.config.is_dev() {
        router = router.route("/", get(demo));
    }
    router
        .layer(DefaultBodyLimit::max(node.config.limits.api_body_bytes_max))
        .layer(middleware::from_fn(with_request_id))
        .layer(middleware::from_fn_with_state(node.clone(), visit))
        .with_state(node)
}

/// The page of `serve --dev`. Only dev serves it: it connects without a token.
async fn demo() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                  connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("demo.html")))
}
