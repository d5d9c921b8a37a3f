//! The relays of one tenant on this node, by channel.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tidewire::Tenant;
use tidewire::tasks::Tasks;
use tokio::sync::OnceCell;

use super::relay::{Mode, Relay};
use crate::metrics::Metrics;

/// Opens a relay for the first subscriber of a channel, shares it with the next ones, and closes it after the last.
///
/// One per tenant: neither a lock nor a name of one tenant is another's.
pub(crate) struct Registry {
    tenant: Tenant,
    relays: Mutex<FxHashMap<Arc<str>, Entry>>,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

struct Entry {
    slot: Arc<Slot>,
    lease_count: usize,
}

/// Filled by the first who waits for it; the others wait for that one.
type Slot = OnceCell<Arc<Relay>>;

/// A share of a relay. The relay closes when the last lease is dropped.
pub(crate) struct Lease {
    registry: Arc<Registry>,
    channel: Arc<str>,
    slot: Arc<Slot>,
}

impl Registry {
    pub(crate) fn new(tenant: Tenant, tasks: Tasks, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { tenant, relays: Mutex::default(), tasks, metrics })
    }

    /// Channels with a subscriber on this node.
    pub(crate) fn channel_count(&self) -> usize {
        self.relays.lock().len()
    }

    /// A share of the channel's relay, opened if there is none. Dropping the future gives the share back.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        channel: &str,
        mode: Mode,
    ) -> tidewire::Result<(Lease, Arc<Relay>)> {
        let lease = self.enter(channel);
        let open = || async {
            Relay::open(self.tenant.channel(channel)?, mode, &self.tasks, self.metrics.clone()).await
        };
        let relay = lease.slot.get_or_try_init(open).await?.clone();
        Ok((lease, relay))
    }

    fn enter(self: &Arc<Self>, channel: &str) -> Lease {
        let mut relays = self.relays.lock();
        let channel: Arc<str> = match relays.get_key_value(channel) {
            Some((name, _)) => name.clone(),
            None => channel.into(),
        };
        let fresh = || Entry { slot: Arc::default(), lease_count: 0 };
        let entry = relays.entry(channel.clone()).or_insert_with(fresh);
        if entry.slot.get().is_some_and(|relay| relay.has_ended()) {
            *entry = fresh();
        }
        entry.lease_count += 1;
        Lease { registry: self.clone(), channel, slot: entry.slot.clone() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut relays = self.registry.relays.lock();
        // The entry of a relay that ended may have been replaced; then it is not ours to count.
        let Some(entry) = relays.get_mut(&self.channel).filter(|entry| Arc::ptr_eq(&entry.slot, &self.slot))
        else {
            return;
        };
        entry.lease_count -= 1;
        if entry.lease_count == 0 {
            relays.remove(&self.channel);
            if let Some(relay) = self.slot.get() {
                relay.close();
            }
        }
    }
}
