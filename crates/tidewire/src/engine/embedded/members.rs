//! Sets of members, in memory on both embedded engines: who is there is there no more when the process ends.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::clock::{Clock, Timestamp};
use crate::engine::{Member, MembersChange, MembersChanged, MembersCondition, MembersPage};
use crate::error::Result;
use crate::limits;
use crate::name::EntryPath;

pub(super) struct MemberSets {
    clock: Clock,
    sets: Mutex<FxHashMap<EntryPath, MemberSet>>,
}

#[derive(Default)]
struct MemberSet {
    members: BTreeMap<Bytes, Kept>,
    /// How many members each owner has.
    owners: FxHashMap<Bytes, u64>,
}

struct Kept {
    owner: Bytes,
    value: Bytes,
    expires: Option<Timestamp>,
}

impl MemberSets {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, sets: Mutex::default() }
    }

    pub(super) fn change(&self, key: &EntryPath, change: MembersChange) -> Result<MembersChanged> {
        change.check()?;
        let now = self.clock.now();
        let mut sets = self.sets.lock();
        let set = sets.entry(key.clone()).or_default();
        let changed = set.change(change, now);
        if set.members.is_empty() {
            sets.remove(key);
        }
        Ok(changed)
    }

    pub(super) fn page(&self, key: &EntryPath, after: Option<&Bytes>, limit: usize) -> MembersPage {
        let now = self.clock.now();
        let sets = self.sets.lock();
        sets.get(key).map(|set| set.page(after, limit, now)).unwrap_or_default()
    }
}

impl MemberSet {
    fn change(&mut self, change: MembersChange, now: Timestamp) -> MembersChanged {
        let before = self.count();
        let is_done = match &change.condition {
            MembersCondition::Always => true,
            MembersCondition::There(name) => self.members.contains_key(name),
            MembersCondition::Expired(name) => self.members.get(name).is_some_and(|kept| kept.is_over(now)),
        };
        if !is_done {
            return MembersChanged { before, after: before, ..MembersChanged::default() };
        }
        let expires = change.ttl.map(|ttl| now.saturating_add(ttl));
        let were_there = change.removes.iter().map(|name| self.remove(name)).collect();
        let are_new = change.puts.into_iter().map(|member| !self.put(member, expires)).collect();
        MembersChanged { is_done, before, after: self.count(), were_there, are_new }
    }

    /// Says whether it was there.
    fn put(&mut self, member: Member, expires: Option<Timestamp>) -> bool {
        let was_there = self.remove(&member.name);
        let Member { name, owner, value } = member;
        *self.owners.entry(owner.clone()).or_default() += 1;
        self.members.insert(name, Kept { owner, value, expires });
        was_there
    }

    fn remove(&mut self, name: &Bytes) -> bool {
        let Some(kept) = self.members.remove(name) else { return false };
        if let Some(count) = self.owners.get_mut(&kept.owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&kept.owner);
            }
        }
        true
    }

    fn count(&self) -> u64 {
        self.members.len() as u64
    }

    fn page(&self, after: Option<&Bytes>, limit: usize, now: Timestamp) -> MembersPage {
        let (count, owners) = (self.count(), self.owners.len() as u64);
        let mut page = MembersPage { count, owners, ..MembersPage::default() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (limit, mut left) = (limit.min(limits::BATCH_EVENTS_MAX), limits::BATCH_BYTES_MAX);
        for (name, kept) in self.members.range::<Bytes, _>((from, Bound::Unbounded)) {
            let (owner, value) = (kept.owner.clone(), kept.value.clone());
            let member = Member { name: name.clone(), owner, value };
            let bytes = member.bytes();
            if page.members.len() >= limit || (bytes > left && !page.members.is_empty()) {
                page.next = page.members.last().map(|(member, _)| member.name.clone());
                break;
            }
            left = left.saturating_sub(bytes);
            page.members.push((member, kept.is_over(now)));
        }
        page
    }
}

impl Kept {
    fn is_over(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}
