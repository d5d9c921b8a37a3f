//! Settings: what `config.default.toml` documents, read strictly.

mod catalogs;
mod channel;
mod edge;
mod error;
mod hooks;
mod lifecycle;
mod text;
mod tokens;
mod url;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidewire::{AtBound, Durability};

pub use self::channel::{ChannelRule, Keep, RecoveryMode, Who};
pub use self::edge::{EdgeConfig, ProxyHeader, TlsConfig};
pub use self::error::ConfigError;
pub(crate) use self::hooks::HOOK_IN_URL;
pub use self::hooks::{ChannelHooks, HookBreaker, HookData, HookEndpoint, HooksConfig, RpcRule};
pub use self::lifecycle::{LifecycleConfig, Tell};
use self::text::duration;
pub use self::text::{EngineUrl, Secret};
pub use self::webhook::{DisableAfter, WebhookBody, WebhookConfig, WebhookRetries, WebhookStart};
pub use crate::edge::network::Network;

/// Shortest API key or token secret that is accepted, in bytes: below it a key can be guessed.
pub const SECRET_BYTES_MIN: usize = 16;

/// The manual of all settings, with their defaults.
pub const DEFAULT_CONFIG: &str = include_str!("config.default.toml");

/// API key of tenant `default` under [`Config::dev`]. Public knowledge: dev listens on loopback only.
pub const DEV_API_KEY: &str = "dev-api-key";
/// Token secret of tenant `default` under [`Config::dev`]. Public knowledge, as above.
pub const DEV_TOKEN_SECRET: &str = "dev-token-secret";
/// Web pages of this machine.
const DEV_ORIGINS: [&str; 6] = [
    "http://localhost:*",
    "http://127.0.0.1:*",
    "http://[::1]:*",
    "https://localhost:*",
    "https://127.0.0.1:*",
    "https://[::1]:*",
];
/// The tenant of tokens without a `tenant` claim and of anonymous connections.
pub const DEFAULT_TENANT: &str = "default";

/// The tenant under whose name the nodes of one engine talk to each other.
pub(crate) const NODES_TENANT: &str = "_nodes";

/// All settings of a node. Neither `Debug` nor `Serialize` shows a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on.
    pub listen: String,
    /// URL of the engine.
    pub engine: EngineUrl,
    /// What stands in front of every key.
    pub environment: String,
    /// Where the keys are that events are signed and sealed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_file: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
    /// Waits and intervals.
    pub timing: Timing,
    /// How WebSockets are spoken.
    pub websocket: WebSocketConfig,
    /// The certificate, where TLS is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Who may come in at all.
    pub edge: EdgeConfig,
    /// What `/metrics` tells.
    pub metrics: MetricsConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Who may come in, by tenant name.
    pub tenants: BTreeMap<String, TenantConfig>,
    /// Endpoints that get the events of a channel.
    pub webhooks: Vec<WebhookConfig>,
    /// Made by [`Config::into_dev`]; no file can say so.
    #[serde(skip)]
    is_dev: bool,
}

/// The section `[limits]`; see `config.default.toml` for what happens at each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest frame of a client, in bytes.
    pub client_frame_bytes_max: usize,
    /// Largest body of an API request, in bytes.
    pub api_body_bytes_max: usize,
    /// Largest data of one event, in bytes.
    pub event_bytes_max: usize,
    /// Bytes that wait for one connection.
    pub outbox_bytes_max: usize,
    /// Open connections of this node.
    pub connections_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_per_connection_max: usize,
    /// Events in one history reply.
    pub history_events_max: usize,
    /// Channels in one broadcast.
    pub broadcast_channels_max: usize,
    /// Members in one presence reply.
    pub presence_members_max: usize,
}

/// The section `[timing]`; see `config.default.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// Between two pings.
    #[serde(with = "duration")]
    pub ping_every: Duration,
    /// From a ping to its answer.
    #[serde(with = "duration")]
    pub pong_within: Duration,
    /// From the opening of a TCP connection to the end of its TLS handshake.
    #[serde(with = "duration")]
    pub handshake_within: Duration,
    /// From the upgrade to the connect command.
    #[serde(with = "duration")]
    pub connect_within: Duration,
    /// From the opening of an HTTP connection, or its last reply, to the head of a request.
    #[serde(with = "duration")]
    pub request_within: Duration,
    /// For one write.
    #[serde(with = "duration")]
    pub write_within: Duration,
    /// From a token's expiry to the disconnect.
    #[serde(with = "duration")]
    pub expired_grace: Duration,
    /// How long an idempotency key is remembered.
    #[serde(with = "duration")]
    pub idempotency_window: Duration,
}

/// The section `[websocket]`; see `config.default.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketConfig {
    /// Whether permessage-deflate is agreed to.
    pub compression: bool,
    /// Messages of fewer bytes are sent as they are.
    pub compression_bytes_min: usize,
}

/// The section `[metrics]`; see `config.default.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Channels with lines of their own.
    pub channels_max: usize,
    /// Tenants with lines of their own.
    pub tenants_max: usize,
}

/// The section `[log]`; see `config.default.toml`. Who starts the server sets its log up, as `tidewire serve` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Whether there is a line for each stage of an event's way.
    pub events: bool,
    /// How lines are written.
    pub format: LogFormat,
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object each.
    Json,
}

/// One `[tenants.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantConfig {
    /// Keys of the server API.
    pub api_keys: Vec<Secret>,
    /// Secrets that tokens may be signed with.
    pub token_secrets: Vec<Secret>,
    /// Files of public keys whose private ones sign tokens.
    pub token_keys: Vec<PathBuf>,
    /// Where such keys are fetched from.
    pub jwks: Vec<String>,
    /// How long they are used before they are fetched again.
    #[serde(with = "duration")]
    pub jwks_ttl: Duration,
    /// Whether they may be at a private address, and without TLS.
    pub jwks_allow_private: bool,
    /// Whom tokens must be for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_audience: Option<String>,
    /// Who must have issued them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_issuer: Option<String>,
    /// Web pages that may connect.
    pub origins: Vec<String>,
    /// Whether clients may connect without a token.
    pub anonymous: bool,
    /// What stands before a user's id in the name of the channel that is the user's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personal_channels: Option<String>,
    /// The catalog of its events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<PathBuf>,
    /// Where it is told who is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<LifecycleConfig>,
    /// Backends that are asked.
    pub hooks: HooksConfig,
    /// Channel rules, the first match decides.
    pub channels: Vec<ChannelRule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8000".into(),
            engine: EngineUrl::from("file:tidewire-data"),
            environment: "prod".into(),
            keys_file: None,
            limits: Limits::default(),
            timing: Timing::default(),
            websocket: WebSocketConfig::default(),
            tls: None,
            edge: EdgeConfig::default(),
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
            tenants: BTreeMap::new(),
            webhooks: Vec::new(),
            is_dev: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            client_frame_bytes_max: tidewire_protocol::limits::FRAME_BYTES_MAX,
            api_body_bytes_max: 4 * 1024 * 1024,
            event_bytes_max: 1024 * 1024,
            outbox_bytes_max: 1024 * 1024,
            connections_max: 100_000,
            subscriptions_per_connection_max: 128,
            history_events_max: 1_000,
            broadcast_channels_max: 1_000,
            presence_members_max: 10_000,
        }
    }
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self { compression: false, compression_bytes_min: 256 }
    }
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { channels_max: 1_000, tenants_max: 100 }
    }
}

impl Default for TenantConfig {
    fn default() -> Self {
        Self {
            api_keys: Vec::new(),
            token_secrets: Vec::new(),
            token_keys: Vec::new(),
            jwks: Vec::new(),
            jwks_ttl: Duration::from_secs(600),
            jwks_allow_private: false,
            token_audience: None,
            token_issuer: None,
            origins: Vec::new(),
            anonymous: false,
            personal_channels: None,
            events: None,
            lifecycle: None,
            hooks: HooksConfig::default(),
            channels: Vec::new(),
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(25),
            pong_within: Duration::from_secs(8),
            handshake_within: Duration::from_secs(10),
            connect_within: Duration::from_secs(10),
            request_within: Duration::from_secs(75),
            write_within: Duration::from_secs(10),
            expired_grace: Duration::from_secs(25),
            idempotency_window: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// Reads settings from a file; what it leaves out has its default.
    ///
    /// # Errors
    /// The text names the file, the line, the key and, for an unknown key, the nearest known one.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(&file, &error))?;
        Self::from_toml(&file, &text)
    }

    /// As [`Config::from_file`], from text; `file` is its name in errors.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn from_toml(file: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::from_toml(file, text, &error))?;
        config.check().map_err(|problem| ConfigError::invalid(file, &problem))?;
        Ok(config)
    }

    /// Settings for trying things out; see [`Config::into_dev`].
    pub fn dev() -> Self {
        Self::default().into_dev()
    }

    /// The same settings with tenant `default` wide open: [`DEV_API_KEY`], [`DEV_TOKEN_SECRET`], anonymous connections,
    /// web pages of this machine, every channel without a rule open and kept (1,000 events, 24 h), and the demo page at
    /// `/`.
    ///
    /// A server with these settings refuses to listen on anything but loopback.
    #[must_use]
    pub fn into_dev(mut self) -> Self {
        let open = ChannelRule {
            pattern: "*".into(),
            subscribe: Who::Anyone,
            publish: Who::Anyone,
            presence: true,
            join_leave: true,
            tell: Vec::new(),
            ask: ChannelHooks::default(),
            keep: Some(Keep {
                events: 1_000,
                age: Duration::from_secs(24 * 3600),
                durability: Durability::Fast,
                at_bound: AtBound::Block,
            }),
            recovery: RecoveryMode::Stream,
        };
        let TenantConfig { mut channels, events, lifecycle, personal_channels, hooks, .. } =
            self.tenants.remove(DEFAULT_TENANT).unwrap_or_default();
        channels.push(open);
        let tenant = TenantConfig {
            api_keys: vec![Secret::from(DEV_API_KEY)],
            token_secrets: vec![Secret::from(DEV_TOKEN_SECRET)],
            origins: DEV_ORIGINS.map(String::from).into(),
            anonymous: true,
            personal_channels,
            events,
            lifecycle,
            hooks,
            channels,
            ..TenantConfig::default()
        };
        self.tenants.insert(DEFAULT_TENANT.into(), tenant);
        self.environment = "dev".into();
        self.is_dev = true;
        self
    }

    /// Whether these are the wide-open settings of [`Config::into_dev`].
    pub fn is_dev(&self) -> bool {
        self.is_dev
    }

    /// Checks what a type cannot say. Names the key and the fix.
    fn check(&self) -> Result<(), String> {
        tidewire::name::check_environment(&self.environment)
            .map_err(|error| format!("environment: {error}"))?;
        self.timing.check()?;
        self.limits.check()?;
        self.edge.check().map_err(|problem| format!("edge.{problem}"))?;
        for (name, tenant) in &self.tenants {
            tidewire::name::check_tenant(name).map_err(|error| format!("tenants: {error}"))?;
            if name == NODES_TENANT {
                return Err(format!(
                    "tenants.{name}: under this name the nodes talk to each other; take another one"
                ));
            }
            tenant.check(name).map_err(|problem| format!("tenants.{name}.{problem}"))?;
        }
        self.check_keys_are_unique()?;
        self.check_webhooks()
    }

    fn check_webhooks(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for (index, webhook) in self.webhooks.iter().enumerate() {
            webhook.check().map_err(|problem| format!("webhooks[{index}].{problem}"))?;
            if !names.insert((&webhook.tenant, &webhook.name)) {
                return Err(format!(
                    "webhooks[{index}].name: tenant {:?} has another webhook {:?}",
                    webhook.tenant, webhook.name
                ));
            }
        }
        Ok(())
    }

    fn check_keys_are_unique(&self) -> Result<(), String> {
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, tenant) in &self.tenants {
            for key in &tenant.api_keys {
                if let Some(other) = owners.insert(key.expose(), name) {
                    return Err(format!(
                        "tenants.{name}.api_keys: the same key is in tenants.{other}; a key names one tenant"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Timing {
    fn check(&self) -> Result<(), String> {
        let positive = [
            ("pong_within", self.pong_within),
            ("handshake_within", self.handshake_within),
            ("connect_within", self.connect_within),
            ("request_within", self.request_within),
            ("write_within", self.write_within),
            ("idempotency_window", self.idempotency_window),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, duration)| duration.is_zero()) {
            return Err(format!("timing.{key} must be 1ms or more"));
        }
        // Clients are told the interval in whole seconds.
        if self.ping_every < Duration::from_secs(1) {
            return Err("timing.ping_every must be 1s or more".into());
        }
        if self.pong_within >= self.ping_every {
            return Err("timing.pong_within must be shorter than timing.ping_every".into());
        }
        Ok(())
    }
}

impl Limits {
    fn check(&self) -> Result<(), String> {
        let positive = [
            ("client_frame_bytes_max", self.client_frame_bytes_max),
            ("api_body_bytes_max", self.api_body_bytes_max),
            ("event_bytes_max", self.event_bytes_max),
            ("outbox_bytes_max", self.outbox_bytes_max),
            ("connections_max", self.connections_max),
            ("subscriptions_per_connection_max", self.subscriptions_per_connection_max),
            ("history_events_max", self.history_events_max),
            ("broadcast_channels_max", self.broadcast_channels_max),
            ("presence_members_max", self.presence_members_max),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(format!("limits.{key} must be 1 or more")),
            None => Ok(()),
        }
    }
}

impl TenantConfig {
    fn check(&self, name: &str) -> Result<(), String> {
        let is_short = |secret: &Secret| secret.expose().len() < SECRET_BYTES_MIN;
        if self.api_keys.iter().any(is_short) {
            return Err(format!("api_keys: a key is shorter than {SECRET_BYTES_MIN} bytes"));
        }
        self.check_tokens()?;
        if self.anonymous && name != DEFAULT_TENANT {
            return Err(format!("anonymous: only tenant {DEFAULT_TENANT:?} can have anonymous connections"));
        }
        if let Some(prefix) = &self.personal_channels {
            tidewire::name::check_channel(prefix).map_err(|error| format!("personal_channels: {error}"))?;
        }
        for (index, rule) in self.channels.iter().enumerate() {
            rule.check().map_err(|problem| format!("channels[{index}].{problem}"))?;
        }
        self.check_lifecycle()?;
        self.hooks.check(name, &self.channels)
    }
}

#[cfg(test)]
mod tests;
