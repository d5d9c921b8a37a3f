//! Publish once: your services process it without loss, your users see it at once, and tenants never see
//! each other.

pub mod clock;
pub mod engine;
mod error;
pub mod event;
pub mod limits;
pub mod name;
mod position;
pub mod tasks;

pub use clock::{Clock, Timestamp};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, NodeId, Priority};
pub use limits::Limits;
pub use position::{Epoch, Position};
