//! The tenants that this node serves, and how a caller is found to be of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use tidewire::tasks::Tasks;
use tidewire::{Clock, Error, ErrorKind, Tidewire, name};

use crate::config::{ChannelRule, Config, Secret, TenantConfig};
use crate::hooks::Hooks;
use crate::hub::connections::Connections;
use crate::hub::registry::Registry;
use crate::lifecycle::Lifecycle;
use crate::metrics::{Metrics, TenantMetrics};
use crate::tokens::Tokens;

/// This server as a client knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    /// Its name, and its port where that is not the usual one.
    pub(crate) host: String,
    /// Whether the client is known to have come over TLS.
    pub(crate) is_secure: bool,
}

/// One tenant on this node.
pub(crate) struct Tenant {
    pub(crate) handle: tidewire::Tenant,
    /// Checks the tokens of its users.
    pub(crate) tokens: Tokens,
    /// Whom it asks.
    pub(crate) hooks: Hooks,
    origins: Vec<String>,
    personal_channels: Option<String>,
    admits_own_page: bool,
    pub(crate) admits_anonymous: bool,
    pub(crate) rules: Vec<ChannelRule>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) people: Arc<Connections>,
    pub(crate) metrics: Arc<TenantMetrics>,
    /// Who tells its backend who is there, if that is asked for.
    pub(crate) lifecycle: Option<Arc<Lifecycle>>,
}

/// All tenants of the config.
pub(crate) struct Tenants {
    by_name: BTreeMap<String, Arc<Tenant>>,
    /// Each key, its number among those of its tenant from 1, and the tenant.
    by_key: Vec<(Secret, usize, Arc<Tenant>)>,
}

impl Tenants {
    pub(crate) fn new(
        config: &Config,
        tidewire: &Tidewire,
        tasks: &Tasks,
        clock: &Clock,
        metrics: &Metrics,
    ) -> tidewire::Result<Self> {
        let mut tenants = Self { by_name: BTreeMap::new(), by_key: Vec::new() };
        for (name, tenant_config) in &config.tenants {
            let unusable = |problem| Error::new(ErrorKind::InvalidName, format!("tenants.{name}.{problem}"));
            let tokens = Tokens::new(name, tenant_config, tasks, clock).map_err(unusable)?;
            // Settings that no file was read for too: who is not asked must not be let in.
            tenant_config.hooks.check(name, &tenant_config.channels).map_err(unusable)?;
            let hooks = Hooks::new(name, &tenant_config.hooks, clock, metrics).map_err(unusable)?;
            let mut tenant =
                Tenant::new(tidewire.tenant(name)?, (tokens, hooks), tenant_config, tasks, clock);
            // A page that reached us under a name of its own making (DNS rebinding) has that name as our host too. Where
            // no token is needed, only the origins of the config count.
            tenant.admits_own_page = !config.is_dev();
            let parts = (tasks.clone(), clock.clone(), tenant.metrics.clone());
            tenant.lifecycle = Lifecycle::new(config, &tenant.handle, tidewire, parts)?;
            let tenant = Arc::new(tenant);
            let keys = tenant_config.api_keys.iter().zip(1..);
            let keys = keys.map(|(key, number)| (key.clone(), number, tenant.clone()));
            tenants.by_key.extend(keys);
            tenants.by_name.insert(name.clone(), tenant);
        }
        Ok(tenants)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_name.values()
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.by_name.get(name)
    }

    /// Whom each tenant asks, if any.
    pub(crate) fn hooks(&self) -> impl Iterator<Item = &Hooks> {
        self.by_name.values().map(|tenant| &tenant.hooks)
    }

    /// Whether anybody is asked anything.
    pub(crate) fn ask(&self) -> bool {
        self.hooks().any(|hooks| !hooks.is_empty())
    }

    /// The tenant that an API key belongs to, and which of its keys it is, from 1. Takes as long for a wrong key as for a
    /// right one.
    pub(crate) fn with_key(&self, key: &str) -> Option<(&Arc<Tenant>, usize)> {
        let mut found = None;
        for (known, number, tenant) in &self.by_key {
            if bool::from(known.expose().as_bytes().ct_eq(key.as_bytes())) {
                found = Some((tenant, *number));
            }
        }
        found
    }

    /// Whether a web page of `origin` may open a connection to any tenant, on a server that it knows as `site`.
    pub(crate) fn admit_origin(&self, origin: &str, site: &Site) -> bool {
        self.by_name.values().any(|tenant| tenant.admits_origin(origin, site))
    }
}

impl Tenant {
    fn new(
        handle: tidewire::Tenant,
        (tokens, hooks): (Tokens, Hooks),
        config: &TenantConfig,
        tasks: &Tasks,
        clock: &Clock,
    ) -> Self {
        let metrics = Arc::new(TenantMetrics::new(clock.clone()));
        Self {
            tokens,
            hooks,
            origins: config.origins.clone(),
            personal_channels: config.personal_channels.clone(),
            admits_own_page: true,
            admits_anonymous: config.anonymous,
            rules: config.channels.clone(),
            registry: Registry::new(handle.clone(), tasks.clone(), metrics.clone()),
            people: Arc::default(),
            metrics,
            lifecycle: None,
            handle,
        }
    }

    /// The channel of a user alone, where the tenant has such channels. A user whose id cannot stand in a name has none.
    pub(crate) fn personal_channel(&self, user: &str) -> Option<String> {
        let prefix = self.personal_channels.as_deref().filter(|_| !user.is_empty())?;
        let channel = format!("{prefix}{user}");
        name::check_channel(&channel).is_ok().then_some(channel)
    }

    /// Whether a channel is another user's own.
    pub(crate) fn is_personal_of_another(&self, channel: &str, user: &str) -> bool {
        let owner = self.personal_channels.as_deref().and_then(|prefix| channel.strip_prefix(prefix));
        owner.is_some_and(|owner| owner != user || user.is_empty())
    }

    /// Whether a web page of `origin` may connect: one of `site` itself, or one of the config.
    pub(crate) fn admits_origin(&self, origin: &str, site: &Site) -> bool {
        let is_own = || {
            origin.split_once("://").is_some_and(|(scheme, authority)| {
                // Where TLS is spoken, a page that came without it may be anybody's.
                let is_ours = !site.is_secure || scheme.eq_ignore_ascii_case("https");
                is_ours && authority.eq_ignore_ascii_case(&site.host)
            })
        };
        (self.admits_own_page && is_own())
            || self.origins.iter().any(|known| name::matches(known, &origin.to_ascii_lowercase()))
    }
}
