//! The embedded engine: `memory:` keeps nothing past the process, `file:DIR` survives its end at any moment.

mod dedup;
mod memory;
mod pubsub;

pub use memory::open_memory;
