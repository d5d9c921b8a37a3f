//! Redis and Valkey, through our own RESP3 connection.
//!
//! A node has two links to a server: one for data, shared by all callers, and one that listens. Where a name is kept is
//! said in `keys.rs`; what happens in one step, in `scripts/`.

mod address;
mod announcement;
mod backoff;
mod command;
mod connection;
mod keys;
mod link;
mod log;
mod pubsub;
mod resp;
mod scripts;
mod store;
mod subscriber;
mod topology;

use std::sync::Arc;

use self::address::Address;
use self::log::RedisLog;
use self::pubsub::RedisPubSub;
use self::store::RedisStore;
use self::topology::Topology;
use crate::engine::{Engine, Setup};
use crate::error::Result;

/// Opens an engine on one Redis or Valkey: `redis://[user:pass@]host[:port][/db]` or `unix://PATH[?db=N]`; or on a
/// cluster of them: `redis-cluster://[user:pass@]host[:port],host[:port]`, any nodes of which answer for all.
///
/// Appends are kept as the server's persistence is set. Needs Redis 7.0 or Valkey 7.2.
///
/// # Errors
/// `InvalidName` for a malformed URL; `Unavailable` if the server cannot be reached now; `Engine` if it refuses us
/// or is too old.
pub async fn open_redis(url: &str, setup: &Setup) -> Result<Engine> {
    // Names this node's connections and its marks in the server; two nodes never share it.
    let node = format!("{:016x}", fastrand::u64(..));
    let topology = if url.starts_with(address::CLUSTER) {
        Topology::open_cluster(Address::parse_cluster(url)?, &node, setup).await?
    } else {
        Topology::open(Address::parse(url)?, &node, setup).await?
    };
    let topology = Arc::new(topology);
    Ok(Engine {
        pubsub: Arc::new(RedisPubSub { topology: topology.clone() }),
        log: Arc::new(RedisLog::new(topology.clone(), &node, setup)),
        store: Arc::new(RedisStore { topology }),
        name: "redis",
        is_durable: true,
        is_shared: true,
        tasks: setup.tasks.clone(),
    })
}

#[cfg(test)]
mod tests;
