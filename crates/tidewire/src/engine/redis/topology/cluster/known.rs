//! What is known of a cluster: who serves which tag. Found out again and again, and learned from what nodes answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::node::{DialNode, Node};
use crate::engine::redis::address::{Access, Address, Endpoint};
use crate::engine::redis::command::Command;
use crate::engine::redis::connection::{Connection, RequestError};
use crate::engine::redis::keys::Tag;
use crate::engine::redis::link::{Dial, DialAddress, DialError};
use crate::engine::redis::scripts;
use crate::engine::redis::subscriber::{Sharded, Subscriber};
use crate::engine::redis::topology::Durable;
use crate::engine::redis::topology::slots::SlotMap;
use crate::error::Error;
use crate::tasks::Tasks;

/// How often the map is asked for when nothing is wrong.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// How often while a primary cannot be reached: it may have been replaced.
const REFRESH_EVERY_WHILE_BROKEN: Duration = Duration::from_millis(500);
/// The least time between two looks at the map.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
/// How long one node may take to answer with its map.
pub(super) const MAP_TIME_MAX: Duration = Duration::from_secs(1);
/// Nodes that are asked for the map at once; the first answer counts.
const ASKED_FOR_MAP: usize = 3;
/// How long a node that takes slots over is kept connected before the map names it.
const KEPT_AFTER_ASK: Duration = Duration::from_secs(60);

/// What is known of a cluster, and what it takes to find out.
pub(super) struct Shared {
    /// Where the cluster was found first.
    pub(super) seeds: Vec<Address>,
    /// How to greet every node.
    pub(super) access: Arc<Access>,
    pub(super) node: String,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) stale: Arc<Notify>,
    pub(super) sharded: Arc<Sharded>,
    pub(super) tasks: Tasks,
}

/// What is known of the cluster now.
#[derive(Clone)]
pub(super) struct View {
    /// By the number of the tag.
    pub(super) owners: Vec<Option<Arc<Node>>>,
    pub(super) nodes: FxHashMap<Endpoint, Arc<Node>>,
}

impl Shared {
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.view.borrow().nodes.values().cloned().collect()
    }

    /// The connection to the primary of a tag, if it is known and its link is open.
    pub(super) fn up(&self, tag: Tag) -> Option<Connection> {
        let view = self.view.borrow();
        let owner = view.owners.get(tag.index())?.as_ref()?;
        owner.is_up().then(|| owner.data.clone())
    }

    pub(super) fn address(&self, endpoint: &Endpoint) -> Address {
        Address { endpoint: endpoint.clone(), access: self.access.clone() }
    }

    /// A node that serves or will serve; dialed in the background.
    fn begin(&self, endpoint: &Endpoint) -> Arc<Node> {
        let dial = |role: &str, prelude| -> Arc<dyn Dial> {
            let name = format!("tidewire-{}-{role}", self.node);
            let address = DialAddress::new(self.address(endpoint), name, prelude);
            Arc::new(DialNode { address, stale: self.stale.clone() })
        };
        let data =
            Connection::dialing(dial("data", scripts::prelude(scripts::Publish::Sharded)), &self.tasks);
        let durable = Durable::new(dial("durable", scripts::prelude(scripts::Publish::Sharded)), &self.tasks);
        let subscriber = Subscriber::sharded(dial("pubsub", Vec::new()), self.sharded.clone(), &self.tasks);
        Arc::new(Node { endpoint: endpoint.clone(), data, durable, subscriber, asked: Mutex::default() })
    }

    /// Takes over what a node says of the whole cluster.
    pub(super) fn adopt(&self, map: &SlotMap) {
        let old = self.view.borrow().clone();
        let mut nodes = FxHashMap::default();
        let mut owners = Vec::with_capacity(Tag::COUNT);
        for (found, held) in map.owners.iter().zip(&old.owners) {
            let owner = match (found, held) {
                (Some(endpoint), _) => {
                    let known = || old.nodes.get(endpoint).cloned().unwrap_or_else(|| self.begin(endpoint));
                    Some(nodes.entry(endpoint.clone()).or_insert_with(known).clone())
                }
                // Nobody is named: whoever served it last is the best guess.
                (None, held) => held.clone(),
            };
            if let Some(owner) = &owner {
                nodes.entry(owner.endpoint.clone()).or_insert_with(|| owner.clone());
            }
            owners.push(owner);
        }
        for (endpoint, node) in &old.nodes {
            if node.asked.lock().is_some_and(|asked| asked.elapsed() < KEPT_AFTER_ASK) {
                nodes.entry(endpoint.clone()).or_insert_with(|| node.clone());
            }
        }
        let same = |(one, other): (&Option<Arc<Node>>, &Option<Arc<Node>>)| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        if nodes.len() != old.nodes.len() || !owners.iter().zip(&old.owners).all(same) {
            self.view.send_replace(Arc::new(View { owners, nodes }));
        }
    }

    /// A slot has moved. False if that was known.
    pub(super) fn learn(&self, tag: Tag, endpoint: Endpoint) -> bool {
        self.view.send_if_modified(|view| {
            let is_known = |owner: &Arc<Node>| owner.endpoint == endpoint;
            if view.owners.get(tag.index()).is_some_and(|owner| owner.as_ref().is_some_and(is_known)) {
                return false;
            }
            let mut next = View::clone(view);
            let owner = next.nodes.entry(endpoint.clone()).or_insert_with(|| self.begin(&endpoint)).clone();
            if let Some(held) = next.owners.get_mut(tag.index()) {
                *held = Some(owner);
            }
            *view = Arc::new(next);
            true
        })
    }

    /// A node that takes over a slot.
    pub(super) fn taker(&self, endpoint: Endpoint) -> Arc<Node> {
        let known = self.view.borrow().nodes.get(&endpoint).cloned();
        let node = known.unwrap_or_else(|| {
            let mut node = None;
            self.view.send_modify(|view| {
                let mut next = View::clone(view);
                let taker = next.nodes.entry(endpoint.clone()).or_insert_with(|| self.begin(&endpoint));
                node = Some(taker.clone());
                *view = Arc::new(next);
            });
            node.unwrap_or_else(|| self.begin(&endpoint))
        });
        *node.asked.lock() = Some(Instant::now());
        node
    }

    pub(super) async fn wait_for_owner(&self, tag: Tag, deadline: Instant) -> Result<Arc<Node>, Error> {
        let mut view = self.view.subscribe();
        let served = view.wait_for(|view| view.owners.get(tag.index()).is_some_and(Option::is_some));
        match timeout_at(deadline, served).await {
            Ok(Ok(view)) => {
                let owner = view.owners.get(tag.index()).cloned().flatten();
                owner.ok_or_else(|| unserved(tag).into())
            }
            _ => Err(unserved(tag).into()),
        }
    }

    /// Asks for the map: some of the primaries that are up, else whatever can be dialed.
    pub(super) async fn discover(&self) -> Result<SlotMap, DialError> {
        let mut up: Vec<_> = self.nodes().into_iter().filter(|node| node.is_up()).collect();
        fastrand::shuffle(&mut up);
        up.truncate(ASKED_FOR_MAP);
        let asks = up.iter().map(|node| {
            Box::pin(async {
                let reply = node.data.try_request(&SLOTS, Instant::now() + MAP_TIME_MAX).await;
                SlotMap::read(reply.map_err(drop)?, &node.endpoint).ok_or(())
            })
        });
        if !up.is_empty()
            && let Ok((map, _)) = select_ok(asks).await
        {
            return Ok(map);
        }
        let known = self.nodes();
        let known = known.iter().map(|node| self.address(&node.endpoint));
        let dials = self.seeds.iter().cloned().chain(known).map(|address| {
            let name = format!("tidewire-{}-slots", self.node);
            Box::pin(async move {
                let endpoint = address.endpoint.clone();
                let slots = Command::new("CLUSTER").arg("SLOTS");
                let reply = DialAddress::new(address, name, Vec::new()).ask(slots).await?;
                SlotMap::read(reply, &endpoint).ok_or_else(|| DialError::NoSlots(endpoint.to_string()))
            })
        });
        select_ok(dials).await.map(|(map, _)| map)
    }
}

const SLOTS: [&[u8]; 2] = [b"CLUSTER", b"SLOTS"];

pub(super) fn unserved(tag: Tag) -> RequestError {
    RequestError::NotSent(format!("no primary serves slot {} now", tag.slot()).into())
}

/// Keeps the view of the cluster current.
pub(super) async fn keep_current(shared: Arc<Shared>) {
    loop {
        let is_broken = {
            let view = shared.view.borrow().clone();
            view.owners.iter().any(|owner| owner.as_ref().is_none_or(|owner| !owner.is_up()))
        };
        let every = if is_broken { REFRESH_EVERY_WHILE_BROKEN } else { REFRESH_EVERY };
        // Either is a reason to look.
        drop(timeout(every, shared.stale.notified()).await);
        match shared.discover().await {
            Ok(map) => shared.adopt(&map),
            Err(error) => tracing::debug!(%error, "no node of the cluster gives its map"),
        }
        tokio::time::sleep(REFRESH_PAUSE).await;
    }
}

/// Moves subscriptions with their slots.
pub(super) async fn keep_hearing(shared: Arc<Shared>) {
    let mut view = shared.view.subscribe();
    loop {
        tokio::select! {
            _ = view.changed() => {}
            () = shared.sharded.lost() => {}
        }
        loop {
            let owners = view.borrow_and_update().owners.clone();
            let is_settled = shared.sharded.follow(&owners, Instant::now() + MAP_TIME_MAX / 2).await;
            if is_settled {
                break;
            }
            shared.stale.notify_one();
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
    }
}
