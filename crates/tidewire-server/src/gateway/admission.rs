//! Who may open a connection at all, before anything is said on it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::connection::Origin;
use crate::edge::{Refused, Visitor};
use crate::hooks::ClientHeaders;
use crate::metrics::AuthFailure;
use crate::node::{Node, Place};
use crate::tenants::Site;

/// A connection that may be opened.
pub(super) struct Admission {
    pub(super) place: Place,
    pub(super) origin: Origin,
}

/// What is answered to who may not connect.
pub(super) enum Refusal {
    /// By the rules of the edge.
    AtTheEdge(Refused),
    /// By the rules for web pages.
    Page,
    /// There is no place for it.
    Full,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::AtTheEdge(refused) => refused.into_response(),
            Self::Page => (StatusCode::FORBIDDEN, "origin is not allowed\n").into_response(),
            Self::Full => (StatusCode::SERVICE_UNAVAILABLE, "node is full\n").into_response(),
        }
    }
}

/// Finds a place for a connection, unless its web page may not connect to any tenant, or its address has too many.
///
/// # Errors
/// What is answered instead: 403, 429 or 503.
pub(super) fn admit(node: &Arc<Node>, headers: &HeaderMap, visitor: Visitor) -> Result<Admission, Refusal> {
    let origin = origin(node, headers, visitor)?;
    let visitor = node.edge.admit(origin.visitor).map_err(Refusal::AtTheEdge)?;
    let Some(place) = node.take_place() else {
        tracing::warn!("connection refused: node is full (limits.connections_max)");
        return Err(Refusal::Full);
    };
    Ok(Admission { place, origin: Origin { visitor, ..origin } })
}

/// The web page that asks, if it is one that may connect to some tenant.
///
/// # Errors
/// 403 for any other page.
fn origin(node: &Node, headers: &HeaderMap, mut visitor: Visitor) -> Result<Origin, Refusal> {
    let text_of =
        |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let origin = text_of(header::ORIGIN);
    let host = visitor.host.take().or_else(|| text_of(header::HOST)).unwrap_or_default();
    let site = Site { host, is_secure: visitor.is_secure };
    let wanted = node.tenants.hooks().flat_map(|hooks| hooks.wanted());
    let headers = ClientHeaders::of_request(headers, wanted);
    let origin = Origin { origin, site, visitor, headers };
    match &origin.origin {
        Some(page) if !node.tenants.admit_origin(page, &origin.site) => {
            node.metrics.strangers.add(AuthFailure::Origin, 1);
            tracing::info!(origin = page, "connection refused: origin is not in tenants.*.origins");
            Err(Refusal::Page)
        }
        _ => Ok(origin),
    }
}

/// Lets the pages that may connect do so from another origin than ours (Fetch Standard, 3.2: CORS).
pub(crate) async fn cors(
    State(node): State<Arc<Node>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
    next: Next,
) -> Response {
    let origin = match origin(&node, request.headers(), visitor) {
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
