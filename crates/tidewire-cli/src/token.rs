//! `tidewire token`: what an application's own server does for its users, by hand.

use std::time::Duration;

use anyhow::Context;
use jiff::{Span, SpanRelativeTo};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};
use tidewire::{Clock, Timestamp};
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
    /// Make it a token for subscribing to this channel, not for connecting (claim `channel`)
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// One more claim, such as 'info={"name":"Ann"}' or 'channels=["news"]'; may be repeated
    #[arg(long, value_name = "KEY=JSON", value_parser = claim)]
    claim: Vec<(String, Value)>,
    /// One of the tenant's `token_secrets`
    #[arg(long, env = "TIDEWIRE_TOKEN_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Sign with the fixed secret of `tidewire serve --dev`
    #[arg(long)]
    dev: bool,
}

impl Token {
    pub(crate) fn run(self) -> Result<(), Failed> {
        tidewire::name::check_tenant(&self.tenant)
            .map_err(|error| Failed::Usage(format!("--tenant: {error}")))?;
        if self.user.is_empty() {
            return Err(Failed::Usage("--user is empty: a token names its user".into()));
        }
        if let Some(channel) = &self.channel {
            tidewire::name::check_channel(channel)
                .map_err(|error| Failed::Usage(format!("--channel: {error}")))?;
        }
        let key = EncodingKey::from_secret(self.secret()?.as_bytes());
        let now = Clock::system().now();
        let mut claims: Map<String, Value> = self.claim.iter().cloned().collect();
        let seconds = |time: Timestamp| time.as_millis() / 1_000;
        claims.insert("sub".into(), self.user.as_str().into());
        claims.insert("tenant".into(), self.tenant.as_str().into());
        claims.insert("iat".into(), seconds(now).into());
        claims.insert("exp".into(), seconds(now.saturating_add(self.expires)).into());
        if let Some(channel) = &self.channel {
            claims.insert("channel".into(), channel.as_str().into());
        }
        let token =
            jsonwebtoken::encode(&Header::default(), &claims, &key).context("cannot sign the token")?;
        Ok(print::line(token)?)
    }

    fn secret(&self) -> Result<&str, Failed> {
        // Not clap's `conflicts_with`: a secret in the environment must not be in the way of --dev.
        match &self.secret {
            _ if self.dev => Ok(DEV_TOKEN_SECRET),
            None => Err(Failed::Usage(
                "no secret to sign with: give one of the tenant's token_secrets with --secret or TIDEWIRE_TOKEN_SECRET, \
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

/// Claims that an option of their own sets.
const SET_BY_OPTIONS: [&str; 5] = ["sub", "tenant", "iat", "exp", "channel"];

fn claim(text: &str) -> Result<(String, Value), String> {
    let (key, json) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("not KEY=JSON")?;
    if SET_BY_OPTIONS.contains(&key) {
        return Err(format!("{key} is set by another option, or by itself"));
    }
    let value = serde_json::from_str(json);
    let value =
        value.map_err(|error| format!("{json:?} is no JSON ({error}); text stands in double quotes"))?;
    Ok((key.to_owned(), value))
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
    fn claims_are_a_key_and_json() {
        assert_eq!(claim("jti=\"a=b\""), Ok(("jti".into(), "a=b".into())));
        assert_eq!(claim("expire_at=0"), Ok(("expire_at".into(), 0.into())));
        for text in ["", "info", "=1", "info=", "info=Ann", "sub=\"bob\"", "exp=1"] {
            assert!(claim(text).is_err(), "{text:?}");
        }
    }

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
