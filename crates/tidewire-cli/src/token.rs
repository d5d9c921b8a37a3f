//! `tidewire token`: what an application's own server does for its users, by hand.

use std::time::Duration;

use anyhow::Context;
use jiff::{Span, SpanRelativeTo};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use tidewire::Clock;
use tidewire_server::config::{DEFAULT_TENANT, DEV_TOKEN_SECRET, SECRET_BYTES_MIN};

use crate::failed::Failed;
use crate::print;

#[derive(clap::Args)]
pub(crate) struct Token {
    /// Who the token is for (claim `sub`)
    #[arg(long, value_name = "ID")]
    user: String,
    /// The tenant that the user belongs to (claim `tenant`)
    #[arg(long, default_value = DEFAULT_TENANT)]
    tenant: String,
    /// How long the token is valid, such as 90s, 15m, 1h or 7d (claim `exp`)
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    expires: Duration,
    /// The tenant's `token_secret`
    #[arg(long, env = "TIDEWIRE_TOKEN_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Sign with the fixed secret of `tidewire serve --dev`
    #[arg(long)]
    dev: bool,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    tenant: &'a str,
    iat: u64,
    exp: u64,
}

impl Token {
    pub(crate) fn run(self) -> Result<(), Failed> {
        tidewire::name::check_tenant(&self.tenant)
            .map_err(|error| Failed::Usage(format!("--tenant: {error}")))?;
        if self.user.is_empty() {
            return Err(Failed::Usage("--user is empty: a token names its user".into()));
        }
        let key = EncodingKey::from_secret(self.secret()?.as_bytes());
        let now = Clock::system().now();
        let claims = Claims {
            sub: &self.user,
            tenant: &self.tenant,
            iat: now.as_millis() / 1_000,
            exp: now.saturating_add(self.expires).as_millis() / 1_000,
        };
        let token =
            jsonwebtoken::encode(&Header::default(), &claims, &key).context("cannot sign the token")?;
        Ok(print::line(token)?)
    }

    fn secret(&self) -> Result<&str, Failed> {
        // Not clap's `conflicts_with`: a secret in the environment must not be in the way of --dev.
        match &self.secret {
            _ if self.dev => Ok(DEV_TOKEN_SECRET),
            None => Err(Failed::Usage(
                "no secret to sign with: give the tenant's token_secret with --secret or TIDEWIRE_TOKEN_SECRET, \
                 or --dev for a server started with `tidewire serve --dev`"
                    .into(),
            )),
            Some(secret) if secret.len() < SECRET_BYTES_MIN => Err(Failed::Usage(format!(
                "secret is {} bytes; no server accepts one below {SECRET_BYTES_MIN}",
                secret.len()
            ))),
            Some(secret) => Ok(secret),
        }
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let parse = || -> Result<Duration, jiff::Error> {
        text.parse::<Span>()?.to_duration(SpanRelativeTo::days_are_24_hours())?.try_into()
    };
    match parse() {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        Ok(_) => Err("a token is valid for 1s or more".into()),
        Err(_) => Err("not a time such as 90s, 15m, 1h or 7d".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_a_number_and_a_unit() {
        assert_eq!(lifetime("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(lifetime("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(lifetime("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["", "7", "soon", "0s", "-1h", "1 month", "99999999999999d"] {
            assert!(lifetime(text).is_err(), "{text:?}");
        }
    }
}
