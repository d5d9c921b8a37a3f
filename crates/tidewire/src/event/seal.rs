//! Stub.
use super::Event;
use super::keys::Keys;
use super::sign::Untrusted;
use crate::error::Result;
pub(super) fn seal(event: Event, _tenant: &str, _keys: &Keys) -> Result<Event> {
    Ok(event)
}
pub(super) fn open(event: &Event, _tenant: &str, _keys: &Keys) -> Result<bytes::Bytes, Untrusted> {
    Ok(event.data().clone())
}
pub(super) fn is_sealed(_event: &Event) -> bool {
    false
}
