//! `/api/info`: this node, as the caller's tenant may see it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use prometheus_client::metrics::gauge::Gauge;
use tidewire_protocol::http::{InfoResult, NodeInfo};

use super::exchange::{Caller, answer, encode};
use crate::node::Node;

pub(super) async fn info(State(node): State<Arc<Node>>, Caller(tenant, _): Caller) -> Response {
    let count = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or_default();
    let this = NodeInfo {
        uid: node.id.as_str().into(),
        name: node.addr.to_string().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        num_clients: count(&tenant.connections),
        num_subs: count(&tenant.subscriptions),
        num_channels: tenant.registry.channel_count() as u64,
        uptime: node.uptime.elapsed().as_secs(),
    };
    answer(&node, "info", Ok(encode(InfoResult { nodes: vec![this] })))
}
