//! `/api/history`: kept events of a channel.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use tidewire_protocol::http::{HistoryRequest, HistoryResult};

use super::exchange::{Body, Caller, Refusal, answer, encode, parse};
use crate::failure::Failure;
use crate::history::{self, Wanted};
use crate::node::Node;
use crate::permission;
use crate::publication::{Form, Prepared};
use crate::tenants::Tenant;

pub(super) async fn history(
    State(node): State<Arc<Node>>,
    Caller(tenant, _): Caller,
    Body(body): Body,
) -> Response {
    answer(&node, "history", run(&node, &tenant, &body).await)
}

async fn run(node: &Node, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
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
