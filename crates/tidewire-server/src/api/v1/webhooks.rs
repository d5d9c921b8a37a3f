//! Webhooks: which there are, how they do, and how they are enabled, disabled and tried.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use tidewire::Timestamp;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::v1::{self, DisableRequest};

use super::exchange::{Refused, bad_request, respond};
use crate::api::exchange::{Body, Caller, Refusal, parse};
use crate::failure::Failure;
use crate::node::Node;
use crate::webhooks::{Endpoint, Standing};

/// A request about a webhook of the caller's tenant.
pub(super) struct OnWebhook {
    endpoint: Arc<Endpoint>,
    caller: Caller,
}

impl FromRequestParts<Arc<Node>> for OnWebhook {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<Node>) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, node).await?;
        let Path(name) = Path::<String>::from_request_parts(parts, node)
            .await
            .map_err(|rejection| bad_request(rejection.body_text()))?;
        let tenant = caller.0.handle.name();
        let endpoint = node.webhooks.named(tenant, &name).cloned().ok_or_else(|| {
            let text =
                format!("tenant {tenant:?} has no webhook {name:?}; they are in the server's settings");
            Refusal::new(StatusCode::NOT_FOUND, Failure::new(ErrorCode::NOT_FOUND, text))
        })?;
        Ok(Self { endpoint, caller })
    }
}

pub(super) async fn list(State(node): State<Arc<Node>>, caller: Caller) -> Response {
    let outcome = async {
        let mut webhooks = Vec::new();
        for endpoint in node.webhooks.of(caller.0.handle.name()) {
            webhooks.push(view(endpoint, endpoint.standing().await?));
        }
        Ok(v1::Webhooks { webhooks })
    };
    respond(&node, "webhooks", outcome.await)
}

pub(super) async fn show(State(node): State<Arc<Node>>, OnWebhook { endpoint, .. }: OnWebhook) -> Response {
    let standing = endpoint.standing().await.map_err(Refused::from);
    respond(&node, "webhook", standing.map(|standing| view(&endpoint, standing)))
}

pub(super) async fn enable(State(node): State<Arc<Node>>, OnWebhook { endpoint, .. }: OnWebhook) -> Response {
    let standing = endpoint.enable().await.map_err(Refused::from);
    respond(&node, "webhook_enable", standing.map(|standing| view(&endpoint, standing)))
}

pub(super) async fn disable(
    State(node): State<Arc<Node>>,
    OnWebhook { endpoint, caller: Caller(tenant, key) }: OnWebhook,
    Body(body): Body,
) -> Response {
    let outcome = async {
        let DisableRequest { reason, by } = match body.is_empty() {
            true => DisableRequest::default(),
            false => parse(&body)?,
        };
        let by = if by.is_empty() { by } else { format!("{by}, ") };
        let mut why = format!("disabled by {by}API key {key} of {}", tenant.handle.name());
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        let standing = endpoint.disable(&why).await?;
        Ok(view(&endpoint, standing))
    };
    respond(&node, "webhook_disable", outcome.await)
}

pub(super) async fn test(State(node): State<Arc<Node>>, OnWebhook { endpoint, .. }: OnWebhook) -> Response {
    let tested = endpoint.test().await;
    let outcome = v1::WebhookTest {
        is_accepted: tested.problem.is_none(),
        status: tested.status,
        problem: tested.problem,
        took_ms: u64::try_from(tested.took.as_millis()).unwrap_or(u64::MAX),
    };
    respond(&node, "webhook_test", Ok(outcome))
}

fn view(endpoint: &Endpoint, standing: Standing) -> v1::Webhook {
    let config = endpoint.config();
    let time = |millis| Timestamp::from_millis(millis).to_string();
    let Standing { disabled, failures, failing_since, last_failure } = standing;
    v1::Webhook {
        name: config.name.clone(),
        channel: config.channel.clone(),
        url: config.url.clone(),
        is_enabled: disabled.is_none(),
        disabled_at: disabled.as_ref().map(|disabled| time(disabled.at)),
        disabled_why: disabled.map(|disabled| disabled.why),
        failures,
        failing_since: failing_since.map(time),
        last_failure,
    }
}
