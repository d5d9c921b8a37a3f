//! What the nodes that share an engine say to each other.
//!
//! Live events in a tenant of their own: each node listens to a channel under its id. What is asked is answered within a
//! time; a node that is gone, or that no link leads to, is as one that does not know.

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
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::NODES_TENANT;
use crate::gateway::emulation::Accepted;
use crate::node::Node;

/// The CloudEvents `type` of what nodes say.
const EVENT_TYPE: &str = "tidewire.node";

/// How long another node may take to answer. Clients wait for five seconds, and try again.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The other nodes.
pub(crate) struct Peers {
    tenant: Tenant,
    open: Arc<Mutex<FxHashMap<u64, oneshot::Sender<Answer>>>>,
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
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Taken,
    Unknown,
    Full,
}

impl From<Accepted> for Answer {
    fn from(accepted: Accepted) -> Self {
        match accepted {
            Accepted::Taken => Self::Taken,
            Accepted::Unknown => Self::Unknown,
            Accepted::Full => Self::Full,
        }
    }
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
        Ok(Self { tenant, open: Arc::default(), last_call: AtomicU64::new(0) })
    }

    /// Begins to listen to what other nodes say to this one.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn listen(node: &Arc<Node>) -> tidewire::Result<()> {
        let mut heard = node.peers.tenant.channel(&node.id)?.subscribe().open().await?;
        let (node, tasks) = (node.clone(), node.tasks.clone());
        tasks.spawn(async move {
            loop {
                let item = tokio::select! {
                    () = node.tasks.stopping().cancelled() => return,
                    item = heard.next() => item,
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
    pub(crate) async fn commands(&self, from: &str, to: &str, session: &str, frame: &Bytes) -> Accepted {
        let ask = Ask::Commands { session: session.into(), frame: BASE64_STANDARD.encode(frame) };
        match self.ask(from, to, ask).await {
            Some(Answer::Taken) => Accepted::Taken,
            Some(Answer::Full) => Accepted::Full,
            Some(Answer::Unknown) | None => Accepted::Unknown,
        }
    }

    async fn ask(&self, from: &str, to: &str, ask: Ask) -> Option<Answer> {
        let (sender, answer) = oneshot::channel();
        let call = Call { peers: self, number: self.last_call.fetch_add(1, Relaxed) };
        self.open.lock().insert(call.number, sender);
        let message = Message { from: from.into(), call: call.number, body: Body::Ask(ask) };
        let asking = async {
            self.say(to, &message).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER_WITHIN, asking).await.ok().flatten()
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
        Body::Answer(answer) => {
            if let Some(waiting) = node.peers.open.lock().remove(&call) {
                // Who asked may have stopped waiting.
                let _is_heard = waiting.send(answer).is_ok();
            }
        }
        Body::Ask(Ask::Commands { session, frame }) => {
            let answer = match BASE64_STANDARD.decode(frame) {
                Ok(frame) => node.sessions.take(&session, frame.into()).into(),
                Err(_) => Answer::Unknown,
            };
            let message = Message { from: node.id.clone(), call, body: Body::Answer(answer) };
            if let Err(error) = node.peers.say(&from, &message).await {
                tracing::warn!(%error, to = from, "a node could not be answered");
            }
        }
    }
}
