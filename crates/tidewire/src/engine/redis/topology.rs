//! Which connection serves which slot. On one server: one for data, one that listens; where sentinels name it, they
//! follow it. On a cluster: both per primary.

mod cluster;
mod home;
mod pauses;
mod sentinel;
mod slots;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use self::cluster::Cluster;
pub(super) use self::cluster::{Next, Node};
use self::home::Home;
pub(super) use self::pauses::Pauses;
use self::sentinel::Sentinels;
use super::address::{Address, Group};
use super::command::{Command, Encode};
use super::connection::{Connection, LinkState, Repeat, RequestError};
use super::examine::Kind;
use super::keys::Tag;
use super::link::{Dial, DialError, Openings, describe};
use super::pubsub::malformed;
use super::refusal;
use super::resp::Value;
use super::scripts::{self, Publish, Script, Scripts};
use super::subscriber::Subscriber;
use crate::engine::{Interest, Probe, Setup};
use crate::error::{Error, ErrorKind, Result};
use crate::tasks::Tasks;

/// How often one call loads its script: what takes it away again and again is not chance.
const SCRIPT_LOADS_MAX: usize = 4;

/// The connections of a node. Everything that talks to a server asks here for the one to use.
pub(super) struct Topology {
    servers: Servers,
    pub(super) scripts: Scripts,
    call_time_max: Duration,
}

enum Servers {
    One { home: Home, data: Connection, durable: Durable, subscriber: Subscriber },
    Cluster(Cluster),
}

/// Which of the connections to a server is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Data,
    /// For appends that wait for copies, which holds up everything behind them.
    Durable,
}

/// A connection that is opened when somebody asks for it first.
struct Durable {
    dial: Arc<dyn Dial>,
    tasks: Tasks,
    connection: OnceLock<Connection>,
}

impl Durable {
    fn new(dial: Arc<dyn Dial>, tasks: &Tasks) -> Self {
        Self { dial, tasks: tasks.clone(), connection: OnceLock::new() }
    }

    fn connection(&self) -> &Connection {
        self.connection.get_or_init(|| Connection::dialing(self.dial.clone(), &self.tasks))
    }

    fn is(&self, other: &Connection) -> bool {
        self.connection.get().is_some_and(|connection| connection.is(other))
    }
}

impl Topology {
    /// Connects to one server. Fails when it cannot be used now; after that, links are dialed again for ever.
    pub(super) async fn open(address: Address, node: &str, setup: &Setup) -> Result<Self> {
        Self::open_at(Home::Fixed(address), node, setup).await
    }

    /// Connects to the primary that sentinels name, and follows it. Fails when it cannot be used now.
    pub(super) async fn open_sentinel(group: Group, node: &str, setup: &Setup) -> Result<Self> {
        Self::open_at(Home::Named(Sentinels::open(group, node, &setup.tasks)), node, setup).await
    }

    async fn open_at(home: Home, node: &str, setup: &Setup) -> Result<Self> {
        let dial = |role: &str, prelude| home.dialer(format!("tidewire-{node}-{role}"), prelude);
        let data = dial("data", scripts::prelude(Publish::Classic));
        let listening = dial("pubsub", Vec::new());
        let data_link = data.dial().await.map_err(dial_error)?;
        let listening_link = listening.dial().await.map_err(dial_error)?;
        tracing::info!(endpoint = home.endpoint(), version = %data_link.server.version, "redis engine connected");
        let data = Connection::open(data_link, data, &setup.tasks);
        let call_time_max = setup.limits.call_time_max;
        let scripts = Scripts::load(Publish::Classic, &data, Instant::now() + call_time_max).await?;
        let subscriber = Subscriber::open(listening_link, listening, setup.sink.clone(), &setup.tasks);
        let durable = Durable::new(dial("durable", scripts::prelude(Publish::Classic)), &setup.tasks);
        let servers = Servers::One { home, data, durable, subscriber };
        Ok(Self { servers, scripts, call_time_max })
    }

    /// Connects to the cluster that any of the seeds belongs to. Fails when no primary can be used now.
    pub(super) async fn open_cluster(seeds: Vec<Address>, node: &str, setup: &Setup) -> Result<Self> {
        let call_time_max = setup.limits.call_time_max;
        let cluster = Cluster::open(seeds, node, setup).await?;
        let data = cluster.any().ok_or_else(|| Error::closed("the connection to redis"))?;
        let scripts = Scripts::load(Publish::Sharded, &data, Instant::now() + call_time_max).await?;
        Ok(Self { servers: Servers::Cluster(cluster), scripts, call_time_max })
    }

    /// Sends a command to the primary that holds a tag's slot, until `deadline` again where nobody takes it now; an error
    /// reply is an error.
    pub(super) async fn request<C: Encode + ?Sized>(
        &self,
        tag: Tag,
        command: &C,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<Value, RequestError> {
        match &self.servers {
            Servers::One { data, .. } => match data.request(command, repeat, deadline).await {
                Err(RequestError::Refused(text)) if refusal::is_passing(&text) => {
                    Box::pin(wait_out(text, data, command, repeat, deadline)).await
                }
                outcome => outcome,
            },
            Servers::Cluster(cluster) => {
                Ok(Box::pin(cluster.request(tag, command, repeat, deadline)).await?.0)
            }
        }
    }

    /// The connection to the only server; none on a cluster.
    pub(super) fn only(&self) -> Option<&Connection> {
        match &self.servers {
            Servers::One { data, .. } => Some(data),
            Servers::Cluster(_) => None,
        }
    }

    /// Publishes with `command`; on a cluster it also gives how many nodes hear `beside`, a channel in the same slot.
    pub(super) async fn publish<C: Encode>(
        &self,
        tag: Tag,
        command: &C,
        beside: impl FnOnce() -> String,
        deadline: Instant,
    ) -> Result<u64> {
        match &self.servers {
            Servers::One { data, .. } => {
                data.request(command, Repeat::Never, deadline).await?;
                Ok(0)
            }
            Servers::Cluster(cluster) => {
                Box::pin(publish_in_slot(cluster, tag, command, &beside(), deadline)).await
            }
        }
    }

    /// Runs a call of a script, and again if somebody flushed the server's scripts, or another server took over.
    pub(super) async fn run(
        &self,
        tag: Tag,
        script: Script,
        call: &Command,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<Value, RequestError> {
        for _ in 0..SCRIPT_LOADS_MAX {
            match self.request(tag, call, repeat, deadline).await {
                Err(RequestError::Refused(text)) if text.starts_with(b"NOSCRIPT") => {
                    let load = script.load(self.scripts.publish);
                    self.request(tag, &load, Repeat::Safe, deadline).await?;
                }
                outcome => return outcome,
            }
        }
        self.request(tag, call, repeat, deadline).await
    }

    /// A connection to the primary that holds a tag's slot, and its open link; waits for one until `deadline`.
    pub(super) async fn link(
        &self,
        tag: Tag,
        line: Line,
        deadline: Instant,
    ) -> Result<(Connection, u64), RequestError> {
        let connection = match (&self.servers, line) {
            (Servers::One { data, .. }, Line::Data) => data,
            (Servers::One { durable, .. }, Line::Durable) => durable.connection(),
            (Servers::Cluster(cluster), _) => return cluster.link(tag, line, deadline).await,
        };
        Ok((connection.clone(), connection.link(deadline).await?))
    }

    /// Waits until `link` of `connection` is not the one to use for a tag any more.
    pub(super) async fn rerouted(&self, tag: Tag, connection: &Connection, link: u64) {
        match &self.servers {
            Servers::One { .. } => connection.lost(link).await,
            Servers::Cluster(cluster) => tokio::select! {
                () = connection.lost(link) => {}
                () = cluster.rerouted(tag, connection) => {}
            },
        }
    }

    /// Whether an error reply says that the slot is elsewhere or that nobody serves it now.
    pub(super) fn is_redirect(&self, text: &[u8]) -> bool {
        match &self.servers {
            Servers::One { .. } => refusal::is_passing(text),
            Servers::Cluster(cluster) => cluster.is_redirect(text),
        }
    }

    /// What to do about an error reply that says that the slot is elsewhere, or that nobody serves it now; none if it is
    /// of another kind.
    pub(super) async fn heed(
        &self,
        tag: Tag,
        text: &[u8],
        connection: &Connection,
        pauses: &mut Pauses,
        deadline: Instant,
    ) -> Option<Next> {
        match &self.servers {
            Servers::One { .. } if !refusal::is_passing(text) => None,
            Servers::One { .. } => {
                Some(if pauses.wait(deadline).await { Next::Owner } else { Next::Nowhere })
            }
            Servers::Cluster(cluster) => cluster.heed(tag, text, connection, pauses, deadline).await,
        }
    }

    /// Whether a step may touch both tags.
    pub(super) fn is_together(&self, one: Tag, other: Tag) -> bool {
        one == other || matches!(self.servers, Servers::One { .. })
    }

    /// Starts to hear `interests`; answers when the servers hear for us.
    pub(super) async fn subscribe(&self, interests: Vec<Interest>, deadline: Instant) -> Result<()> {
        match &self.servers {
            Servers::One { subscriber, .. } => subscriber.subscribe(interests, deadline).await,
            Servers::Cluster(cluster) => cluster.subscribe(interests, deadline).await,
        }
    }

    /// Stops to hear `interests`.
    pub(super) fn unsubscribe(&self, interests: &[Interest]) {
        match &self.servers {
            Servers::One { subscriber, .. } => subscriber.unsubscribe(interests),
            Servers::Cluster(cluster) => cluster.unsubscribe(interests),
        }
    }

    /// When a call that starts now must have ended.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.call_time_max
    }

    /// Where the primaries are, and what they are to us.
    pub(super) fn primaries(&self) -> (Vec<Address>, Kind) {
        match &self.servers {
            Servers::One { home, .. } => {
                let kind = if home.group().is_some() { Kind::Watched } else { Kind::Only };
                (home.address().into_iter().collect(), kind)
            }
            Servers::Cluster(cluster) => (cluster.primaries(), Kind::Watched),
        }
    }

    /// The sentinels, where there are any.
    pub(super) fn group(&self) -> Option<&Group> {
        match &self.servers {
            Servers::One { home, .. } => home.group(),
            Servers::Cluster(_) => None,
        }
    }

    /// Proves a round trip on every link.
    pub(super) async fn probe(&self) -> Vec<Probe> {
        match &self.servers {
            Servers::One { home, data, subscriber, .. } => {
                let endpoint = home.endpoint();
                let links = probe(&endpoint, data, subscriber, self.call_time_max);
                let (links, sentinels) = tokio::join!(links, home.probe());
                [links, sentinels].concat()
            }
            Servers::Cluster(cluster) => cluster.probe(self.call_time_max).await,
        }
    }
}

/// Sends a command again while the server says that it cannot take it now.
async fn wait_out<C: Encode + ?Sized>(
    mut refusal: Bytes,
    data: &Connection,
    command: &C,
    repeat: Repeat,
    deadline: Instant,
) -> Result<Value, RequestError> {
    let mut pauses = Pauses::default();
    while pauses.wait(deadline).await {
        match data.request(command, repeat, deadline).await {
            Err(RequestError::Refused(text)) if refusal::is_passing(&text) => refusal = text,
            outcome => return outcome,
        }
    }
    Err(RequestError::Refused(refusal))
}

async fn probe(endpoint: &str, data: &Connection, subscriber: &Subscriber, time_max: Duration) -> Vec<Probe> {
    let (answer, heard) = tokio::join!(data.ping(time_max), subscriber.ping(time_max));
    let answer = answer.map_err(|error| match data.state() {
        LinkState::Down(why) => why.to_string(),
        _ => error.to_string(),
    });
    let heard = heard.map_err(|error| error.to_string());
    let of = |link, outcome, openings: &Openings| {
        let (opened, open_for) = (openings.count(), openings.open_for());
        Probe { link, outcome, is_needed: true, opened, open_for }
    };
    vec![
        of(format!("data {endpoint}"), answer, data.openings()),
        of(format!("pub/sub {endpoint}"), heard, subscriber.openings()),
    ]
}

/// Publishes in the slot of a tag and asks at once how many nodes hear `beside`.
async fn publish_in_slot<C: Encode>(
    cluster: &Cluster,
    tag: Tag,
    command: &C,
    beside: &str,
    deadline: Instant,
) -> Result<u64> {
    let count: [&[u8]; 3] = [b"PUBSUB", b"SHARDNUMSUB", beside.as_bytes()];
    let (sent, counted) = tokio::join!(
        cluster.request(tag, command, Repeat::Never, deadline),
        cluster.request(tag, &count, Repeat::Safe, deadline),
    );
    let ((_, publisher), (mut counted, counter)) = (sent?, counted?);
    // A node counts for any slot; only the one that published knows who hears it there.
    if !publisher.is(&counter) {
        counted = publisher.request(&count, Repeat::Safe, deadline).await?;
    }
    listeners(counted)
}

/// The count in an answer to `PUBSUB NUMSUB` or `SHARDNUMSUB` of one channel.
pub(super) fn listeners(reply: Value) -> Result<u64> {
    let count = reply.into_array().and_then(|counts| counts.get(1).and_then(Value::as_int));
    count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| malformed("PUBSUB NUMSUB"))
}

fn dial_error(error: DialError) -> Error {
    let kind = if error.is_permanent() { ErrorKind::Engine } else { ErrorKind::Unavailable };
    Error::new(kind, format!("redis cannot be used: {}", describe(&error)))
}
