//! Webhooks: endpoints that get the events of a channel, each a consumer of a group of its own.
//!
//! Requests are signed as [Standard Webhooks](https://www.standardwebhooks.com) says; `docs/webhooks.md` tells what a receiver
//! and an operator see.

mod body;
mod endpoint;
mod retry_after;
mod sender;
mod signature;
mod standing;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewire::tasks::Tasks;
use tidewire::{Clock, Error, ErrorKind, Tidewire, name};

pub(crate) use self::endpoint::Endpoint;
pub(crate) use self::sender::{ID, SIGNATURE, TIMESTAMP};
pub(crate) use self::signature::{SigningKey, sign};
pub(crate) use self::standing::Standing;
use crate::config::{Config, WebhookConfig};

/// The webhooks of the settings, by tenant and name.
pub(crate) struct Webhooks {
    endpoints: BTreeMap<(String, String), Arc<Endpoint>>,
    tasks: Tasks,
}

impl Webhooks {
    /// # Errors
    /// `InvalidName` for what cannot be used of the settings.
    pub(crate) fn new(
        config: &Config,
        tidewire: &Tidewire,
        tasks: Tasks,
        clock: &Clock,
    ) -> tidewire::Result<Self> {
        let mut endpoints = BTreeMap::new();
        for webhook in &config.webhooks {
            if !keeps(config, webhook) {
                tracing::warn!(
                    webhook = webhook.name,
                    tenant = webhook.tenant,
                    channel = webhook.channel,
                    "no rule keeps what is published to the channel of a webhook: it gets only what services append"
                );
            }
            let endpoint = Endpoint::new(webhook.clone(), tidewire, clock.clone()).map_err(|problem| {
                Error::new(ErrorKind::InvalidName, format!("webhook {:?}: {problem}", webhook.name))
            })?;
            endpoints.insert((webhook.tenant.clone(), webhook.name.clone()), Arc::new(endpoint));
        }
        Ok(Self { endpoints, tasks })
    }

    /// Makes the groups, so that no event comes before them, and begins to send.
    ///
    /// # Errors
    /// Those of the engine; `Conflict` if a group is there with another number of partitions.
    pub(crate) async fn start(&self) -> tidewire::Result<()> {
        for endpoint in self.endpoints.values() {
            endpoint.declare().await?;
        }
        for endpoint in self.endpoints.values() {
            let stop = self.tasks.stopping().clone();
            self.tasks.spawn(endpoint.clone().run(stop));
        }
        Ok(())
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }

    /// Those of a tenant.
    pub(crate) fn of<'w>(&'w self, tenant: &'w str) -> impl Iterator<Item = &'w Arc<Endpoint>> {
        let of_tenant = self.endpoints.iter().filter(move |((owner, _), _)| owner == tenant);
        of_tenant.map(|(_, endpoint)| endpoint)
    }

    /// One of a tenant.
    pub(crate) fn named(&self, tenant: &str, name: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&(tenant.to_owned(), name.to_owned()))
    }
}

/// Whether events that are published over this server to the channel of a webhook are kept, so that groups get them.
fn keeps(config: &Config, webhook: &WebhookConfig) -> bool {
    let rules = config.tenants.get(&webhook.tenant).map(|tenant| &tenant.channels);
    let rule =
        rules.and_then(|rules| rules.iter().find(|rule| name::matches(&rule.pattern, &webhook.channel)));
    rule.is_some_and(|rule| rule.keep.is_some())
}
