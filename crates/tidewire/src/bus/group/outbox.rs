//! What follows from a settled delivery: kept in the step that settles it, appended right after, under ids that make it
//! take effect once however often it is tried.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};

use super::delivery::Emitted;
use crate::bus::{Bus, event_log};
use crate::engine::{Announce, Append, Dedup, Durability, Listing, Shelf, ShelfItem};
use crate::error::Result;
use crate::limits;
use crate::name::{ChannelPath, GroupPath};
use crate::position::Position;

/// How long the id of what was appended is remembered, in case whoever appended it died before it could say so.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);

/// An append that follows, and the item that it is kept as.
pub(super) struct Following {
    pub(super) key: Box<str>,
    append: Append,
}

impl Following {
    /// What was emitted for the delivery at `position`, as number `number`.
    pub(super) fn new(
        bus: &Bus,
        path: &GroupPath,
        position: Position,
        number: usize,
        emitted: Emitted,
    ) -> Result<Self> {
        let Emitted { channel, mut event } = emitted;
        let channel = ChannelPath::new(path.channel().environment(), path.channel().tenant(), &channel)?;
        event.stamp(bus.node, bus.clock.now(), &bus.limits)?;
        let key: Box<str> = format!("{position}-{number:04}").into();
        Ok(Self { append: append(bus, path, &key, channel, Bytes::from(&event)), key })
    }

    pub(super) fn item(&self) -> ShelfItem {
        let name = self.append.channel.channel();
        let mut bytes = Vec::with_capacity(2 + name.len() + self.append.envelope.len());
        bytes.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
        bytes.put_slice(name.as_bytes());
        bytes.put_slice(&self.append.envelope);
        ShelfItem { shelf: Shelf::Outbox, key: self.key.clone(), bytes: bytes.into() }
    }

    fn from_item(bus: &Bus, path: &GroupPath, item: ShelfItem) -> Option<Self> {
        let ShelfItem { key, mut bytes, .. } = item;
        let length = bytes.try_get_u16().ok()?.into();
        let name = (length <= bytes.len()).then(|| bytes.split_to(length))?;
        let name = std::str::from_utf8(&name).ok()?;
        let channel = ChannelPath::new(path.channel().environment(), path.channel().tenant(), name).ok()?;
        Some(Self { append: append(bus, path, &key, channel, bytes), key })
    }
}

fn append(bus: &Bus, path: &GroupPath, key: &str, channel: ChannelPath, envelope: Bytes) -> Append {
    let id = format!("tidewire:emit:{}:{}:{key}", path.channel().channel(), path.group());
    // A name and a position may be longer than an id; what stands at the end tells them apart.
    let id = id.get(id.len().saturating_sub(limits::DEDUP_ID_BYTES_MAX)..).unwrap_or_default();
    Append {
        channel,
        envelope,
        announce: Announce::Here,
        dedup: Some(Dedup { id: id.into(), window: REMEMBERED }),
        retention: bus.retention,
        durability: Durability::Fast,
        version: None,
        deliver_at: None,
    }
}

/// Makes appends that follow; gives the keys of those that are done with.
pub(super) async fn make(bus: &Arc<Bus>, following: Vec<Following>) -> Vec<Box<str>> {
    let mut done = Vec::with_capacity(following.len());
    for batch in batches(following) {
        let appends: Vec<Append> = batch.iter().map(|one| one.append.clone()).collect();
        let is_passing = |error: &crate::Error| error.is_retryable();
        let append = |_| bus.engine.log.append(appends.clone());
        let now = bus.clock.now();
        let outcomes = match bus.retry.run(&bus.clock, now, is_passing, append).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::warn!(%error, "events that were emitted wait in the outbox");
                continue;
            }
        };
        let took = || bus.clock.now().since(now);
        for (one, outcome) in batch.into_iter().zip(outcomes) {
            bus.stats.channel(&one.append.channel).appended(outcome.is_ok());
            event_log::appended(&one.append, outcome.as_ref(), took);
            match outcome {
                Ok(_) => done.push(one.key),
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, key = %one.key, "an event that was emitted waits in the outbox");
                }
                Err(error) => {
                    tracing::error!(%error, key = %one.key, channel = %one.append.channel,
                        "an event that was emitted cannot be appended; it stays in the outbox");
                }
            }
        }
    }
    done
}

/// In pieces that a call to the engine may have.
fn batches(following: Vec<Following>) -> Vec<Vec<Following>> {
    let mut batches: Vec<Vec<Following>> = Vec::new();
    let mut bytes = 0;
    for one in following {
        bytes += one.append.envelope.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < limits::BATCH_EVENTS_MAX && bytes <= limits::BATCH_BYTES_MAX => {
                batch.push(one);
            }
            _ => {
                bytes = one.append.envelope.len();
                batches.push(vec![one]);
            }
        }
    }
    batches
}

/// What those left who died between a settlement and what follows from it.
pub(super) async fn left_over(bus: &Bus, path: &GroupPath) -> Result<Vec<Following>> {
    let (mut all, mut after) = (Vec::new(), Box::default());
    loop {
        let listing = Listing::After(after, limits::BATCH_EVENTS_MAX);
        let items = bus.engine.log.group_items(path, Shelf::Outbox, listing).await?;
        let Some(last) = items.last() else { return Ok(all) };
        after = last.key.clone();
        for item in items {
            let key = item.key.clone();
            match Following::from_item(bus, path, item) {
                Some(following) => all.push(following),
                None => {
                    tracing::error!(group = %path, %key, "an item of the outbox cannot be read; it stays")
                }
            }
        }
    }
}
