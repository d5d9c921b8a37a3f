//! A group as its operators see it: how far it is, who works on it, and how it is moved.

use std::time::Duration;

use super::Group;
use super::audit::{self, AuditAction, AuditEntry, Operation};
use super::ledger::Ledger;
use super::letters::DeadLetters;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::engine::{Change, GroupStats, Range, RecordStats, Start};
use crate::error::{Error, ErrorKind, Result};
use crate::name::GroupPath;
use crate::position::{Epoch, Position};

/// How far a group is, and who works on it.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupStatus {
    /// Partitions; 0 for a group without order.
    pub partitions: u16,
    /// The stream's epoch, in which all offsets here count.
    pub epoch: Epoch,
    /// Offset of the oldest event that the stream keeps; one past the last if none is.
    pub first: u64,
    /// Offset of the newest event of the stream; 0 before the first.
    pub last: u64,
    /// Without order, the first event that was not delivered to anybody. With order, the first event that some partition
    /// has not come to.
    pub next: u64,
    /// Every event before this one is settled, or kept beside the stream until it is due.
    pub floor: u64,
    /// Events that are not settled. With order: at most so many, because those of other partitions count too.
    pub lag_events: u64,
    /// How long ago the oldest event was appended that is not settled and does not wait to be tried again.
    pub lag: Duration,
    /// Events that were delivered and are neither settled nor waiting.
    pub in_flight: u64,
    /// Events that failed and wait to be tried again.
    pub waiting: u64,
    /// When the first of those is due, by the engine's clock.
    pub next_due: Option<Timestamp>,
    /// Dead letters.
    pub dead_letters: u64,
    /// Appends that follow from what was settled, until they are made.
    pub outbox: u64,
    /// How often it was moved.
    pub moves: u64,
    /// The sessions of the processes that work on it.
    pub sessions: Vec<SessionStatus>,
    /// The engine's clock.
    pub now: Timestamp,
}

/// A session of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// Its name.
    pub name: Box<str>,
    /// How long it holds on without a sign of life.
    pub lease_left: Duration,
    /// Partitions that it holds.
    pub partitions: u64,
    /// Events that it holds and that are neither settled nor waiting.
    pub in_flight: u64,
}

/// What a move of a group would do, or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeekPreview {
    /// Where the group is: without order the first event not delivered yet, with order the first not settled.
    pub from: Position,
    /// Where it goes on.
    pub to: Position,
    /// Events that are delivered again.
    pub again_count: u64,
    /// Events that are passed over.
    pub skipped_count: u64,
}

/// What a record holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    in_flight: u64,
    waiting: u64,
    next_due: Option<Timestamp>,
}

impl Group {
    /// How far it is, and who works on it.
    ///
    /// # Errors
    /// `NotFound` if there is no such group; errors of the engine.
    pub async fn status(&self) -> Result<GroupStatus> {
        let _in_flight = self.bus.enter()?;
        let stats = self.bus.engine.log.group_stats(&self.path).await?;
        let held: Vec<Held> = stats.records.iter().map(held).collect();
        let (in_flight, waiting) =
            held.iter().fold((0, 0), |sum, held| (sum.0 + held.in_flight, sum.1 + held.waiting));
        let floor = stats.floor.min(stats.last + 1);
        let next = next_of(&stats);
        let ahead = (stats.last + 1).saturating_sub(next.max(stats.first));
        let sessions = stats.sessions.iter().map(|(name, lease_left)| {
            let is_own = |record: &&RecordStats| record.owner.as_ref() == Some(name);
            let own = stats.records.iter().zip(&held).filter(|(record, _)| is_own(record));
            let in_flight = own.map(|(_, held)| held.in_flight).sum();
            let partitions = match stats.partitions {
                0 => 0,
                _ => stats.records.iter().filter(is_own).count() as u64,
            };
            SessionStatus { name: name.clone(), lease_left: *lease_left, partitions, in_flight }
        });
        let [_, dead_letters, outbox, _] = stats.items;
        Ok(GroupStatus {
            partitions: stats.partitions,
            epoch: stats.epoch,
            first: stats.first,
            last: stats.last,
            next,
            floor,
            lag_events: ahead + in_flight + waiting,
            lag: self.age_of(floor, &stats).await?,
            in_flight,
            waiting,
            next_due: held.iter().filter_map(|held| held.next_due).min(),
            dead_letters,
            outbox,
            moves: stats.generation.0.saturating_sub(1),
            sessions: sessions.collect(),
            now: stats.now,
        })
    }

    /// How long ago the event at this offset was appended, or the oldest after it that is kept.
    async fn age_of(&self, offset: u64, stats: &GroupStats) -> Result<Duration> {
        if offset > stats.last {
            return Ok(Duration::ZERO);
        }
        let page = self.bus.engine.log.read(self.path.channel(), Range::from(offset, 1)).await?;
        Ok(page.events.first().map_or(Duration::ZERO, |event| stats.now.since(event.time)))
    }

    /// Its dead letters.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.bus.clone(), self.path.clone())
    }

    /// Who did what to it, the newest first: the last 1,000 replays, purges and moves.
    ///
    /// # Errors
    /// `NotFound` if there is no such group; errors of the engine.
    pub async fn audit(&self) -> Result<Vec<AuditEntry>> {
        let _in_flight = self.bus.enter()?;
        audit::trail(&self.bus, &self.path).await
    }

    /// What [`seek`](Self::seek) would do now.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    pub async fn preview_seek(&self, start: Start) -> Result<SeekPreview> {
        let _in_flight = self.bus.enter()?;
        preview(&self.bus, &self.path, start).await
    }

    /// Goes on from another position: back, so that events are delivered again, or forth, so that events are passed over.
    /// What is in flight or waits is not touched in a group without order. Says what it did, as of right before.
    ///
    /// # Errors
    /// `NotFound` if there is no such group; `PositionLost` for a position past the end of the stream; errors of the engine.
    pub async fn seek(&self, start: Start, who: &str) -> Result<SeekPreview> {
        let _in_flight = self.bus.enter()?;
        let preview = preview(&self.bus, &self.path, start).await?;
        self.bus.engine.log.group_change(&self.path, Change::Seek(start)).await?;
        let now = self.bus.engine.log.group_stats(&self.path).await?.now;
        let detail = format!("from {} to {}", preview.from, preview.to).into();
        let entry = AuditEntry { time: now, who: who.into(), action: AuditAction::Seek, detail, count: 0 };
        let mut operation = Operation::begin(&self.bus, &self.path, entry, None).await?;
        let count = preview.again_count + preview.skipped_count;
        operation.step(&self.bus, &self.path, count, Vec::new()).await?;
        Ok(preview)
    }

    /// Removes it with all that it has: what it had delivered, what waits, its dead letters, its audit trail. Events of the
    /// stream stay as long as retention and other groups say. Only the log of this node tells of it afterwards.
    ///
    /// # Errors
    /// `NotFound` if there is no such group; errors of the engine.
    pub async fn delete(&self, who: &str) -> Result<()> {
        let _in_flight = self.bus.enter()?;
        let [waiting, dead_letters, ..] = self.bus.engine.log.group_stats(&self.path).await?.items;
        self.bus.engine.log.group_change(&self.path, Change::Delete).await?;
        tracing::info!(group = %self.path, who, waiting, dead_letters, "deleted a group");
        Ok(())
    }
}

async fn preview(bus: &Bus, path: &GroupPath, start: Start) -> Result<SeekPreview> {
    let stats = bus.engine.log.group_stats(path).await?;
    let at = match start {
        Start::Earliest => stats.first,
        Start::Latest => stats.last + 1,
        Start::Since(time) => bus.engine.log.seek(path.channel(), time).await?,
        Start::At(position) if position.epoch == stats.epoch && position.offset > stats.last + 1 => {
            let text =
                format!("position {position} is past the end of the stream, which is at {}", stats.last);
            return Err(Error::new(ErrorKind::PositionLost, text));
        }
        Start::At(position) if position.epoch == stats.epoch => position.offset.max(stats.first),
        Start::At(position) => {
            let page = bus.engine.log.read(path.channel(), Range::BOUNDS).await?;
            page.parting(position).unwrap_or(stats.first).max(stats.first)
        }
    };
    let from = if stats.partitions == 0 { stats.next } else { stats.floor }.min(stats.last + 1);
    let position = |offset| Position { epoch: stats.epoch, offset };
    Ok(SeekPreview {
        from: position(from),
        to: position(at),
        again_count: from.saturating_sub(at.max(stats.first)),
        skipped_count: at.saturating_sub(from.max(stats.first)),
    })
}

/// The first offset that nobody has claimed; with order, that some partition has not come to.
fn next_of(stats: &GroupStats) -> u64 {
    let of_partitions = stats.records.iter().filter(|_| stats.partitions > 0);
    let reached =
        of_partitions.map(|record| reached(&Ledger::decode(&record.state).unwrap_or_default(), stats)).min();
    reached.unwrap_or(stats.next).min(stats.last + 1)
}

/// How far a partition has come. One that nobody has held since the group began or was moved begins where that went to.
pub(super) fn reached(ledger: &Ledger, stats: &GroupStats) -> u64 {
    let (generation, to) = stats.generation;
    if ledger.next > 0 && ledger.generation == generation { ledger.next } else { to.max(1) }
}

/// What a record holds. What another epoch had of it is looked at again by whoever adopts it.
fn held(record: &RecordStats) -> Held {
    let claimed: u64 = record.claims.iter().map(|(first, last)| last + 1 - first).sum();
    let ledger = Ledger::decode(&record.state).unwrap_or_default();
    let dues = ledger.entries.values().filter_map(|entry| entry.due);
    let waiting = dues.clone().count() as u64;
    Held { in_flight: claimed + ledger.entries.len() as u64 - waiting, waiting, next_due: dues.min() }
}
