//! One key that tokens are verified with, and the algorithms that it is for.
//!
//! A token names its algorithm itself, so each key says which ones it accepts: none of another kind, and `none` never (RFC
//! 8725, 3.1 and 3.2).

use std::path::Path;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Public keys of one file or one set: each is a signature to verify for a token that fits.
pub(super) const KEYS_MAX: usize = 64;

/// Modulus of an RSA key, in bits: below 2,048 it can be factored (RFC 7518, 3.3), above 8,192 it takes too long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

const OF_SECRETS: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const OF_RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const OF_P256: &[Algorithm] = &[Algorithm::ES256];
const OF_P384: &[Algorithm] = &[Algorithm::ES384];
const OF_ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// A key. Neither it nor its `Debug` shows a secret.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The name under which a set has it (`kid`).
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// What a key says to a token.
pub(super) enum Verdict {
    /// It signed these claims.
    Signed(Box<RawValue>),
    /// It did not sign this.
    NotMine,
    /// This is no token.
    Malformed(String),
}

impl Key {
    /// A secret that both sides have.
    pub(super) fn of_secret(secret: &[u8]) -> Self {
        Self { id: None, algorithms: OF_SECRETS.to_vec(), decoding: DecodingKey::from_secret(secret) }
    }

    /// The public keys of a PEM file.
    ///
    /// # Errors
    /// What cannot be used of it.
    pub(super) fn of_file(file: &Path) -> Result<Vec<Self>, String> {
        let text = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
        Self::of_pem(&text)
    }

    pub(super) fn of_pem(text: &[u8]) -> Result<Vec<Self>, String> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>) as PemObject>::pem_slice_iter(text) {
            match section.map_err(|error| format!("is no PEM: {error}"))? {
                (SectionKind::PublicKey, der) => keys.push(Self::of_der(&der)?),
                (SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _) => {
                    return Err(
                        "holds a private key; give its public half alone: openssl pkey -pubout".into()
                    );
                }
                _ => {}
            }
        }
        match keys.len() {
            0 => Err(
                "holds no public key; its sections must be PUBLIC KEY, as openssl pkey -pubout writes them"
                    .into(),
            ),
            count if count > KEYS_MAX => Err(format!("holds {count} keys, at most {KEYS_MAX} are taken")),
            _ => Ok(keys),
        }
    }

    /// A public key as X.509 has it.
    fn of_der(der: &[u8]) -> Result<Self, String> {
        let is_of = |algorithm: &'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(algorithm, der).parse().is_ok()
        };
        let (algorithms, decoding) = if is_of(&ED25519) {
            (OF_ED25519, DecodingKey::from_ed_der(der))
        } else if is_of(&ECDSA_P256_SHA256_FIXED) {
            (OF_P256, DecodingKey::from_ec_der(der))
        } else if is_of(&ECDSA_P384_SHA384_FIXED) {
            (OF_P384, DecodingKey::from_ec_der(der))
        } else {
            let rsa = PublicEncryptingKey::from_der(der);
            check_rsa(&rsa.map_err(|_| "holds a key that is none of RSA, EC P-256, EC P-384, Ed25519")?)?;
            (OF_RSA, DecodingKey::from_rsa_der(der))
        };
        Ok(Self { id: None, algorithms: algorithms.to_vec(), decoding })
    }

    /// A key of a set (RFC 7517). `None` if it is not for verifying tokens, or of a kind that is not known here.
    ///
    /// # Errors
    /// It is of a known kind, and broken.
    fn of_jwk(jwk: &Jwk) -> Result<Option<Self>, String> {
        let common = &jwk.common;
        let is_for_signatures =
            common.public_key_use.as_ref().is_none_or(|r#use| *r#use == PublicKeyUse::Signature)
                && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !is_for_signatures {
            return Ok(None);
        }
        let broken =
            |problem: &str| format!("key {:?}: {problem}", common.key_id.as_deref().unwrap_or_default());
        let bytes =
            |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| broken("is not written in base64url"));
        let (algorithms, decoding) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let (n, e) = (bytes(&rsa.n)?, bytes(&rsa.e)?);
                let key: Result<PublicEncryptingKey, _> = RsaPublicKeyComponents { n: &n, e: &e }.try_into();
                // Read as if it came from outside: only then is all of it checked.
                let der: Result<PublicKeyX509Der<'_>, _> = key.and_then(|key| key.as_der());
                let der = der.map_err(|_| broken("is no RSA key"))?;
                let key = PublicEncryptingKey::from_der(der.as_ref()).map_err(|_| broken("is no RSA key"))?;
                check_rsa(&key).map_err(|problem| broken(&problem))?;
                (OF_RSA, DecodingKey::from_rsa_der(der.as_ref()))
            }
            AlgorithmParameters::EllipticCurve(ec) => {
                let (algorithm, algorithms): (&'static dyn VerificationAlgorithm, _) = match ec.curve {
                    EllipticCurve::P256 => (&ECDSA_P256_SHA256_FIXED, OF_P256),
                    EllipticCurve::P384 => (&ECDSA_P384_SHA384_FIXED, OF_P384),
                    _ => return Ok(None),
                };
                // An uncompressed point (SEC 1, 2.3.3).
                let point = [vec![4], bytes(&ec.x)?, bytes(&ec.y)?].concat();
                let parsed = UnparsedPublicKey::new(algorithm, &point).parse();
                parsed.map_err(|_| broken("is no point of its curve"))?;
                (algorithms, DecodingKey::from_ec_der(&point))
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                let x = bytes(&pair.x)?;
                let parsed = UnparsedPublicKey::new(&ED25519, &x).parse();
                parsed.map_err(|_| broken("is no Ed25519 key"))?;
                (OF_ED25519, DecodingKey::from_ed_der(&x))
            }
            // A secret that anybody can fetch is none.
            _ => return Ok(None),
        };
        let mut algorithms = algorithms.to_vec();
        if let Some(only) = common.key_algorithm {
            algorithms.retain(|algorithm| Algorithm::try_from(only).as_ref() == Ok(algorithm));
        }
        let is_usable = !algorithms.is_empty();
        Ok(is_usable.then(|| Self { id: common.key_id.clone(), algorithms, decoding }))
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it is for tokens of `algorithm`.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Looks at the signature of a token of `algorithm`, and at nothing else.
    pub(super) fn verify(&self, token: &str, algorithm: Algorithm) -> Verdict {
        if !self.fits(algorithm) {
            return Verdict::NotMine;
        }
        let mut validation = Validation::new(algorithm);
        // Claims are checked by `claims`, on our clock and without leeway.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        match decode::<Box<RawValue>>(token, &self.decoding, &validation) {
            Ok(token) => Verdict::Signed(token.claims),
            Err(error) if *error.kind() == ErrorKind::InvalidSignature => Verdict::NotMine,
            Err(error) => Verdict::Malformed(error.to_string()),
        }
    }
}

/// The keys of a JSON Web Key Set that tokens can be verified with. What is not known of it is passed over, as RFC 7517, 5
/// says, and so is a broken key beside others.
///
/// # Errors
/// It is no set, has too many keys, or only broken ones.
pub(super) fn read_set(text: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Box<RawValue>>,
    }
    let set: Set =
        serde_json::from_slice(text).map_err(|error| format!("it is no JSON Web Key Set: {error}"))?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("it has {} keys, at most {KEYS_MAX} are taken", set.keys.len()));
    }
    let (mut keys, mut broken) = (Vec::new(), None);
    for text in &set.keys {
        let jwk: Result<Jwk, _> = serde_json::from_str(text.get());
        match jwk
            .map_err(|error| format!("a key of it cannot be read: {error}"))
            .and_then(|jwk| Key::of_jwk(&jwk))
        {
            Ok(key) => keys.extend(key),
            Err(problem) => broken = Some(problem),
        }
    }
    match broken {
        Some(problem) if keys.is_empty() => Err(problem),
        _ => Ok(keys),
    }
}

fn check_rsa(key: &PublicEncryptingKey) -> Result<(), String> {
    match key.key_size_bits() {
        bits if RSA_BITS.contains(&bits) => Ok(()),
        bits => Err(format!(
            "an RSA key has {bits} bits; it must have {} to {}",
            RSA_BITS.start(),
            RSA_BITS.end()
        )),
    }
}

#[cfg(test)]
mod tests;
