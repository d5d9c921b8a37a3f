//! Appends that wait for their time, in the database.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use redb::{ReadableTable, WriteTransaction};
use tokio::sync::Notify;

use super::fault::Fault;
use super::log::LogStreams;
use super::queue::Queue;
use super::state::{SCHEDULE, at_bound_number, at_bound_of, channel_of};
use super::state_writer::{Change, Done, StateJob};
use super::store;
use crate::clock::{Timestamp, millis};
use crate::engine::{Announce, Append, Appended, AtBound, Dedup, Durability, Effect, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::ChannelPath;

/// How long the stream remembers a scheduled append that has no dedup id of its own. Only a process that is
/// killed between the append and its removal from the schedule, and starts again later than this, appends twice.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Time between looks at the schedule when nothing says that one is due: a system's clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Time until the next attempt when an append fails.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Its place in the schedule: when it is due in milliseconds, and then the order of the calls.
pub(super) type Key = (u64, u64);

/// The schedule of an engine. Clones share it.
#[derive(Clone)]
pub(super) struct Schedule {
    queue: Arc<Queue<StateJob>>,
    changed: Arc<Notify>,
}

impl Schedule {
    pub(super) fn new(queue: Arc<Queue<StateJob>>) -> Self {
        Self { queue, changed: Arc::default() }
    }

    /// Keeps appends until they are due.
    pub(super) async fn add(&self, appends: Vec<Append>) -> Result<Vec<Result<Appended>>> {
        let durabilities: Vec<_> = appends.iter().map(|append| append.durability).collect();
        let encoded: Vec<_> =
            appends.into_iter().filter_map(|append| Some((append.deliver_at?, encode(append)))).collect();
        let bytes = encoded.iter().map(|(_, bytes)| bytes.len()).sum();
        let Done::Scheduled(keys) = store::ask(&self.queue, Change::Schedule(encoded), bytes).await? else {
            return Err(Error::new(ErrorKind::Engine, "state writer gave the answer to another change"));
        };
        self.changed.notify_one();
        let kept = |(durability, (due, order))| {
            let scheduled = Some(format!("{due}-{order}").into());
            Ok(Appended { position: None, scheduled, effect: Effect::New, durability })
        };
        Ok(durabilities.into_iter().zip(keys).map(kept).collect())
    }

    /// Takes back what waits for its time; false if it does not, or its time has come.
    pub(super) async fn cancel(&self, channel: ChannelPath, key: &str) -> Result<bool> {
        let Some((due, order)) = key.split_once('-') else { return Ok(false) };
        let (Ok(due), Ok(order)) = (due.parse(), order.parse()) else { return Ok(false) };
        let done = store::ask(&self.queue, Change::Cancel { channel, key: (due, order) }, 0).await?;
        Ok(done.is_true())
    }

    /// Appends each event at its time. Runs until it is dropped or the engine is closed.
    pub(super) async fn run(self, log: LogStreams) {
        loop {
            let wait = match self.append_due(&log).await {
                Ok(Some(due)) => due.since(log.clock.now()).min(LOOK_EVERY),
                Ok(None) => LOOK_EVERY,
                Err(error) if error.kind() == ErrorKind::Closed => return,
                Err(error) => {
                    tracing::warn!(%error, "scheduled events wait: they could not be appended");
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = log.clock.sleep(wait) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Appends what is due; answers when the next one is.
    async fn append_due(&self, log: &LogStreams) -> Result<Option<Timestamp>> {
        loop {
            let (due, next) = read_due(log)?;
            if due.is_empty() {
                return Ok(next);
            }
            let (mut keys, mut appends, mut done) = (Vec::new(), Vec::new(), Vec::new());
            for (key, bytes) in due {
                match decode(bytes) {
                    Some(append) => {
                        keys.push(key);
                        appends.push(append);
                    }
                    None => {
                        tracing::error!(?key, "a scheduled event is damaged: it is lost");
                        done.push(key);
                    }
                }
            }
            let mut failure = None;
            if !appends.is_empty() {
                for (key, outcome) in keys.into_iter().zip(log.append(appends).await?) {
                    match outcome {
                        Ok(_) => done.push(key),
                        Err(error) => failure = Some(error),
                    }
                }
            }
            store::ask(&self.queue, Change::Unschedule(done), 0).await?;
            if let Some(error) = failure {
                return Err(error);
            }
        }
    }
}

/// Encoded appends and their places.
type Waiting = Vec<(Key, Bytes)>;

/// A batch of what is due, and when the next one is.
fn read_due(log: &LogStreams) -> Result<(Waiting, Option<Timestamp>), Fault> {
    let now = log.clock.now().as_millis();
    log.directory.state.read(|transaction| {
        let (mut due, mut bytes_left) = (Vec::new(), limits::BATCH_BYTES_MAX);
        for entry in transaction.open_table(SCHEDULE)?.iter()? {
            let (key, append) = entry?;
            let (key, append) = (key.value(), append.value());
            let is_full = due.len() >= limits::BATCH_EVENTS_MAX || append.len() > bytes_left;
            if key.0 > now || (is_full && !due.is_empty()) {
                return Ok((due, Some(Timestamp::from_millis(key.0))));
            }
            bytes_left = bytes_left.saturating_sub(append.len());
            due.push((key, Bytes::copy_from_slice(append)));
        }
        Ok((due, None))
    })
}

/// Adds encoded appends; says where.
pub(super) fn add(
    transaction: &WriteTransaction,
    appends: &[(Timestamp, Vec<u8>)],
) -> Result<Vec<Key>, redb::Error> {
    let mut schedule = transaction.open_table(SCHEDULE)?;
    let mut keys = Vec::with_capacity(appends.len());
    for (due, append) in appends {
        let due = due.as_millis();
        let last = schedule.range((due, 0)..=(due, u64::MAX))?.next_back().transpose()?;
        let order = last.map_or(0, |(key, _)| key.value().1 + 1);
        schedule.insert((due, order), append.as_slice())?;
        keys.push((due, order));
    }
    Ok(keys)
}

/// Removes an append to `channel` whose time has not come; says whether there was one. What is due may be on its way to
/// the stream.
pub(super) fn cancel(
    transaction: &WriteTransaction,
    channel: &ChannelPath,
    key: Key,
    now: Timestamp,
) -> Result<bool, redb::Error> {
    let mut schedule = transaction.open_table(SCHEDULE)?;
    let is_of_channel = match schedule.get(key)? {
        Some(append) => {
            decode(Bytes::copy_from_slice(append.value())).is_some_and(|append| append.channel == *channel)
        }
        None => false,
    };
    let is_taken_back = key.0 > now.as_millis() && is_of_channel;
    if is_taken_back {
        schedule.remove(key)?;
    }
    Ok(is_taken_back)
}

/// Removes appends that have taken effect.
pub(super) fn remove(transaction: &WriteTransaction, keys: &[Key]) -> Result<(), redb::Error> {
    let mut schedule = transaction.open_table(SCHEDULE)?;
    for key in keys {
        schedule.remove(key)?;
    }
    Ok(())
}

/// The version that is written. Version 1, which is read too, does not say what is done at a bound.
const VERSION: u8 = 2;
const NONE: u64 = u64::MAX;

/// An append as it waits. One without a dedup id gets one that nobody can guess, so that it takes effect once.
fn encode(append: Append) -> Vec<u8> {
    let dedup = append.dedup.unwrap_or_else(|| Dedup {
        id: format!("scheduled:{:032x}", fastrand::u128(..)).into(),
        window: REMEMBERED,
    });
    let mut out = Vec::with_capacity(append.envelope.len() + 256);
    out.put_u8(VERSION);
    put_text(&mut out, append.channel.as_str());
    put_text(&mut out, &dedup.id);
    out.put_u64_le(millis(dedup.window));
    match &append.announce {
        Announce::Here => out.put_u8(0),
        Announce::Quiet => out.put_u8(1),
        Announce::AlsoOn(channel) => {
            out.put_u8(2);
            put_text(&mut out, channel.as_str());
        }
    }
    out.put_u8(u8::from(append.durability == Durability::Fsynced));
    let Retention { events_max, age_max, bytes_max, at_bound } = append.retention;
    out.put_u64_le(events_max.unwrap_or(NONE));
    out.put_u64_le(age_max.map_or(NONE, millis));
    out.put_u64_le(bytes_max.unwrap_or(NONE));
    out.put_u8(at_bound_number(at_bound));
    out.put_slice(&append.envelope);
    out
}

/// The append that was encoded; `None` if the bytes are none.
fn decode(mut bytes: Bytes) -> Option<Append> {
    let version = bytes.try_get_u8().ok().filter(|version| (1..=VERSION).contains(version))?;
    let channel = get_channel(&mut bytes)?;
    let id = get_text(&mut bytes)?.into();
    let window = Duration::from_millis(bytes.try_get_u64_le().ok()?);
    let announce = match bytes.try_get_u8().ok()? {
        0 => Announce::Here,
        1 => Announce::Quiet,
        2 => Announce::AlsoOn(get_channel(&mut bytes)?),
        _ => return None,
    };
    let durability = match bytes.try_get_u8().ok()? {
        0 => Durability::Fast,
        _ => Durability::Fsynced,
    };
    let mut bound =
        || Some(bytes.try_get_u64_le().ok()?).map(|bound| Some(bound).filter(|bound| *bound != NONE));
    let (events_max, age_max, bytes_max) = (bound()?, bound()?.map(Duration::from_millis), bound()?);
    let at_bound = if version == 1 { AtBound::default() } else { at_bound_of(bytes.try_get_u8().ok()?) };
    Some(Append {
        channel,
        envelope: bytes,
        announce,
        dedup: Some(Dedup { id, window }),
        retention: Retention { events_max, age_max, bytes_max, at_bound },
        durability,
        version: None,
        deliver_at: None,
    })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Names and dedup ids are far shorter than what two bytes count.
    out.put_u16_le(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

fn get_text(bytes: &mut Bytes) -> Option<String> {
    let length = usize::from(bytes.try_get_u16_le().ok()?);
    (length <= bytes.len())
        .then(|| bytes.split_to(length))
        .and_then(|text| String::from_utf8(text.into()).ok())
}

fn get_channel(bytes: &mut Bytes) -> Option<ChannelPath> {
    channel_of(&get_text(bytes)?)
}
