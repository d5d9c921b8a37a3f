//! The gateway and HTTP API of Tidewire, as a library: tests start it in-process, services mount it.
//!
//! - [`Server`] starts it with a [`Config`] and closes it. It prints nothing and logs through `tracing`.
//! - `gateway`: connections of clients; the Centrifuge protocol over WebSocket, SSE and HTTP streaming, one task per
//!   connection.
//! - `peers`: what the nodes that share an engine say to each other.
//! - `hub`: which connections listen to which channels on this node; one library subscription per channel.
//! - `hooks`: backends that are asked who a connection is of, and whether its commands are carried out.
//! - `api`: the Centrifugo-compatible server API, `/v1`, `/health`, `/ready`, `/metrics`.
//! - `tokens`: who a connection is of, and what it may subscribe to.
//! - `webhooks`: endpoints that get the events of a channel, as consumers of groups.

mod accept;
mod api;
pub mod config;
mod effect;
mod failure;
mod gateway;
mod history;
mod hooks;
mod hub;
mod journal;
mod keys;
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
mod tenants;
mod tokens;
mod webhooks;

pub use config::{Config, ConfigError, EngineUrl, Secret};
pub use server::{Server, StartError};
