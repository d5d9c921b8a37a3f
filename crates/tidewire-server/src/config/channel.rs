//! The section `[[tenants.NAME.channels]]`: what may be done in a channel, and what it keeps.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidewire::{AtBound, Durability};

use super::hooks::ChannelHooks;
use super::lifecycle::Tell;
use super::text::{at_bound, durability, duration};

/// One `[[tenants.NAME.channels]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelRule {
    /// A channel's name, in which `*` stands for any characters.
    pub pattern: String,
    /// Who may subscribe and read history.
    #[serde(default)]
    pub subscribe: Who,
    /// Who may publish from a client.
    #[serde(default)]
    pub publish: Who,
    /// Whether clients may ask who is in it.
    #[serde(default)]
    pub presence: bool,
    /// Whether clients may be told who comes and goes.
    #[serde(default)]
    pub join_leave: bool,
    /// What the channel of `lifecycle` is told of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tell: Vec<Tell>,
    /// Who is asked before something is done in it.
    #[serde(default, skip_serializing_if = "is_none_asked")]
    pub ask: ChannelHooks,
    /// What is kept; `None` for a live channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// What a client that recovers is given of it.
    #[serde(default)]
    pub recovery: RecoveryMode,
}

/// What a client is given of a kept channel when it recovers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryMode {
    /// All that it missed.
    #[default]
    Stream,
    /// The newest event, whatever it missed: each event says all there is to know.
    Cache,
}

/// Who may do something from a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Any connection, anonymous ones too.
    Anyone,
    /// Connections with a token.
    Authenticated,
    /// No client; the server API only.
    #[default]
    Nobody,
}

/// What a channel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// At most so many events, the newest.
    pub events: u64,
    /// None older than this.
    #[serde(with = "duration")]
    pub age: Duration,
    /// What must hold before an event is confirmed to who published it.
    #[serde(default, with = "durability", skip_serializing_if = "is_fast")]
    pub durability: Durability,
    /// What is done when that is reached by events that a group has not settled.
    #[serde(default, with = "at_bound", skip_serializing_if = "is_block")]
    pub at_bound: AtBound,
}

impl ChannelRule {
    pub(super) fn check(&self) -> Result<(), String> {
        let check = if tidewire::name::is_pattern(&self.pattern) {
            tidewire::name::check_pattern
        } else {
            tidewire::name::check_channel
        };
        check(&self.pattern).map_err(|error| format!("pattern: {error}"))?;
        match self.keep {
            None if self.recovery == RecoveryMode::Cache => {
                Err("recovery = \"cache\" needs a kept channel: add keep, or leave recovery out".into())
            }
            Some(Keep { events: 0, .. }) => {
                Err("keep.events must be 1 or more; leave keep out for a live channel".into())
            }
            Some(Keep { age: Duration::ZERO, .. }) => Err("keep.age must be 1ms or more".into()),
            _ => Ok(()),
        }
    }
}

fn is_none_asked(ask: &ChannelHooks) -> bool {
    *ask == ChannelHooks::default()
}

fn is_block(at_bound: &AtBound) -> bool {
    *at_bound == AtBound::Block
}

fn is_fast(durability: &Durability) -> bool {
    *durability == Durability::Fast
}
