//! Groups in the database.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::FileGroup;
use crate::clock::Timestamp;
use crate::engine::embedded::file::directory::Directory;
use crate::engine::embedded::file::fault::Fault;
use crate::engine::embedded::file::state;
use crate::engine::embedded::group::{Group, Head, ItemPage, Record};
use crate::engine::{Listing, Shelf, ShelfItem};
use crate::limits;

/// A group: id, partitions, next offset, how often it was moved and where to, fence.
type HeadRow = (u64, u64, u64, u64, u64, u64);
/// A record: floor; 1 if whoever takes it over is told of a loss, else 0; claims, each first and last offset; state.
type RecordRow = (u64, u8, &'static [u8], &'static [u8]);

/// Groups by the id of their stream and their name.
const GROUPS: TableDefinition<'_, (u64, &str), HeadRow> = TableDefinition::new("groups");
/// Records by the id of their group and their name.
const RECORDS: TableDefinition<'_, (u64, &str), RecordRow> = TableDefinition::new("records");
/// Items by the id of their group, the number of their shelf, and their key.
const ITEMS: TableDefinition<'_, (u64, u8, &str), &[u8]> = TableDefinition::new("items");
/// How many items a shelf has.
const ITEM_COUNTS: TableDefinition<'_, (u64, u8), u64> = TableDefinition::new("item_counts");
/// Ids that a group has handled, by the end of their window.
const MARKS: TableDefinition<'_, (u64, u64, &str), ()> = TableDefinition::new("marks");

/// What a change writes of a group.
pub(super) enum Rows {
    /// Nothing: it only waits for what is before it.
    None,
    /// What is other than before.
    Changed(Box<ChangedRows>),
    /// The group is removed.
    Deleted { name: Box<str>, id: u64 },
}

/// What is other in a group than before.
#[derive(Default)]
pub(super) struct ChangedRows {
    pub(super) name: Box<str>,
    pub(super) id: u64,
    /// If it has changed.
    pub(super) head: Option<Head>,
    /// `None`: removed.
    pub(super) records: Vec<(Box<str>, Option<Record>)>,
    pub(super) marks: Vec<(Timestamp, Box<str>)>,
    pub(super) forgotten: Vec<(Timestamp, Box<str>)>,
    pub(super) removes: Vec<(Shelf, Box<str>)>,
    pub(super) puts: Vec<ShelfItem>,
}

impl ChangedRows {
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none()
            && self.records.is_empty()
            && self.marks.is_empty()
            && self.forgotten.is_empty()
            && self.removes.is_empty()
            && self.puts.is_empty()
    }
}

impl Rows {
    /// Writes them; says how many items were removed.
    pub(super) fn apply(&self, transaction: &WriteTransaction, stream: u64) -> Result<u64, redb::Error> {
        match self {
            Self::None => Ok(0),
            Self::Changed(changed) => changed.apply(transaction, stream),
            Self::Deleted { name, id } => delete(transaction, stream, name, *id).map(|()| 0),
        }
    }
}

impl ChangedRows {
    fn apply(&self, transaction: &WriteTransaction, stream: u64) -> Result<u64, redb::Error> {
        if let Some(head) = self.head {
            transaction.open_table(GROUPS)?.insert((stream, &*self.name), columns(self.id, head))?;
            if self.is_new(head) {
                state::note_group(transaction, self.id)?;
            }
        }
        if !self.records.is_empty() {
            let mut records = transaction.open_table(RECORDS)?;
            for (name, record) in &self.records {
                match record {
                    Some(record) => write_record(&mut records, self.id, name, record)?,
                    None => drop(records.remove((self.id, &**name))?),
                }
            }
        }
        if !(self.marks.is_empty() && self.forgotten.is_empty()) {
            let mut marks = transaction.open_table(MARKS)?;
            for (expires, id) in &self.marks {
                marks.insert((self.id, expires.as_millis(), &**id), ())?;
            }
            for (expires, id) in &self.forgotten {
                marks.remove((self.id, expires.as_millis(), &**id))?;
            }
        }
        if self.removes.is_empty() && self.puts.is_empty() {
            return Ok(0);
        }
        self.change_items(transaction)
    }

    /// Whether the group has never been anything but this.
    fn is_new(&self, head: Head) -> bool {
        head.generation.0 == 1 && head.next == head.generation.1 && head.fence == 0
    }

    fn change_items(&self, transaction: &WriteTransaction) -> Result<u64, redb::Error> {
        let mut items = transaction.open_table(ITEMS)?;
        let (mut added, mut removed) = ([0_u64; SHELVES.len()], [0_u64; SHELVES.len()]);
        let count = |counts: &mut [u64], shelf: Shelf| {
            if let Some(count) = counts.get_mut(shelf as usize) {
                *count += 1;
            }
        };
        for (shelf, key) in &self.removes {
            if items.remove((self.id, *shelf as u8, &**key))?.is_some() {
                count(&mut removed, *shelf);
            }
        }
        for ShelfItem { shelf, key, bytes } in &self.puts {
            if items.insert((self.id, *shelf as u8, &**key), &**bytes)?.is_none() {
                count(&mut added, *shelf);
            }
        }
        let mut counts = transaction.open_table(ITEM_COUNTS)?;
        for ((shelf, added), removed) in SHELVES.into_iter().zip(added).zip(removed) {
            if added != removed {
                let key = (self.id, shelf as u8);
                let before = counts.get(key)?.map_or(0, |count| count.value());
                counts.insert(key, (before + added).saturating_sub(removed))?;
            }
        }
        Ok(removed.iter().sum())
    }
}

const SHELVES: [Shelf; 4] = [Shelf::Waiting, Shelf::Dead, Shelf::Outbox, Shelf::Audit];

fn write_record(
    records: &mut redb::Table<'_, (u64, &'static str), RecordRow>,
    id: u64,
    name: &str,
    record: &Record,
) -> Result<(), redb::Error> {
    let mut claims = Vec::with_capacity(record.claims.len() * 16);
    for (first, last) in &record.claims {
        claims.put_u64_le(*first);
        claims.put_u64_le(*last);
    }
    // Whoever holds it is gone when it is read again.
    let is_loss = record.owner.is_some() || record.was_lost;
    records.insert((id, name), (record.floor, u8::from(is_loss), &*claims, &*record.state))?;
    Ok(())
}

/// Opens the tables of groups, which creates them.
pub(in super::super) fn open_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(GROUPS)?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(ITEMS)?;
    transaction.open_table(ITEM_COUNTS)?;
    transaction.open_table(MARKS)?;
    Ok(())
}

/// Writes a group's head and records.
pub(super) fn write(
    transaction: &WriteTransaction,
    stream: u64,
    name: &str,
    kept: &FileGroup,
) -> Result<(), redb::Error> {
    transaction.open_table(GROUPS)?.insert((stream, name), columns(kept.id, kept.group.head))?;
    let mut records = transaction.open_table(RECORDS)?;
    kept.group.records.iter().try_for_each(|(name, record)| write_record(&mut records, kept.id, name, record))
}

fn delete(transaction: &WriteTransaction, stream: u64, name: &str, id: u64) -> Result<(), redb::Error> {
    transaction.open_table(GROUPS)?.remove((stream, name))?;
    transaction.open_table(RECORDS)?.retain_in((id, "")..(id + 1, ""), |_, _| false)?;
    transaction.open_table(ITEMS)?.retain_in((id, 0, "")..(id + 1, 0, ""), |_, _| false)?;
    transaction.open_table(ITEM_COUNTS)?.retain_in((id, 0)..(id + 1, 0), |_, _| false)?;
    transaction.open_table(MARKS)?.retain_in((id, 0, "")..(id + 1, 0, ""), |_, _| false)?;
    Ok(())
}

/// The groups of a stream.
pub(super) fn read(directory: &Directory, stream: u64) -> Result<BTreeMap<Box<str>, FileGroup>, Fault> {
    directory.state.read(|transaction| {
        let mut groups = BTreeMap::new();
        for row in transaction.open_table(GROUPS)?.range((stream, "")..(stream + 1, ""))? {
            let (key, row) = row?;
            let (id, partitions, next, moves, moved_to, fence) = row.value();
            let partitions = u16::try_from(partitions).unwrap_or_default();
            let head = Head { partitions, next, generation: (moves, moved_to), fence };
            let group = Group::from_parts(head, read_records(transaction, id)?, read_marks(transaction, id)?);
            groups.insert(key.value().1.into(), FileGroup { id, group });
        }
        Ok(groups)
    })
}

fn columns(id: u64, head: Head) -> HeadRow {
    let (moves, moved_to) = head.generation;
    (id, head.partitions.into(), head.next, moves, moved_to, head.fence)
}

fn read_records(transaction: &ReadTransaction, id: u64) -> Result<BTreeMap<Box<str>, Record>, redb::Error> {
    let mut records = BTreeMap::new();
    for row in transaction.open_table(RECORDS)?.range((id, "")..(id + 1, ""))? {
        let (key, row) = row?;
        let (floor, loss, mut claim_bytes, state) = row.value();
        let mut claims = Vec::with_capacity(claim_bytes.len() / 16);
        while let (Ok(first), Ok(last)) = (claim_bytes.try_get_u64_le(), claim_bytes.try_get_u64_le()) {
            claims.push((first, last));
        }
        let state = Bytes::copy_from_slice(state);
        let record = Record { state, claims, floor, owner: None, was_lost: loss != 0 };
        records.insert(key.value().1.into(), record);
    }
    Ok(records)
}

fn read_marks(transaction: &ReadTransaction, id: u64) -> Result<Vec<(Timestamp, Box<str>)>, redb::Error> {
    let mut marks = Vec::new();
    for row in transaction.open_table(MARKS)?.range((id, 0, "")..(id + 1, 0, ""))? {
        let (key, _) = row?;
        let (_, expires, mark) = key.value();
        marks.push((Timestamp::from_millis(expires), mark.into()));
    }
    Ok(marks)
}

/// How many items each shelf of a group has.
pub(super) fn count_items(directory: &Directory, id: u64) -> Result<[u64; 4], Fault> {
    directory.state.read(|transaction| {
        let counts = transaction.open_table(ITEM_COUNTS)?;
        let mut items = [0; SHELVES.len()];
        for (count, shelf) in items.iter_mut().zip(SHELVES) {
            *count = counts.get((id, shelf as u8))?.map_or(0, |count| count.value());
        }
        Ok(items)
    })
}

/// Items of a shelf of a group.
pub(super) fn list_items(
    directory: &Directory,
    id: u64,
    shelf: Shelf,
    listing: Listing,
) -> Result<Vec<ShelfItem>, Fault> {
    directory.state.read(|transaction| {
        let items = transaction.open_table(ITEMS)?;
        let mut page = ItemPage::default();
        let mut take =
            |key: &str, bytes: &[u8]| page.take(shelf, key, bytes.len(), || Bytes::copy_from_slice(bytes));
        let number = shelf as u8;
        match listing {
            Listing::After(after, count) => {
                let from = Bound::Excluded((id, number, &*after));
                let range = items.range((from, Bound::Excluded((id, number + 1, ""))))?;
                for row in range.take(count.min(limits::BATCH_EVENTS_MAX)) {
                    let (key, bytes) = row?;
                    if !take(key.value().2, bytes.value()) {
                        break;
                    }
                }
            }
            Listing::Keys(keys) => {
                for key in keys {
                    if let Some(bytes) = items.get((id, number, &*key))?
                        && !take(&key, bytes.value())
                    {
                        break;
                    }
                }
            }
        }
        Ok(page.items)
    })
}
