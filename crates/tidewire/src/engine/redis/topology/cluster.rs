//! A Redis Cluster: which primary serves which tag, found out again and again, and requests that follow the slots.
//!
//! Every primary has one connection for data and one that listens, each dialed in the background: a sick node holds up
//! its own slots and no others. What a node says when it is asked for a slot that is not its own counts at once; the
//! whole map is asked for again when a link breaks, when a slot has moved, and now and then.

mod known;
mod node;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use self::known::{MAP_TIME_MAX, Shared, View, keep_current, keep_hearing, unserved};
pub(in crate::engine::redis) use self::node::Node;
use super::slots::Redirect;
use super::{Line, Pauses};
use crate::engine::Probe;
use crate::engine::redis::address::Address;
use crate::engine::redis::command::{Asking, Encode};
use crate::engine::redis::connection::{Connection, Repeat, RequestError, SENDS_MAX};
use crate::engine::redis::keys::Tag;
use crate::engine::redis::resp::Value;
use crate::engine::redis::subscriber::Sharded;
use crate::engine::{Interest, Setup};
use crate::error::{Error, ErrorKind, Result};

/// The primaries of a cluster and who serves what. Dropping it closes every connection.
pub(in crate::engine::redis) struct Cluster {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// Where a refused request goes now.
pub(in crate::engine::redis) enum Next {
    /// To the primary of its tag, as it is known now.
    Owner,
    /// To this node, this once, behind `ASKING`.
    Asked(Connection),
    /// Nowhere: its time is up.
    Nowhere,
}

impl Cluster {
    /// Finds the cluster through any of the seeds, and connects to its primaries.
    ///
    /// # Errors
    /// When no seed answers with a map, or no primary can be reached.
    pub(super) async fn open(seeds: Vec<Address>, node: &str, setup: &Setup) -> Result<Self> {
        let Some(access) = seeds.first().map(|seed| seed.access.clone()) else {
            return Err(Error::new(ErrorKind::InvalidName, "redis cluster URL names no node"));
        };
        let time_max = access.connect_time_max;
        let stop = setup.tasks.stopping().child_token();
        let stale = Arc::new(Notify::new());
        let view = View { owners: vec![None; Tag::COUNT], nodes: FxHashMap::default() };
        let shared = Arc::new(Shared {
            seeds,
            access,
            node: node.to_owned(),
            view: watch::channel(Arc::new(view)).0,
            sharded: Arc::new(Sharded::new(setup.sink.clone(), stale.clone())),
            stale,
            tasks: setup.tasks.clone(),
        });
        let map = shared.discover().await.map_err(super::dial_error)?;
        shared.adopt(&map);
        let nodes = shared.nodes();
        let links = nodes.iter().map(|node| node.data.link(Instant::now() + time_max));
        let links = join_all(links).await;
        if !links.iter().any(std::result::Result::is_ok) {
            let why = links.into_iter().find_map(std::result::Result::err);
            let why = why.map_or_else(|| "it has no primary".to_owned(), |error| error.to_string());
            return Err(Error::new(ErrorKind::Unavailable, format!("redis cluster cannot be used: {why}")));
        }
        tracing::info!(primaries = nodes.len(), "redis cluster connected");
        let keeping = (keep_current(shared.clone()), keep_hearing(shared.clone()));
        let (stopped, tasks) = (stop.clone(), &setup.tasks);
        tasks.spawn(async move {
            let both = async { tokio::join!(keeping.0, keeping.1) };
            stopped.run_until_cancelled(both).await;
        });
        Ok(Self { shared, _stop: stop.drop_guard() })
    }

    /// A connection to the primary of a tag and its open link; waits for one, and for another primary, until `deadline`.
    pub(super) async fn link(
        &self,
        tag: Tag,
        line: Line,
        deadline: Instant,
    ) -> Result<(Connection, u64), RequestError> {
        let mut view = self.shared.view.subscribe();
        loop {
            let owner = view.borrow_and_update().owners.get(tag.index()).cloned().flatten();
            let Some(owner) = owner else {
                self.shared.stale.notify_one();
                if timeout_at(deadline, view.changed()).await.is_err() {
                    return Err(unserved(tag));
                }
                continue;
            };
            tokio::select! {
                biased;
                link = owner.connection(line).link(deadline) => {
                    return Ok((owner.connection(line).clone(), link?));
                }
                // A change of the view that leaves this tag where it is only looks again.
                _ = view.changed() => {}
            }
        }
    }

    /// Waits until a tag's primary is another one than that behind `connection`.
    pub(super) async fn rerouted(&self, tag: Tag, connection: &Connection) {
        let mut view = self.shared.view.subscribe();
        let is_owner = |owner: &Arc<Node>| owner.line_of(connection).is_some();
        let is_elsewhere = |view: &Arc<View>| {
            view.owners.get(tag.index()).is_some_and(|owner| !owner.as_ref().is_some_and(is_owner))
        };
        // An error says that the engine has stopped.
        drop(view.wait_for(is_elsewhere).await);
    }

    /// Sends a command to the primary of its tag and follows the slot until `deadline`; an error reply that does
    /// not say where or when to try again is an error. Gives the connection that answered too.
    pub(super) async fn request<C: Encode + ?Sized>(
        &self,
        tag: Tag,
        command: &C,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<(Value, Connection), RequestError> {
        let (mut pauses, mut sends, mut asked) = (Pauses::default(), 1, None);
        // As a rule the primary is known and up. What waits for one is boxed, so that this future stays small.
        let mut known = self.shared.up(tag);
        loop {
            let (connection, outcome) = match asked.take() {
                Some(node) => {
                    let node: Connection = node;
                    let outcome = node.try_request(&Asking(command), deadline).await;
                    (node, outcome)
                }
                None => {
                    let owner = match known.take() {
                        Some(owner) => owner,
                        None => Box::pin(self.link(tag, Line::Data, deadline)).await?.0,
                    };
                    let outcome = owner.try_request(command, deadline).await;
                    (owner, outcome)
                }
            };
            match outcome {
                Ok(Value::Error(text)) => {
                    match Box::pin(self.heed(tag, &text, &connection, &mut pauses, deadline)).await {
                        Some(Next::Owner) => {}
                        Some(Next::Asked(node)) => asked = Some(node),
                        Some(Next::Nowhere) | None => return Err(RequestError::Refused(text)),
                    }
                }
                Ok(value) => return Ok((value, connection)),
                Err(RequestError::NotSent(_)) if Instant::now() < deadline => {}
                Err(RequestError::Unknown(_)) if repeat == Repeat::Safe && sends < SENDS_MAX => sends += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether an error reply says that the slot is elsewhere or that nobody serves it now.
    pub(super) fn is_redirect(&self, text: &[u8]) -> bool {
        Redirect::read(text, None).is_some()
    }

    /// Learns from an error reply of the node behind `connection` where its request belongs, and waits if that is
    /// what it says. None if the error is of another kind.
    pub(super) async fn heed(
        &self,
        tag: Tag,
        text: &[u8],
        connection: &Connection,
        pauses: &mut Pauses,
        deadline: Instant,
    ) -> Option<Next> {
        let nodes = self.shared.nodes();
        let answering = nodes.iter().find_map(|node| Some((&node.endpoint, node.line_of(connection)?)));
        let (answering, line) = answering.unzip();
        let redirect = Redirect::read(text, answering)?;
        tracing::debug!(slot = tag.slot(), ?redirect, "a request came to the wrong node");
        match redirect {
            Redirect::Moved(owner) => {
                let is_news = self.shared.learn(tag, owner);
                self.shared.stale.notify_one();
                // Two nodes that name each other must not keep us busy.
                if !is_news && !pauses.wait(deadline).await {
                    return Some(Next::Nowhere);
                }
                Some(Next::Owner)
            }
            Redirect::Ask(taker) => {
                let node = self.shared.taker(taker);
                let connection = node.connection(line.unwrap_or(Line::Data));
                match connection.link(deadline).await {
                    Ok(_) => Some(Next::Asked(connection.clone())),
                    Err(_) => Some(Next::Nowhere),
                }
            }
            Redirect::TryAgain | Redirect::Unserved => {
                if redirect == Redirect::Unserved {
                    self.shared.stale.notify_one();
                }
                Some(if pauses.wait(deadline).await { Next::Owner } else { Next::Nowhere })
            }
        }
    }

    /// Starts to hear `interests`, each at the primary of its slot.
    pub(super) async fn subscribe(&self, interests: Vec<Interest>, deadline: Instant) -> Result<()> {
        let names = self.shared.sharded.want(&interests);
        let hears = names.into_iter().map(|(tag, names)| async move {
            let mut pauses = Pauses::default();
            loop {
                let owner = self.shared.wait_for_owner(tag, deadline).await?;
                match owner.subscriber.hear(&names, deadline.min(Instant::now() + MAP_TIME_MAX)).await {
                    Err(error) if error.kind() != ErrorKind::Closed => {
                        self.shared.stale.notify_one();
                        if !pauses.wait(deadline).await {
                            return Err(error);
                        }
                    }
                    outcome => return outcome.inspect(|()| self.shared.sharded.settle(tag, &owner)),
                }
            }
        });
        let outcome: Result<()> = join_all(hears).await.into_iter().collect();
        if let Err(error) = outcome {
            self.unsubscribe(&interests);
            return Err(error);
        }
        Ok(())
    }

    /// Stops to hear `interests`.
    pub(super) fn unsubscribe(&self, interests: &[Interest]) {
        let names = self.shared.sharded.give_up(interests);
        for node in self.shared.nodes() {
            node.subscriber.leave(&names);
        }
    }

    /// Proves a round trip on every link to a primary, and that every slot of ours has one. A node that was only asked
    /// for a slot that it takes over is not needed yet, and may never be.
    pub(super) async fn probe(&self, time_max: Duration) -> Vec<Probe> {
        let View { owners, mut nodes } = View::clone(&self.shared.view.borrow());
        nodes.retain(|_, node| owners.iter().flatten().any(|owner| Arc::ptr_eq(owner, node)));
        let probes = nodes.values().map(async |node| {
            let endpoint = &node.endpoint;
            super::probe(&endpoint.to_string(), &node.data, &node.subscriber, time_max).await
        });
        let mut probes = join_all(probes).await.concat();
        probes.sort_by(|one, other| one.link.cmp(&other.link));
        let unserved = owners.iter().filter(|owner| owner.is_none()).count();
        if unserved > 0 {
            let why = format!("no primary serves {unserved} of {} tags", Tag::COUNT);
            probes.push(Probe {
                link: "cluster slots".to_owned(),
                outcome: Err(why),
                is_needed: true,
                opened: 0,
                open_for: None,
            });
        }
        probes
    }

    /// Where the primaries are, in order.
    pub(super) fn primaries(&self) -> Vec<Address> {
        let mut endpoints: Vec<_> = self.shared.nodes().iter().map(|node| node.endpoint.clone()).collect();
        endpoints.sort_by_key(ToString::to_string);
        endpoints.iter().map(|endpoint| self.shared.address(endpoint)).collect()
    }

    /// A connection to any primary that is up.
    pub(super) fn any(&self) -> Option<Connection> {
        self.shared.nodes().iter().find(|node| node.is_up()).map(|node| node.data.clone())
    }
}
