//! Entries under keys.

use std::time::Duration;

use bytes::Bytes;

use super::{Answer, MembersChange, MembersChanged, MembersPage};
use crate::name::EntryPath;

/// Keeps entries: bytes under a key of a tenant, with an optional time to live; and under keys of their own, sets of members.
///
/// # Guarantees
/// - **Atomic per key.** Each call is one step; calls on one key have one order that all nodes see.
/// - **Expiry** counts from the `put` on the engine's clock. An expired entry is never returned; when its
///   memory is given back is the engine's matter.
/// - On a durable engine a confirmed change survives the end of the process. Members are apart: an engine of one process
///   forgets them with it, because they stand for who is there.
/// - **A member whose time is over** is listed as such until somebody removes it, so that it can be told who is gone.
///
/// Every method takes one key, so each runs in one slot of a Cluster.
pub trait Store: Send + Sync + 'static {
    /// The value, if there is one that has not expired.
    fn get(&self, key: &EntryPath) -> Answer<'_, Option<Bytes>>;

    /// Sets the value if `condition` holds; says whether it did. Without `ttl` the entry stays until removed.
    fn put(
        &self,
        key: &EntryPath,
        value: Bytes,
        ttl: Option<Duration>,
        condition: Condition,
    ) -> Answer<'_, bool>;

    /// Removes the entry; says whether there was one.
    fn remove(&self, key: &EntryPath) -> Answer<'_, bool>;

    /// Removes members of a set and puts others; says what was there. A set is there while it has members.
    fn members_change(&self, key: &EntryPath, change: MembersChange) -> Answer<'_, MembersChanged>;

    /// Up to `limit` members after a name, or from the first on, fewer if they are large; with 0 the counts alone. Whoever is
    /// a member for as long as a set is read page by page is read once.
    fn members_page(&self, key: &EntryPath, after: Option<Bytes>, limit: usize) -> Answer<'_, MembersPage>;
}

/// When a `put` takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// Only if there is no entry.
    Absent,
    /// Only if there is one.
    Present,
    /// Only if the value is this one.
    Equals(Bytes),
}
