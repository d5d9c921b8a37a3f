//! Entries as Redis strings.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::command::{Command, Encode};
use super::connection::Repeat;
use super::keys::{self, Tag};
use super::members;
use super::pubsub::malformed;
use super::resp::Value;
use super::scripts::Script;
use super::topology::Topology;
use crate::clock::millis;
use crate::engine::{Answer, Condition, MembersChange, MembersChanged, MembersPage, Store};
use crate::error::Result;
use crate::name::EntryPath;

pub(super) struct RedisStore {
    pub(super) topology: Arc<Topology>,
}

impl RedisStore {
    async fn request<C: Encode + ?Sized>(&self, tag: Tag, command: &C, repeat: Repeat) -> Result<Value> {
        let deadline = self.topology.deadline();
        Ok(self.topology.request(tag, command, repeat, deadline).await?)
    }

    async fn put_if_equal(
        &self,
        tag: Tag,
        key: &str,
        expected: &[u8],
        value: &[u8],
        ttl: Option<i64>,
    ) -> Result<bool> {
        let bytes = key.len() + expected.len() + value.len();
        let call = self.topology.scripts.call(Script::PutIfEqual, 1, bytes);
        let mut call = call.arg(key).arg(expected).arg(value);
        match ttl {
            Some(ttl) => call.push_int(ttl),
            None => call.push(b""),
        }
        let deadline = self.topology.deadline();
        let reply = self.topology.run(tag, Script::PutIfEqual, &call, Repeat::Never, deadline).await?;
        Ok(reply.as_int() == Some(1))
    }
}

impl Store for RedisStore {
    fn get(&self, key: &EntryPath) -> Answer<'_, Option<Bytes>> {
        let (tag, key) = (Tag::of_entry(key), keys::entry(key));
        Box::pin(async move {
            let command: [&[u8]; 2] = [b"GET", key.as_bytes()];
            match self.request(tag, &command, Repeat::Safe).await? {
                Value::Null => Ok(None),
                value => Ok(Some(value.into_bytes().ok_or_else(|| malformed("GET"))?)),
            }
        })
    }

    fn put(
        &self,
        key: &EntryPath,
        value: Bytes,
        ttl: Option<Duration>,
        condition: Condition,
    ) -> Answer<'_, bool> {
        let (tag, key) = (Tag::of_entry(key), keys::entry(key));
        Box::pin(async move {
            let ttl = ttl.map(ttl_millis);
            let mut command =
                Command::with_capacity("SET", key.len() + value.len() + 128).arg(&key).arg(&value);
            if let Condition::Equals(expected) = &condition {
                return self.put_if_equal(tag, &key, expected, &value, ttl).await;
            }
            if let Some(ttl) = ttl {
                command = command.arg("PX").int(ttl);
            }
            match condition {
                Condition::Absent => command.push(b"NX"),
                Condition::Present => command.push(b"XX"),
                Condition::Always | Condition::Equals(_) => {}
            }
            // A second try would be answered by the effect of the first. One without a condition would undo what others
            // put meanwhile, and the first could still arrive after it, out of a link that was given up.
            Ok(self.request(tag, &command, Repeat::Never).await? != Value::Null)
        })
    }

    fn remove(&self, key: &EntryPath) -> Answer<'_, bool> {
        let (tag, key) = (Tag::of_entry(key), keys::entry(key));
        Box::pin(async move {
            let command: [&[u8]; 2] = [b"DEL", key.as_bytes()];
            // A second try would say that there was nothing to remove.
            Ok(self.request(tag, &command, Repeat::Never).await?.as_int() == Some(1))
        })
    }

    fn members_change(&self, key: &EntryPath, change: MembersChange) -> Answer<'_, MembersChanged> {
        let key = key.clone();
        Box::pin(async move { members::change(&self.topology, &key, change).await })
    }

    fn members_page(&self, key: &EntryPath, after: Option<Bytes>, limit: usize) -> Answer<'_, MembersPage> {
        let key = key.clone();
        Box::pin(async move { members::page(&self.topology, &key, after, limit).await })
    }
}

/// A time to live as Redis takes it, which refuses one of nothing.
pub(super) fn ttl_millis(ttl: Duration) -> i64 {
    i64::try_from(millis(ttl)).unwrap_or(i64::MAX).clamp(1, TTL_MILLIS_MAX)
}

/// A hundred years; Redis adds its own clock to it.
const TTL_MILLIS_MAX: i64 = 100 * 365 * 24 * 3_600 * 1_000;
