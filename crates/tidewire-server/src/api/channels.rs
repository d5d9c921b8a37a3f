//! `/api/channels`: the channels with subscribers, on all nodes.

use bytes::Bytes;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::http::{ChannelInfo, ChannelsRequest, ChannelsResult};

use super::exchange::{Refusal, encode, parse};
use crate::failure::Failure;
use crate::node::Node;
use crate::tenants::Tenant;

pub(super) async fn run(node: &Node, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let ChannelsRequest { pattern } = parse(body)?;
    if !pattern.is_empty() && !tidewire::name::is_pattern(&pattern) {
        tidewire::name::check_channel(&pattern)
            .map_err(|error| Failure::new(ErrorCode::BAD_REQUEST, format!("pattern: {error}")))?;
    }
    let channels = node.peers.channels(tenant.handle.name(), &pattern).await;
    let channels = channels.map_err(Failure::from)?.into_iter();
    let channels = channels.map(|(name, count)| (name.into(), ChannelInfo { num_clients: count as u64 }));
    Ok(encode(ChannelsResult { channels: channels.collect() }))
}
