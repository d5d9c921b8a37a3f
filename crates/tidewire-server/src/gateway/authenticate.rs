//! Connection tokens: JSON Web Tokens signed with a tenant's secret (HS256, RFC 7519).

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidewire::Timestamp;

use crate::config::DEFAULT_TENANT;

/// Who is behind a connection.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The token's `sub`; empty for an anonymous connection.
    pub(crate) user: Arc<str>,
    /// When the token expires.
    pub(crate) expires_at: Option<Timestamp>,
    /// The token's `info`, which subscribers see beside what this user publishes.
    pub(crate) info: Option<Arc<str>>,
}

impl Identity {
    pub(crate) fn anonymous() -> Self {
        Self { user: Arc::from(""), expires_at: None, info: None }
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        !self.user.is_empty()
    }
}

/// Why a token is not accepted. The text is for the log: the client learns only the code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Malformed, forged, not yet valid, or of a tenant that accepts no tokens.
    Invalid(String),
    /// Good once, expired now.
    Expired,
}

/// Times are seconds and may have a fraction (RFC 7519, 2: NumericDate).
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    info: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct TenantClaim {
    tenant: Option<String>,
}

/// The tenant that a token says it is of. Nothing is proved yet: [`verify`] with that tenant's key does.
pub(crate) fn claimed_tenant(token: &str) -> Result<String, Refusal> {
    let claim: TenantClaim = insecure_decode_claims(token)
        .map_err(|error| Refusal::Invalid(format!("malformed token: {error}")))?;
    Ok(claim.tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned()))
}

/// Checks the signature and times of a token.
pub(crate) fn verify(token: &str, key: &DecodingKey, now: Timestamp) -> Result<Identity, Refusal> {
    let mut validation = Validation::new(Algorithm::HS256);
    // Times are checked below, on our clock and without leeway; `aud` is not ours to judge.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims = decode::<Claims>(token, key, &validation)
        .map_err(|error| Refusal::Invalid(format!("token not accepted: {error}")))?
        .claims;
    if claims.nbf.map(time_of).transpose()?.is_some_and(|start| now < start) {
        return Err(Refusal::Invalid("token is not valid yet (nbf)".into()));
    }
    let expires_at = claims.exp.map(time_of).transpose()?;
    if expires_at.is_some_and(|expiry| expiry <= now) {
        return Err(Refusal::Expired);
    }
    let user = claims.sub.filter(|sub| !sub.is_empty());
    let user = user.ok_or_else(|| Refusal::Invalid("token names no user (sub)".into()))?;
    let info = claims.info.map(|info| Arc::from(info.get()));
    Ok(Identity { user: user.into(), expires_at, info })
}

fn time_of(seconds: f64) -> Result<Timestamp, Refusal> {
    let since_epoch = Duration::try_from_secs_f64(seconds)
        .map_err(|error| Refusal::Invalid(format!("token has no valid time: {error}")))?;
    Ok(Timestamp::default().saturating_add(since_epoch))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn token(claims: &Value, secret: &str) -> String {
        encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn outcome(claims: &Value) -> Result<Identity, Refusal> {
        verify(&token(claims, "secret"), &DecodingKey::from_secret(b"secret"), NOW)
    }

    #[test]
    fn accepts_a_token_of_the_tenant() {
        let identity = outcome(&json!({"sub": "ann", "exp": 1_001, "info": {"name": "Ann"}})).unwrap();
        assert_eq!(&*identity.user, "ann");
        assert_eq!(identity.expires_at, Some(Timestamp::from_millis(1_001_000)));
        assert!(outcome(&json!({"sub": "ann", "exp": 1_000.5})).is_ok(), "a time may have a fraction");
        assert_eq!(identity.info.as_deref(), Some(r#"{"name":"Ann"}"#));
    }

    #[test]
    fn tells_an_expired_token_from_a_forged_one() {
        assert_eq!(outcome(&json!({"sub": "ann", "exp": 1_000})).unwrap_err(), Refusal::Expired);
        let forged = token(&json!({"sub": "ann", "exp": 1}), "other");
        let refusal = verify(&forged, &DecodingKey::from_secret(b"secret"), NOW).unwrap_err();
        assert!(matches!(refusal, Refusal::Invalid(_)), "a forged token says nothing about its expiry");
    }

    #[test]
    fn refuses_what_is_no_proof() {
        let key = DecodingKey::from_secret(b"secret");
        // {"alg":"none"}.{"sub":"ann"}. with an empty signature.
        for forged in ["eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.", "", "a.b.c", "...."] {
            assert!(matches!(verify(forged, &key, NOW), Err(Refusal::Invalid(_))), "{forged:?}");
        }
        for claims in [
            json!({}),
            json!({"sub": ""}),
            json!({"sub": "ann", "exp": "9999999999"}),
            json!({"sub": "ann", "exp": -1}),
            json!({"sub": "ann", "exp": 1e300}),
            json!({"sub": "ann", "nbf": 1_001}),
            json!({"sub": 5}),
        ] {
            assert!(matches!(outcome(&claims), Err(Refusal::Invalid(_))), "{claims}");
        }
    }

    #[test]
    fn a_token_without_a_tenant_is_of_the_default_one() {
        assert_eq!(claimed_tenant(&token(&json!({"sub": "a"}), "x")).unwrap(), "default");
        assert_eq!(claimed_tenant(&token(&json!({"tenant": "acme"}), "x")).unwrap(), "acme");
        assert!(claimed_tenant("rubbish").is_err());
    }
}
