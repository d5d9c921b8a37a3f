//! Tokens: JSON Web Tokens (RFC 7519) that say who a connection is of, and what it may subscribe to.
//!
//! `docs/tokens.md` tells what an application and an operator see.

#![cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "nothing is done with `iat` and `jti` yet; every kept channel is positioned and recovers"
    )
)]

mod caps;
mod claims;
mod key;
mod key_set;
#[cfg(test)]
mod signing;

use std::borrow::Borrow;
use std::sync::Arc;

use futures_util::future::join_all;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{AlgorithmFamily, Header, decode_header};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidewire::tasks::Tasks;
use tidewire::{Clock, Timestamp};

pub(crate) use self::caps::{Capability, Caps};
pub(crate) use self::claims::{ConnectionClaims, RawOptions, SubscriptionClaims, SubscriptionOptions};
use self::key::{Key, Verdict};
use self::key_set::KeySet;
use crate::config::{DEFAULT_TENANT, TenantConfig};

/// Bytes of a token. Each connection may send one before anything is known of it.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a text for the log that quotes what a client sent.
const REASON_BYTES_MAX: usize = 300;

/// Verifies the tokens of one tenant.
pub(crate) struct Tokens {
    tenant: String,
    /// Secrets and keys of files.
    keys: Vec<Key>,
    sets: Vec<Arc<KeySet>>,
    audience: Option<String>,
    issuer: Option<String>,
}

/// Why a token is not accepted. The text is for the log: the client learns only the code. It never has the token in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Malformed, forged, not yet valid, of somebody else, or of a tenant that accepts no tokens.
    Invalid(String),
    /// Good once, expired now.
    Expired,
    /// It may be good: the key that would tell could not be fetched.
    Unavailable(String),
}

/// What a token is measured against.
struct Expected<'e> {
    tenant: &'e str,
    audience: Option<&'e str>,
    issuer: Option<&'e str>,
    now: Timestamp,
}

impl Refusal {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        Self::Invalid(reason)
    }
}

/// The tenant that a token says it is of. Nothing is proved yet: the [`Tokens`] of that tenant do.
pub(crate) fn claimed_tenant(token: &str) -> Result<String, Refusal> {
    #[derive(Deserialize)]
    struct Claim {
        tenant: Option<String>,
    }
    check_length(token)?;
    let claim: Claim = insecure_decode_claims(token)
        .map_err(|error| Refusal::invalid(format!("malformed token: {error}")))?;
    Ok(claim.tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned()))
}

impl Tokens {
    /// # Errors
    /// What cannot be used of the settings; the text names the key.
    pub(crate) fn new(
        tenant: &str,
        config: &TenantConfig,
        tasks: &Tasks,
        clock: &Clock,
    ) -> Result<Self, String> {
        let secrets = config.token_secrets.iter().map(|secret| Key::of_secret(secret.expose().as_bytes()));
        let mut keys: Vec<Key> = secrets.collect();
        for file in &config.token_keys {
            let of_file = Key::of_file(file);
            keys.extend(of_file.map_err(|problem| format!("token_keys: {}: {problem}", file.display()))?);
        }
        let sets = config.jwks.iter().map(|url| {
            let set = KeySet::new(url, config.jwks_ttl, config.jwks_allow_private, tasks, clock);
            set.map(Arc::new).map_err(|problem| format!("jwks: {url}: {problem}"))
        });
        Ok(Self {
            tenant: tenant.to_owned(),
            keys,
            sets: sets.collect::<Result<_, _>>()?,
            audience: config.token_audience.clone(),
            issuer: config.token_issuer.clone(),
        })
    }

    /// Verifies a connection token. It may have to fetch a key, which takes 5 s at most; dropping the future is safe.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub(crate) async fn connection(&self, token: &str, now: Timestamp) -> Result<ConnectionClaims, Refusal> {
        let claims = self.verify(token).await?;
        ConnectionClaims::read(&claims, &self.expected(now))
    }

    /// Verifies a token for the subscription of `user`, on connection `client`, to `channel`. As [`Tokens::connection`].
    ///
    /// # Errors
    /// Why it is not accepted.
    pub(crate) async fn subscription(
        &self,
        token: &str,
        channel: &str,
        user: &str,
        client: &str,
        now: Timestamp,
    ) -> Result<SubscriptionClaims, Refusal> {
        let claims = self.verify(token).await?;
        SubscriptionClaims::read(&claims, &self.expected(now), (channel, user, client))
    }

    fn expected(&self, now: Timestamp) -> Expected<'_> {
        let (audience, issuer) = (self.audience.as_deref(), self.issuer.as_deref());
        Expected { tenant: &self.tenant, audience, issuer, now }
    }

    /// The claims of a token that one of the keys has signed.
    async fn verify(&self, token: &str) -> Result<Box<RawValue>, Refusal> {
        check_length(token)?;
        let header =
            decode_header(token).map_err(|error| Refusal::invalid(format!("malformed token: {error}")))?;
        if header.crit.is_some() {
            return Err(Refusal::invalid("token has extensions that must be understood (crit)"));
        }
        let mut trial = Trial { token, header: &header, tried: 0 };
        if let Some(claims) = trial.with(&self.keys)? {
            return Ok(claims);
        }
        let mut unknown = Vec::new();
        // No set has secrets.
        let sets = self.sets.iter().filter(|_| header.alg.family() != AlgorithmFamily::Hmac);
        for set in sets {
            match set.known(&header) {
                Some(keys) => {
                    if let Some(claims) = trial.with(&keys)? {
                        return Ok(claims);
                    }
                }
                None => unknown.push(set),
            }
        }
        let mut unavailable = None;
        for found in join_all(unknown.into_iter().map(|set| set.look_again(&header))).await {
            match found {
                Ok(keys) => {
                    if let Some(claims) = trial.with(&keys)? {
                        return Ok(claims);
                    }
                }
                Err(problem) => unavailable = Some(problem),
            }
        }
        Err(unavailable.map_or_else(|| trial.failed(&self.tenant), Refusal::Unavailable))
    }
}

/// A token, and the keys that were tried on it.
struct Trial<'t> {
    token: &'t str,
    header: &'t Header,
    tried: usize,
}

impl Trial<'_> {
    fn with<K: Borrow<Key>>(&mut self, keys: &[K]) -> Result<Option<Box<RawValue>>, Refusal> {
        for key in keys.iter().map(Borrow::borrow).filter(|key| key.fits(self.header.alg)) {
            self.tried += 1;
            match key.verify(self.token, self.header.alg) {
                Verdict::Signed(claims) => return Ok(Some(claims)),
                Verdict::NotMine => {}
                Verdict::Malformed(problem) => {
                    return Err(Refusal::invalid(format!("token not accepted: {problem}")));
                }
            }
        }
        Ok(None)
    }

    fn failed(&self, tenant: &str) -> Refusal {
        let Header { alg, kid, .. } = self.header;
        if self.tried > 0 {
            return Refusal::invalid(format!("no key of the tenant signed the token ({alg:?})"));
        }
        Refusal::invalid(format!(
            "tenants.{tenant} has no key for a token of {alg:?} with kid {kid:?}: see token_secrets, token_keys and jwks"
        ))
    }
}

fn check_length(token: &str) -> Result<(), Refusal> {
    match token.len() {
        bytes if bytes > TOKEN_BYTES_MAX => {
            Err(Refusal::invalid(format!("token is {bytes} bytes, at most {TOKEN_BYTES_MAX} are taken")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
