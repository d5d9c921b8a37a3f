//! The engine over a real directory.

mod damage;
mod faults;
mod groups;
mod rig;
mod schedule;
mod store;
mod streams;
