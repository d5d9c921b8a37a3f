//! What the settings say of who may come in at all: `[tls]` and `[edge]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::duration;
use crate::edge::network::Network;

/// The section `[tls]`; see `config.default.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate, and those that lead from it to a root, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// The section `[edge]`; see `config.default.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// Who may come in; all, if it is empty.
    pub allow: Vec<Network>,
    /// Who may not, even if allowed.
    pub deny: Vec<Network>,
    /// Whose word is taken for whom a request is of.
    pub trusted_proxies: Vec<Network>,
    /// Where they say it.
    pub proxy_header: ProxyHeader,
    /// Connections of one address that have not authenticated; 0 for no bound.
    pub unauthenticated_max: usize,
    /// New connections of one address in a second; 0 for no bound.
    pub connections_per_second: u32,
    /// How many of these may come at once.
    pub connections_burst: u32,
    /// Failures of one address to authenticate in a minute; 0 for no bound.
    pub failures_per_minute: u32,
    /// How long an address with more of them is refused.
    #[serde(with = "duration")]
    pub refuse_for: Duration,
}

/// The headers in which proxies say for whom they forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::default(),
            unauthenticated_max: 8_000,
            connections_per_second: 0,
            connections_burst: 100,
            failures_per_minute: 1_000,
            refuse_for: Duration::from_secs(60),
        }
    }
}

impl EdgeConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(network) = self.trusted_proxies.iter().find(|network| network.is_everything()) {
            return Err(format!(
                "trusted_proxies: {network} is everybody, who could then say to be anybody; name the addresses of your proxies"
            ));
        }
        if self.connections_burst == 0 {
            return Err("connections_burst must be 1 or more".into());
        }
        if self.refuse_for.is_zero() {
            return Err("refuse_for must be 1ms or more".into());
        }
        Ok(())
    }
}
