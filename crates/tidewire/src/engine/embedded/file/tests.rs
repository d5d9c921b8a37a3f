//! The engine over a real directory.

mod rig;
mod streams;
