//! `[tenants.NAME.hooks]`: backends that are asked, and what each is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tidewire::Breaking;

use super::text::duration;
use super::url::check_url;
use super::{ChannelRule, DEFAULT_TENANT, Secret};
use crate::webhooks::SigningKey;

/// What stands in the URL of an endpoint for the name of the hook.
pub(crate) const HOOK_IN_URL: &str = "{hook}";

/// Endpoints of one tenant. Each is a line at `/metrics`, and may hold as many connections as asks.
const ENDPOINTS_MAX: usize = 32;
/// Headers, static or of clients, of one endpoint.
const HEADERS_MAX: usize = 32;
/// Headers that are of one hop, or that are ours to set.
const OWN_HEADERS: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// The section `[tenants.NAME.hooks]`; see `config.default.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HooksConfig {
    /// Who says who a connection without a token is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<String>,
    /// Who says whether such a connection goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    /// Who is called, by method; the first match decides.
    pub rpc: Vec<RpcRule>,
    /// Who is handed what clients send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// Those who are asked, by the name that the others use.
    pub endpoints: BTreeMap<String, HookEndpoint>,
}

/// Who is called for some methods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcRule {
    /// A method's name, in which `*` stands for any characters.
    pub method: String,
    /// The endpoint.
    pub endpoint: String,
}

/// Who is asked before something is done in a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelHooks {
    /// Before a client subscribes without a token for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<String>,
    /// Before a subscription that this allowed ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_refresh: Option<String>,
    /// Before a client's event is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<String>,
}

/// One `[tenants.NAME.hooks.endpoints.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookEndpoint {
    /// Where asks are posted; `{hook}` in its path stands for what is asked.
    pub url: String,
    /// How long an ask may take, the wait for its turn included.
    #[serde(default = "default_timeout", with = "duration")]
    pub timeout: Duration,
    /// How data of clients stands in an ask.
    #[serde(default)]
    pub data: HookData,
    /// Headers of the client's request that are handed on.
    #[serde(default)]
    pub client_headers: Vec<String>,
    /// Cookies of it that are handed on.
    #[serde(default)]
    pub client_cookies: Vec<String>,
    /// Headers that each ask has.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// What asks are signed with; each of them signs.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Asks at a time, of one node.
    #[serde(default = "default_asks_max")]
    pub asks_max: usize,
    /// Asks that wait for their turn.
    #[serde(default = "default_waiting_max")]
    pub waiting_max: usize,
    /// Bytes of an answer.
    #[serde(default = "default_answer_bytes_max")]
    pub answer_bytes_max: usize,
    /// When it is not asked for a while.
    #[serde(default)]
    pub breaker: HookBreaker,
    /// Whether it may be at a private address, and without TLS.
    #[serde(default)]
    pub allow_private: bool,
}

/// How data of clients stands in an ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookData {
    /// JSON as it is, in `data`; what is no JSON in base64, in `b64data`.
    #[default]
    Json,
    /// In base64 always.
    Base64,
}

/// When an endpoint is not asked for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookBreaker {
    /// Asks without an answer, one after the other, after which it opens.
    pub failures: usize,
    /// How long it is open before one is tried.
    #[serde(with = "duration")]
    pub open_for: Duration,
}

fn default_timeout() -> Duration {
    Duration::from_secs(1)
}

fn default_asks_max() -> usize {
    64
}

fn default_waiting_max() -> usize {
    256
}

fn default_answer_bytes_max() -> usize {
    1024 * 1024
}

impl Default for HookBreaker {
    fn default() -> Self {
        Self { failures: 10, open_for: Duration::from_secs(5) }
    }
}

impl From<HookBreaker> for Breaking {
    fn from(breaker: HookBreaker) -> Self {
        let HookBreaker { failures, open_for } = breaker;
        Self {
            window_count: failures,
            failures_min: failures,
            failure_ratio: 1.0,
            open_for,
            probes_max: 1,
            successes_to_close: 1,
        }
    }
}

impl HooksConfig {
    /// Checks what a type cannot say. Names the key and the fix.
    pub(crate) fn check(&self, tenant: &str, rules: &[ChannelRule]) -> Result<(), String> {
        if self.connect.is_some() && tenant != DEFAULT_TENANT {
            return Err(format!(
                "hooks.connect: a connection without a token is of tenant {DEFAULT_TENANT:?}; only that one can ask"
            ));
        }
        if self.refresh.is_some() && self.connect.is_none() {
            return Err(
                "hooks.refresh: it is asked for connections that hooks.connect let in; set that too".into()
            );
        }
        if self.endpoints.len() > ENDPOINTS_MAX {
            return Err(format!("hooks.endpoints: at most {ENDPOINTS_MAX} can be named"));
        }
        for (name, endpoint) in &self.endpoints {
            endpoint.check().map_err(|problem| format!("hooks.endpoints.{name}.{problem}"))?;
        }
        for (key, name) in self.names(rules) {
            if !self.endpoints.contains_key(name) {
                return Err(format!(
                    "{key}: there is no endpoint {name:?}; name it in hooks.endpoints.{name}"
                ));
            }
        }
        let is_lonely = |rule: &&ChannelRule| rule.ask.sub_refresh.is_some() && rule.ask.subscribe.is_none();
        match rules.iter().find(is_lonely) {
            Some(rule) => Err(format!(
                "channels: {:?}: ask.sub_refresh: it is asked for subscriptions that ask.subscribe allowed; set that too",
                rule.pattern
            )),
            None => Ok(()),
        }
    }

    /// Every setting that names an endpoint, and the name.
    fn names<'c>(&'c self, rules: &'c [ChannelRule]) -> Vec<(String, &'c str)> {
        let wide = [("connect", &self.connect), ("refresh", &self.refresh), ("send", &self.send)];
        let wide =
            wide.into_iter().filter_map(|(key, name)| Some((format!("hooks.{key}"), name.as_deref()?)));
        let calls = self.rpc.iter().enumerate();
        let calls = calls.map(|(index, rule)| (format!("hooks.rpc[{index}].endpoint"), &*rule.endpoint));
        let channels = rules.iter().enumerate().flat_map(|(index, ChannelRule { ask, .. })| {
            let keys =
                [("subscribe", &ask.subscribe), ("sub_refresh", &ask.sub_refresh), ("publish", &ask.publish)];
            keys.into_iter().filter_map(move |(key, name)| {
                Some((format!("channels[{index}].ask.{key}"), name.as_deref()?))
            })
        });
        wide.chain(calls).chain(channels).collect()
    }
}

impl HookEndpoint {
    /// With the settings that it has where nothing else is said.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            timeout: default_timeout(),
            data: HookData::default(),
            client_headers: Vec::new(),
            client_cookies: Vec::new(),
            headers: BTreeMap::new(),
            secrets: Vec::new(),
            asks_max: default_asks_max(),
            waiting_max: default_waiting_max(),
            answer_bytes_max: default_answer_bytes_max(),
            breaker: HookBreaker::default(),
            allow_private: false,
        }
    }

    fn check(&self) -> Result<(), String> {
        check_url(&self.url.replace(HOOK_IN_URL, "connect"), self.allow_private, "allow_private")
            .map_err(|problem| format!("url {problem}"))?;
        let authority = self.url.split('/').take(3).any(|part| part.contains(HOOK_IN_URL));
        if authority {
            return Err(format!("url: {HOOK_IN_URL} may stand in its path only"));
        }
        for (index, secret) in self.secrets.iter().enumerate() {
            SigningKey::parse(secret.expose()).map_err(|problem| format!("secrets[{index}] {problem}"))?;
        }
        self.check_headers()?;
        let positive = [
            ("timeout", !self.timeout.is_zero()),
            ("asks_max", self.asks_max > 0),
            ("answer_bytes_max", self.answer_bytes_max > 0),
            ("breaker.failures", (1..=Breaking::WINDOW_MAX).contains(&self.breaker.failures)),
            ("breaker.open_for", !self.breaker.open_for.is_zero()),
        ];
        match positive.iter().find(|(_, is_fine)| !is_fine) {
            Some(("breaker.failures", _)) => {
                Err(format!("breaker.failures must be 1 to {}", Breaking::WINDOW_MAX))
            }
            Some((key, _)) => Err(format!("{key} must be more than 0")),
            None => Ok(()),
        }
    }

    fn check_headers(&self) -> Result<(), String> {
        if self.headers.len() + self.client_headers.len() > HEADERS_MAX
            || self.client_cookies.len() > HEADERS_MAX
        {
            return Err(format!("headers: at most {HEADERS_MAX} headers and as many cookies can be named"));
        }
        let mut seen = BTreeSet::new();
        let own = self.headers.keys().map(|name| ("headers", name));
        let names = own.chain(self.client_headers.iter().map(|name| ("client_headers", name)));
        for (key, name) in names {
            let parsed: HeaderName =
                name.parse().map_err(|_| format!("{key}: {name:?} is no name of a header"))?;
            if OWN_HEADERS.contains(&parsed.as_str()) {
                return Err(format!("{key}: {parsed} is set by the server itself"));
            }
            if !seen.insert(parsed.as_str().to_owned()) {
                return Err(format!(
                    "{key}: {parsed} is named twice; a client could put its own in place of yours"
                ));
            }
        }
        if seen.contains("cookie") && !self.client_cookies.is_empty() {
            return Err("client_cookies: headers has \"cookie\" already; take one of the two".into());
        }
        let is_value = |value: &Secret| HeaderValue::from_str(value.expose()).is_ok();
        match self.headers.iter().find(|(_, value)| !is_value(value)) {
            Some((name, _)) => Err(format!("headers: the value of {name} cannot stand in a header")),
            None => Ok(()),
        }
    }
}
