//! `[[webhooks]]`: endpoints that get the events of a channel.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidewire::{Retries, Start, limits, name};

use super::text::duration;
use super::url::check_url;
use super::{DEFAULT_TENANT, Secret};
use crate::webhooks::SigningKey;

/// One `[[webhooks]]`; see `config.default.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// The tenant of the channel.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// The channel whose events it gets.
    pub channel: String,
    /// Its name in the tenant, which is the name of its group too.
    pub name: String,
    /// Where its group begins when it is made.
    pub start: WebhookStart,
    /// Where events are sent.
    pub url: String,
    /// What requests are signed with; each of them signs.
    pub secrets: Vec<Secret>,
    /// What is in a request.
    #[serde(default)]
    pub body: WebhookBody,
    /// Events of a key one after the other, keys spread over so many partitions; 0 without order.
    #[serde(default)]
    pub partitions: u16,
    /// Requests at a time, of one node.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// How long a request may take.
    #[serde(default = "default_timeout", with = "duration")]
    pub timeout: Duration,
    /// When an event that was not accepted is sent again.
    #[serde(default)]
    pub retries: WebhookRetries,
    /// When the endpoint is given up on.
    #[serde(default)]
    pub disable_after: DisableAfter,
    /// Whether it may be at a private address, and without TLS.
    #[serde(default)]
    pub allow_private: bool,
}

/// Where the group of a webhook begins when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookStart {
    /// With the oldest event that is kept.
    Earliest,
    /// With the next event.
    Latest,
}

/// What is in the body of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookBody {
    /// `{"type", "timestamp", "data"}`, as Standard Webhooks recommends.
    #[default]
    Standard,
    /// The event as CloudEvents JSON, with all of its attributes.
    CloudEvents,
    /// The event's data, and its attributes as CloudEvents headers.
    CloudEventsBinary,
    /// The event's data alone.
    Data,
}

/// When an event that was not accepted is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookRetries {
    /// Attempts after which it is a dead letter.
    pub attempts: u32,
    /// The wait after the first one; it doubles with each.
    #[serde(with = "duration")]
    pub first_delay: Duration,
    /// The longest wait.
    #[serde(with = "duration")]
    pub delay_max: Duration,
}

/// When an endpoint is given up on: after so many failures in a row, over that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DisableAfter {
    /// Failures without a success between them.
    pub failures: u64,
    /// Time since the first of them.
    #[serde(with = "duration")]
    pub over: Duration,
}

fn default_tenant() -> String {
    DEFAULT_TENANT.into()
}

fn default_concurrency() -> usize {
    8
}

fn default_timeout() -> Duration {
    Duration::from_secs(15)
}

impl Default for WebhookRetries {
    fn default() -> Self {
        Self { attempts: 16, first_delay: Duration::from_secs(5), delay_max: Duration::from_secs(12 * 3_600) }
    }
}

impl Default for DisableAfter {
    fn default() -> Self {
        Self { failures: 50, over: Duration::from_secs(24 * 3_600) }
    }
}

impl From<WebhookStart> for Start {
    fn from(start: WebhookStart) -> Self {
        match start {
            WebhookStart::Earliest => Self::Earliest,
            WebhookStart::Latest => Self::Latest,
        }
    }
}

impl From<WebhookRetries> for Retries {
    fn from(retries: WebhookRetries) -> Self {
        let WebhookRetries { attempts, first_delay, delay_max } = retries;
        Self { immediate_count: 0, first_delay, delay_max, attempts_max: attempts }
    }
}

impl WebhookConfig {
    /// Checks what a type cannot say. Names the key and the fix.
    pub(super) fn check(&self) -> Result<(), String> {
        name::check_tenant(&self.tenant).map_err(|error| format!("tenant: {error}"))?;
        name::check_channel(&self.channel).map_err(|error| format!("channel: {error}"))?;
        name::check_group(&self.name).map_err(|error| format!("name: {error}"))?;
        check_url(&self.url, self.allow_private, "allow_private")
            .map_err(|problem| format!("url {problem}"))?;
        if self.secrets.is_empty() {
            return Err("secrets: one is needed, whsec_ and 24 to 64 random bytes in base64".into());
        }
        for (index, secret) in self.secrets.iter().enumerate() {
            SigningKey::parse(secret.expose()).map_err(|problem| format!("secrets[{index}] {problem}"))?;
        }
        if self.partitions > limits::PARTITIONS_MAX {
            return Err(format!("partitions must be {} or fewer", limits::PARTITIONS_MAX));
        }
        let positive = [
            ("concurrency", self.concurrency > 0),
            ("timeout", !self.timeout.is_zero()),
            ("retries.attempts", self.retries.attempts > 0),
            ("disable_after.failures", self.disable_after.failures > 0),
        ];
        match positive.iter().find(|(_, is_positive)| !is_positive) {
            Some((key, _)) => Err(format!("{key} must be more than 0")),
            None => Ok(()),
        }
    }
}
