//! Who is in a channel, as clients ask for it.

use tidewire_protocol::{ChannelRequest, ReplyBody};

use super::connection::Connection;
use super::subscribe::subscriber;
use crate::failure::Failure;
use crate::members;
use crate::permission::{self, Action};

impl Connection {
    pub(super) async fn presence(&mut self, id: u32, request: &ChannelRequest<'_>) -> Result<(), Failure> {
        let members_max = self.node.config.limits.presence_members_max;
        let members = members::all(&self.present(&request.channel)?, members_max).await?;
        self.reply(id, ReplyBody::Presence(members::as_result(&members)));
        Ok(())
    }

    pub(super) async fn presence_stats(
        &mut self,
        id: u32,
        request: &ChannelRequest<'_>,
    ) -> Result<(), Failure> {
        let stats = members::stats(&self.present(&request.channel)?).await?;
        self.reply(id, ReplyBody::PresenceStats(stats));
        Ok(())
    }

    fn present(&mut self, channel: &str) -> Result<tidewire::Presence, Failure> {
        let admitted = self.admitted()?;
        let rules = &admitted.tenant.rules;
        let rule = permission::admit(rules, channel, Action::Presence, &admitted.identity)?;
        subscriber(rule, &admitted.subscriptions, channel)?;
        members::of(&admitted.tenant, rule, channel)
    }
}
