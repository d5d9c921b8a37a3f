//! The relays of one tenant on this node, by channel.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tidewire::tasks::Tasks;
use tidewire::{Tenant, name};
use tokio::sync::OnceCell;

use super::relay::{Mode, Relay};
use crate::metrics::TenantMetrics;

/// Opens a relay for the first subscriber of a channel, shares it with the next ones, and closes it after the last.
///
/// One per tenant: neither a lock nor a name of one tenant is another's.
pub(crate) struct Registry {
    tenant: Tenant,
    relays: Mutex<FxHashMap<Arc<str>, Entry>>,
    tasks: Tasks,
    metrics: Arc<TenantMetrics>,
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
    pub(crate) fn new(tenant: Tenant, tasks: Tasks, metrics: Arc<TenantMetrics>) -> Arc<Self> {
        Arc::new(Self { tenant, relays: Mutex::default(), tasks, metrics })
    }

    /// Channels with a subscriber on this node.
    pub(crate) fn channel_count(&self) -> usize {
        self.relays.lock().len()
    }

    /// The relay of a channel with a subscriber on this node.
    pub(crate) fn relay(&self, channel: &str) -> Option<Arc<Relay>> {
        self.relays.lock().get(channel)?.slot.get().cloned()
    }

    /// Channels that match a pattern, all for the empty one, with their subscribers on this node.
    pub(crate) fn channels(&self, pattern: &str) -> Vec<(Arc<str>, usize)> {
        let relays = self.relays.lock();
        let asked = relays.iter().filter(|(name, _)| pattern.is_empty() || name::matches(pattern, name));
        let counted = asked.filter_map(|(name, entry)| {
            let count = entry.slot.get()?.subscriber_count();
            (count > 0).then(|| (name.clone(), count))
        });
        counted.collect()
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

#[cfg(test)]
mod tests {
    use tidewire::Tidewire;

    use super::*;

    async fn registry() -> Arc<Registry> {
        let tidewire = Tidewire::open("memory:").await.unwrap();
        Registry::new(tidewire.tenant("default").unwrap(), Tasks::new(), Arc::default())
    }

    #[tokio::test]
    async fn subscribers_of_a_channel_share_one_relay_until_the_last_has_left() {
        let registry = registry().await;
        let (first, relay) = registry.lease("orders", Mode::Live).await.unwrap();
        let (second, same) = registry.lease("orders", Mode::Live).await.unwrap();
        let (_other, another) = registry.lease("payments", Mode::Live).await.unwrap();
        assert!(Arc::ptr_eq(&relay, &same) && !Arc::ptr_eq(&relay, &another));
        assert_eq!(registry.channel_count(), 2);
        drop(first);
        assert_eq!(registry.channel_count(), 2);
        drop(second);
        assert_eq!(registry.channel_count(), 1);
        while !relay.has_ended() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_relay_that_ended_is_replaced_and_its_leases_count_no_more() {
        let registry = registry().await;
        let (stale, relay) = registry.lease("orders", Mode::Live).await.unwrap();
        relay.close();
        while !relay.has_ended() {
            tokio::task::yield_now().await;
        }
        let (_fresh, replacement) = registry.lease("orders", Mode::Live).await.unwrap();
        assert!(!Arc::ptr_eq(&relay, &replacement));
        drop(stale);
        assert_eq!(registry.channel_count(), 1);
        assert!(!replacement.has_ended());
    }

    #[tokio::test]
    async fn those_who_ask_at_once_wait_for_one_opening() {
        let registry = registry().await;
        let leases =
            futures_util::future::join_all((0..10).map(|_| registry.lease("orders", Mode::Kept))).await;
        let relays: Vec<_> = leases.into_iter().map(|lease| lease.unwrap()).collect();
        assert!(relays.windows(2).all(|pair| Arc::ptr_eq(&pair[0].1, &pair[1].1)));
        drop(relays);
        assert_eq!(registry.channel_count(), 0);
        assert!(registry.lease("no spaces", Mode::Live).await.is_err());
        assert_eq!(registry.channel_count(), 0, "a lease that failed leaves nothing behind");
    }
}
