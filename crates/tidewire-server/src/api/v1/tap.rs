//! What goes on at the connections of a user, as it goes on.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;

use super::exchange::{Refused, query, respond};
use crate::api::exchange::{Caller, Refusal, count};
use crate::node::Node;
use crate::tap::{self, Detail};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TapQuery {
    /// The data of events too, not only its size.
    data: bool,
}

pub(super) async fn tap(
    State(node): State<Arc<Node>>,
    Caller(tenant, key): Caller,
    Path(user): Path<String>,
    uri: Uri,
) -> Response {
    let outcome = query(&uri).and_then(|TapQuery { data }| {
        tracing::info!(
            tenant = tenant.handle.name(),
            key,
            user,
            data,
            "the connections of a user are tapped"
        );
        let detail = if data { Detail::Data } else { Detail::Size };
        let lines = tap::listen(&node, &tenant, user, detail);
        lines.map_err(|failure| Refused::from(Refusal::new(StatusCode::TOO_MANY_REQUESTS, failure)))
    });
    let lines = match outcome {
        Ok(lines) => lines,
        Err(refused) => return respond::<()>(&node, "tap", Err(refused)),
    };
    count(&node, "tap", 0);
    let body = stream::unfold(lines, async |mut lines| {
        let line = lines.recv().await?;
        Some((Ok::<_, Infallible>(line), lines))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies such as nginx would hold back what is sent.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(body)).into_response()
}
