//! Connections of clients: the Centrifuge protocol in JSON and Protobuf, over WebSocket, SSE and HTTP streaming.
//!
//! A [`connection`] runs commands and knows no transport; [`serve`] drives it over one.

pub(crate) mod admission;
mod ahead;
mod asking;
mod attendance;
pub(crate) mod authenticate;
pub(crate) mod connection;
pub(crate) mod emulation;
mod expiry;
mod presence;
pub(crate) mod reaping;
mod serve;
mod session;
pub(crate) mod stream;
mod subscribe;
mod subscriptions;
pub(crate) mod websocket;

pub(crate) use self::connection::Vitals;
#[cfg(test)]
pub(crate) use self::connection::{Connection, Origin};

#[cfg(test)]
mod tests;
