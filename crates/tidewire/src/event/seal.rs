//! Seals: only who has the tenant's key can read the data. Drawn in `docs/formats/signature.md`.

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use aws_lc_rs::rand;
use bytes::Bytes;

use super::Event;
use super::envelope::put_field;
use super::keys::{Keys, is_key_id};
use super::sign::{Guard, Untrusted, VERSION};
use crate::error::{Error, ErrorKind, Result};

/// The extension attribute that says that data is sealed, and with which key.
pub(super) const SEALED: &str = "sealed";
/// Bytes of the tag of AES-GCM.
const TAG_BYTES: usize = 16;
/// How much longer data becomes.
pub(super) const SEAL_BYTES: usize = NONCE_LEN + TAG_BYTES;

/// Seals the data of `event` with the first sealing key of `tenant`: AES-256-GCM
/// ([SP 800-38D](https://doi.org/10.6028/NIST.SP.800-38D)) with a random nonce.
///
/// Data becomes 28 bytes longer. It can be opened for the same tenant, id, type and schema only, so those have to be set.
/// One key may seal 2^32 events, past which two nonces may be equal with a chance of more than 2^-32: rotate before. A
/// master's key is another one for each tenant.
///
/// # Errors
/// `NotFound` if the tenant has no sealing key, `Conflict` if the event is sealed already, `Unavailable` if the system has no
/// random bytes.
pub(super) fn seal(event: Event, tenant: &str, keys: &Keys) -> Result<Event> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| {
        Error::new(ErrorKind::Unavailable, "the system has no random bytes to seal data with")
    })?;
    seal_with(event, tenant, keys, nonce)
}

/// As [`seal`], with a nonce that was never used with this key.
fn seal_with(mut event: Event, tenant: &str, keys: &Keys, nonce: [u8; NONCE_LEN]) -> Result<Event> {
    let ring = keys.sealing(tenant);
    let Some((id, key)) = ring.as_ref().and_then(|ring| ring.first()) else {
        return Err(Error::new(ErrorKind::NotFound, format!("tenant {tenant:?} has no sealing key")));
    };
    if is_sealed(&event) {
        return Err(Error::new(ErrorKind::Conflict, format!("event {} is sealed already", event.id)));
    }
    let mut sealed = Vec::with_capacity(event.data.len() + SEAL_BYTES);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&event.data);
    let data = sealed.get_mut(NONCE_LEN..).unwrap_or_default();
    let tag = key
        .0
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), beside(&event, tenant), data)
        .map_err(|_| Error::new(ErrorKind::TooLarge, "event data is too long to be sealed"))?;
    sealed.extend_from_slice(tag.as_ref());
    event.data = sealed.into();
    Ok(event.with_extension(SEALED, id))
}

/// Whether `event` says that its data is sealed.
pub(super) fn is_sealed(event: &Event) -> bool {
    event.extension(SEALED).is_some()
}

/// The data of `event` as it was before it was sealed for `tenant`.
///
/// # Errors
/// [`Untrusted`] says why it cannot be opened.
pub(super) fn open(event: &Event, tenant: &str, keys: &Keys) -> Result<Bytes, Untrusted> {
    let id = event.extension(SEALED).ok_or(Untrusted::Missing(Guard::Seal))?;
    if !is_key_id(id) {
        return Err(Untrusted::Cut(Guard::Seal));
    }
    let (nonce, rest) = event.data.split_first_chunk::<NONCE_LEN>().ok_or(Untrusted::Cut(Guard::Seal))?;
    let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(Untrusted::Cut(Guard::Seal))?;
    let ring = keys.sealing(tenant);
    let key = ring.as_ref().and_then(|ring| ring.get(id));
    let key = key.ok_or_else(|| Untrusted::UnknownKey(Guard::Seal, id.into()))?;
    let mut data = vec![0; sealed.len()];
    key.0
        .open_separate_gather(
            Nonce::assume_unique_for_key(*nonce),
            beside(event, tenant),
            sealed,
            tag,
            &mut data,
        )
        .map_err(|_| Untrusted::Wrong(Guard::Seal))?;
    Ok(data.into())
}

/// What the seal vouches for beside the data.
fn beside(event: &Event, tenant: &str) -> Aad<Vec<u8>> {
    let mut fields = Vec::with_capacity(256);
    put_field(&mut fields, VERSION.as_bytes());
    put_field(&mut fields, tenant.as_bytes());
    put_field(&mut fields, event.id.as_bytes());
    put_field(&mut fields, event.event_type().as_bytes());
    put_field(&mut fields, event.data_schema().unwrap_or_default().as_bytes());
    Aad::from(fields)
}

#[cfg(test)]
mod tests;
