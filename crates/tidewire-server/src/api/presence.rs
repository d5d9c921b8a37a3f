//! `/api/presence` and `/api/presence_stats`: who is in a channel, on all nodes.

use bytes::Bytes;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::{ChannelRequest, PresenceResult, PresenceStatsResult};

use super::exchange::{Refusal, encode, parse};
use crate::failure::Failure;
use crate::members;
use crate::node::Node;
use crate::permission;
use crate::tenants::Tenant;

pub(super) async fn list(node: &Node, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let presence = present(tenant, body)?;
    let members = members::all(&presence, node.config.limits.presence_members_max).await?;
    let presence = members.iter().filter_map(members::as_entry).collect();
    Ok(encode(PresenceResult { presence }))
}

pub(super) async fn stats(tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let stats = present(tenant, body)?.stats().await.map_err(Failure::from)?;
    let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(encode(PresenceStatsResult { num_clients: narrow(stats.members), num_users: narrow(stats.users) }))
}

fn present(tenant: &Tenant, body: &Bytes) -> Result<tidewire::Presence, Refusal> {
    let ChannelRequest { channel } = parse(body)?;
    if !permission::rule_of(&tenant.rules, &channel)?.presence {
        return Err(Failure::new(ErrorCode::NOT_AVAILABLE, "not available: channel has no presence").into());
    }
    Ok(tenant.handle.presence(&channel).map_err(Failure::from)?)
}
