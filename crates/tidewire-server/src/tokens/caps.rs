//! What a token allows beyond, or short of, the channel rules.

use std::sync::Arc;

use serde::Deserialize;
use tidewire::name;

use super::Refusal;

/// What a connection may do, by channel: the first entry that has a channel decides, and what no entry has is not allowed.
#[derive(Clone, Debug)]
pub(crate) struct Caps(Arc<[Cap]>);

/// What can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Capability {
    /// Subscribing.
    #[serde(rename = "sub")]
    Subscribe,
    /// Publishing.
    #[serde(rename = "pub")]
    Publish,
    /// Presence, and who joins and leaves.
    #[serde(rename = "prs")]
    Presence,
    /// Reading history and recovering.
    #[serde(rename = "hst")]
    History,
}

#[derive(Debug)]
struct Cap {
    patterns: Vec<String>,
    allow: Vec<Capability>,
}

/// One entry of the claim.
#[derive(Deserialize)]
pub(super) struct RawCap {
    channels: Option<Vec<String>>,
    allow: Option<Vec<Capability>>,
    r#match: Option<String>,
}

impl Caps {
    /// Whether `capability` is allowed in `channel`.
    pub(crate) fn allow(&self, channel: &str, capability: Capability) -> bool {
        let has = |cap: &&Cap| cap.patterns.iter().any(|pattern| name::matches(pattern, channel));
        self.0.iter().find(has).is_some_and(|cap| cap.allow.contains(&capability))
    }
}

impl TryFrom<Vec<RawCap>> for Caps {
    type Error = Refusal;

    fn try_from(raw: Vec<RawCap>) -> Result<Self, Refusal> {
        let caps = raw.into_iter().map(|cap| {
            // Another way of matching would allow more or less than who made the token meant.
            if let Some(other) = cap.r#match.filter(|way| !["", "wildcard"].contains(&&**way)) {
                return Err(Refusal::invalid(format!("caps match by {other:?}; known is \"wildcard\"")));
            }
            let patterns = cap.channels.unwrap_or_default();
            for pattern in &patterns {
                let is_pattern = name::is_pattern(pattern);
                let checked =
                    if is_pattern { name::check_pattern(pattern) } else { name::check_channel(pattern) };
                checked.map_err(|error| Refusal::invalid(format!("caps: {error}")))?;
            }
            Ok(Cap { patterns, allow: cap.allow.unwrap_or_default() })
        });
        Ok(Self(caps.collect::<Result<_, _>>()?))
    }
}
