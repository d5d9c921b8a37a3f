//! Telling a tenant's backend who is there: connected, disconnected, subscribed, unsubscribed, occupied, vacated, as events
//! of a channel, each exactly once per change (deduplicated). `docs/lifecycle.md` says what holds.
//!
//! What is told is a row among the members of this node first, and no longer one last: whatever dies in between, somebody
//! finds the row and tells what is missing, under the same dedup id. Rows lie in the nodes' own tenant, where no client looks.

mod fact;
mod notice;
mod occupancy;
mod record;
mod recovery;
mod teller;
mod witness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tidewire::tasks::Tasks;
use tidewire::{Clock, Presence, Standing, Tidewire};
use tokio::sync::Semaphore;

pub(crate) use self::notice::Kind as LifecycleEvent;
pub(crate) use self::occupancy::Occupant;
pub(crate) use self::recovery::recover;
pub(crate) use self::teller::{Teller, Told};
pub(crate) use self::witness::see_off;

use self::notice::Notice;
use self::occupancy::Rooms;
use crate::config::{Config, Keep, LifecycleConfig, NODES_TENANT};
use crate::metrics::TenantMetrics;
use crate::node::Node;
use crate::permission;
use crate::publishing::retention;

/// How long a dedup id is remembered. Whoever comes late to tell something comes within it: a reaper that stood still, a node
/// that came back. An id takes some 100 bytes of the engine for as long.
const DEDUP_WINDOW: Duration = Duration::from_secs(3_600);

/// Who tells the end of something that began longer ago takes the beginning as told: until then it tells both. Well below
/// [`DEDUP_WINDOW`], and well above what telling a beginning may take.
const YOUNG: Duration = Duration::from_secs(1_800);

/// Things of one tenant that a node tells at a time: enough for batches, and a storm does not crowd out other work.
const WRITES_MAX: usize = 256;

/// The longest wait before something is tried again that could not be told.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What one tenant is told, by this node.
pub(crate) struct Lifecycle {
    tenant: tidewire::Tenant,
    channel: tidewire::Channel,
    keep: Keep,
    tells_connections: bool,
    /// Where rows of all kinds are.
    home: tidewire::Tenant,
    /// This node's rows: of what it has told, and of the channels that it has subscribers in.
    told: Presence,
    held: Presence,
    node: String,
    tasks: Tasks,
    clock: Clock,
    metrics: Arc<TenantMetrics>,
    writes: Semaphore,
    tellers: Mutex<FxHashMap<u64, Arc<Teller>>>,
    tellers_max: usize,
    rooms: Rooms,
    last_number: AtomicU64,
}

/// Whether something could be done, when trying again does not help any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Yes,
    /// This node closes: another one does it.
    No,
}

impl Lifecycle {
    /// What a tenant's settings ask for; none if they ask for nothing.
    pub(crate) fn new(
        config: &Config,
        tenant: &tidewire::Tenant,
        tidewire: &Tidewire,
        parts: (Tasks, Clock, Arc<TenantMetrics>),
    ) -> tidewire::Result<Option<Arc<Self>>> {
        let Some(tenant_config) = config.tenants.get(tenant.name()) else { return Ok(None) };
        let Some(LifecycleConfig { channel, connections }) = &tenant_config.lifecycle else {
            return Ok(None);
        };
        // The settings were checked: there is such a rule.
        let rule = permission::rule_of(&tenant_config.channels, channel).ok();
        let Some(keep) = rule.and_then(|rule| rule.keep) else { return Ok(None) };
        let ((tasks, clock, metrics), node) = (parts, tidewire.node().to_string());
        let home = tidewire.tenant(NODES_TENANT)?;
        let name = tenant.name();
        Ok(Some(Arc::new(Self {
            channel: tenant.channel(channel)?,
            keep,
            tells_connections: *connections,
            told: home.presence(&format!("{}:{name}:{node}", witness::TOLD))?,
            held: home.presence(&format!("{}:{name}:{node}", witness::HELD))?,
            home,
            node,
            tasks,
            clock,
            metrics,
            writes: Semaphore::new(WRITES_MAX),
            tellers: Mutex::default(),
            tellers_max: config.limits.connections_max.saturating_mul(2),
            rooms: Rooms::default(),
            last_number: AtomicU64::new(0),
            tenant: tenant.clone(),
        })))
    }

    /// Tells again what may have been told as over, after this node was taken for dead, and looks at its channels again.
    pub(crate) fn come_back(self: &Arc<Self>, standing: Standing) {
        if standing == Standing::TakenForDead {
            let tellers: Vec<_> = self.tellers.lock().values().cloned().collect();
            for teller in tellers {
                teller.renew();
            }
        }
        if standing != Standing::Unbroken {
            self.look_at_all();
        }
    }

    /// A number that this node has not used.
    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Relaxed) + 1
    }

    /// Appends a notice, unless somebody has.
    async fn tell(&self, notice: Notice) -> tidewire::Result<()> {
        let kind = notice.kind;
        let id = notice.dedup_id();
        let appending = self.channel.append(notice.into_event());
        let appending = appending.retention(retention(self.keep)).durability(self.keep.durability);
        let receipt = appending.dedup(&id).dedup_window(DEDUP_WINDOW).await?;
        if !receipt.is_duplicate() {
            self.metrics.lifecycle_events.add(kind, 1);
        }
        Ok(())
    }

    /// Does something of which others rely on that it is done, some at a time and until it is; this node's end apart, when
    /// others do it. What cannot be done ever is logged.
    async fn persist<F>(&self, what: &'static str, mut attempt: impl FnMut() -> F) -> Done
    where
        F: Future<Output = tidewire::Result<()>>,
    {
        let mut pause = PAUSE_MIN;
        loop {
            let place = self.writes.acquire().await;
            let outcome = attempt().await;
            drop(place);
            let Err(error) = outcome else { return Done::Yes };
            let is_closed = error.kind() == tidewire::ErrorKind::Closed;
            if is_closed || self.tasks.stopping().is_cancelled() {
                tracing::debug!(%error, what, "left to another node");
                return Done::No;
            }
            if !may_pass(&error) {
                tracing::error!(%error, what, tenant = self.tenant.name(), "cannot be told");
                return Done::Yes;
            }
            tracing::debug!(%error, what, "not told yet");
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Whether trying again may help. A full stream counts: somebody may settle what it is full of.
fn may_pass(error: &tidewire::Error) -> bool {
    use tidewire::ErrorKind::{Codec, Conflict, InvalidName, TooLarge};
    !matches!(error.kind(), TooLarge | InvalidName | Codec | Conflict)
}

/// Has all tenants of a node told again what may have been told as over.
pub(crate) fn come_back(node: &Node, standing: Standing) {
    for tenant in node.tenants.all() {
        if let Some(lifecycle) = &tenant.lifecycle {
            lifecycle.come_back(standing);
        }
    }
}

#[cfg(test)]
mod tests;
