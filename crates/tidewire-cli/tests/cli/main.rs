//! The real binary: what its commands print, where, and with which exit code.

#![expect(clippy::unwrap_used, reason = "a process that cannot be started or read is a failed test")]

mod commands;
mod dead;
mod doctor;
mod follow;
mod running;
