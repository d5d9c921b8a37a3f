//! Stub.
use super::Event;
use super::keys::Keys;
use crate::error::Result;
#[derive(Debug)]
#[allow(dead_code)]
pub(super) enum Untrusted {
    UnknownKey(String),
    Other(String),
}
impl std::fmt::Display for Untrusted {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
pub(super) fn sign(event: Event, _tenant: &str, _keys: &Keys) -> Result<Event> {
    Ok(event)
}
pub(super) fn verify(_event: &Event, _tenant: &str, _keys: &Keys) -> Result<(), Untrusted> {
    Ok(())
}
