//! What all methods of the server API share: who calls, the body, the reply, the request id.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::http::ApiReply;
use uuid::Uuid;

use crate::edge::{Refused, Visitor};
use crate::failure::Failure;
use crate::metrics::{ApiLabels, AuthFailure};
use crate::node::Node;
use crate::tenants::Tenant;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The tenant whose key the request has, in `X-API-Key` or `Authorization: apikey KEY`, and which of its keys, from 1.
/// Checked before the body is read.
pub(super) struct Caller(pub(super) Arc<Tenant>, pub(super) usize);

impl FromRequestParts<Arc<Node>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<Node>) -> Result<Self, Refusal> {
        let visitor = parts.extensions.get::<Visitor>().cloned().unwrap_or_default();
        // Before the key is looked at: whoever guesses keys must not learn that one is right.
        node.edge.check_failures(&visitor)?;
        let key = key_of(&parts.headers);
        if let Some((tenant, number)) = key.and_then(|key| node.tenants.with_key(key)) {
            visitor.proved();
            return Ok(Self(tenant.clone(), number));
        }
        node.metrics.strangers.add(AuthFailure::ApiKey, 1);
        if key.is_some() {
            node.edge.failed(&visitor);
        }
        let message = "unauthorized: send a known key as X-API-Key";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, Failure::new(ErrorCode::UNAUTHORIZED, message)))
    }
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get(API_KEY) {
        return key.to_str().ok();
    }
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("apikey").then_some(key.trim())
}

/// The body of a request, within `limits.api_body_bytes_max`.
pub(super) struct Body(pub(super) Bytes);

impl FromRequest<Arc<Node>> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, node: &Arc<Node>) -> Result<Self, Refusal> {
        let body = Bytes::from_request(request, node).await;
        body.map(Self)
            .map_err(|rejection| Refusal::of_body(&rejection, node.config.limits.api_body_bytes_max))
    }
}

/// Reads a body; the error names what is wrong with it and where.
pub(super) fn parse<'b, T: Deserialize<'b>>(body: &'b Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let failure = Failure::new(ErrorCode::BAD_REQUEST, format!("malformed JSON: {error}"));
        Refusal::new(StatusCode::BAD_REQUEST, failure)
    })
}

/// The result of a method as a body. Encoded where it is made, because it borrows what it is made of.
pub(super) fn encode<T: Serialize>(result: T) -> Bytes {
    // Strings, numbers and checked raw JSON into memory: there is nothing that can fail.
    Bytes::from(serde_json::to_vec(&ApiReply::Result(result)).unwrap_or_default())
}

/// A body that has no result around it.
pub(super) fn encode_bare<T: Serialize>(body: &T) -> Bytes {
    // As above.
    Bytes::from(serde_json::to_vec(body).unwrap_or_default())
}

/// Answers a call and counts it.
pub(super) fn answer(node: &Node, method: &'static str, outcome: Result<Bytes, Refusal>) -> Response {
    let code = outcome.as_ref().map_or_else(|refusal| refusal.failure.code.number, |_| 0);
    count(node, method, code);
    match outcome {
        Ok(body) => (JSON, body).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// Counts a call by its outcome; 0 for success.
pub(super) fn count(node: &Node, method: &'static str, code: u32) {
    node.metrics.api_requests.get_or_create(&ApiLabels { method, code }).inc();
}

pub(super) const JSON: [(HeaderName, HeaderValue); 1] =
    [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];

/// A call that failed: with status 200 where the method failed, so that published SDKs read the error, with another
/// where the request did not get as far as its method.
pub(super) struct Refusal {
    status: StatusCode,
    failure: Failure,
    /// In how many seconds it is worth to come again, where that is known.
    retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, failure: Failure) -> Self {
        Self { status, failure, retry_after: None }
    }

    pub(super) fn into_parts(self) -> (StatusCode, Failure) {
        (self.status, self.failure)
    }

    fn of_body(rejection: &BytesRejection, bytes_max: usize) -> Self {
        let message = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                format!("request body is over {bytes_max} bytes (limits.api_body_bytes_max)")
            }
            _ => format!("request body cannot be read: {}", rejection.body_text()),
        };
        Self::new(rejection.status(), Failure::new(ErrorCode::BAD_REQUEST, message))
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::new(StatusCode::OK, failure)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let failure = Failure::new(ErrorCode::TOO_MANY_REQUESTS, refused.message());
        Self { retry_after: refused.retry_after(), ..Self::new(refused.status(), failure) }
    }
}

/// What the log is told of a response; see [`with_request_id`].
#[derive(Clone)]
struct Detail(String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, mut failure, retry_after } = self;
        let detail = failure.detail.take();
        let body = serde_json::to_vec(&ApiReply::<()>::Error(failure.into())).unwrap_or_default();
        let mut response = (status, JSON, body).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(detail) = detail {
            response.extensions_mut().insert(Detail(detail));
        }
        response
    }
}

/// Gives every request an id, sends it back as `X-Request-Id`, and logs under it what the caller is not told.
pub(super) async fn with_request_id(request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let path = request.uri().path().to_owned();
    let client = request.extensions().get::<Visitor>().map(|visitor| visitor.address);
    let mut response = next.run(request).await;
    if let Some(Detail(detail)) = response.extensions().get() {
        tracing::error!(
            request_id = id,
            path,
            client = client.map(tracing::field::display),
            detail,
            "request failed"
        );
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}
