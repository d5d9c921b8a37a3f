//! Key rings: what events are signed and sealed with, by tenant.

mod read;
mod ring;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

pub(super) use read::is_key_id;
pub(super) use ring::{Ring, SealingKey, SigningKey};

use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use ring::{MasterKey, wipe};

/// Keys that events are signed and sealed with, by tenant.
///
/// Cheap to clone; all clones see a rotation at once. The first key of a ring signs or seals, all of them verify or open:
/// to rotate, put the new key second everywhere, then first, and take the old one out when no event of it is left.
///
/// ```
/// # fn main() -> tidewire::Result<()> {
/// let keys = tidewire::Keys::from_json(
///     r#"{"tenants": {
///         "shop": {"signing": [{"id": "2026-11", "secret": "c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXMsIG9rPz8="}]},
///         "*":    {"sealing": [{"id": "m1", "secret": "YW5vdGhlciBvZiB0aGlydHktdHdvIGJ5dGVzLCBva2E="}]}
///     }}"#,
/// )?;
/// assert_eq!(format!("{keys:?}"), r#"{"*": {"sealing": ["m1"]}, "shop": {"signing": ["2026-11"]}}"#);
/// # Ok(())
/// # }
/// ```
///
/// - A ring has 1 to 16 keys. An id is 1 to 64 of `A-Z`, `a-z`, `0-9`, `-`, `_`, `.`, and stands once in its ring.
/// - A secret is base64 of random bytes: 32 to 64 to sign ([RFC 2104](https://www.rfc-editor.org/rfc/rfc2104)), 32 to seal.
/// - Tenant `*` is a master: where a tenant has no ring of a kind, its keys are derived from the master's by HKDF-SHA-256
///   ([RFC 5869](https://www.rfc-editor.org/rfc/rfc5869); no salt, info `tidewire/1/sign/TENANT` or `tidewire/1/seal/TENANT`).
///
/// Secrets appear in no error, log or `Debug`. They are overwritten when dropped, but not everywhere: copies that the
/// environment, the page cache, swap, or the caller of [`from_json`](Self::from_json) hold stay, and the compiler may
/// spill registers.
#[derive(Clone, Default)]
pub struct Keys(Arc<RwLock<Arc<Rings>>>);

/// All rings of one moment.
#[derive(Default)]
struct Rings {
    tenants: FxHashMap<Box<str>, TenantRings>,
    master: Master,
    /// Rings of tenants that were derived from the master, so that it happens once for each.
    derived: RwLock<FxHashMap<Box<str>, TenantRings>>,
    /// SHA-256 of the text that they were read from.
    fingerprint: Option<[u8; 32]>,
}

#[derive(Clone, Default)]
struct TenantRings {
    signing: Option<Arc<Ring<SigningKey>>>,
    sealing: Option<Arc<Ring<SealingKey>>>,
}

#[derive(Default)]
struct Master {
    signing: Option<Ring<MasterKey>>,
    sealing: Option<Ring<MasterKey>>,
}

impl Keys {
    /// Reads keys from JSON; see [`Keys`] for its shape.
    ///
    /// # Errors
    /// `InvalidName` names the tenant, the ring, the key's id and what is wrong; never a secret, not even in part.
    pub fn from_json(text: &str) -> Result<Self> {
        let rings = Rings { fingerprint: Some(fingerprint(text.as_bytes())), ..read::read(text)? };
        Ok(Self(Arc::new(RwLock::new(Arc::new(rings)))))
    }

    /// Reads keys from the JSON in an environment variable.
    ///
    /// # Errors
    /// `NotFound` if it is not set; otherwise as [`from_json`](Self::from_json).
    pub fn from_env(variable: &str) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "secrets are not settings: no command may show them")]
        let text = std::env::var(variable).map_err(|error| match error {
            std::env::VarError::NotPresent => {
                Error::new(ErrorKind::NotFound, format!("environment variable {variable} is not set"))
            }
            std::env::VarError::NotUnicode(_) => {
                Error::new(ErrorKind::InvalidName, format!("environment variable {variable} is not UTF-8"))
            }
        })?;
        let mut text = text.into_bytes();
        let keys = Self::from_bytes(&text);
        wipe(&mut text);
        keys.map_err(|error| Error::new(error.kind(), format!("keys in {variable}")).caused_by(error))
    }

    /// Reads keys from a JSON file. Logs a warning if users of the machine other than its owner and group may read it.
    ///
    /// Reads at once, so call it where that may block.
    ///
    /// # Errors
    /// `NotFound` or `Unavailable` if it cannot be read; `TooLarge` past 16 MiB; otherwise as [`from_json`](Self::from_json).
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut text = read_file(path)?;
        let keys = Self::from_bytes(&text);
        wipe(&mut text);
        let keys = keys.map_err(|error| {
            Error::new(error.kind(), format!("keys in {}", path.display())).caused_by(error)
        })?;
        warn_if_open(path);
        Ok(keys)
    }

    /// Puts `newer` in place of these keys, for all clones: a rotation without a restart.
    ///
    /// What is being signed, sealed, verified or opened at this moment ends with the keys that it began with.
    pub fn replace(&self, newer: &Self) {
        let rings = Arc::clone(&newer.0.read());
        *self.0.write() = rings;
    }

    /// Reads the file again and, if its content is not what these keys were read from, puts it in their place.
    ///
    /// True if it did. The caller decides when: on a signal, or every few seconds. Reads at once, so call it where that may
    /// block.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file); the keys stay as they were.
    pub fn reload(&self, path: &Path) -> Result<bool> {
        let newer = Self::from_file(path)?;
        let is_changed = newer.0.read().fingerprint != self.0.read().fingerprint;
        if is_changed {
            self.replace(&newer);
        }
        Ok(is_changed)
    }

    /// The ring that `tenant` signs with, if it has one.
    pub(super) fn signing(&self, tenant: &str) -> Option<Arc<Ring<SigningKey>>> {
        let rings = Arc::clone(&self.0.read());
        let own = rings.tenants.get(tenant).and_then(|own| own.signing.clone());
        own.or_else(|| rings.derived(tenant).signing)
    }

    /// The ring that `tenant` seals with, if it has one.
    pub(super) fn sealing(&self, tenant: &str) -> Option<Arc<Ring<SealingKey>>> {
        let rings = Arc::clone(&self.0.read());
        let own = rings.tenants.get(tenant).and_then(|own| own.sealing.clone());
        own.or_else(|| rings.derived(tenant).sealing)
    }

    fn from_bytes(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|error| {
            Error::new(ErrorKind::InvalidName, format!("not UTF-8 at byte {}", error.valid_up_to()))
        })?;
        Self::from_json(text)
    }
}

impl Rings {
    /// Rings of `tenant` as the master has them.
    fn derived(&self, tenant: &str) -> TenantRings {
        if self.master.signing.is_none() && self.master.sealing.is_none() {
            return TenantRings::default();
        }
        if let Some(known) = self.derived.read().get(tenant) {
            return known.clone();
        }
        let rings = TenantRings {
            signing: self.master.signing.as_ref().map(|master| Arc::new(master.derive_signing(tenant))),
            sealing: self.master.sealing.as_ref().map(|master| Arc::new(master.derive_sealing(tenant))),
        };
        let mut derived = self.derived.write();
        if derived.len() >= limits::DERIVED_TENANTS_MAX {
            derived.clear();
        }
        derived.insert(tenant.into(), rings.clone());
        rings
    }
}

impl fmt::Debug for Keys {
    /// Tenants and ids, never a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rings = Arc::clone(&self.0.read());
        let ids = |signing: Option<Vec<_>>, sealing: Option<Vec<_>>| {
            let rings = [("signing", signing), ("sealing", sealing)];
            rings.into_iter().filter_map(|(kind, ids)| Some((kind, ids?))).collect::<BTreeMap<_, _>>()
        };
        let mut shown: BTreeMap<_, _> = rings
            .tenants
            .iter()
            .map(|(tenant, own)| {
                let signing = own.signing.as_ref().map(|ring| ring.ids());
                (&**tenant, ids(signing, own.sealing.as_ref().map(|ring| ring.ids())))
            })
            .collect();
        let master = &rings.master;
        if master.signing.is_some() || master.sealing.is_some() {
            let signing = master.signing.as_ref().map(Ring::ids);
            shown.insert(read::MASTER, ids(signing, master.sealing.as_ref().map(Ring::ids)));
        }
        f.debug_map().entries(shown).finish()
    }
}

fn fingerprint(text: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
    fingerprint
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let fault = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("keys in {} cannot be read", path.display())).caused_by(error)
    };
    let file = File::open(path).map_err(fault)?;
    let bytes_max = limits::KEYS_BYTES_MAX as u64;
    let bytes = file.metadata().map_err(fault)?.len().min(bytes_max);
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut text = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default() + 32);
    file.take(bytes_max + 1).read_to_end(&mut text).map_err(fault)?;
    if text.len() > limits::KEYS_BYTES_MAX {
        wipe(&mut text);
        return Err(Error::too_large("file of keys", text.len(), limits::KEYS_BYTES_MAX, "KEYS_BYTES_MAX"));
    }
    Ok(text)
}

#[cfg(unix)]
fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    const OTHERS_MAY_READ: u32 = 0o004;
    if std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OTHERS_MAY_READ != 0) {
        tracing::warn!(file = %path.display(), "keys can be read by every user of this machine: chmod o-r");
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path) {}

#[cfg(test)]
mod tests;
