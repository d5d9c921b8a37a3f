//! A node: opens an engine by URL and gives tenants. The only place that chooses an engine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::{
    Bus, ChannelActivity, GroupActivity, Hub, Pool, PublisherStats, RetryPolicy, Settings, SubscriberStats,
};
use crate::clock::{Clock, Stopwatch};
use crate::engine::{Engine, Finding, Probe, Retention, Setup, embedded, redis};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Catalog, Keys, NodeId};
use crate::kit::{Departing, Equipment, Home, Reaped, Roster};
use crate::limits::Limits;
use crate::name;
use crate::tasks::Tasks;
use crate::tenant::Tenant;

/// The engines a URL can name.
const ENGINES: &str = "memory:, file:DIR, redis://[user:pass@]host:port[/db], unix://PATH, \
    redis-sentinel://[user:pass@]host:port,host:port/primary-name, \
    redis-cluster://[user:pass@]host:port,host:port; with TLS rediss in place of redis";

/// One running node on one engine. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidewire::Result<()> {
/// use tidewire::Tidewire;
///
/// let tidewire = Tidewire::open("memory:").await?;
/// assert!(tidewire.health().await.is_healthy());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Tidewire {
    bus: Arc<Bus>,
    roster: Arc<Roster>,
    environment: Arc<str>,
}

/// How to open a node; [`open`](Self::open) does it.
#[must_use = "a node opens with open()"]
pub struct Builder {
    url: String,
    environment: String,
    settings: Settings,
}

/// The outcome of a round trip on every link.
#[derive(Debug, Clone)]
pub struct Health {
    /// This node.
    pub node: NodeId,
    /// The engine's name: `memory`, `file` or `redis`.
    pub engine: &'static str,
    /// Whether confirmed appends survive a restart of this process.
    pub is_durable: bool,
    /// Whether other nodes can share the engine.
    pub is_shared: bool,
    /// Each link and its round trip, or what is wrong with it.
    pub links: Vec<Probe>,
}

impl Health {
    /// Whether every link that is needed answered.
    pub fn is_healthy(&self) -> bool {
        self.links.iter().all(|link| link.outcome.is_ok() || !link.is_needed)
    }
}

impl Tidewire {
    /// Opens a node with default settings in environment `dev`.
    ///
    /// `url` is `memory:`, `file:DIR`, `redis://[user:pass@]host:port[/db]`,
    /// `redis-sentinel://[user:pass@]host:port,host:port/primary-name` or
    /// `redis-cluster://[user:pass@]host:port,host:port`; [`engine::redis`](crate::engine::redis) says what each takes.
    ///
    /// # Errors
    /// `InvalidName` for a URL that names no engine; `Unavailable` if the engine cannot be reached; `Conflict` if
    /// another process holds the directory; `Engine` if the engine cannot be used as it is.
    pub async fn open(url: &str) -> Result<Self> {
        Self::builder(url).open().await
    }

    /// A node with settings of its own.
    pub fn builder(url: &str) -> Builder {
        Builder {
            url: url.to_owned(),
            environment: "dev".to_owned(),
            settings: Settings {
                clock: Clock::system(),
                limits: Limits::default(),
                retry: RetryPolicy::default(),
                retention: Retention::BOUNDED,
                catalog: Catalog::new(),
                keys: Keys::default(),
            },
        }
    }

    /// A tenant. Tenants need no creation: a name is enough.
    ///
    /// # Errors
    /// `InvalidName`: 1 to 64 of `A-Z a-z 0-9 - _ .`.
    pub fn tenant(&self, name: &str) -> Result<Tenant> {
        Tenant::new(self.bus.clone(), self.roster.clone(), self.environment.clone(), name)
    }

    /// What is agreed of the event types that this program has used or declared so far.
    pub fn catalog(&self) -> Catalog {
        self.bus.catalogs.program()
    }

    /// The keys that events are signed and sealed with; [`Keys::replace`] changes them while the node runs.
    pub fn keys(&self) -> &Keys {
        &self.bus.keys
    }

    /// This node's id, which [`Subscribing::skip_own`](crate::Subscribing::skip_own) compares.
    pub fn node(&self) -> NodeId {
        self.bus.node
    }

    /// What this node published and received on all channels.
    pub fn stats(&self) -> (PublisherStats, SubscriberStats) {
        self.bus.totals()
    }

    /// What this node sent to each channel that it sent anything to: to at most `channels_max` one by one, those that were
    /// told of first, and to all others together.
    pub fn channels(&self, channels_max: usize) -> Vec<ChannelActivity> {
        self.bus.activity(channels_max)
    }

    /// What the consumers of this node do and did, group by group.
    pub fn consumers(&self) -> Vec<GroupActivity> {
        self.bus.consumers.activity()
    }

    /// A pool of so many handlers that run at the same time, for consumers of any tenant of this node to share fairly.
    pub fn pool(&self, concurrency: usize) -> Pool {
        Pool::new(concurrency, self.bus.clock.clone())
    }

    /// Removes the members of nodes that are gone, and gives what has changed in who is present beside what
    /// [`join`](crate::Presence::join) and [`leave`](crate::Presence::leave) have told: each change once, on one node of all that
    /// call this. To be called again and again, every half second or so, by each node that has members: nobody else removes
    /// those of a dead one. A node that has called this is one that others expect to renew its lease.
    ///
    /// Before members are removed `see_off` is given them, channel by channel in order of their names, some at a time. If it
    /// fails, or this node dies before it has removed them, they stay and are given again, here or on another node: what must
    /// be told whatever dies is told there, at least once. Who wants none of it gives `|_| std::future::ready(Ok(()))`.
    ///
    /// Dropping the future loses the changes that it would have told: call it in a task of its own. At most about
    /// [`REAPED_MEMBERS_MAX`](crate::limits::REAPED_MEMBERS_MAX) members are removed; the next call goes on.
    ///
    /// # Errors
    /// Those of the engine and of `see_off`, if nothing was removed.
    pub async fn reap_members<F, Fut>(&self, see_off: F) -> Result<Reaped>
    where
        F: Fn(Departing) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        self.roster.reap(see_off).await
    }

    /// Proves a round trip on every link of the engine.
    pub async fn health(&self) -> Health {
        let engine = &self.bus.engine;
        let watch = Stopwatch::start();
        let probes = tokio::time::timeout(self.bus.limits.call_time_max, engine.pubsub.probe()).await;
        let failed = |why| {
            vec![Probe {
                link: engine.name.into(),
                outcome: Err(why),
                is_needed: true,
                opened: 0,
                open_for: None,
            }]
        };
        let links = match probes {
            Ok(Ok(links)) => links,
            Ok(Err(error)) => failed(error.to_string()),
            Err(_) => failed(format!("no answer within {:?}", watch.elapsed())),
        };
        let (is_durable, is_shared) = (engine.is_durable, engine.is_shared);
        Health { node: self.bus.node, engine: engine.name, is_durable, is_shared, links }
    }

    /// What the engine finds out about itself, for those who operate it: what it keeps, evicts and confirms, and what to
    /// change before relying on it. It looks at every server of the engine, so it may take seconds.
    ///
    /// # Errors
    /// None of today's engines gives one: what cannot be looked at is a finding.
    pub async fn examine(&self) -> Result<Vec<Finding>> {
        (self.bus.engine.examine)().await
    }

    /// Closes the node: refuses new calls, finishes those in flight and what batchers hold, ends subscriptions,
    /// and stops the engine - within `within`.
    ///
    /// # Errors
    /// `TimedOut` if something was still running then; it is abandoned. What was confirmed stays confirmed.
    pub async fn close(&self, within: Duration) -> Result<()> {
        let watch = Stopwatch::start();
        let is_drained = tokio::time::timeout(within, self.drain()).await.is_ok();
        self.bus.hub.close();
        let are_tasks_done = self.bus.tasks.close(within.saturating_sub(watch.elapsed())).await;
        let is_engine_done = self.bus.engine.tasks.close(within.saturating_sub(watch.elapsed())).await;
        if is_drained && are_tasks_done && is_engine_done {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TimedOut,
            format!("node was still busy {within:?} after it was told to close"),
        ))
    }
}

impl Tidewire {
    fn new(engine: Engine, hub: Arc<Hub>, settings: Settings, environment: Arc<str>) -> Self {
        let bus = Bus::new(engine, hub, Tasks::new(), settings);
        let equipment = Equipment {
            store: bus.engine.store.clone(),
            clock: bus.clock.clone(),
            tasks: bus.tasks.clone(),
            node: bus.node,
            lease: bus.limits.presence_lease,
            patience: bus.limits.call_time_max,
            was_relinked: bus.hub.was_relinked(),
        };
        let roster = Roster::new(Home::of_environment(&environment), equipment);
        Self { bus: Arc::new(bus), roster, environment }
    }

    /// Another node on the same engine, in the same process.
    pub(crate) fn beside(&self, clock: Clock) -> Self {
        let bus = &self.bus;
        let settings = Settings {
            clock,
            limits: bus.limits.clone(),
            retry: bus.retry,
            retention: bus.retention,
            catalog: bus.catalogs.program(),
            keys: bus.keys.clone(),
        };
        Self::new(bus.engine.clone(), bus.hub.clone(), settings, self.environment.clone())
    }

    async fn drain(&self) {
        self.bus.drain().await;
        self.roster.close().await;
    }
}

impl fmt::Debug for Tidewire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tidewire({} on {})", self.bus.node, self.bus.engine.name)
    }
}

impl Builder {
    /// The environment in front of every name: `dev` unless said otherwise, `prod`, ...
    pub fn environment(mut self, environment: &str) -> Self {
        environment.clone_into(&mut self.environment);
        self
    }

    /// The clock; a virtual one for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// The bounds of this node.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How publish and append are tried again.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.settings.retry = retry;
        self
    }

    /// What a stream keeps where an append does not say; 1,000,000 events and 1 GiB.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.settings.retention = retention;
        self
    }

    /// The event types of the program. Those that are not named here are added when they are used first; those that are
    /// have been checked against each other before anything is sent.
    pub fn catalog(mut self, catalog: Catalog) -> Self {
        self.settings.catalog = catalog;
        self
    }

    /// The keys that events are signed and sealed with.
    pub fn keys(mut self, keys: Keys) -> Self {
        self.settings.keys = keys;
        self
    }

    /// Opens the node.
    ///
    /// # Errors
    /// As [`Tidewire::open`].
    pub async fn open(self) -> Result<Tidewire> {
        name::check_environment(&self.environment)?;
        let hub = Arc::new(Hub::new());
        let setup = Setup {
            sink: hub.clone(),
            clock: self.settings.clock.clone(),
            limits: self.settings.limits.clone(),
            tasks: Tasks::new(),
        };
        let engine = open_engine(&self.url, setup).await?;
        hub.attach(engine.pubsub.clone());
        Ok(Tidewire::new(engine, hub, self.settings, self.environment.into()))
    }
}

/// Opens the engine that a URL names.
pub(crate) async fn open_engine(url: &str, setup: Setup) -> Result<Engine> {
    match url.split_once(':') {
        Some(("memory", "")) => Ok(embedded::open_memory(&setup)),
        Some(("file", _)) => {
            let (directory, options) = embedded::FileOptions::from_url(url)?;
            let open = move || embedded::open_file(&directory, &options, &setup);
            tokio::task::spawn_blocking(open).await.unwrap_or_else(|_| Err(Error::closed("runtime")))
        }
        Some((scheme, _)) if redis::is_scheme(scheme) => redis::open_redis(url, &setup).await,
        _ => Err(Error::new(
            ErrorKind::InvalidName,
            format!("engine URL names no engine; known are {ENGINES}"),
        )),
    }
}
