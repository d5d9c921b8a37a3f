//! The embedded engine: `memory:` keeps nothing past the process, `file:DIR` survives its end at any moment.

mod dedup;
mod file;
mod group;
mod members;
mod memory;
mod pubsub;

pub use file::{FileOptions, Fsync, open_file};
pub use memory::open_memory;
