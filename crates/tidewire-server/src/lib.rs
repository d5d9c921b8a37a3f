//! The gateway and HTTP API of Tidewire, as a library: tests start it in-process, services mount it.
//!
//! - [`Server`] starts it with a [`Config`] and closes it. It prints nothing and logs through `tracing`.
//! - `edge`: who may come in at all; TLS.
//! - `gateway`: connections of clients; the Centrifuge protocol over WebSocket, SSE and HTTP streaming, one task per
//!   connection.
//! - `peers`: what the nodes that share an engine say to each other.
//! - `tap`: what goes on at the connections of one user, told to one who listens.
//! - `hub`: which connections listen to which channels on this node; one library subscription per channel.
//! - `lifecycle`: telling a tenant's backend who is there, exactly once per change (deduplicated).
//! - `hooks`: backends that are asked who a connection is of, and whether its commands are carried out.
//! - `api`: the Centrifugo-compatible server API, `/v1`, `/health`, `/ready`, `/metrics`.
//! - `tokens`: who a connection is of, and what it may subscribe to.
//! - `webhooks`: endpoints that get the events of a channel, as consumers of groups.

mod accept;
mod api;
pub mod config;
mod edge;
mod effect;
mod failure;
mod gateway;
mod history;
mod hooks;
mod hub;
mod journal;
mod keys;
mod lifecycle;
mod members;
mod metrics;
mod node;
mod peers;
mod permission;
mod publication;
mod publishing;
mod pulls;
mod remote;
mod server;
mod tap;
mod tenants;
mod tokens;
mod webhooks;

pub use config::{Config, ConfigError, EngineUrl, Secret};
pub use server::{Server, StartError};
