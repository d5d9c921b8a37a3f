//! Keys as they are used: prepared once, so that using one derives nothing.

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::hmac;

/// What the secret of a sealing key and every derived secret has.
pub(super) const SECRET_BYTES: usize = 32;

/// Keys of one tenant and kind: the first one signs or seals, all of them verify or open.
pub(in crate::event) struct Ring<K> {
    keys: Box<[(Box<str>, K)]>,
}

impl<K> Ring<K> {
    /// A ring of `keys` by their ids.
    pub(super) fn new(keys: Vec<(Box<str>, K)>) -> Self {
        Self { keys: keys.into() }
    }

    /// The id and the key to sign or seal with; there is one in every ring that was read.
    pub(in crate::event) fn first(&self) -> Option<(&str, &K)> {
        self.keys.first().map(|(id, key)| (&**id, key))
    }

    /// The key of that id.
    pub(in crate::event) fn get(&self, id: &str) -> Option<&K> {
        self.keys.iter().find_map(|(known, key)| (**known == *id).then_some(key))
    }

    pub(super) fn ids(&self) -> Vec<&str> {
        self.keys.iter().map(|(id, _)| &**id).collect()
    }

    fn map<T>(&self, make: impl Fn(&K) -> Option<T>) -> Ring<T> {
        let keys = self.keys.iter().filter_map(|(id, key)| Some((id.clone(), make(key)?)));
        Ring { keys: keys.collect() }
    }
}

/// A key of HMAC-SHA-256.
pub(in crate::event) struct SigningKey(pub(in crate::event) hmac::Key);

impl SigningKey {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

/// A key of AES-256-GCM.
pub(in crate::event) struct SealingKey(pub(in crate::event) LessSafeKey);

impl SealingKey {
    /// `None` unless the secret has [`SECRET_BYTES`].
    pub(super) fn new(secret: &[u8]) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, secret).ok().map(|key| Self(LessSafeKey::new(key)))
    }
}

/// A key that keys of tenants are derived from.
pub(super) struct MasterKey(Prk);

impl MasterKey {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(Salt::none(HKDF_SHA256).extract(secret))
    }

    /// Hands over a derived secret, and overwrites it after.
    fn derive<T>(&self, purpose: &str, tenant: &str, make: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let mut secret = [0; SECRET_BYTES];
        let info = [b"tidewire/1/", purpose.as_bytes(), b"/", tenant.as_bytes()];
        let filled: Result<(), Unspecified> =
            self.0.expand(&info, SecretLength).and_then(|derived| derived.fill(&mut secret));
        let made = filled.ok().and_then(|()| make(&secret));
        wipe(&mut secret);
        made
    }
}

impl Ring<MasterKey> {
    /// The ring that `tenant` signs with.
    pub(super) fn derive_signing(&self, tenant: &str) -> Ring<SigningKey> {
        self.map(|master| master.derive("sign", tenant, |secret| Some(SigningKey::new(secret))))
    }

    /// The ring that `tenant` seals with.
    pub(super) fn derive_sealing(&self, tenant: &str) -> Ring<SealingKey> {
        self.map(|master| master.derive("seal", tenant, SealingKey::new))
    }
}

struct SecretLength;

impl KeyType for SecretLength {
    fn len(&self) -> usize {
        SECRET_BYTES
    }
}

/// Overwrites a secret. What looks at it afterwards keeps the compiler from leaving that out.
pub(super) fn wipe(secret: &mut [u8]) {
    secret.fill(0);
    std::hint::black_box(secret);
}
