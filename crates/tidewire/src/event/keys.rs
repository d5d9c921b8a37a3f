//! Stub.
/// Keys.
#[derive(Debug, Clone, Default)]
pub struct Keys;
