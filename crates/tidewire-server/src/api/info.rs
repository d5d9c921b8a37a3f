//! `/api/info`: the nodes that serve, as the caller's tenant may see them.

use bytes::Bytes;
use tidewire_protocol::http::InfoResult;

use super::exchange::{Refusal, encode};
use crate::failure::Failure;
use crate::node::Node;
use crate::tenants::Tenant;

pub(super) async fn run(node: &Node, tenant: &Tenant) -> Result<Bytes, Refusal> {
    let nodes = node.peers.nodes(tenant.handle.name()).await.map_err(Failure::from)?;
    Ok(encode(InfoResult { nodes }))
}
