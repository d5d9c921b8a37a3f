//! Redis and Valkey, through our own RESP3 connection.
//!
//! A node has two links to a server: one for data, shared by all callers, and one that listens. Where a name is kept is
//! said in `keys.rs`; what happens in one step, in `scripts/`.

mod address;
mod announcement;
mod backoff;
mod capabilities;
mod command;
mod connection;
mod examine;
mod keys;
mod link;
mod log;
mod members;
mod pubsub;
mod refusal;
mod resp;
mod scripts;
mod store;
mod subscriber;
mod tls;
mod topology;

use std::sync::Arc;

use self::address::Target;
use self::log::RedisLog;
use self::pubsub::RedisPubSub;
use self::store::RedisStore;
use self::topology::Topology;
use crate::engine::{Engine, Setup};
use crate::error::Result;

/// Whether URLs of this scheme name a Redis or Valkey.
pub fn is_scheme(scheme: &str) -> bool {
    address::is_scheme(scheme)
}

/// Opens an engine on Redis or Valkey.
///
/// | URL | |
/// |---|---|
/// | `redis://[user:pass@]host[:port][/db]` | one server |
/// | `unix://PATH[?db=N&user=U&password=P]` | one server, over its socket |
/// | `redis-sentinel://[user:pass@]host[:port],host[:port]/primary-name[?db=N]` | the primary that sentinels name, also after a failover; `sentinel_user` and `sentinel_password` are for the sentinels |
/// | `redis-cluster://[user:pass@]host[:port],host[:port]` | a cluster, any nodes of which answer for all |
///
/// With `rediss`, `rediss-sentinel` or `rediss-cluster` every link is encrypted. `?ca=FILE` says who may have signed the
/// servers' certificates (else the system's roots), `cert=FILE&key=FILE` who we are, `server_name=NAME` what the
/// certificates are for, where that is not the host. Files are PEM, and read once. Every form takes
/// `connect_timeout_ms` (3,000).
///
/// Appends are kept as the server's persistence is set. Needs Redis 7.0 or Valkey 7.2.
///
/// # Errors
/// `InvalidName` for a malformed URL; `Unavailable` if the server cannot be reached now; `Engine` if it refuses us
/// or is too old.
pub async fn open_redis(url: &str, setup: &Setup) -> Result<Engine> {
    // Names this node's connections and its marks in the server; two nodes never share it.
    let node = format!("{:016x}", fastrand::u64(..));
    let topology = match Target::parse(url)? {
        Target::One(address) => Topology::open(address, &node, setup).await?,
        Target::Cluster(seeds) => Topology::open_cluster(seeds, &node, setup).await?,
        Target::Sentinel(group) => Topology::open_sentinel(group, &node, setup).await?,
    };
    let topology = Arc::new(topology);
    Ok(Engine {
        pubsub: Arc::new(RedisPubSub { topology: topology.clone() }),
        log: Arc::new(RedisLog::new(topology.clone(), &node, setup)),
        examine: examine::examiner(topology.clone(), setup.clock.clone()),
        store: Arc::new(RedisStore { topology }),
        name: "redis",
        is_durable: true,
        is_shared: true,
        tasks: setup.tasks.clone(),
    })
}

#[cfg(test)]
mod tests;
