//! Who is in a channel: what a subscription says of its subscriber to others, on every node.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_protocol::ClientInfo;

use crate::config::ChannelRule;
use crate::failure::Failure;
use crate::node::Node;
use crate::publication::{self, Movement};
use crate::tenants::Tenant;

/// A subscriber that is in a channel. Dropping it takes it out, in a task: what comes after it may come before that.
pub(super) struct Attendance {
    node: Arc<Node>,
    tenant: Arc<Tenant>,
    channel: Box<str>,
    client: String,
    /// The member as JSON, where its coming and going is told.
    told: Option<Bytes>,
    is_over: bool,
}

impl Attendance {
    /// Puts a subscriber into a channel, where its rule asks for that.
    ///
    /// # Errors
    /// Those of the engine; it is not in the channel then, or soon no more.
    pub(super) async fn begin(
        node: &Arc<Node>,
        tenant: &Arc<Tenant>,
        channel: &str,
        rule: &ChannelRule,
        member: &ClientInfo<'_>,
    ) -> Result<Option<Self>, Failure> {
        if !rule.presence && !rule.join_leave {
            return Ok(None);
        }
        // Strings and checked raw JSON: there is nothing that can fail.
        let info = Bytes::from(serde_json::to_vec(member).unwrap_or_default());
        let presence = tenant.handle.presence(channel)?;
        let attendance = Self {
            node: node.clone(),
            tenant: tenant.clone(),
            channel: channel.into(),
            client: member.client.clone().into_owned(),
            told: rule.join_leave.then(|| info.clone()),
            is_over: false,
        };
        presence.join(&member.client, &member.user, info).await?;
        attendance.tell(Movement::Join).await;
        Ok(Some(attendance))
    }

    /// Takes the subscriber out.
    pub(super) async fn end(mut self) {
        self.is_over = true;
        self.leave().await;
    }

    async fn leave(&self) {
        let left = match self.tenant.handle.presence(&self.channel) {
            Ok(presence) => presence.leave(&self.client).await,
            Err(error) => Err(error),
        };
        if let Err(error) = left {
            tracing::warn!(channel = &*self.channel, %error, "a member could not be taken out");
        }
        self.tell(Movement::Leave).await;
    }

    async fn tell(&self, movement: Movement) {
        if let Some(member) = &self.told {
            tell(&self.tenant, &self.channel, movement, member.clone()).await;
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let rest = Self {
            node: self.node.clone(),
            tenant: self.tenant.clone(),
            channel: std::mem::take(&mut self.channel),
            client: std::mem::take(&mut self.client),
            told: self.told.take(),
            is_over: true,
        };
        self.node.tasks.spawn(async move { rest.leave().await });
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
