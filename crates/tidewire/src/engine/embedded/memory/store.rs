//! Entries in memory.

use std::collections::BTreeSet;
use std::future::ready;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::clock::{Clock, Timestamp};
use crate::engine::embedded::members::MemberSets;
use crate::engine::{Answer, Condition, MembersChange, MembersChanged, MembersPage, Store};
use crate::name::EntryPath;

/// Each call first gives back the memory of what has expired, so that an entry found is a live one.
pub(super) struct MemoryStore {
    clock: Clock,
    entries: Mutex<Entries>,
    members: MemberSets,
}

#[derive(Default)]
struct Entries {
    values: FxHashMap<EntryPath, Entry>,
    by_expiry: BTreeSet<(Timestamp, EntryPath)>,
}

struct Entry {
    value: Bytes,
    expires: Option<Timestamp>,
}

impl MemoryStore {
    pub(super) fn new(clock: Clock) -> Self {
        Self { members: MemberSets::new(clock.clone()), clock, entries: Mutex::default() }
    }
}

impl Entries {
    fn expire(&mut self, now: Timestamp) {
        while self.by_expiry.first().is_some_and(|(expires, _)| *expires <= now) {
            if let Some((_, key)) = self.by_expiry.pop_first() {
                self.values.remove(&key);
            }
        }
    }

    fn remove(&mut self, key: &EntryPath) -> bool {
        let Some(entry) = self.values.remove(key) else { return false };
        if let Some(expires) = entry.expires {
            self.by_expiry.remove(&(expires, key.clone()));
        }
        true
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &EntryPath) -> Answer<'_, Option<Bytes>> {
        let mut entries = self.entries.lock();
        entries.expire(self.clock.now());
        let value = entries.values.get(key).map(|entry| entry.value.clone());
        Box::pin(ready(Ok(value)))
    }

    fn put(
        &self,
        key: &EntryPath,
        value: Bytes,
        ttl: Option<Duration>,
        condition: Condition,
    ) -> Answer<'_, bool> {
        let now = self.clock.now();
        let mut entries = self.entries.lock();
        entries.expire(now);
        let current = entries.values.get(key).map(|entry| &entry.value);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Equals(expected) => current == Some(&expected),
        };
        if holds {
            entries.remove(key);
            let expires = ttl.map(|ttl| now.saturating_add(ttl));
            entries.by_expiry.extend(expires.map(|expires| (expires, key.clone())));
            entries.values.insert(key.clone(), Entry { value, expires });
        }
        Box::pin(ready(Ok(holds)))
    }

    fn remove(&self, key: &EntryPath) -> Answer<'_, bool> {
        let mut entries = self.entries.lock();
        entries.expire(self.clock.now());
        let was_there = entries.remove(key);
        Box::pin(ready(Ok(was_there)))
    }

    fn members_change(&self, key: &EntryPath, change: MembersChange) -> Answer<'_, MembersChanged> {
        Box::pin(ready(self.members.change(key, change)))
    }

    fn members_page(&self, key: &EntryPath, after: Option<Bytes>, limit: usize) -> Answer<'_, MembersPage> {
        Box::pin(ready(Ok(self.members.page(key, after.as_ref(), limit))))
    }
}
