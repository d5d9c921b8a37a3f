//! What the nodes that share an engine say to each other.
//!
//! Live events in a tenant of their own: each node listens to a channel under its id. What is asked is answered within a
//! time; a node that is gone, or that no link leads to, is as one that does not know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tidewire::{Event, Item, Tenant, Tidewire};
use tidewire_protocol::http::NodeInfo;
use tidewire_protocol::v1::ClosedConnection;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::NODES_TENANT;
use crate::effect::Effect;
use crate::gateway::emulation::Accepted;
use crate::journal::Sought;
use crate::node::Node;
use crate::tap::Word;

/// The CloudEvents `type` of what nodes say.
const EVENT_TYPE: &str = "tidewire.node";

/// The channel of what is said to all.
const ALL: &str = "all";

/// Nodes that are waited for when all are asked.
const NODES_MAX: usize = 1_000;

/// How long another node may take to answer. Clients wait for five seconds, and try again.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The other nodes.
pub(crate) struct Peers {
    /// Under which this node is spoken to.
    id: String,
    tenant: Tenant,
    open: Mutex<FxHashMap<u64, mpsc::Sender<Answer>>>,
    last_call: AtomicU64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    from: String,
    call: u64,
    body: Body,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body {
    Ask(Ask),
    Answer(Answer),
    /// To all nodes, and not answered.
    Tell(Effect),
    /// About a tap; answered by nothing but what is seen.
    Tap(Word),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    /// Run a frame of commands on a connection of yours.
    Commands {
        session: String,
        /// Base64: a frame may be binary.
        frame: String,
    },
    /// Which channels have subscribers on your node?
    Channels { tenant: String, pattern: String },
    /// What is your node?
    Info { tenant: String },
    /// Which connections of your node have ended?
    Closed { tenant: String, user: Option<String>, code: Option<u32>, limit: usize },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Commands(Accepted),
    /// Channels and their subscribers.
    Channels(Vec<(String, usize)>),
    /// Nothing of a tenant that the node does not serve.
    Info(Option<NodeInfo>),
    Closed(Vec<ClosedConnection>),
}

/// A call that is given up leaves nothing behind.
struct Call<'p> {
    peers: &'p Peers,
    number: u64,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.peers.open.lock().remove(&self.number);
    }
}

impl Peers {
    pub(crate) fn new(tidewire: &Tidewire) -> tidewire::Result<Self> {
        let tenant = tidewire.tenant(NODES_TENANT)?;
        Ok(Self {
            id: tidewire.node().to_string(),
            tenant,
            open: Mutex::default(),
            last_call: AtomicU64::new(0),
        })
    }

    /// Begins to listen to what other nodes say to this one.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn listen(node: &Arc<Node>) -> tidewire::Result<()> {
        let mut to_us = node.peers.tenant.channel(&node.id)?.subscribe().open().await?;
        let mut to_all = node.peers.tenant.channel(ALL)?.subscribe().open().await?;
        let (node, tasks) = (node.clone(), node.tasks.clone());
        tasks.spawn(async move {
            loop {
                let item = tokio::select! {
                    () = node.tasks.stopping().cancelled() => return,
                    item = to_us.next() => item,
                    item = to_all.next() => item,
                };
                match item {
                    Some(Item::Event(received)) => hear(&node, received.event.data()).await,
                    // What was said meanwhile is asked again by those who want an answer.
                    Some(Item::Gap(_)) => {}
                    None => return,
                }
            }
        });
        Ok(())
    }

    /// Has another node run a frame of commands.
    pub(crate) async fn commands(&self, to: &str, session: &str, frame: &Bytes) -> Accepted {
        let ask = Ask::Commands { session: session.into(), frame: BASE64_STANDARD.encode(frame) };
        match self.ask(to, ask).await {
            Some(Answer::Commands(accepted)) => accepted,
            _ => Accepted::Unknown,
        }
    }

    /// Tells all nodes of something that is to happen. The one that tells it hears it too, and passes over it.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn tell_all(&self, effect: Effect) -> tidewire::Result<()> {
        self.say(ALL, &Message { from: self.id.clone(), call: 0, body: Body::Tell(effect) }).await
    }

    /// Says something about a tap to all nodes. The one that says it hears it too, and passes over it.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn say_to_all(&self, word: Word) -> tidewire::Result<()> {
        self.say_to(ALL, word).await
    }

    /// Says something about a tap to one node.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn say_to(&self, to: &str, word: Word) -> tidewire::Result<()> {
        self.say(to, &Message { from: self.id.clone(), call: 0, body: Body::Tap(word) }).await
    }

    /// The channels of a tenant that match a pattern, with their subscribers on all nodes that answer in time.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn channels(
        &self,
        tenant: &str,
        pattern: &str,
    ) -> tidewire::Result<BTreeMap<String, usize>> {
        let ask = Ask::Channels { tenant: tenant.into(), pattern: pattern.into() };
        let mut channels = BTreeMap::new();
        for answer in self.ask_all(ask).await? {
            let Answer::Channels(of_node) = answer else { continue };
            for (name, count) in of_node {
                *channels.entry(name).or_default() += count;
            }
        }
        Ok(channels)
    }

    /// The nodes that answer in time, as a tenant may see them.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn nodes(&self, tenant: &str) -> tidewire::Result<Vec<NodeInfo>> {
        let answers = self.ask_all(Ask::Info { tenant: tenant.into() }).await?;
        let nodes = answers.into_iter().filter_map(|answer| match answer {
            Answer::Info(info) => info,
            _ => None,
        });
        Ok(nodes.collect())
    }

    /// Connections of a tenant that have ended, on the nodes that answer in time, the newest first.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn closed(
        &self,
        tenant: &str,
        sought: &Sought,
    ) -> tidewire::Result<Vec<ClosedConnection>> {
        let Sought { user, code, limit } = sought.clone();
        let answers = self.ask_all(Ask::Closed { tenant: tenant.into(), user, code, limit }).await?;
        let of_nodes = answers.into_iter().filter_map(|answer| match answer {
            Answer::Closed(closed) => Some(closed),
            _ => None,
        });
        let mut closed: Vec<_> = of_nodes.flatten().collect();
        closed.sort_by(|one, other| other.at.cmp(&one.at));
        closed.truncate(limit);
        Ok(closed)
    }

    async fn ask(&self, to: &str, ask: Ask) -> Option<Answer> {
        let (call, mut answers) = self.call(1);
        let message = Message { from: self.id.clone(), call: call.number, body: Body::Ask(ask) };
        let asking = async {
            self.say(to, &message).await.ok()?;
            answers.recv().await
        };
        timeout(ANSWER_WITHIN, asking).await.ok().flatten()
    }

    /// Asks all nodes that listen, this one too, and waits for as many answers.
    async fn ask_all(&self, ask: Ask) -> tidewire::Result<Vec<Answer>> {
        let listening = self.tenant.channel(ALL)?.stats().await?.subscribers;
        let count = usize::try_from(listening).unwrap_or(NODES_MAX).clamp(1, NODES_MAX);
        let (call, mut answers) = self.call(count);
        let message = Message { from: self.id.clone(), call: call.number, body: Body::Ask(ask) };
        self.say(ALL, &message).await?;
        let (deadline, mut heard) = (Instant::now() + ANSWER_WITHIN, Vec::new());
        while heard.len() < count
            && let Ok(Some(answer)) = timeout_at(deadline, answers.recv()).await
        {
            heard.push(answer);
        }
        Ok(heard)
    }

    fn call(&self, answers_max: usize) -> (Call<'_>, mpsc::Receiver<Answer>) {
        let (sender, receiver) = mpsc::channel(answers_max);
        let call = Call { peers: self, number: self.last_call.fetch_add(1, Relaxed) };
        self.open.lock().insert(call.number, sender);
        (call, receiver)
    }

    async fn say(&self, to: &str, message: &Message) -> tidewire::Result<()> {
        // Names and numbers: nothing that could not be written.
        let data = serde_json::to_vec(message).unwrap_or_default();
        // The id comes from a client: what is no name is nobody's.
        self.tenant.channel(to)?.publish(Event::new(EVENT_TYPE, data)).await
    }
}

async fn hear(node: &Arc<Node>, data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<Message>(data) else {
        tracing::warn!("a node of another version said what cannot be read");
        return;
    };
    let Message { from, call, body } = message;
    match body {
        Body::Tell(effect) => {
            if from != node.id {
                effect.apply(node);
            }
        }
        Body::Tap(word) => node.taps.hear(node, &from, word),
        Body::Answer(answer) => {
            if let Some(waiting) = node.peers.open.lock().get(&call) {
                // Who asked waits for so many, and no longer than a time.
                let _is_heard = waiting.try_send(answer).is_ok();
            }
        }
        Body::Ask(ask) => {
            let message = Message { from: node.id.clone(), call, body: Body::Answer(answer(node, ask)) };
            if let Err(error) = node.peers.say(&from, &message).await {
                tracing::warn!(%error, to = from, "a node could not be answered");
            }
        }
    }
}

fn answer(node: &Node, ask: Ask) -> Answer {
    match ask {
        Ask::Commands { session, frame } => match BASE64_STANDARD.decode(frame) {
            Ok(frame) => Answer::Commands(node.sessions.take(&session, frame.into())),
            Err(_) => Answer::Commands(Accepted::Unknown),
        },
        Ask::Channels { tenant, pattern } => {
            let channels = node.tenants.named(&tenant).map(|tenant| tenant.registry.channels(&pattern));
            let channels = channels.unwrap_or_default().into_iter();
            Answer::Channels(channels.map(|(name, count)| (name.to_string(), count)).collect())
        }
        Ask::Closed { tenant, user, code, limit } => {
            let sought = Sought { user, code, limit };
            let tenant = node.tenants.named(&tenant);
            Answer::Closed(tenant.map(|tenant| node.journal.find(tenant, &sought)).unwrap_or_default())
        }
        Ask::Info { tenant } => Answer::Info(node.tenants.named(&tenant).map(|tenant| node.info(tenant))),
    }
}
