//! What `[tenants.NAME]` says of tokens.

use super::url::check_url;
use super::{SECRET_BYTES_MIN, TenantConfig};

/// Secrets, files of keys, and sets of keys of one tenant: each may have to be tried for a token.
const EACH_MAX: usize = 8;

impl TenantConfig {
    pub(super) fn check_tokens(&self) -> Result<(), String> {
        let counts = [
            ("token_secrets", self.token_secrets.len()),
            ("token_keys", self.token_keys.len()),
            ("jwks", self.jwks.len()),
        ];
        if let Some((key, count)) = counts.iter().find(|(_, count)| *count > EACH_MAX) {
            return Err(format!("{key} has {count} entries, at most {EACH_MAX} are taken"));
        }
        if self.token_secrets.iter().any(|secret| secret.expose().len() < SECRET_BYTES_MIN) {
            return Err(format!("token_secrets: a secret is shorter than {SECRET_BYTES_MIN} bytes"));
        }
        for (index, url) in self.jwks.iter().enumerate() {
            check_url(url, self.jwks_allow_private, "jwks_allow_private")
                .map_err(|problem| format!("jwks[{index}] {problem}"))?;
        }
        if self.jwks_ttl.is_zero() {
            return Err("jwks_ttl must be 1ms or more".into());
        }
        let texts = [("token_audience", &self.token_audience), ("token_issuer", &self.token_issuer)];
        match texts.iter().find(|(_, text)| text.as_deref() == Some("")) {
            Some((key, _)) => Err(format!("{key} is empty; leave it out to take any")),
            None => Ok(()),
        }
    }
}
