//! The gateway and HTTP API of Tidewire, as a library.

pub mod config;
