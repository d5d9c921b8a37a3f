//! `/api/publish`: one event to one channel.

use bytes::Bytes;
use tidewire::Position;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::http::{PublishRequest, PublishResult};
use tidewire_protocol::{JsonData, RawValue};

use super::exchange::{Refusal, encode, parse};
use crate::failure::Failure;
use crate::node::Node;
use crate::permission;
use crate::publication::{self, Tags};
use crate::publishing::{self, Options};
use crate::tenants::Tenant;

pub(super) async fn run(node: &Node, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: PublishRequest<'_> = parse(body)?;
    let data = data_of(request.data, &request.b64data)?;
    let options = Options { idempotency_key: &request.idempotency_key, skips_history: request.skip_history };
    let position = to_channel(node, tenant, &request.channel, &data, &request.tags, options).await?;
    Ok(encode(result_of(position)))
}

/// The data of a request, checked.
pub(super) fn data_of<'a>(data: Option<&'a RawValue>, b64data: &str) -> Result<JsonData<'a>, Failure> {
    if !b64data.is_empty() {
        return Err(Failure::new(ErrorCode::NOT_AVAILABLE, "not available: b64data, send JSON in data"));
    }
    let data = data.ok_or_else(|| Failure::new(ErrorCode::BAD_REQUEST, "bad request: data is missing"))?;
    JsonData::from_raw(data).map_err(|error| Failure::new(ErrorCode::BAD_REQUEST, error.to_string()))
}

/// Publishes to one channel by its rule.
pub(super) async fn to_channel(
    node: &Node,
    tenant: &Tenant,
    channel: &str,
    data: &JsonData<'_>,
    tags: &Tags<'_>,
    options: Options<'_>,
) -> Result<Option<Position>, Failure> {
    let rule = permission::rule_of(&tenant.rules, channel)?;
    let event = publication::event_of_api(data, tags);
    Ok(publishing::publish(node, tenant, rule, channel, event, options).await?.position)
}

/// A position as the wire tells it; empty for a live event.
pub(super) fn result_of(position: Option<Position>) -> PublishResult<'static> {
    match position {
        Some(position) => PublishResult { offset: position.offset, epoch: position.epoch.to_string().into() },
        None => PublishResult::default(),
    }
}
