//! Real servers for tests, benchmarks and the test command: each topology in one call, on loopback, and the faults that
//! happen to such servers.
//!
//! Invariants: every server ends with the process that started it, however that ends; two runs on one machine never
//! share a port or a folder; nothing here waits without a bound. Calls block: an asynchronous test makes them through
//! `spawn_blocking`, or directly where nothing else has to go on meanwhile.

mod acl;
mod admin;
mod certificates;
mod cluster;
mod program;
mod proxy;
mod sentinel;
mod server;
mod standalone;
mod tls;

pub use acl::Acl;
pub use admin::{Admin, PATIENCE, Reply};
pub use certificates::{Certificates, Pair};
pub use cluster::Cluster;
pub use program::{find_program, server_program, valkey_program};
pub use proxy::{Proxy, Way};
pub use sentinel::Sentinel;
pub use server::{Place, Server};
pub use standalone::{Persistence, Standalone};
pub use tls::Tls;
