//! Who did what to a group from outside of its sessions: kept beside it, and bounded.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};

use super::dead_letter::cut;
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::engine::{Change, Listing, Shelf, ShelfItem};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::GroupPath;

const VERSION: u8 = 1;

/// One thing that somebody did to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When it began, by the engine's clock.
    pub time: Timestamp,
    /// Who, in the words of the program that did it.
    pub who: Box<str>,
    /// What.
    pub action: AuditAction,
    /// To which dead letters, or to where.
    pub detail: Box<str>,
    /// How many events or dead letters it has changed so far.
    pub count: u64,
}

/// What was done to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditAction {
    /// Dead letters were appended again.
    Replay,
    /// Dead letters were removed.
    Purge,
    /// The group was moved to another position.
    Seek,
}

impl AuditAction {
    /// Every action, its number in what is kept, which never changes meaning, and its name.
    const ALL: [(Self, u8, &'static str); 3] =
        [(Self::Replay, 1, "replay"), (Self::Purge, 2, "purge"), (Self::Seek, 3, "seek")];

    fn number(self) -> u8 {
        Self::ALL.iter().find(|(action, ..)| *action == self).map_or(0, |(_, number, _)| *number)
    }

    /// Its name for programs: `replay`, `purge` or `seek`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(action, ..)| *action == self).map_or("", |(.., name)| name)
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AuditEntry {
    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(20 + self.who.len() + self.detail.len());
        out.put_u8(VERSION);
        out.put_u8(self.action.number());
        out.put_u64(self.time.as_millis());
        out.put_u64(self.count);
        for text in [&self.who, &self.detail] {
            let text = cut(text, limits::AUDIT_TEXT_BYTES_MAX);
            out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
            out.put_slice(text.as_bytes());
        }
        out.into()
    }

    fn decode(mut kept: &[u8]) -> Option<Self> {
        if kept.try_get_u8().ok()? != VERSION {
            return None;
        }
        let number = kept.try_get_u8().ok()?;
        let action = AuditAction::ALL.iter().find(|(_, known, _)| *known == number)?.0;
        let time = Timestamp::from_millis(kept.try_get_u64().ok()?);
        let count = kept.try_get_u64().ok()?;
        let mut text = || {
            let bytes = kept.try_get_u8().ok()?.into();
            let (text, rest) = kept.split_at_checked(bytes)?;
            kept = rest;
            std::str::from_utf8(text).ok().map(Box::from)
        };
        Some(Self { time, who: text()?, action, detail: text()?, count })
    }
}

/// The entry of an operation that goes on: it is put again with each step, with what was done so far.
pub(super) struct Operation {
    key: Box<str>,
    entry: AuditEntry,
    /// Entries that make room for this one, until it is put.
    oldest: Vec<Box<str>>,
}

impl Operation {
    /// Begins one, or goes on with that of `key`.
    pub(super) async fn begin(
        bus: &Bus,
        path: &GroupPath,
        mut entry: AuditEntry,
        key: Option<&str>,
    ) -> Result<Self> {
        let listing = Listing::After(Box::default(), limits::BATCH_EVENTS_MAX);
        let kept = bus.engine.log.group_items(path, Shelf::Audit, listing).await?;
        if let Some(key) = key {
            let found = kept.iter().find(|item| *item.key == *key);
            if let Some(before) = found.and_then(|item| AuditEntry::decode(&item.bytes)) {
                entry = AuditEntry { count: before.count, time: before.time, ..entry };
            }
            return Ok(Self { key: key.into(), entry, oldest: Vec::new() });
        }
        let excess = (kept.len() + 1).saturating_sub(limits::AUDIT_ENTRIES_MAX);
        let oldest = kept.into_iter().take(excess).map(|item| item.key).collect();
        let key = format!("{:013}-{:08x}", entry.time.as_millis(), fastrand::u32(..));
        Ok(Self { key: key.into(), entry, oldest })
    }

    /// Its name, by which it can go on.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Removes items, and says so in the same step.
    pub(super) async fn step(
        &mut self,
        bus: &Bus,
        path: &GroupPath,
        count: u64,
        mut removes: Vec<(Shelf, Box<str>)>,
    ) -> Result<()> {
        self.entry.count += count;
        removes.extend(self.oldest.drain(..).map(|key| (Shelf::Audit, key)));
        let entry = ShelfItem { shelf: Shelf::Audit, key: self.key.clone(), bytes: self.entry.encode() };
        bus.engine.log.group_change(path, Change::Items { removes, puts: vec![entry] }).await?;
        Ok(())
    }
}

/// When the operation of this key began.
///
/// # Errors
/// `InvalidName` if it is no such key.
pub(super) fn began(key: &str) -> Result<Timestamp> {
    let millis = key.split_once('-').filter(|(millis, rest)| millis.len() == 13 && rest.len() == 8);
    millis.and_then(|(millis, _)| millis.parse().ok()).map(Timestamp::from_millis).ok_or_else(|| {
        Error::new(ErrorKind::InvalidName, format!("operation {key:?} is not one that was answered before"))
    })
}

/// The trail of a group, the newest entry first.
pub(super) async fn trail(bus: &Bus, path: &GroupPath) -> Result<Vec<AuditEntry>> {
    let listing = Listing::After(Box::default(), limits::BATCH_EVENTS_MAX);
    let items = bus.engine.log.group_items(path, Shelf::Audit, listing).await?;
    let mut trail = Vec::with_capacity(items.len());
    for item in items.iter().rev() {
        match AuditEntry::decode(&item.bytes) {
            Some(entry) => trail.push(entry),
            None => tracing::warn!(group = %path, key = %item.key, "an audit entry that cannot be read"),
        }
    }
    Ok(trail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_entry_never_changes() {
        let entry = AuditEntry {
            time: Timestamp::from_millis(0x0192_d3c4_e5f6),
            who: "ann".into(),
            action: AuditAction::Purge,
            detail: "all".into(),
            count: 9,
        };
        let hex: String = entry.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "010200000192d3c4e5f6000000000000000903616e6e03616c6c");
        assert_eq!(AuditEntry::decode(&entry.encode()), Some(entry));
    }

    #[test]
    fn the_key_of_an_operation_says_when_it_began() {
        assert_eq!(began("1730129750262-0a0b0c0d").unwrap(), Timestamp::from_millis(1_730_129_750_262));
        assert!(began("yesterday").is_err());
    }
}
