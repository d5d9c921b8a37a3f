//! Who is in a channel, as clients ask for it.

use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::{ChannelRequest, PresenceResult, PresenceStatsResult, ReplyBody};

use super::connection::Connection;
use crate::failure::Failure;
use crate::members;
use crate::permission::{self, Action};

impl Connection {
    pub(super) async fn presence(&mut self, id: u32, request: &ChannelRequest<'_>) -> Result<(), Failure> {
        let members_max = self.node.config.limits.presence_members_max;
        let presence = self.present(&request.channel)?;
        let members = members::all(&presence, members_max).await?;
        let presence = members.iter().filter_map(members::as_entry).collect();
        self.reply(id, ReplyBody::Presence(PresenceResult { presence }));
        Ok(())
    }

    pub(super) async fn presence_stats(
        &mut self,
        id: u32,
        request: &ChannelRequest<'_>,
    ) -> Result<(), Failure> {
        let stats = self.present(&request.channel)?.stats().await?;
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let result =
            PresenceStatsResult { num_clients: narrow(stats.members), num_users: narrow(stats.users) };
        self.reply(id, ReplyBody::PresenceStats(result));
        Ok(())
    }

    fn present(&mut self, channel: &str) -> Result<tidewire::Presence, Failure> {
        let admitted = self.admitted()?;
        let rules = &admitted.tenant.rules;
        let rule = permission::admit(rules, channel, Action::Presence, &admitted.identity)?;
        if !rule.presence {
            return Err(Failure::new(ErrorCode::NOT_AVAILABLE, "not available: channel has no presence"));
        }
        Ok(admitted.tenant.handle.presence(channel)?)
    }
}
