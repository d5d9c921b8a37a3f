//! Bodies about webhooks.

use serde::{Deserialize, Serialize};

use crate::omit::is_default;

/// `GET /v1/webhooks`: those of the caller's tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Webhooks {
    /// By name.
    pub webhooks: Vec<Webhook>,
}

/// `GET /v1/webhooks/{name}`: an endpoint, and how it does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Webhook {
    /// Its name, which is that of its group too.
    pub name: String,
    /// The channel whose events it gets.
    pub channel: String,
    /// Where events are sent.
    pub url: String,
    /// Whether events are sent to it; else they wait.
    pub is_enabled: bool,
    /// Since when they are not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disabled_at: Option<String>,
    /// Why they are not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disabled_why: Option<String>,
    /// Failures since the last success.
    pub failures: u64,
    /// When the first of those was.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failing_since: Option<String>,
    /// What the last failure was, a success after it or not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub last_failure: Option<String>,
}

/// `POST /v1/webhooks/{name}/disable`: the answer is the webhook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DisableRequest {
    /// Why.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reason: String,
    /// Who does it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by: String,
}

/// `POST /v1/webhooks/{name}/test`: what a test event came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebhookTest {
    /// Whether the endpoint accepted it.
    pub is_accepted: bool,
    /// The status that it answered with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub status: Option<u16>,
    /// Why it was not accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub problem: Option<String>,
    /// How long it took.
    pub took_ms: u64,
}
