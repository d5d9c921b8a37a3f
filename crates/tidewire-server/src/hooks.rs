//! Hooks: backends that are asked who a connection is of, and whether its commands are carried out.
//!
//! Bodies are those of Centrifugo's HTTP proxy; `docs/hooks.md` tells what a backend and an operator see.

mod answer;
mod body;
mod endpoint;
mod headers;

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::header::HeaderName;
use tidewire::{Clock, name};

pub(crate) use self::answer::{Denied, Published, Refreshed, data};
pub(crate) use self::body::{Asker, Question};
pub(crate) use self::endpoint::Endpoint;
pub(crate) use self::headers::ClientHeaders;
use crate::config::HooksConfig;
use crate::metrics::Metrics;

/// What a backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// Who a connection is of.
    Connect,
    /// Whether it goes on.
    Refresh,
    /// Whether it may subscribe.
    Subscribe,
    /// Whether a subscription goes on.
    SubRefresh,
    /// Whether it may publish, and what.
    Publish,
    /// What a method returns.
    Rpc,
    /// To take what it sent.
    Send,
}

impl Hook {
    pub(crate) const ALL: [Self; 7] = [
        Self::Connect,
        Self::Refresh,
        Self::Subscribe,
        Self::SubRefresh,
        Self::Publish,
        Self::Rpc,
        Self::Send,
    ];

    /// As it stands in URLs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe => "subscribe",
            Self::SubRefresh => "sub_refresh",
            Self::Publish => "publish",
            Self::Rpc => "rpc",
            Self::Send => "send",
        }
    }

    /// Whether an answer is of no use once the client is gone. What it published or sent goes its way all the same.
    pub(crate) fn is_for_client_alone(self) -> bool {
        !matches!(self, Self::Publish | Self::Send)
    }
}

/// Whom a tenant asks, and for what.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) connect: Option<Arc<Endpoint>>,
    pub(crate) refresh: Option<Arc<Endpoint>>,
    pub(crate) send: Option<Arc<Endpoint>>,
    /// Patterns of methods, the first match decides.
    rpc: Vec<(String, Arc<Endpoint>)>,
    endpoints: BTreeMap<String, Arc<Endpoint>>,
    /// The headers that any of them is handed on.
    wanted: Vec<HeaderName>,
}

impl Hooks {
    /// # Errors
    /// What cannot be used of the settings; the text names the key.
    pub(crate) fn new(
        tenant: &str,
        config: &HooksConfig,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let mut endpoints = BTreeMap::new();
        for (name, settings) in &config.endpoints {
            let endpoint = Endpoint::new(tenant, name, settings, clock, metrics);
            let endpoint = endpoint.map_err(|problem| format!("hooks.endpoints.{name}: {problem}"))?;
            endpoints.insert(name.clone(), Arc::new(endpoint));
        }
        let named = |name: &Option<String>| name.as_ref().and_then(|name| endpoints.get(name)).cloned();
        let call = |rule: &crate::config::RpcRule| {
            Some((rule.method.clone(), endpoints.get(&rule.endpoint)?.clone()))
        };
        let mut wanted: Vec<HeaderName> = endpoints.values().flat_map(|endpoint| endpoint.wanted()).collect();
        wanted.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        wanted.dedup();
        Ok(Self {
            connect: named(&config.connect),
            refresh: named(&config.refresh),
            send: named(&config.send),
            rpc: config.rpc.iter().filter_map(call).collect(),
            wanted,
            endpoints,
        })
    }

    /// The endpoint of a name of the settings, which are checked.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(name)
    }

    /// The endpoint of a method.
    pub(crate) fn of_method(&self, method: &str) -> Option<&Arc<Endpoint>> {
        self.rpc.iter().find(|(pattern, _)| name::matches(pattern, method)).map(|(_, endpoint)| endpoint)
    }

    /// Whether nobody is asked anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The headers of a client's request that are handed on.
    pub(crate) fn wanted(&self) -> &[HeaderName] {
        &self.wanted
    }

    /// All endpoints.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values().map(AsRef::as_ref)
    }
}
