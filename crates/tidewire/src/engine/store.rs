//! Entries under keys.

use std::time::Duration;

use bytes::Bytes;

use super::Answer;
use crate::name::EntryPath;

/// Keeps entries: bytes under a key of a tenant, with an optional time to live.
///
/// # Guarantees
/// - **Atomic per key.** Each call is one step; calls on one key have one order that all nodes see.
/// - **Expiry** counts from the `put` on the engine's clock. An expired entry is never returned; when its
///   memory is given back is the engine's matter.
/// - On a durable engine a confirmed change survives the end of the process.
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
