//! What all connections and requests of a node share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use prometheus_client::metrics::gauge::Gauge;
use tidewire::clock::Stopwatch;
use tidewire::tasks::Tasks;
use tidewire::{Clock, Tidewire};
use tidewire_protocol::http::NodeInfo;

use crate::config::Config;
use crate::edge::Edge;
use crate::gateway::emulation::Sessions;
use crate::hub::relay::ConnectionKey;
use crate::journal::Journal;
use crate::metrics::{Lags, Links, Metrics};
use crate::peers::Peers;
use crate::pulls::Pulls;
use crate::tap::Taps;
use crate::tenants::{Tenant, Tenants};
use crate::webhooks::Webhooks;

/// A running node.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) tidewire: Tidewire,
    pub(crate) tenants: Tenants,
    pub(crate) edge: Edge,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: Tasks,
    pub(crate) lags: Lags,
    pub(crate) links: Links,
    pub(crate) pulls: Pulls,
    pub(crate) webhooks: Webhooks,
    pub(crate) sessions: Sessions,
    pub(crate) journal: Journal,
    pub(crate) taps: Taps,
    pub(crate) peers: Peers,
    pub(crate) clock: Clock,
    pub(crate) uptime: Stopwatch,
    pub(crate) id: String,
    pub(crate) addr: SocketAddr,
    connection_count: AtomicUsize,
    last_connection: AtomicU64,
}

/// A place among the open connections of a node, given back when dropped.
pub(crate) struct Place {
    node: Arc<Node>,
    pub(crate) key: ConnectionKey,
}

impl Node {
    pub(crate) fn new(
        config: Config,
        tidewire: Tidewire,
        clock: Clock,
        addr: SocketAddr,
    ) -> tidewire::Result<Arc<Self>> {
        let (tasks, metrics) = (Tasks::new(), Arc::<Metrics>::default());
        let tenants = Tenants::new(&config, &tidewire, &tasks, &clock, &metrics)?;
        let webhooks = Webhooks::new(&config, &tidewire, tasks.clone(), &clock)?;
        Ok(Arc::new(Self {
            id: tidewire.node().to_string(),
            addr,
            edge: Edge::new(&config.edge, metrics.clone()),
            config,
            tenants,
            metrics,
            lags: Lags::default(),
            links: Links::default(),
            pulls: Pulls::new(tasks.clone(), clock.clone()),
            webhooks,
            sessions: Sessions::default(),
            journal: Journal::default(),
            taps: Taps::default(),
            peers: Peers::new(&tidewire)?,
            tidewire,
            tasks,
            clock,
            uptime: Stopwatch::start(),
            connection_count: AtomicUsize::new(0),
            last_connection: AtomicU64::new(0),
        }))
    }

    /// This node, as a tenant may see it.
    pub(crate) fn info(&self, tenant: &Tenant) -> NodeInfo {
        let count = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or_default();
        NodeInfo {
            uid: self.id.clone(),
            name: self.addr.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            num_clients: count(&tenant.metrics.connections),
            num_subs: count(&tenant.metrics.subscriptions),
            num_channels: tenant.registry.channel_count() as u64,
            uptime: self.uptime.elapsed().as_secs(),
        }
    }

    /// A place for one more connection; `None` at `limits.connections_max`.
    pub(crate) fn take_place(self: &Arc<Self>) -> Option<Place> {
        let before = self.connection_count.fetch_add(1, Relaxed);
        let place = Place { node: self.clone(), key: self.last_connection.fetch_add(1, Relaxed) };
        (before < self.config.limits.connections_max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.node.connection_count.fetch_sub(1, Relaxed);
    }
}
