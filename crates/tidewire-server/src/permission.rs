//! Who may do what in which channel, by the rules of a tenant.

use tidewire_protocol::codes::ErrorCode;

use crate::config::{ChannelRule, Who};
use crate::failure::Failure;
use crate::gateway::authenticate::Identity;
use crate::tokens::Capability;

/// What a client wants to do in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Subscribe.
    Subscribe,
    /// Read history.
    History,
    /// Ask who is in it.
    Presence,
    /// Publish.
    Publish,
}

impl Action {
    fn capability(self) -> Capability {
        match self {
            Self::Subscribe => Capability::Subscribe,
            Self::History => Capability::History,
            Self::Presence => Capability::Presence,
            Self::Publish => Capability::Publish,
        }
    }
}

/// Finds the rule of a channel, whoever asks: the name is valid and a rule has it.
pub(crate) fn rule_of<'r>(rules: &'r [ChannelRule], channel: &str) -> Result<&'r ChannelRule, Failure> {
    tidewire::name::check_channel(channel)?;
    let rule = rules.iter().find(|rule| tidewire::name::matches(&rule.pattern, channel));
    rule.ok_or_else(|| ErrorCode::UNKNOWN_CHANNEL.into())
}

/// Finds the rule of a channel for a client: what its token says decides, else the rule does.
pub(crate) fn admit<'r>(
    rules: &'r [ChannelRule],
    channel: &str,
    action: Action,
    identity: &Identity,
) -> Result<&'r ChannelRule, Failure> {
    let rule = rule_of(rules, channel)?;
    let who = match action {
        Action::Subscribe | Action::History | Action::Presence => rule.subscribe,
        Action::Publish => rule.publish,
    };
    let is_admitted = match (&identity.caps, who) {
        (Some(caps), _) => caps.allow(channel, action.capability()),
        (None, Who::Anyone) => true,
        (None, Who::Authenticated) => identity.is_authenticated(),
        (None, Who::Nobody) => false,
    };
    if is_admitted { Ok(rule) } else { Err(ErrorCode::PERMISSION_DENIED.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ChannelHooks, RecoveryMode};

    fn rule(pattern: &str, subscribe: Who, publish: Who) -> ChannelRule {
        ChannelRule {
            pattern: pattern.into(),
            subscribe,
            publish,
            presence: false,
            join_leave: false,
            tell: Vec::new(),
            ask: ChannelHooks::default(),
            keep: None,
            recovery: RecoveryMode::Stream,
        }
    }

    fn outcome(rules: &[ChannelRule], channel: &str, action: Action, is_authenticated: bool) -> u32 {
        let user = if is_authenticated { "ann" } else { "" };
        let identity = Identity { user: user.into(), expires_at: None, info: None, caps: None };
        admit(rules, channel, action, &identity).map_or_else(|failure| failure.code.number, |_| 0)
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let rules =
            [rule("a:secret", Who::Nobody, Who::Nobody), rule("a:*", Who::Anyone, Who::Authenticated)];
        assert_eq!(outcome(&rules, "a:x", Action::Subscribe, false), 0);
        assert_eq!(outcome(&rules, "a:secret", Action::Subscribe, true), 103);
        assert_eq!(outcome(&rules, "a:x", Action::Publish, false), 103);
        assert_eq!(outcome(&rules, "a:x", Action::Publish, true), 0);
    }

    #[test]
    fn a_channel_without_a_rule_does_not_exist() {
        assert_eq!(outcome(&[], "a", Action::Subscribe, true), 102);
    }

    #[test]
    fn a_name_that_is_too_long_is_told_with_its_limit() {
        let failure = rule_of(&[], &"n".repeat(300)).unwrap_err();
        assert_eq!(failure.code, ErrorCode::BAD_REQUEST);
        assert!(failure.message.contains("300") && failure.message.contains("255"), "{failure:?}");
    }
}
