//! `/api/history` and `/api/history_remove`: kept events of a channel.

use bytes::Bytes;
use tidewire::Position;
use tidewire_protocol::ChannelRequest;
use tidewire_protocol::http::{EmptyResult, HistoryRequest, HistoryResult};

use super::exchange::{Refusal, encode, parse};
use crate::failure::Failure;
use crate::history::{self, Wanted};
use crate::node::Node;
use crate::permission;
use crate::publication::{Form, Prepared};
use crate::tenants::Tenant;

pub(super) async fn run(node: &Node, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: HistoryRequest<'_> = parse(body)?;
    let rule = permission::rule_of(&tenant.rules, &request.channel)?;
    let wanted = Wanted { limit: request.limit, since: request.since.as_ref(), is_reverse: request.reverse };
    let events_max = node.config.limits.history_events_max;
    let channel = tenant.handle.channel(&request.channel).map_err(Failure::from)?;
    let page = history::read(&channel, rule, wanted, events_max).await?;
    let prepare = |received| Prepared::kept(&channel, received, Form::default());
    let prepared: Vec<Prepared<'_>> = page.events.iter().map(prepare).collect();
    Ok(encode(HistoryResult {
        publications: prepared.iter().map(Prepared::publication).collect(),
        epoch: page.epoch.to_string().into(),
        offset: page.last,
    }))
}

/// Removes what a channel keeps. The stream goes on from where it was.
pub(super) async fn remove(tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let ChannelRequest { channel } = parse(body)?;
    permission::rule_of(&tenant.rules, &channel)?;
    let channel = tenant.handle.channel(&channel).map_err(Failure::from)?;
    let end = channel.read().limit(0).await.map_err(Failure::from)?.end();
    let next = Position { offset: end.offset + 1, ..end };
    channel.trim(next).await.map_err(Failure::from)?;
    Ok(encode(EmptyResult {}))
}
