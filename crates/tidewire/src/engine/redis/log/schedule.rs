//! Appends that wait for their time, in the server, and what moves them when it comes.
//!
//! Every node looks, none is needed: a due append is appended under a dedup id of its own and forgotten after that, so
//! that two nodes, or one that dies in between, append it once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lanes::Lanes;
use super::to_int;
use crate::clock::{Clock, Timestamp, millis};
use crate::engine::redis::command::Command;
use crate::engine::redis::connection::{Need, Reached, Repeat, RequestError};
use crate::engine::redis::keys::{self, Tag};
use crate::engine::redis::pubsub::malformed;
use crate::engine::redis::resp::Value;
use crate::engine::redis::scripts::Script;
use crate::engine::redis::topology::{Line, Topology};
use crate::engine::{Announce, Append, Appended, AtBound, Dedup, Durability, Effect, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::ChannelPath;
use crate::tasks::Tasks;

/// How often a node looks for what others scheduled; what it scheduled itself it knows.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Wait after something went wrong.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Appends that are due and cannot be made now, such as those to a stream that is full, beside which others are moved.
const STUCK_MAX: usize = 1_000;
/// Appends moved at once.
const MOVED_MAX: i64 = 100;
/// How long a moved append is remembered, in case the node that moved it died before it could say so.
const REMEMBERED: Duration = Duration::from_secs(3_600);

pub(super) struct Schedule {
    topology: Arc<Topology>,
    node: String,
    last_number: AtomicU64,
    added: Arc<Notify>,
}

impl Schedule {
    /// Begins to move what is due.
    pub(super) fn begin(
        topology: Arc<Topology>,
        lanes: Arc<Lanes>,
        node: &str,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Self {
        let added = Arc::new(Notify::new());
        let mover = Mover {
            topology: topology.clone(),
            lanes,
            added: added.clone(),
            done: Vec::new(),
            stuck: Stuck::default(),
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(mover.run()).await;
        });
        Self { topology, node: node.to_owned(), last_number: AtomicU64::new(0), added }
    }

    /// Keeps an append until `due`.
    pub(super) async fn add(&self, due: Timestamp, append: &Append) -> Result<Appended> {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed);
        let now = Clock::system().now().as_millis();
        let id = format!("{now:012x}{number:016x}-{}", self.node);
        let (times, appends) = keys::schedule();
        let scripts = &self.topology.scripts;
        let call = scripts.call(Script::Schedule, 2, append.envelope.len() + 1_024);
        let call = call.arg(times).arg(appends).arg(&id).int(to_int(due.as_millis())).arg(encode(append));
        let durability = self.keep(&call, append.durability).await?;
        self.added.notify_one();
        Ok(Appended { position: None, scheduled: Some(id.into()), effect: Effect::New, durability })
    }

    /// Takes back what was kept under an id for a channel; false if its time has come or it is not there.
    pub(super) async fn cancel(&self, channel: &ChannelPath, id: &str) -> Result<bool> {
        let (times, appends) = keys::schedule();
        let number = self.last_number.fetch_add(1, Ordering::Relaxed);
        let call = self.topology.scripts.call(Script::Cancel, 2, 512).arg(times).arg(appends).arg(id);
        let call = call.arg(encode_head(channel)).arg(format!("{}:{number}", self.node));
        let (tag, deadline) = (Tag::of_schedule(), self.topology.deadline());
        let reply = self.topology.run(tag, Script::Cancel, &call, Repeat::Safe, deadline).await?;
        Ok(reply.as_int() == Some(1))
    }

    /// Runs a call that may be run again, until those have what it wrote that are to have it.
    async fn keep(&self, call: &Command, durability: Durability) -> Result<Durability> {
        let (tag, deadline) = (Tag::of_schedule(), self.topology.deadline());
        let need = Need::of(durability);
        loop {
            self.topology.run(tag, Script::Schedule, call, Repeat::Safe, deadline).await?;
            if !need.is_any() {
                return Ok(durability);
            }
            match self.keep_durably(call, need, deadline).await {
                // Another server may have taken over, and lack it.
                Err(RequestError::NotSent(_) | RequestError::Unknown(_)) if Instant::now() < deadline => {}
                outcome => {
                    let reached = outcome?;
                    return reached.confirms(durability).ok_or_else(|| {
                        let text = "scheduled, but not so many copies as asked for confirmed it in time";
                        Error::new(ErrorKind::TimedOut, text)
                    });
                }
            }
        }
    }

    /// Runs a call once more on the line that waits for copies: what holds there holds for the first time too.
    async fn keep_durably(
        &self,
        call: &Command,
        need: Need,
        deadline: Instant,
    ) -> std::result::Result<Reached, RequestError> {
        let (connection, link) = self.topology.link(Tag::of_schedule(), Line::Durable, deadline).await?;
        let syncing = match need.is_fsynced {
            true => Some(connection.syncing(link, deadline).await?),
            false => None,
        };
        match connection.submit(call, Some(link), deadline).await?.reply().await? {
            // The slot has moved meanwhile, or the like: what runs on the other line finds out.
            Value::Error(text) => {
                Err(RequestError::NotSent(String::from_utf8_lossy(&text).into_owned().into()))
            }
            _ => connection.reach(link, need, syncing, deadline).await,
        }
    }
}

struct Mover {
    topology: Arc<Topology>,
    lanes: Arc<Lanes>,
    added: Arc<Notify>,
    /// Appended, and to be forgotten by the server.
    done: Vec<Bytes>,
    stuck: Stuck,
}

/// Appends that are left out for a while, so that they hold up no others.
#[derive(Default)]
struct Stuck {
    ids: Vec<Bytes>,
    /// Until when; none if nothing is.
    until: Option<Instant>,
}

impl Stuck {
    fn push(&mut self, id: Bytes) {
        self.until.get_or_insert_with(|| Instant::now() + TRY_AGAIN_AFTER);
        self.ids.push(id);
    }

    /// Takes all of them in again when their time is up.
    fn end(&mut self) {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            *self = Self::default();
        }
    }

    /// The time until that.
    fn wait(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

impl Mover {
    async fn run(mut self) {
        loop {
            let wait = match self.step().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, "scheduled events could not be moved; trying again");
                    TRY_AGAIN_AFTER
                }
            };
            // Either is a reason to look.
            drop(tokio::time::timeout(wait, self.added.notified()).await);
        }
    }

    /// Moves some of what is due; says how long there is nothing more to do.
    async fn step(&mut self) -> Result<Duration> {
        self.stuck.end();
        let Due { next, appends } = self.look().await?;
        if appends.is_empty() {
            let waits = next.into_iter().chain(self.stuck.wait());
            return Ok(waits.fold(LOOK_EVERY, Duration::min));
        }
        let (ids, appends): (Vec<Bytes>, Vec<Option<Append>>) =
            appends.into_iter().map(|(id, text)| (id.clone(), decode(&id, text))).unzip();
        let outcomes = self.lanes.append(appends.iter().flatten().cloned().collect()).await?;
        let mut outcomes = outcomes.into_iter();
        for (id, append) in ids.into_iter().zip(appends) {
            let is_durable = append.as_ref().is_some_and(|append| append.durability != Durability::Fast);
            match append.map(|_| outcomes.next()) {
                // A server that cannot confirm it as it is to be may be changed so that it can.
                Some(Some(Err(error))) if error.is_retryable() || is_durable => self.stuck.push(id),
                Some(Some(Err(error))) => {
                    tracing::error!(%error, "dropped a scheduled event that redis refuses to append");
                    self.done.push(id);
                }
                Some(_) => self.done.push(id),
                None => {
                    tracing::error!("dropped a scheduled event that cannot be read");
                    self.done.push(id);
                }
            }
        }
        let is_crowded = self.stuck.ids.len() >= STUCK_MAX;
        Ok(self.stuck.wait().filter(|_| is_crowded).unwrap_or_default())
    }

    /// Has the server forget what is done; tells what is due, and when the next one after that is.
    async fn look(&mut self) -> Result<Due> {
        let (times, appends) = keys::schedule();
        let scripts = &self.topology.scripts;
        let call = scripts.call(Script::Due, 2, 256).arg(times).arg(appends);
        let call = call.int(to_int(limits::BATCH_BYTES_MAX as u64)).int(MOVED_MAX);
        let call = call.int(to_int(self.done.len() as u64));
        let call = self.done.iter().chain(&self.stuck.ids).fold(call, |call, id| call.arg(id));
        let (tag, deadline) = (Tag::of_schedule(), self.topology.deadline());
        let reply = self.topology.run(tag, Script::Due, &call, Repeat::Safe, deadline).await?;
        self.done.clear();
        read_due(reply).ok_or_else(|| malformed("due.lua"))
    }
}

/// What the server says is due.
struct Due {
    /// When something is due after that, if anything is.
    next: Option<Duration>,
    /// Ids and encoded appends.
    appends: Vec<(Bytes, Bytes)>,
}

fn read_due(reply: Value) -> Option<Due> {
    let mut items = reply.into_array()?.into_iter();
    let next = u64::try_from(items.next()?.as_int()?).ok().map(Duration::from_millis);
    let mut appends = Vec::new();
    while let Some(id) = items.next() {
        appends.push((id.into_bytes()?, items.next()?.into_bytes()?));
    }
    Some(Due { next, appends })
}

/// The version of the format below.
const FORMAT: u8 = 1;

/// Writes an append: the format's version, then each field behind its length.
fn encode(append: &Append) -> Vec<u8> {
    let mut out = encode_head(&append.channel);
    out.reserve(append.envelope.len() + 256);
    let mut put = |field: &[u8]| put(&mut out, field);
    match &append.announce {
        Announce::Here => put(b"+"),
        Announce::Quiet => put(b"-"),
        Announce::AlsoOn(other) => put(format!("={}", other.channel()).as_bytes()),
    }
    let bound = |bound: Option<u64>| bound.map_or_else(String::new, |bound| bound.to_string());
    put(bound(append.retention.events_max).as_bytes());
    put(bound(append.retention.age_max.map(millis)).as_bytes());
    put(bound(append.retention.bytes_max).as_bytes());
    put(append.dedup.as_ref().map_or("", |dedup| &dedup.id).as_bytes());
    put(bound(append.dedup.as_ref().map(|dedup| millis(dedup.window))).as_bytes());
    put(&append.envelope);
    let at_bound: &[u8] = match append.retention.at_bound {
        AtBound::Block => b"",
        AtBound::Reject => b"reject",
        AtBound::DropOldest => b"drop",
    };
    // What is not special is left out, as it was before there was anything else.
    match &append.durability {
        Durability::Fast if at_bound.is_empty() => {}
        Durability::Fast => put(b""),
        Durability::Replicated(copies) => put(copies.to_string().as_bytes()),
        Durability::Fsynced => put(b"fsynced"),
    }
    if !at_bound.is_empty() {
        put(at_bound);
    }
    out
}

/// What every append to a channel is written with first.
fn encode_head(channel: &ChannelPath) -> Vec<u8> {
    let mut out = vec![FORMAT];
    [channel.environment(), channel.tenant(), channel.channel()]
        .iter()
        .for_each(|part| put(&mut out, part.as_bytes()));
    out
}

fn put(out: &mut Vec<u8>, field: &[u8]) {
    out.put_u32_le(u32::try_from(field.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(field);
}

/// Reads what [`encode`] wrote. Without a dedup id of its own it gets one from the id it was scheduled under.
fn decode(id: &[u8], mut text: Bytes) -> Option<Append> {
    if !text.has_remaining() || text.get_u8() != FORMAT {
        return None;
    }
    let mut take = || {
        let length = (text.remaining() >= 4).then(|| text.get_u32_le())?;
        let length = usize::try_from(length).ok().filter(|length| *length <= text.remaining())?;
        Some(text.split_to(length))
    };
    let environment = take_text(take()?)?;
    let tenant = take_text(take()?)?;
    let path = |name: &str| ChannelPath::new(&environment, &tenant, name).ok();
    let channel = path(&take_text(take()?)?)?;
    let announce = match take_text(take()?)?.as_str() {
        "+" => Announce::Here,
        "-" => Announce::Quiet,
        other => Announce::AlsoOn(path(other.strip_prefix('=')?)?),
    };
    let mut bound = || take_text(take()?).map(|digits| digits.parse::<u64>().ok());
    let (events_max, age_max, bytes_max) = (bound()?, bound()?.map(Duration::from_millis), bound()?);
    let (dedup_id, window) = (take_text(take()?)?, take_text(take()?)?);
    let dedup = match window.parse() {
        Ok(window) => Dedup { id: dedup_id.into(), window: Duration::from_millis(window) },
        Err(_) => {
            let id = format!("tidewire:due:{}", String::from_utf8_lossy(id));
            Dedup { id: id.into(), window: REMEMBERED }
        }
    };
    let envelope = take()?;
    let mut word = || take().map_or_else(|| Some(String::new()), take_text);
    let durability = match word()?.as_str() {
        "" => Durability::Fast,
        "fsynced" => Durability::Fsynced,
        copies => Durability::Replicated(copies.parse().ok()?),
    };
    let at_bound = match word()?.as_str() {
        "" => AtBound::Block,
        "reject" => AtBound::Reject,
        "drop" => AtBound::DropOldest,
        _ => return None,
    };
    Some(Append {
        channel,
        envelope,
        announce,
        dedup: Some(dedup),
        retention: Retention { events_max, age_max, bytes_max, at_bound },
        durability,
        version: None,
        deliver_at: None,
    })
}

fn take_text(field: Bytes) -> Option<String> {
    String::from_utf8(field.into()).ok()
}
