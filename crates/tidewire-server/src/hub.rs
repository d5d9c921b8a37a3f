//! The listeners of this node: which connections listen to which channels.
//!
//! One subscription of the library for each channel feeds all connections of the node that listen to it: a
//! [`relay::Relay`]. It encodes an event once; a delivery is a clone of shared bytes into the connection's
//! [`outbox::Outbox`] and a write to its socket, never a task.

mod broadcast;
pub(crate) mod connections;
mod filled;
pub(crate) mod outbox;
pub(crate) mod recovery;
pub(crate) mod registry;
pub(crate) mod relay;
