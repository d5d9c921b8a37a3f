//! What a token says, once its signature holds.
//!
//! Names and meanings are those of Centrifugo's tokens; `tenant` is ours, and `caps` has the form that Centrifugo PRO gives it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidewire::{Timestamp, name};
use tidewire_protocol::{JsonData, Opaque};

use super::caps::{Caps, RawCap};
use super::{Expected, Refusal};

/// Server-side subscriptions that a token may name.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 128;

/// Who a connection is of.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionClaims {
    /// `sub`; empty for an anonymous connection.
    pub(crate) user: Arc<str>,
    /// When the connection ends unless its token is refreshed: `expire_at`, else `exp`.
    pub(crate) expires_at: Option<Timestamp>,
    /// `info` or `b64info`: what subscribers see beside what this user publishes.
    pub(crate) info: Option<Opaque<'static>>,
    /// `channels` and `subs`: what the server subscribes it to.
    pub(crate) subscriptions: BTreeMap<String, SubscriptionOptions>,
    /// `meta`, as JSON: what only servers see.
    pub(crate) meta: Option<Arc<str>>,
    /// `caps`: what it may do, where that is not left to the channel rules.
    pub(crate) caps: Option<Caps>,
    /// `iat`.
    pub(crate) issued_at: Option<Timestamp>,
    /// `jti`.
    pub(crate) id: Option<Arc<str>>,
    /// What the client is told; only a backend says that.
    pub(crate) data: Option<Opaque<'static>>,
}

/// What a user may subscribe to, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct SubscriptionClaims {
    /// When the subscription ends unless its token is refreshed: `expire_at`, else `exp`.
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) options: SubscriptionOptions,
}

/// How a subscription is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SubscriptionOptions {
    /// `info` or `b64info`: what others see of it in the channel.
    pub(crate) info: Option<Opaque<'static>>,
    /// `data` or `b64data`: what its client is told with it.
    pub(crate) data: Option<Opaque<'static>>,
    pub(crate) overrides: Overrides,
}

/// What of a channel rule a token puts aside; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    pub(crate) presence: Option<bool>,
    pub(crate) join_leave: Option<bool>,
    pub(crate) force_recovery: Option<bool>,
    pub(crate) force_positioning: Option<bool>,
    pub(crate) force_push_join_leave: Option<bool>,
}

impl ConnectionClaims {
    /// Those of a connection without a token.
    pub(crate) fn anonymous() -> Self {
        Self {
            user: Arc::from(""),
            expires_at: None,
            info: None,
            subscriptions: BTreeMap::new(),
            meta: None,
            caps: None,
            issued_at: None,
            id: None,
            data: None,
        }
    }

    /// Those of a connection that a backend let in.
    ///
    /// # Errors
    /// The result cannot be used, or its time is over already.
    pub(crate) fn of_hook(result: Option<&RawValue>, now: Timestamp) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct User {
            #[serde(default)]
            user: String,
        }
        let result = result.ok_or_else(|| Refusal::invalid("there is no result"))?;
        let (User { user }, raw): (User, RawConnection) = (parse(result)?, parse(result)?);
        let RawOptions { data, b64data, .. } = parse(result)?;
        Ok(Self {
            user: user.into(),
            expires_at: expiry(raw.expire_at, None, now)?,
            info: data_of("info", raw.info, raw.b64info)?,
            subscriptions: subscriptions(raw.channels.unwrap_or_default(), raw.subs.unwrap_or_default())?,
            meta: raw.meta.map(|meta| Arc::from(meta.get())),
            caps: raw.caps.map(Caps::try_from).transpose()?,
            issued_at: None,
            id: None,
            data: data_of("data", data, b64data)?,
        })
    }

    pub(super) fn read(claims: &RawValue, expected: &Expected<'_>) -> Result<Self, Refusal> {
        let (registered, raw): (Registered, RawConnection) = (parse(claims)?, parse(claims)?);
        let expires = registered.check(expected)?;
        if raw.channel.is_some() {
            return Err(Refusal::invalid("token is of a subscription (channel), not of a connection"));
        }
        let user = registered.sub.filter(|sub| !sub.is_empty());
        let user = user.ok_or_else(|| Refusal::invalid("token names no user (sub)"))?;
        Ok(Self {
            user: user.into(),
            expires_at: expiry(raw.expire_at, expires, expected.now)?,
            info: data_of("info", raw.info, raw.b64info)?,
            subscriptions: subscriptions(raw.channels.unwrap_or_default(), raw.subs.unwrap_or_default())?,
            meta: raw.meta.map(|meta| Arc::from(meta.get())),
            caps: raw.caps.map(Caps::try_from).transpose()?,
            issued_at: registered.iat.map(|iat| time_of("iat", iat)).transpose()?,
            id: registered.jti.map(Arc::from),
            data: None,
        })
    }
}

impl SubscriptionClaims {
    /// Those of a subscription that a backend allowed.
    ///
    /// # Errors
    /// The result cannot be used, or its time is over already.
    pub(crate) fn of_hook(result: Option<&RawValue>, now: Timestamp) -> Result<Self, Refusal> {
        let Some(result) = result else { return Ok(Self::default()) };
        let raw: RawSubscription = parse(result)?;
        let options: RawOptions = parse(result)?;
        Ok(Self { expires_at: expiry(raw.expire_at, None, now)?, options: options.try_into()? })
    }

    pub(super) fn read(
        claims: &RawValue,
        expected: &Expected<'_>,
        (channel, user, client): (&str, &str, &str),
    ) -> Result<Self, Refusal> {
        let (registered, raw): (Registered, RawSubscription) = (parse(claims)?, parse(claims)?);
        let options: RawOptions = parse(claims)?;
        let expires = registered.check(expected)?;
        match &raw.channel {
            Some(named) if named == channel => {}
            Some(named) => {
                return Err(Refusal::invalid(format!("token is for channel {named:?}, not for {channel:?}")));
            }
            None => return Err(Refusal::invalid("token names no channel (channel)")),
        }
        if registered.sub.unwrap_or_default() != user {
            return Err(Refusal::invalid("token is of another user (sub) than the connection"));
        }
        if raw.client.as_deref().is_some_and(|named| !named.is_empty() && named != client) {
            return Err(Refusal::invalid("token is of another connection (client)"));
        }
        Ok(Self { expires_at: expiry(raw.expire_at, expires, expected.now)?, options: options.try_into()? })
    }
}

/// Claims that each token may have (RFC 7519, 4.1). Times are seconds and may have a fraction.
#[derive(Deserialize)]
struct Registered {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    aud: Option<Audience>,
    iss: Option<String>,
    jti: Option<String>,
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Registered {
    /// Says when the token expires.
    fn check(&self, expected: &Expected<'_>) -> Result<Option<Timestamp>, Refusal> {
        let tenant = self.tenant.as_deref().unwrap_or(crate::config::DEFAULT_TENANT);
        if tenant != expected.tenant {
            return Err(Refusal::invalid(format!(
                "token is of tenant {tenant:?}, not of {:?}",
                expected.tenant
            )));
        }
        if let Some(audience) = expected.audience {
            let is_for_us = match &self.aud {
                Some(Audience::One(named)) => named == audience,
                Some(Audience::Several(named)) => named.iter().any(|named| named == audience),
                None => false,
            };
            if !is_for_us {
                return Err(Refusal::invalid(format!("token is not for {audience:?} (aud, token_audience)")));
            }
        }
        if let Some(issuer) = expected.issuer
            && self.iss.as_deref() != Some(issuer)
        {
            return Err(Refusal::invalid(format!("token is not issued by {issuer:?} (iss, token_issuer)")));
        }
        if self.nbf.map(|nbf| time_of("nbf", nbf)).transpose()?.is_some_and(|start| expected.now < start) {
            return Err(Refusal::invalid("token is not valid yet (nbf)"));
        }
        let expires = self.exp.map(|exp| time_of("exp", exp)).transpose()?;
        match expires {
            Some(expiry) if expiry <= expected.now => Err(Refusal::Expired),
            _ => Ok(expires),
        }
    }
}

#[derive(Deserialize)]
struct RawConnection {
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, RawOptions>>,
    meta: Option<Box<RawValue>>,
    expire_at: Option<f64>,
    caps: Option<Vec<RawCap>>,
    channel: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct RawSubscription {
    channel: Option<String>,
    client: Option<String>,
    expire_at: Option<f64>,
}

/// How a subscription is, as it is written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RawOptions {
    pub(crate) info: Option<Box<RawValue>>,
    pub(crate) b64info: Option<String>,
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) b64data: Option<String>,
    #[serde(rename = "override")]
    pub(crate) overrides: Option<RawOverrides>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RawOverrides {
    presence: Option<Value>,
    join_leave: Option<Value>,
    force_recovery: Option<Value>,
    force_positioning: Option<Value>,
    force_push_join_leave: Option<Value>,
}

/// A Boolean that can be told from one that is not there in languages where it could not.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Value {
    #[serde(default)]
    value: bool,
}

impl TryFrom<RawOptions> for SubscriptionOptions {
    type Error = Refusal;

    fn try_from(raw: RawOptions) -> Result<Self, Refusal> {
        let RawOptions { info, b64info, data, b64data, overrides } = raw;
        Ok(Self {
            info: data_of("info", info, b64info)?,
            data: data_of("data", data, b64data)?,
            overrides: overrides.map(Overrides::from).unwrap_or_default(),
        })
    }
}

impl From<RawOverrides> for Overrides {
    fn from(raw: RawOverrides) -> Self {
        let value = |option: Option<Value>| option.map(|option| option.value);
        Self {
            presence: value(raw.presence),
            join_leave: value(raw.join_leave),
            force_recovery: value(raw.force_recovery),
            force_positioning: value(raw.force_positioning),
            force_push_join_leave: value(raw.force_push_join_leave),
        }
    }
}

fn parse<'c, C: Deserialize<'c>>(claims: &'c RawValue) -> Result<C, Refusal> {
    serde_json::from_str(claims.get())
        .map_err(|error| Refusal::invalid(format!("claims cannot be read: {error}")))
}

fn subscriptions(
    channels: Vec<String>,
    subs: BTreeMap<String, RawOptions>,
) -> Result<BTreeMap<String, SubscriptionOptions>, Refusal> {
    let mut all: BTreeMap<String, SubscriptionOptions> =
        channels.into_iter().map(|channel| (channel, SubscriptionOptions::default())).collect();
    for (channel, options) in subs {
        all.insert(channel, options.try_into()?);
    }
    if all.len() > SUBSCRIPTIONS_MAX {
        let count = all.len();
        let text = format!(
            "{count} subscriptions are named (channels, subs), at most {SUBSCRIPTIONS_MAX} are taken"
        );
        return Err(Refusal::invalid(text));
    }
    match all.keys().find_map(|channel| name::check_channel(channel).err()) {
        Some(error) => Err(Refusal::invalid(format!("channels, subs: {error}"))),
        None => Ok(all),
    }
}

/// When a connection or subscription ends: `expire_at` where it is there, and 0 of it is never.
fn expiry(
    expire_at: Option<f64>,
    token: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Refusal> {
    let Some(seconds) = expire_at else { return Ok(token) };
    match time_of("expire_at", seconds)? {
        time if time == Timestamp::default() => Ok(None),
        time if time <= now => Err(Refusal::Expired),
        time => Ok(Some(time)),
    }
}

/// What an application says, as JSON or, if there is any, as base64.
fn data_of(
    claim: &str,
    json: Option<Box<RawValue>>,
    base64: Option<String>,
) -> Result<Option<Opaque<'static>>, Refusal> {
    if let Some(base64) = base64.filter(|text| !text.is_empty()) {
        let bytes = STANDARD.decode(base64);
        let bytes = bytes.map_err(|error| Refusal::invalid(format!("b64{claim} is no base64: {error}")))?;
        return Ok(Some(Opaque::Bytes(bytes.into())));
    }
    let Some(json) = json else { return Ok(None) };
    let checked = JsonData::from_raw(&json).map_err(|error| Refusal::invalid(format!("{claim}: {error}")))?;
    Ok(Some(Opaque::from(checked.into_owned())))
}

fn time_of(claim: &str, seconds: f64) -> Result<Timestamp, Refusal> {
    let since_epoch = Duration::try_from_secs_f64(seconds)
        .map_err(|error| Refusal::invalid(format!("no valid time ({claim}): {error}")))?;
    Ok(Timestamp::default().saturating_add(since_epoch))
}

#[cfg(test)]
mod tests;
