//! Connections of clients: the Centrifuge protocol in JSON over WebSocket.

pub(crate) mod authenticate;
mod connection;
mod subscribe;
pub(crate) mod websocket;
