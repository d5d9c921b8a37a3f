//! The real binary: what its commands print, where, and with which exit code.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a process that cannot be started or read is a failed test, and so is one that does not say what it should"
)]

mod bench;
mod commands;
mod dead;
mod doctor;
mod follow;
mod lifecycle;
mod running;
mod schema;
mod secrets;
mod tls;
mod webhooks;
