//! The store of `file:`: entries in the database.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redb::ReadableTable;

use super::directory::Directory;
use super::queue::Queue;
use super::state::{ENTRIES, EXPIRIES};
use super::state_writer::{Change, Done, StateJob};
use crate::clock::{Clock, Timestamp};
use crate::engine::embedded::members::MemberSets;
use crate::engine::{Answer, Condition, MembersChange, MembersChanged, MembersPage, Store};
use crate::error::{Error, Result};
use crate::limits;
use crate::name::EntryPath;

/// What a change takes in the queue beside its value, about.
const CHANGE_BYTES: usize = 256;
/// Expired entries that are removed in one step, so that no other change waits for long.
const SWEEP_ENTRIES_MAX: usize = 1_000;
/// Time between looks for expired entries.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// When an entry without a time to live expires.
const NEVER: u64 = u64::MAX;

/// Entries in the database. A read sees what is confirmed; it is a look into a tree whose upper pages are in
/// memory, so it does not go to a thread of its own.
pub(super) struct FileStore {
    pub(super) directory: Arc<Directory>,
    pub(super) queue: Arc<Queue<StateJob>>,
    pub(super) clock: Clock,
    pub(super) members: MemberSets,
}

impl FileStore {
    fn get_now(&self, key: &EntryPath) -> Result<Option<Bytes>> {
        let now = self.clock.now().as_millis();
        let value = self.directory.state.read(|transaction| {
            let entry = transaction.open_table(ENTRIES)?.get(key.as_str())?;
            Ok(entry.and_then(|entry| {
                let (expires, value) = entry.value();
                (expires > now).then(|| Bytes::copy_from_slice(value))
            }))
        })?;
        Ok(value)
    }

    async fn change(&self, change: Change, bytes: usize) -> Result<bool> {
        Ok(ask(&self.queue, change, bytes).await?.is_true())
    }
}

/// Hands a change to the state writer and waits until it is durable.
pub(super) async fn ask(queue: &Queue<StateJob>, change: Change, bytes: usize) -> Result<Done> {
    queue.ask(bytes + CHANGE_BYTES, |asked| StateJob { change, asked }).await
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Store for FileStore {
    fn get(&self, key: &EntryPath) -> Answer<'_, Option<Bytes>> {
        Box::pin(std::future::ready(self.get_now(key)))
    }

    fn put(
        &self,
        key: &EntryPath,
        value: Bytes,
        ttl: Option<Duration>,
        condition: Condition,
    ) -> Answer<'_, bool> {
        let key = key.clone();
        Box::pin(async move {
            let bytes = value.len();
            if bytes > limits::BATCH_BYTES_MAX {
                return Err(Error::too_large("value", bytes, limits::BATCH_BYTES_MAX, "BATCH_BYTES_MAX"));
            }
            self.change(Change::Put { key, value, ttl, condition }, bytes).await
        })
    }

    fn remove(&self, key: &EntryPath) -> Answer<'_, bool> {
        let key = key.clone();
        Box::pin(async move { self.change(Change::Remove { key }, 0).await })
    }

    fn members_change(&self, key: &EntryPath, change: MembersChange) -> Answer<'_, MembersChanged> {
        Box::pin(std::future::ready(self.members.change(key, change)))
    }

    fn members_page(&self, key: &EntryPath, after: Option<Bytes>, limit: usize) -> Answer<'_, MembersPage> {
        Box::pin(std::future::ready(Ok(self.members.page(key, after.as_ref(), limit))))
    }
}

/// Puts an entry if `condition` holds; says whether it did.
pub(super) fn put(
    transaction: &redb::WriteTransaction,
    key: &EntryPath,
    value: &[u8],
    ttl: Option<Duration>,
    condition: &Condition,
    now: Timestamp,
) -> Result<bool, redb::Error> {
    let mut entries = transaction.open_table(ENTRIES)?;
    let mut expiries = transaction.open_table(EXPIRIES)?;
    let (holds, old_expires) = {
        let entry = entries.get(key.as_str())?;
        let entry = entry.as_ref().map(|entry| entry.value());
        let current = entry.filter(|(expires, _)| *expires > now.as_millis()).map(|(_, value)| value);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Equals(expected) => current == Some(expected.as_ref()),
        };
        (holds, entry.map(|(expires, _)| expires))
    };
    if !holds {
        return Ok(false);
    }
    if let Some(expires) = old_expires.filter(|expires| *expires != NEVER) {
        expiries.remove((expires, key.as_str()))?;
    }
    // `NEVER` itself is no moment that an entry can expire at.
    let expires = ttl.map_or(NEVER, |ttl| now.saturating_add(ttl).as_millis().min(NEVER - 1));
    if expires != NEVER {
        expiries.insert((expires, key.as_str()), ())?;
    }
    entries.insert(key.as_str(), (expires, value))?;
    Ok(true)
}

/// Removes an entry; says whether there was one that had not expired.
pub(super) fn remove(
    transaction: &redb::WriteTransaction,
    key: &EntryPath,
    now: Timestamp,
) -> Result<bool, redb::Error> {
    let mut entries = transaction.open_table(ENTRIES)?;
    let expires = entries.remove(key.as_str())?.map(|entry| entry.value().0);
    if let Some(expires) = expires.filter(|expires| *expires != NEVER) {
        transaction.open_table(EXPIRIES)?.remove((expires, key.as_str()))?;
    }
    Ok(expires.is_some_and(|expires| expires > now.as_millis()))
}

/// Removes some of what has expired; says whether there may be more.
pub(super) fn sweep(transaction: &redb::WriteTransaction, now: Timestamp) -> Result<bool, redb::Error> {
    let mut entries = transaction.open_table(ENTRIES)?;
    let mut expiries = transaction.open_table(EXPIRIES)?;
    for _ in 0..SWEEP_ENTRIES_MAX {
        let Some(key) = first_expired(&expiries, now)? else { return Ok(false) };
        entries.remove(key.1.as_str())?;
        expiries.remove((key.0, key.1.as_str()))?;
    }
    Ok(true)
}

fn first_expired(
    expiries: &impl ReadableTable<(u64, &'static str), ()>,
    now: Timestamp,
) -> Result<Option<(u64, String)>, redb::Error> {
    let Some((key, _)) = expiries.first()? else { return Ok(None) };
    let (expires, key) = key.value();
    Ok((expires <= now.as_millis()).then(|| (expires, key.to_owned())))
}

/// Gives back the disk of expired entries, for as long as the queue takes changes.
pub(super) async fn sweep_for_ever(directory: Arc<Directory>, queue: Arc<Queue<StateJob>>, clock: Clock) {
    loop {
        clock.sleep(SWEEP_EVERY).await;
        let now = clock.now();
        let due = directory
            .state
            .read(|transaction| Ok(first_expired(&transaction.open_table(EXPIRIES)?, now)?.is_some()));
        let mut has_more = due.map_err(Error::from);
        while let Ok(true) = has_more {
            has_more = ask(&queue, Change::Sweep, 0).await.map(|done| done.is_true());
        }
        match has_more {
            Ok(_) => {}
            Err(error) if error.kind() == crate::ErrorKind::Closed => return,
            Err(error) => tracing::warn!(%error, "expired entries stay"),
        }
    }
}
