//! HTTP: the server API, health, metrics, and the demo page.

mod batch;
mod broadcast;
mod channels;
mod exchange;
mod history;
mod info;
mod methods;
mod openapi;
mod presence;
mod probes;
mod publish;
mod users;
mod v1;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware;
use axum::response::{Html, IntoResponse};
use axum::routing::{any, get, post};
use bytes::Bytes;
use serde_json::Value;
use tidewire_protocol::EmulationRequest;

use self::exchange::{JSON, with_request_id};
use self::openapi::{Operation, Route, routed};
use crate::edge::visit;
use crate::gateway::{admission, emulation, stream, websocket};
use crate::node::Node;

/// All routes of a node. Those of clients' connections, which speak another protocol, and the page of dev are the only ones that
/// the OpenAPI document leaves out.
pub(crate) fn router(node: Arc<Node>) -> Router {
    // What browsers ask from pages of other origins; a WebSocket needs no such leave.
    let across_origins = Router::new()
        .route("/connection/sse", get(stream::sse).post(stream::sse))
        .route("/connection/uni_sse", get(stream::uni_sse).post(stream::uni_sse))
        .route("/connection/http_stream", post(stream::http_stream))
        .route("/connection/uni_http_stream", post(stream::uni_http_stream))
        .merge(routed([emulation()]))
        .layer(middleware::from_fn_with_state(node.clone(), admission::cors));
    let mut router = Router::new()
        .route("/connection/websocket", any(websocket::both_ways))
        .route("/connection/uni_websocket", any(websocket::one_way))
        .merge(across_origins)
        .route("/api/{method}", post(methods::post))
        .merge(routed(v1::routes()))
        .route("/v1/{*path}", any(v1::unknown_path))
        .merge(routed(own_routes()));
    if node.config.is_dev() {
        router = router.route("/", get(demo));
    }
    router
        .layer(DefaultBodyLimit::max(node.config.limits.api_body_bytes_max))
        .layer(middleware::from_fn(with_request_id))
        .layer(middleware::from_fn_with_state(node.clone(), visit))
        .with_state(node)
}

/// What says how the node is, and what it has.
fn own_routes() -> [Route; 4] {
    let text = Some("text/plain");
    let ready = Operation::open("ready", "Whether every link that the engine needs answered just now");
    let ready = ready.answers::<probes::Readiness>().or::<probes::Readiness>("503", "One did not.");
    let metrics = Operation::open("metrics", "What this node counted, as OpenMetrics text");
    let metrics = metrics.says("200", "The counters.", Some("application/openmetrics-text"));
    let about = Operation::open("openApi", "This document").answers::<serde_json::Map<String, Value>>();
    [
        Route::at("/health").get(
            probes::health,
            Operation::open("health", "The process answers").says("200", "It does.", text),
        ),
        Route::at("/ready").get(probes::ready, ready),
        Route::at("/metrics").get(probes::counters, metrics),
        Route::at("/openapi.json").get(described, about),
    ]
}

/// Commands of clients whose connection goes one way only.
fn emulation() -> Route {
    let text = Some("text/plain");
    let said =
        Operation::open("emulation", "Commands of a client whose connection goes one way only, to any node")
            .takes_as::<EmulationRequest<'_>>(&["application/json", "application/octet-stream"])
            .says("204", "They are taken.", None)
            .says("400", "They cannot be read.", text)
            .says("404", "There is no such session: connect again.", text)
            .says("413", "They are too many bytes.", text)
            .says("429", "Too many wait: come again.", text);
    Route::at("/emulation").post(emulation::emulation, said)
}

/// What there is over HTTP, as OpenAPI 3.1.
pub(crate) fn document() -> Value {
    let routes: Vec<Route> = own_routes().into_iter().chain([emulation()]).chain(v1::routes()).collect();
    openapi::document(&routes, &methods::described())
}

/// `GET /openapi.json`.
async fn described() -> impl IntoResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());
    (JSON, DOCUMENT.clone())
}

/// The page of `serve --dev`. Only dev serves it: it connects without a token.
async fn demo() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                  connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("demo.html")))
}
