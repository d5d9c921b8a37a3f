//! What all routes under `/v1` share: the channel and the group of a path, who asks, and how it is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidewire::{Channel, ErrorKind, Group, Start, Timestamp, Violation};
use tidewire_protocol::codes::ErrorCode;

use crate::api::exchange::{Caller, Refusal, answer};
use crate::failure::Failure;
use crate::node::Node;
use crate::tenants::Tenant;

/// Who a request says it is for, at most; the audit trail has room for this and for which key it had.
const BY_BYTES_MAX: usize = 200;

/// A request about a channel.
pub(super) struct OnChannel {
    pub(super) channel: Channel,
    pub(super) tenant: Arc<Tenant>,
    parameters: BTreeMap<String, String>,
    key_number: usize,
}

/// A request about a group of a channel.
pub(super) struct OnGroup {
    pub(super) group: Group,
    pub(super) on: OnChannel,
}

impl OnChannel {
    /// A parameter of the path.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Who does it, for the audit trail: what the request says, which nobody proves, and which key it had.
    pub(super) fn who(&self, by: &str) -> Result<String, Refused> {
        let key = format!("API key {} of {}", self.key_number, self.tenant.handle.name());
        match by.len() {
            0 => Ok(key),
            1..=BY_BYTES_MAX => Ok(format!("{by}, {key}")),
            seen => Err(bad_request(format!("by is {seen} bytes, limit is {BY_BYTES_MAX} bytes"))),
        }
    }
}

impl FromRequestParts<Arc<Node>> for OnChannel {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<Node>) -> Result<Self, Refusal> {
        let Caller(tenant, key_number) = Caller::from_request_parts(parts, node).await?;
        let Path(parameters) = Path::<BTreeMap<String, String>>::from_request_parts(parts, node)
            .await
            .map_err(|rejection| bad_request(rejection.body_text()))?;
        let name = parameters.get("channel").map(String::as_str).unwrap_or_default();
        let channel = tenant.handle.channel(name).map_err(Refused::from)?;
        Ok(Self { channel, tenant, parameters, key_number })
    }
}

impl FromRequestParts<Arc<Node>> for OnGroup {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<Node>) -> Result<Self, Refusal> {
        let on = OnChannel::from_request_parts(parts, node).await?;
        // Where it would begin does not matter to one that is there already.
        let group = on.channel.group(on.parameter("group"), Start::Latest).map_err(Refused::from)?;
        Ok(Self { group, on })
    }
}

/// A request that was refused, with the status that says whose turn it is.
pub(super) struct Refused(Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<Refused> for Refusal {
    fn from(Refused(refusal): Refused) -> Self {
        refusal
    }
}

impl Refused {
    pub(super) fn into_parts(self) -> (StatusCode, Failure) {
        self.0.into_parts()
    }
}

impl From<tidewire::Error> for Refused {
    fn from(error: tidewire::Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidName | ErrorKind::TooLarge | ErrorKind::Codec => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::LockLost | ErrorKind::PositionLost => StatusCode::CONFLICT,
            ErrorKind::Backpressure => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Unavailable | ErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(Refusal::new(status, Failure::from(error)))
    }
}

/// The caller's fault; `message` names the field and the fix.
pub(super) fn bad_request(message: impl Into<String>) -> Refused {
    let failure = Failure::new(ErrorCode::BAD_REQUEST, message.into());
    Refused(Refusal::new(StatusCode::BAD_REQUEST, failure))
}

/// Data breaks a rule that it is to follow; the answer says where and which.
pub(super) fn invalid_data(violation: Violation) -> Refused {
    let failure = Failure::new(ErrorCode::INVALID_DATA, violation.to_string());
    let failure = Failure { violation: Some(Box::new(violation)), ..failure };
    Refused(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, failure))
}

/// Answers a request with a body of its own, and counts it.
pub(super) fn respond<T: Serialize>(
    node: &Node,
    method: &'static str,
    outcome: Result<T, Refused>,
) -> Response {
    // Strings, numbers and checked raw JSON into memory: there is nothing that can fail.
    let encode = |result| Bytes::from(serde_json::to_vec(&result).unwrap_or_default());
    answer(node, method, outcome.map(encode).map_err(Refusal::from))
}

/// The query of a request; a parameter that is not known is refused.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refused> {
    let query = Query::try_from_uri(uri);
    query.map(|Query(query)| query).map_err(|rejection| bad_request(rejection.body_text()))
}

/// Where a group begins or goes on: `earliest`, `latest`, a position, or a time.
pub(super) fn start_of(text: &str) -> Result<Start, Refused> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => {
            let position = text.parse().map(Start::At);
            position.or_else(|_| text.parse().map(Start::Since)).map_err(|_| {
                bad_request(format!(
                    "{text:?} is no place in a stream: write earliest, latest, EPOCH:OFFSET, or a time such as \
                     2026-01-31T12:00:00Z"
                ))
            })
        }
    }
}

/// A time of a filter.
pub(super) fn time_of(text: &str) -> Result<Timestamp, Refused> {
    text.parse().map_err(Refused::from)
}

/// A path that no route has.
pub(in crate::api) async fn unknown_path() -> Response {
    let failure = Failure::new(ErrorCode::NOT_FOUND, "no such path under /v1; see docs/rest.md");
    Refusal::new(StatusCode::NOT_FOUND, failure).into_response()
}
