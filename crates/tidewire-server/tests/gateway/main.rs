//! The server over its wire: a real WebSocket and HTTP client against a server in this process, on `memory:`.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what is not there is the failure that a test is for"
)]

mod allowed;
mod api;
mod backend;
mod client;
mod closed;
mod commands;
mod connect;
mod edge;
mod events;
mod frames;
mod groups;
mod hooks;
mod metrics;
mod openapi;
mod openmetrics;
mod presence;
mod receiver;
mod recovery;
mod schemas;
mod serving;
mod tap;
mod tls;
mod tokens;
mod users;
mod webhooks;
