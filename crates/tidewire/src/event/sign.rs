//! Signatures: an event comes from somebody who has the tenant's key, as it was signed. Drawn in
//! `docs/formats/signature.md`.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Event;
use super::envelope::{length, put_field};
use super::keys::{Keys, is_key_id};
use super::seal::SEALED;
use crate::error::{Error, ErrorKind, Result};

/// The extension attribute that holds a signature: the key's id, a colon, and the tag in base64url without padding.
pub(super) const SIGNATURE: &str = "signature";
/// The first field of what is signed or sealed. Fields never change meaning under one version.
pub(super) const VERSION: &str = "tidewire/1";
/// Bytes of HMAC-SHA-256 ([RFC 2104](https://www.rfc-editor.org/rfc/rfc2104)).
const TAG_BYTES: usize = 32;

/// Signs `event` with the first signing key of `tenant`, in place of a signature that it had.
///
/// Covered is what says what the event is: tenant, id, time, type, `source`, `subject`, `datacontenttype`, `dataschema`,
/// `partitionkey`, `sealed` and the data. Free to change or be added are the node, the priority, what joins events
/// (`correlationid`, `causationid`, `traceparent`) and all other extensions, such as those of a replay. So sign last: once the
/// time is set and the data is sealed.
///
/// A signature does not say when or where it was seen: one signed event may be delivered twice (ids deduplicate) or on
/// another channel of its tenant, never in another tenant.
///
/// # Errors
/// `NotFound` if the tenant has no signing key.
pub(super) fn sign(event: Event, tenant: &str, keys: &Keys) -> Result<Event> {
    let ring = keys.signing(tenant);
    let Some((id, key)) = ring.as_ref().and_then(|ring| ring.first()) else {
        return Err(Error::new(ErrorKind::NotFound, format!("tenant {tenant:?} has no signing key")));
    };
    let mut signature = format!("{id}:");
    URL_SAFE_NO_PAD.encode_string(tag(&key.0, &event, tenant), &mut signature);
    Ok(event.with_extension(SIGNATURE, &signature))
}

/// What an event without a content type is of; some ways through other systems name it.
const JSON: &str = "application/json";

/// Whether it has a signature, be it right or wrong.
pub(super) fn is_signed(event: &Event) -> bool {
    event.extension(SIGNATURE).is_some()
}

/// Checks the signature of `event` against all signing keys of `tenant`; compares in constant time.
///
/// # Errors
/// [`Untrusted`] says why it cannot be trusted.
pub(super) fn verify(event: &Event, tenant: &str, keys: &Keys) -> Result<(), Untrusted> {
    let signature = event.extension(SIGNATURE).ok_or(Untrusted::Missing(Guard::Signature))?;
    let (id, text) = signature.split_once(':').ok_or(Untrusted::Cut(Guard::Signature))?;
    let mut found = [0; TAG_BYTES];
    let decoded = URL_SAFE_NO_PAD.decode_slice(text, &mut found);
    if !is_key_id(id) || !decoded.is_ok_and(|bytes| bytes == TAG_BYTES) {
        return Err(Untrusted::Cut(Guard::Signature));
    }
    let ring = keys.signing(tenant);
    let key = ring.as_ref().and_then(|ring| ring.get(id));
    let key = key.ok_or_else(|| Untrusted::UnknownKey(Guard::Signature, id.into()))?;
    constant_time::verify_slices_are_equal(tag(&key.0, event, tenant).as_ref(), &found)
        .map_err(|_| Untrusted::Wrong(Guard::Signature))
}

fn tag(key: &hmac::Key, event: &Event, tenant: &str) -> hmac::Tag {
    // The attributes that are covered, by name.
    let attributes = [
        ("datacontenttype", Some(event.content_type().unwrap_or(JSON))),
        ("dataschema", event.data_schema()),
        ("partitionkey", event.key()),
        (SEALED, event.extension(SEALED)),
        ("source", event.source()),
        ("subject", event.subject()),
    ];
    let mut head = Vec::with_capacity(512);
    put_field(&mut head, VERSION.as_bytes());
    put_field(&mut head, tenant.as_bytes());
    put_field(&mut head, event.id.as_bytes());
    put_field(&mut head, &event.time.as_millis().to_be_bytes());
    put_field(&mut head, event.event_type().as_bytes());
    for (name, value) in attributes {
        if let Some(value) = value {
            put_field(&mut head, name.as_bytes());
            put_field(&mut head, value.as_bytes());
        }
    }
    head.extend_from_slice(&length(event.data.len()).to_be_bytes());
    let mut context = hmac::Context::with_key(key);
    context.update(&head);
    context.update(&event.data);
    context.sign()
}

/// Why an event cannot be trusted, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Untrusted {
    /// It has none.
    Missing(Guard),
    /// It has not the shape of one.
    Cut(Guard),
    /// The key is not among those of the tenant. Later it may be: a rotation reaches nodes one after the other.
    UnknownKey(Guard, Box<str>),
    /// The key is known, and did not make it for this event in this tenant.
    Wrong(Guard),
}

impl Untrusted {
    /// What was looked at.
    pub(super) fn guard(&self) -> Guard {
        let (Self::Missing(guard) | Self::Cut(guard) | Self::UnknownKey(guard, _) | Self::Wrong(guard)) =
            self;
        *guard
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// The signature of an event.
    Signature,
    /// The seal of its data.
    Seal,
}

impl Guard {
    /// The extension attribute that it stands in.
    pub(super) fn attribute(self) -> &'static str {
        match self {
            Self::Signature => SIGNATURE,
            Self::Seal => SEALED,
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "signature",
            Self::Seal => "seal",
        })
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(guard) => write!(f, "{guard} is missing"),
            Self::Cut(guard) => write!(f, "{guard} is cut or malformed"),
            Self::UnknownKey(Guard::Signature, id) => {
                write!(f, "signed with key {id:?}, which this node does not have")
            }
            Self::UnknownKey(Guard::Seal, id) => {
                write!(f, "sealed with key {id:?}, which this node does not have")
            }
            Self::Wrong(guard) => write!(f, "{guard} is wrong"),
        }
    }
}

impl std::error::Error for Untrusted {}

#[cfg(test)]
mod tests;
