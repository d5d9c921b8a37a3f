//! `/api/presence` and `/api/presence_stats`: who is in a channel, on all nodes.

use bytes::Bytes;
use tidewire_protocol::ChannelRequest;

use super::exchange::{Refusal, encode, parse};
use crate::members;
use crate::node::Node;
use crate::permission;
use crate::tenants::Tenant;

pub(super) async fn list(node: &Node, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let members = members::all(&present(tenant, body)?, node.config.limits.presence_members_max).await?;
    Ok(encode(members::as_result(&members)))
}

pub(super) async fn stats(tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    Ok(encode(members::stats(&present(tenant, body)?).await?))
}

fn present(tenant: &Tenant, body: &Bytes) -> Result<tidewire::Presence, Refusal> {
    let ChannelRequest { channel } = parse(body)?;
    Ok(members::of(tenant, permission::rule_of(&tenant.rules, &channel)?, &channel)?)
}
