//! Who may open a connection at all, before anything is said on it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::connection::Origin;
use crate::hooks::ClientHeaders;
use crate::node::{Node, Place};

/// A connection that may be opened.
pub(super) struct Admission {
    pub(super) place: Place,
    pub(super) origin: Origin,
}

/// What is answered to who may not connect.
pub(super) type Refusal = (StatusCode, &'static str);

/// Finds a place for a connection, unless its web page may not connect to any tenant.
///
/// # Errors
/// What is answered instead: 403 or 503.
pub(super) fn admit(node: &Arc<Node>, headers: &HeaderMap) -> Result<Admission, Refusal> {
    let origin = origin(node, headers)?;
    let Some(place) = node.take_place() else {
        tracing::warn!("connection refused: node is full (limits.connections_max)");
        return Err((StatusCode::SERVICE_UNAVAILABLE, "node is full\n"));
    };
    Ok(Admission { place, origin })
}

/// The web page that asks, if it is one that may connect to some tenant.
///
/// # Errors
/// 403 for any other page.
pub(super) fn origin(node: &Node, headers: &HeaderMap) -> Result<Origin, Refusal> {
    let text_of =
        |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let wanted = node.tenants.hooks().flat_map(|hooks| hooks.wanted());
    let origin = Origin {
        origin: text_of(header::ORIGIN),
        host: text_of(header::HOST).unwrap_or_default(),
        headers: ClientHeaders::of_request(headers, wanted),
    };
    match &origin.origin {
        Some(page) if !node.tenants.admit_origin(page, &origin.host) => {
            tracing::info!(origin = page, "connection refused: origin is not in tenants.*.origins");
            Err((StatusCode::FORBIDDEN, "origin is not allowed\n"))
        }
        _ => Ok(origin),
    }
}

/// Lets the pages that may connect do so from another origin than ours (Fetch Standard, 3.2: CORS).
pub(crate) async fn cors(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let origin = match origin(&node, request.headers()) {
        Ok(origin) => origin.origin.and_then(|origin| HeaderValue::from_str(&origin).ok()),
        Err(refusal) => return refusal.into_response(),
    };
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = match is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let Some(origin) = origin else { return response };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if is_preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("300"));
    }
    response
}
