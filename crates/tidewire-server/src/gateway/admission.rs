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
pub(super) fn admit(
    node: &Arc<Node>,
    headers: &HeaderMap,
    mut visitor: Visitor,
) -> Result<Admission, Refusal> {
    let site = site(headers, &mut visitor);
    let origin = page(node, headers, &site)?;
    let visitor = node.edge.admit(visitor).map_err(Refusal::AtTheEdge)?;
    let Some(place) = node.take_place() else {
        tracing::warn!("connection refused: node is full (limits.connections_max)");
        return Err(Refusal::Full);
    };
    let wanted = node.tenants.hooks().flat_map(|hooks| hooks.wanted());
    let headers = ClientHeaders::of_request(headers, wanted);
    Ok(Admission { place, origin: Origin { origin, site, visitor, headers } })
}

/// This server, as a visitor knows it.
fn site(headers: &HeaderMap, visitor: &mut Visitor) -> Site {
    let host = visitor.host.take().or_else(|| text_of(headers, &header::HOST)).unwrap_or_default();
    Site { host, is_secure: visitor.is_secure }
}

/// The web page that asks, if it is one that may connect to some tenant.
///
/// # Errors
/// 403 for any other page.
fn page(node: &Node, headers: &HeaderMap, site: &Site) -> Result<Option<String>, Refusal> {
    let page = text_of(headers, &header::ORIGIN);
    match &page {
        Some(page) if !node.tenants.admit_origin(page, site) => {
            node.metrics.strangers.add(AuthFailure::Origin, 1);
            tracing::info!(origin = page, "connection refused: origin is not in tenants.*.origins");
            Err(Refusal::Page)
        }
        _ => Ok(page),
    }
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Lets the pages that may connect do so from another origin than ours (Fetch Standard, 3.2: CORS).
pub(crate) async fn cors(
    State(node): State<Arc<Node>>,
    Extension(mut visitor): Extension<Visitor>,
    request: Request,
    next: Next,
) -> Response {
    let site = site(request.headers(), &mut visitor);
    let origin = match page(&node, request.headers(), &site) {
        Ok(page) => page.and_then(|page| HeaderValue::from_str(&page).ok()),
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
