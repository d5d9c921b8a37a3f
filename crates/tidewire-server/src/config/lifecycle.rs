//! `[tenants.NAME.lifecycle]`: a channel that is told who is there.

use serde::{Deserialize, Serialize};
use tidewire::name;

use super::{TenantConfig, Who};

/// One `[tenants.NAME.lifecycle]`; see `config.default.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifecycleConfig {
    /// The channel.
    pub channel: String,
    /// Whether it is told of connections; of what else, the rules of channels say.
    #[serde(default)]
    pub connections: bool,
}

/// What is told of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// Who subscribes to it and unsubscribes.
    Subscriptions,
    /// That it has subscribers, and that it has none.
    Occupancy,
}

impl TenantConfig {
    pub(super) fn check_lifecycle(&self) -> Result<(), String> {
        let Some(LifecycleConfig { channel, .. }) = &self.lifecycle else {
            return match self.channels.iter().position(|rule| !rule.tell.is_empty()) {
                Some(index) => Err(format!(
                    "channels[{index}].tell: there is nowhere to tell it; name the channel as lifecycle.channel of the tenant"
                )),
                None => Ok(()),
            };
        };
        name::check_channel(channel).map_err(|error| format!("lifecycle.channel: {error}"))?;
        match self.channels.iter().find(|rule| name::matches(&rule.pattern, channel)) {
            None => Err(format!("lifecycle.channel: no rule matches {channel:?}; add one with keep")),
            Some(rule) if rule.keep.is_none() => {
                Err(format!("lifecycle.channel: the rule {:?} of {channel:?} has no keep", rule.pattern))
            }
            Some(rule) if rule.publish != Who::Nobody => Err(format!(
                "lifecycle.channel: by the rule {:?} clients may publish to {channel:?}; set its publish to \"nobody\"",
                rule.pattern
            )),
            Some(_) => Ok(()),
        }
    }
}
