//! Taps: what goes on at the connections of one user, on all nodes, told to one who listens at any of them.
//!
//! The node that is listened at tells the others again and again which user to watch; one that is not told for some seconds
//! stops. So a tap ends with its listener, and with the listener's node. A watched connection never waits: what it does is
//! left in a bounded queue, and what does not fit is counted. Where nobody is watched, a frame costs one look at an empty
//! place.

mod line;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tidewire::Timestamp;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::v1::{TapEvent, TapLine};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

pub(crate) use self::line::Detail;
pub(crate) use self::watch::{Seat, Watch, Watched};

use self::watch::Seen;
use crate::failure::Failure;
use crate::node::Node;
use crate::tenants::Tenant;

/// How often the other nodes are told to go on.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long a node goes on without being told.
const LEASE: Duration = Duration::from_secs(4);
/// An empty line is sent so many renewals after the last one, so that the listener knows that we are there.
const RENEWALS_FOR_ONE_EMPTY_LINE: u32 = 10;
/// How often a node tells what it has seen.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Lines that it tells then: 500 in a second.
const LINES_MAX: usize = 50;
/// Tellings that wait for a listener who reads more slowly. What comes on top is counted and left out.
const TELLINGS_MAX: usize = 16;
/// Taps of a tenant that are listened to at one node.
const TAPS_OF_TENANT_MAX: usize = 8;
/// Taps that one node watches for, wherever they are listened to.
const WATCHES_MAX: usize = 64;

/// What nodes say to each other about taps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// Watch a user for me, or go on watching.
    Watch(Order),
    /// Stop.
    Stop { tap: String },
    /// What I have seen.
    Seen { tap: String, lines: Vec<TapLine>, left_out: u64 },
}

/// Whom to watch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    tap: String,
    tenant: String,
    user: String,
    has_data: bool,
}

/// The taps of a node.
#[derive(Default)]
pub(crate) struct Taps {
    /// Those that are listened to here.
    heard: Mutex<FxHashMap<String, Listener>>,
    /// Those that this node watches for, and until when.
    watched: Mutex<FxHashMap<String, Timestamp>>,
}

struct Listener {
    tenant: Arc<Tenant>,
    sender: mpsc::Sender<Bytes>,
    left_out: u64,
}

/// Begins a tap: lines of JSON from all nodes, until the receiver is dropped.
///
/// # Errors
/// Too many are open.
pub(crate) fn listen(
    node: &Arc<Node>,
    tenant: &Arc<Tenant>,
    user: String,
    detail: Detail,
) -> Result<mpsc::Receiver<Bytes>, Failure> {
    let (sender, receiver) = mpsc::channel(TELLINGS_MAX);
    let tap = Uuid::new_v4().simple().to_string();
    let mut heard = node.taps.heard.lock();
    let open = heard.values().filter(|listener| Arc::ptr_eq(&listener.tenant, tenant)).count();
    if open >= TAPS_OF_TENANT_MAX {
        let message =
            format!("{open} taps are open at this node, which is the limit: close one, or ask another node");
        return Err(Failure::new(ErrorCode::TOO_MANY_REQUESTS, message));
    }
    heard.insert(tap.clone(), Listener { tenant: tenant.clone(), sender: sender.clone(), left_out: 0 });
    drop(heard);
    let has_data = detail == Detail::Data;
    let order = Order { tap, tenant: tenant.handle.name().to_owned(), user, has_data };
    node.tasks.spawn(keep_up(node.clone(), order, sender));
    Ok(receiver)
}

/// Has all nodes watch for as long as somebody listens.
async fn keep_up(node: Arc<Node>, order: Order, sender: mpsc::Sender<Bytes>) {
    let mut ticks = interval(RENEW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewals = 0_u32;
    loop {
        tokio::select! {
            biased;
            () = sender.closed() => break,
            () = node.tasks.stopping().cancelled() => {
                // What ends the connections of this node is still told.
                ticks.tick().await;
                break;
            }
            _ = ticks.tick() => {}
        }
        node.taps.watch(&node, &node.id, order.clone());
        if let Err(error) = node.peers.say_to_all(Word::Watch(order.clone())).await {
            let reason = format!("the other nodes cannot be told: {error}");
            node.taps.give(&order.tap, vec![not_watching(&node, reason)], 0);
        }
        renewals += 1;
        if renewals.is_multiple_of(RENEWALS_FOR_ONE_EMPTY_LINE) {
            // A listener for whom more waits knows already.
            let _taken = sender.try_send(Bytes::from_static(b"\n")).is_ok();
        }
    }
    node.taps.heard.lock().remove(&order.tap);
    node.taps.watched.lock().remove(&order.tap);
    if let Err(error) = node.peers.say_to_all(Word::Stop { tap: order.tap }).await {
        tracing::debug!(%error, "nodes that watch a user stop by themselves");
    }
}

fn not_watching(node: &Node, reason: String) -> TapLine {
    TapLine {
        at: node.clock.now().to_string(),
        what: TapEvent::NotWatching,
        node: node.id.clone(),
        reason,
        ..TapLine::default()
    }
}

impl Taps {
    /// Does what another node says.
    pub(crate) fn hear(&self, node: &Arc<Node>, from: &str, word: Word) {
        match word {
            Word::Seen { tap, lines, left_out } => self.give(&tap, lines, left_out),
            // What is said to all is done here already.
            Word::Watch(_) | Word::Stop { .. } if from == node.id => {}
            Word::Watch(order) => self.watch(node, from, order),
            Word::Stop { tap } => {
                self.watched.lock().remove(&tap);
            }
        }
    }

    /// Watches a user for somebody at the node `to`, or goes on with it.
    fn watch(&self, node: &Arc<Node>, to: &str, order: Order) {
        let Some(tenant) = node.tenants.named(&order.tenant).cloned() else { return };
        let mut watched = self.watched.lock();
        let until = node.clock.now().saturating_add(LEASE);
        if let Some(lease) = watched.get_mut(&order.tap) {
            *lease = until;
            return;
        }
        let is_full = watched.len() >= WATCHES_MAX;
        if !is_full {
            watched.insert(order.tap.clone(), until);
        }
        drop(watched);
        let (node, to) = (node.clone(), to.to_owned());
        node.tasks.clone().spawn(async move {
            if is_full {
                let reason = format!("it watches for {WATCHES_MAX} taps, which is the limit");
                let line = not_watching(&node, reason);
                let _is_told = tell(&node, &to, &order.tap, vec![line], 0).await.is_ok();
            } else {
                watch_until_over(&node, &to, &order, &tenant).await;
            }
        });
    }

    fn is_watched(&self, tap: &str, now: Timestamp) -> bool {
        let mut watched = self.watched.lock();
        let is_over = watched.get(tap).is_none_or(|until| *until <= now);
        if is_over {
            watched.remove(tap);
        }
        !is_over
    }

    /// Gives lines to who listens, or counts them for it.
    fn give(&self, tap: &str, mut lines: Vec<TapLine>, left_out: u64) {
        let mut heard = self.heard.lock();
        let Some(listener) = heard.get_mut(tap) else { return };
        let count = lines.len() as u64;
        let left_out = listener.left_out + left_out;
        if left_out > 0 {
            let at = lines.last().map(|line| line.at.clone()).unwrap_or_default();
            let count = Some(left_out);
            lines.push(TapLine { at, what: TapEvent::LeftOut, count, ..TapLine::default() });
        }
        let mut text = Vec::new();
        for line in &lines {
            // Strings, numbers and raw JSON into memory: nothing that can fail.
            text.extend(serde_json::to_vec(line).unwrap_or_default());
            text.push(b'\n');
        }
        listener.left_out = match listener.sender.try_send(text.into()) {
            Ok(()) => 0,
            Err(_) => left_out + count,
        };
    }
}

/// Watches a user, and tells what it sees, until it is not told to any more.
async fn watch_until_over(node: &Arc<Node>, to: &str, order: &Order, tenant: &Arc<Tenant>) {
    let (watch, mut seen) = Watch::new(node.clock.clone());
    let count = tenant.people.watch(&order.user, &watch);
    let begun = TapLine {
        at: node.clock.now().to_string(),
        what: TapEvent::Watching,
        node: node.id.clone(),
        count: Some(count as u64),
        ..TapLine::default()
    };
    let mut lines = vec![begun];
    let detail = if order.has_data { Detail::Data } else { Detail::Size };
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_over = false;
    while !is_over {
        tokio::select! {
            _ = ticks.tick() => is_over = !node.taps.is_watched(&order.tap, node.clock.now()),
            () = node.tasks.stopping().cancelled() => {
                ticks.tick().await;
                is_over = true;
            }
        }
        let left_out = fill(node, &watch, &mut seen, detail, &mut lines);
        if lines.is_empty() && left_out == 0 {
            continue;
        }
        let count = lines.len() as u64;
        if let Err(error) = tell(node, to, &order.tap, std::mem::take(&mut lines), left_out).await {
            tracing::debug!(%error, to, "what was seen cannot be told");
            watch.leave_out(left_out + count);
        }
    }
    tenant.people.unwatch(&order.user, &watch);
}

/// Adds lines of what was seen, as many as may be told at once; how many were left out.
fn fill(
    node: &Node,
    watch: &Watch,
    seen: &mut mpsc::Receiver<Seen>,
    detail: Detail,
    lines: &mut Vec<TapLine>,
) -> u64 {
    while lines.len() < LINES_MAX
        && let Some(seen) = watch.take(seen)
    {
        lines.extend(line::lines_of(&seen, detail));
    }
    // A frame may hold more than one.
    let excess = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    lines.iter_mut().for_each(|line| line.node.clone_from(&node.id));
    excess as u64 + watch.take_left_out()
}

async fn tell(
    node: &Arc<Node>,
    to: &str,
    tap: &str,
    lines: Vec<TapLine>,
    left_out: u64,
) -> tidewire::Result<()> {
    if to == node.id {
        node.taps.give(tap, lines, left_out);
        return Ok(());
    }
    node.peers.say_to(to, Word::Seen { tap: tap.to_owned(), lines, left_out }).await
}

#[cfg(test)]
mod tests;
