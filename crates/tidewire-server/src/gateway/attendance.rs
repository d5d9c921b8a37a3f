//! Who is in a channel: what a subscription says of its subscriber to others, on every node, and to the tenant's backend.

use std::sync::Arc;

use bytes::Bytes;
use tidewire::tasks::Tasks;
use tidewire_protocol::ClientInfo;

use super::connection::Telling;
use crate::config::{ChannelRule, Tell};
use crate::failure::Failure;
use crate::lifecycle::{Occupant, Told};
use crate::node::Node;
use crate::publication::{self, Movement};
use crate::tenants::Tenant;

/// A subscriber that is in a channel. Dropping it takes it out, in a task: what comes after it may come before that.
pub(super) struct Attendance {
    /// Until it has been taken out.
    member: Option<Member>,
    tasks: Tasks,
    _occupant: Option<Occupant>,
    _told: Option<Told>,
}

struct Member {
    tenant: Arc<Tenant>,
    channel: Box<str>,
    client: String,
    /// The member as JSON, where its coming and going is told.
    told: Option<Bytes>,
}

impl Attendance {
    /// Puts a subscriber into a channel, where its rule asks for that.
    ///
    /// # Errors
    /// Those of the engine; it is not in the channel then, or soon no more.
    pub(super) async fn begin(
        node: &Node,
        tenant: &Arc<Tenant>,
        channel: &str,
        rule: &ChannelRule,
        member: &ClientInfo<'_>,
        telling: Option<&Telling>,
    ) -> Result<Option<Self>, Failure> {
        if !rule.presence && !rule.join_leave && rule.tell.is_empty() {
            return Ok(None);
        }
        // From here on it is taken out, also where this is cut short.
        let mut attendance = Self { member: None, tasks: node.tasks.clone(), _occupant: None, _told: None };
        if let Some(Telling { teller, .. }) = telling.filter(|_| rule.tell.contains(&Tell::Subscriptions)) {
            attendance._told = Some(teller.subscribe(channel).await?);
        }
        if rule.tell.contains(&Tell::Occupancy) {
            attendance._occupant = tenant.lifecycle.as_ref().map(|lifecycle| lifecycle.occupy(channel));
        }
        if rule.presence || rule.join_leave {
            attendance.join(tenant, channel, rule, member).await?;
        }
        Ok(Some(attendance))
    }

    async fn join(
        &mut self,
        tenant: &Arc<Tenant>,
        channel: &str,
        rule: &ChannelRule,
        member: &ClientInfo<'_>,
    ) -> Result<(), Failure> {
        // Strings and checked raw JSON: there is nothing that can fail.
        let info = Bytes::from(serde_json::to_vec(member).unwrap_or_default());
        let presence = tenant.handle.presence(channel)?;
        let told = rule.join_leave.then(|| info.clone());
        let in_channel = Member {
            tenant: tenant.clone(),
            channel: channel.into(),
            client: member.client.clone().into_owned(),
            told: told.clone(),
        };
        self.member = Some(in_channel);
        presence.join(&member.client, &member.user, info).await?;
        if let Some(told) = told {
            tell(tenant, channel, Movement::Join, told).await;
        }
        Ok(())
    }

    /// Takes the subscriber out.
    pub(super) async fn end(mut self) {
        if let Some(member) = self.member.take() {
            member.leave().await;
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            self.tasks.spawn(member.leave());
        }
    }
}

impl Member {
    async fn leave(self) {
        let left = match self.tenant.handle.presence(&self.channel) {
            Ok(presence) => presence.leave(&self.client).await,
            Err(error) => Err(error),
        };
        if let Err(error) = left {
            tracing::warn!(channel = &*self.channel, %error, "a member could not be taken out");
        }
        if let Some(told) = self.told {
            tell(&self.tenant, &self.channel, Movement::Leave, told).await;
        }
    }
}

/// Tells the subscribers of a channel who came or went. Live: who is away is not told.
pub(super) async fn tell(tenant: &Tenant, channel: &str, movement: Movement, member: Bytes) {
    let event = publication::event_of_movement(movement, member);
    let told = match tenant.handle.channel(channel) {
        Ok(channel) => channel.publish(event).await,
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        tracing::warn!(channel, %error, "who came or went could not be told");
    }
}
