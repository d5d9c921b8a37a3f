//! Replays and purges: a way through dead letters that takes each of them off its shelf.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use super::audit::{AuditAction, AuditEntry, Operation, began};
use super::dead_letter::DeadLetter;
use super::letters::{DeadLetters, LOOKED_AT_MAX, Walk};
use crate::bus::{Bus, no_outcome};
use crate::clock::Timestamp;
use crate::engine::{Announce, Append, Dedup, Durability, Effect, Retention, Shelf, ShelfItem};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::{ChannelPath, GroupPath};
use crate::position::Position;

/// How long a replayed letter is remembered by its stream: as long as somebody may take to repeat a replay whose process
/// ended between an append and the removal of its letter.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);
/// Of a paced replay, events that go out together, as a part of a second's.
const PIECES_PER_SECOND: u32 = 10;

/// What a replay or a purge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Letters that were replayed or purged. In a dry run: that would be.
    pub count: u64,
    /// Of those, letters whose events an earlier replay had appended before it was cut short.
    pub duplicate_count: u64,
    /// Where it stopped because of its limit: `resume` takes it, and goes on as the same operation. `None` at its end.
    pub next: Option<Box<str>>,
}

/// What a replay and a purge have in common.
#[derive(Clone)]
struct Sweep {
    letters: DeadLetters,
    who: Box<str>,
    limit: Option<u64>,
    resume: Option<Box<str>>,
    is_dry: bool,
}

/// A replay of dead letters; awaiting it replays them.
///
/// Each event is appended again, under its own id, to the end of its stream or of another channel's, and its letter is then
/// removed. If the process ends between the two, the next replay within a day appends no second copy. Letters of events
/// that were appended after the replay began are left: they may be those that it appended.
///
/// Into its own channel it goes for this group alone: other groups of the channel pass over it, and it is announced to
/// nobody. Dropping the future leaves what it has replayed until then.
#[derive(Clone)]
#[must_use = "a replay happens when it is awaited"]
pub struct Replay {
    sweep: Sweep,
    target: Target,
}

/// How replayed events go out.
#[derive(Clone, Default)]
struct Target {
    channel: Option<Box<str>>,
    rate: Option<u32>,
    retention: Option<Retention>,
}

/// A removal of dead letters; awaiting it removes them. Letters of events that were appended after it began are left.
#[derive(Clone)]
#[must_use = "a purge happens when it is awaited"]
pub struct Purge {
    sweep: Sweep,
}

macro_rules! sweep_methods {
    () => {
        /// Who does it, for the audit trail.
        pub fn by(mut self, who: &str) -> Self {
            self.sweep.who = who.into();
            self
        }

        /// Changes nothing and says how many letters there are.
        pub fn dry_run(mut self) -> Self {
            self.sweep.is_dry = true;
            self
        }

        /// Stops after so many letters, or after it has looked at 10,000; [`Swept::next`] says where.
        pub fn limit(mut self, letters_max: u64) -> Self {
            self.sweep.limit = Some(letters_max);
            self
        }

        /// Goes on with an operation that stopped at its limit.
        pub fn resume(mut self, next: &str) -> Self {
            self.sweep.resume = Some(next.into());
            self
        }
    };
}

impl Replay {
    pub(super) fn new(letters: DeadLetters) -> Self {
        Self { sweep: Sweep::new(letters), target: Target::default() }
    }

    sweep_methods!();

    /// At most so many events a second.
    pub fn rate(mut self, events_per_second: u32) -> Self {
        self.target.rate = Some(events_per_second.max(1));
        self
    }

    /// Into another channel of the tenant, where it is an event like any other.
    pub fn to_channel(mut self, channel: &str) -> Self {
        self.target.channel = Some(channel.into());
        self
    }

    /// What the stream keeps from now on; otherwise what the node was opened with.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.target.retention = Some(retention);
        self
    }
}

impl Purge {
    pub(super) fn new(letters: DeadLetters) -> Self {
        Self { sweep: Sweep::new(letters) }
    }

    sweep_methods!();
}

impl IntoFuture for Replay {
    type Output = Result<Swept>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.sweep.run(Some(self.target)))
    }
}

impl IntoFuture for Purge {
    type Output = Result<Swept>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.sweep.run(None))
    }
}

impl Sweep {
    fn new(letters: DeadLetters) -> Self {
        Self { letters, who: "unnamed".into(), limit: None, resume: None, is_dry: false }
    }

    async fn run(self, target: Option<Target>) -> Result<Swept> {
        let bus = self.letters.bus.clone();
        let resume = self.resume.as_deref().map(place_of).transpose()?;
        let (start, end) = match resume {
            Some((key, end, _)) => (began(key)?, end),
            None => {
                let stats = bus.engine.log.group_stats(&self.letters.path).await?;
                (stats.now, Position { epoch: stats.epoch, offset: stats.last })
            }
        };
        let to = target.as_ref().map(|target| target.path(&self.letters)).transpose()?;
        let entry = self.entry(start, to.as_ref());
        let key = resume.map(|(key, ..)| key);
        let mut operation = Operation::begin(&bus, &self.letters.path, entry, key).await?;
        let mut walk = Walk::after(resume.map_or("", |(.., after)| after));
        let (mut swept, mut looked_at) = (Swept::default(), 0);
        loop {
            let left = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(swept.count));
            if left == 0 || (self.limit.is_some() && looked_at >= LOOKED_AT_MAX) {
                swept.next = walk.place().map(|after| format!("{}/{end}/{after}", operation.key()).into());
                return Ok(swept);
            }
            let Some(mut items) = walk.next(&self.letters, limits::BATCH_EVENTS_MAX).await? else {
                return Ok(swept);
            };
            looked_at += items.len();
            // What was appended since then may be what this replay has brought back.
            items.retain(|item| !is_past(&item.key, end));
            match &to {
                Some(_) => items.retain(|item| self.letters.picked(item.clone()).is_some()),
                None => items.retain(|item| self.letters.picks(item.clone())),
            }
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            if items.len() > left {
                items.truncate(left);
                items.last().into_iter().for_each(|last| walk.rewind(last.key.clone()));
            }
            if self.is_dry {
                swept.count += items.len() as u64;
                continue;
            }
            for piece in pieces(items, target.as_ref().and_then(|target| target.rate)) {
                let step = self.step(&bus, &mut operation, target.as_ref().zip(to.as_ref()), piece);
                let (count, duplicate_count) = step.await?;
                swept.count += count;
                swept.duplicate_count += duplicate_count;
            }
        }
    }

    fn entry(&self, time: Timestamp, to: Option<&ChannelPath>) -> AuditEntry {
        let action = if to.is_some() { AuditAction::Replay } else { AuditAction::Purge };
        let mut detail = self.letters.in_words();
        if let Some(to) = to.filter(|to| *to != self.letters.path.channel()) {
            detail = format!("into {}: {detail}", to.channel());
        }
        AuditEntry { time, who: self.who.clone(), action, detail: detail.into(), count: 0 }
    }

    /// Appends the events of a piece, if it is a replay, and removes its letters in one step with what the trail says.
    async fn step(
        &self,
        bus: &Bus,
        operation: &mut Operation,
        replay: Option<(&Target, &ChannelPath)>,
        piece: Vec<ShelfItem>,
    ) -> Result<(u64, u64)> {
        // Marked piece by piece: a slow replay does not hold up the end of its node.
        let in_flight = bus.enter()?;
        let path = &self.letters.path;
        let mut keys: Vec<Box<str>> = piece.iter().map(|item| item.key.clone()).collect();
        let (mut duplicate_count, mut failed) = (0, None);
        if let Some((target, to)) = replay {
            let appends: Vec<Append> =
                piece.into_iter().map(|item| target.append(bus, path, to, item)).collect::<Result<_>>()?;
            let append = |_| bus.engine.log.append(appends.clone());
            let outcomes = bus.retry.run(&bus.clock, bus.clock.now(), Error::is_retryable, append).await?;
            let mut outcomes = outcomes.into_iter();
            keys.retain(|key| match outcomes.next().unwrap_or_else(|| Err(no_outcome())) {
                Ok(appended) => {
                    duplicate_count += u64::from(appended.effect == Effect::Duplicate);
                    true
                }
                Err(error) => {
                    failed.get_or_insert_with(|| (key.clone(), error));
                    false
                }
            });
        }
        let count = keys.len() as u64;
        let removes = keys.into_iter().map(|key| (Shelf::Dead, key)).collect();
        operation.step(bus, path, count, removes).await?;
        if let Some((key, error)) = failed {
            let text = format!("dead letter {key} was not replayed");
            return Err(Error::new(error.kind(), text).caused_by(error));
        }
        drop(in_flight);
        if let Some(rate) = replay.and_then(|(target, _)| target.rate) {
            bus.clock.sleep(Duration::from_secs(count) / rate).await;
        }
        Ok((count, duplicate_count))
    }
}

impl Target {
    /// Where the events of these letters go.
    fn path(&self, letters: &DeadLetters) -> Result<ChannelPath> {
        let own = letters.path.channel();
        match &self.channel {
            None => Ok(own.clone()),
            Some(name) => ChannelPath::new(own.environment(), own.tenant(), name),
        }
    }

    fn append(&self, bus: &Bus, path: &GroupPath, to: &ChannelPath, item: ShelfItem) -> Result<Append> {
        let is_own = to == path.channel();
        let id = format!("tidewire:replay:{}:{}", path.group(), item.key);
        Ok(Append {
            channel: to.clone(),
            envelope: DeadLetter::decode(path, item.bytes)?.replayed(is_own),
            announce: if is_own { Announce::Quiet } else { Announce::Here },
            dedup: Some(Dedup { id: id.into(), window: REMEMBERED }),
            retention: self.retention.unwrap_or(bus.retention),
            durability: Durability::Fast,
            version: None,
            deliver_at: None,
        })
    }
}

/// In pieces that a call to the engine may have, or that go out together at this rate.
fn pieces(items: Vec<ShelfItem>, rate: Option<u32>) -> Vec<Vec<ShelfItem>> {
    let count_max = rate.map_or(limits::BATCH_EVENTS_MAX, |rate| {
        ((rate / PIECES_PER_SECOND) as usize).clamp(1, limits::BATCH_EVENTS_MAX)
    });
    let mut pieces: Vec<Vec<ShelfItem>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        bytes += item.bytes.len();
        match pieces.last_mut() {
            Some(piece) if piece.len() < count_max && bytes <= limits::BATCH_BYTES_MAX => piece.push(item),
            _ => {
                bytes = item.bytes.len();
                pieces.push(vec![item]);
            }
        }
    }
    pieces
}

/// The parts of [`Swept::next`]: the operation, the end of the stream when it began, and the last letter that it came to.
fn place_of(next: &str) -> Result<(&str, Position, &str)> {
    let parts = next.split_once('/').and_then(|(key, rest)| Some((key, rest.split_once('/')?)));
    let (key, (end, after)) = parts.ok_or_else(|| {
        Error::new(ErrorKind::InvalidName, format!("{next:?} is not where a replay or a purge stopped"))
    })?;
    Ok((key, end.parse()?, after))
}

/// Whether the letter of this id is of an event after `end`.
fn is_past(id: &str, end: Position) -> bool {
    let position = id.split_once('-').and_then(|(_, position)| position.parse::<Position>().ok());
    position.is_some_and(|position| position.epoch == end.epoch && position.offset > end.offset)
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replay({:?})", self.sweep.letters)
    }
}

impl fmt::Debug for Purge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Purge({:?})", self.sweep.letters)
    }
}
