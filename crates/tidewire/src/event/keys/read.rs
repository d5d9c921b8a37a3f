//! Key rings out of JSON. No fault shows a text from the file that is not known to be a name: it may be a secret in the
//! wrong place.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use super::ring::{MasterKey, Ring, SECRET_BYTES, SealingKey, SigningKey, wipe};
use super::{Arc, Master, Rings, TenantRings};
use crate::error::{Error, ErrorKind, Result};
use crate::event::json::{JsonLimits, check_json};
use crate::limits;
use crate::name;

/// The tenant whose keys are those that others' are derived from.
pub(super) const MASTER: &str = "*";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a ring is for.
#[derive(Clone, Copy)]
enum Kind {
    Signing,
    Sealing,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Sealing => "sealing",
        }
    }
}

/// Reads rings from JSON.
pub(super) fn read(text: &str) -> Result<Rings> {
    let mut bounds = JsonLimits::default();
    // A tenant has seven keys of JSON, or more: the length of the text is what bounds them.
    (bounds.object_keys_max, bounds.keys_max, bounds.values_max) = (usize::MAX, usize::MAX, usize::MAX);
    if text.len() > limits::KEYS_BYTES_MAX {
        return Err(Error::too_large("text of keys", text.len(), limits::KEYS_BYTES_MAX, "KEYS_BYTES_MAX"));
    }
    check_json(text.as_bytes(), &bounds)
        .map_err(|found| fault(format!("not as it should be: {}", found.text())))?;
    // Its own faults show values, and after the check above it has none.
    let mut json = serde_json::from_str(text).map_err(|_| fault("not JSON"))?;
    let rings = read_tenants(&json);
    wipe_strings(&mut json);
    rings
}

fn read_tenants(json: &Value) -> Result<Rings> {
    let top = members(json, "the text", &["tenants"])?;
    let Some(Value::Object(tenants)) = top.get("tenants") else {
        return Err(fault("member \"tenants\" is missing or no object"));
    };
    let (mut rings, mut master) = (FxHashMap::default(), Master::default());
    for (number, (tenant, json)) in tenants.iter().enumerate() {
        if tenant != MASTER && name::check_tenant(tenant).is_err() {
            let text = format!("name {} under \"tenants\" is neither \"*\" nor one of a tenant", number + 1);
            return Err(fault(text));
        }
        let own = members(json, &format!("tenant {tenant:?}"), &["signing", "sealing"])?;
        let ring = |kind: Kind| own.get(kind.name()).map(|ring| (kind, ring));
        if tenant == MASTER {
            let make = |secret: &[u8]| Some(MasterKey::new(secret));
            master.signing =
                ring(Kind::Signing).map(|(kind, ring)| read_ring(ring, kind, tenant, make)).transpose()?;
            master.sealing =
                ring(Kind::Sealing).map(|(kind, ring)| read_ring(ring, kind, tenant, make)).transpose()?;
            continue;
        }
        let signing = ring(Kind::Signing)
            .map(|(kind, ring)| read_ring(ring, kind, tenant, |secret| Some(SigningKey::new(secret))))
            .transpose()?;
        let sealing = ring(Kind::Sealing)
            .map(|(kind, ring)| read_ring(ring, kind, tenant, SealingKey::new))
            .transpose()?;
        let own = TenantRings { signing: signing.map(Arc::new), sealing: sealing.map(Arc::new) };
        rings.insert(tenant.as_str().into(), own);
    }
    Ok(Rings { tenants: rings, master, ..Rings::default() })
}

fn read_ring<K>(
    json: &Value,
    kind: Kind,
    tenant: &str,
    make: impl Fn(&[u8]) -> Option<K>,
) -> Result<Ring<K>> {
    let ring = format!("{} ring of tenant {tenant:?}", kind.name());
    let list = json.as_array().ok_or_else(|| fault(format!("{ring} is no list")))?;
    if list.is_empty() {
        return Err(fault(format!("{ring} is empty; leave it out if there is none")));
    }
    if list.len() > limits::RING_KEYS_MAX {
        let max = limits::RING_KEYS_MAX;
        return Err(fault(format!("{ring} has {} keys, limit is {max} (limits.RING_KEYS_MAX)", list.len())));
    }
    let mut keys: Vec<(Box<str>, K)> = Vec::with_capacity(list.len());
    for (number, json) in list.iter().enumerate() {
        let place = format!("key {} of the {ring}", number + 1);
        let key = members(json, &place, &["id", "secret"])?;
        let id = key.get("id").and_then(Value::as_str).filter(|id| is_key_id(id)).ok_or_else(|| {
            let max = limits::KEY_ID_BYTES_MAX;
            fault(format!("{place} has no id of 1 to {max} of A-Z a-z 0-9 - _ . (limits.KEY_ID_BYTES_MAX)"))
        })?;
        let place = format!("key {id:?} of the {ring}");
        if keys.iter().any(|(known, _)| **known == *id) {
            return Err(fault(format!("{place} stands there twice")));
        }
        let secret = key.get("secret").and_then(Value::as_str);
        let secret = secret.ok_or_else(|| fault(format!("{place} has no secret")))?;
        keys.push((id.into(), read_secret(secret, kind, &place, &make)?));
    }
    Ok(Ring::new(keys))
}

fn read_secret<K>(text: &str, kind: Kind, place: &str, make: impl Fn(&[u8]) -> Option<K>) -> Result<K> {
    let mut secret = Vec::with_capacity(text.len());
    let decoded = BASE64.decode_vec(text, &mut secret);
    let (allowed, wanted) = match kind {
        Kind::Signing => (SECRET_BYTES..=64, "32 to 64"),
        Kind::Sealing => (SECRET_BYTES..=SECRET_BYTES, "32"),
    };
    let key = match decoded {
        // Which character is wrong would be a part of the secret.
        Err(_) => Err(fault(format!("{place} has a secret that is not base64"))),
        Ok(()) if !allowed.contains(&secret.len()) => Err(fault(format!(
            "{place} has a secret of {} bytes, {} takes {wanted}",
            secret.len(),
            kind.name()
        ))),
        Ok(()) => make(&secret).ok_or_else(|| fault(format!("{place} has a secret that cannot be used"))),
    };
    wipe(&mut secret);
    key
}

/// Whether `id` may name a key.
pub(in crate::event) fn is_key_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=limits::KEY_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_allowed)
}

fn members<'a>(json: &'a Value, what: &str, known: &[&str]) -> Result<&'a Map<String, Value>> {
    let members = json.as_object().ok_or_else(|| fault(format!("{what} is no object")))?;
    match members.keys().all(|name| known.contains(&name.as_str())) {
        true => Ok(members),
        false => Err(fault(format!("{what} has a member that is not {}", known.join(" or ")))),
    }
}

fn fault(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidName, text)
}

/// Overwrites all strings in `json`, as deep as a text of keys may be.
fn wipe_strings(json: &mut Value) {
    match json {
        Value::String(text) => {
            let mut bytes = std::mem::take(text).into_bytes();
            wipe(&mut bytes);
        }
        Value::Array(items) => items.iter_mut().for_each(wipe_strings),
        Value::Object(members) => members.values_mut().for_each(wipe_strings),
        _ => {}
    }
}
