//! `/api/broadcast`: one event to many channels, each with an outcome of its own.

use bytes::Bytes;
use futures_util::future::join_all;
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::http::{ApiReply, BroadcastRequest, BroadcastResult};

use super::exchange::{Refusal, encode, parse};
use super::publish::{data_of, result_of, to_channel, version_of};
use crate::failure::Failure;
use crate::node::Node;
use crate::publishing::Options;
use crate::tenants::Tenant;

pub(super) async fn run(node: &Node, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: BroadcastRequest<'_> = parse(body)?;
    let count_max = node.config.limits.broadcast_channels_max;
    if request.channels.len() > count_max {
        let message = format!(
            "{} channels, limit is {count_max} (limits.broadcast_channels_max)",
            request.channels.len()
        );
        return Err(Failure::new(ErrorCode::BAD_REQUEST, message).into());
    }
    let data = data_of(request.data, &request.b64data)?;
    let options = Options {
        idempotency_key: &request.idempotency_key,
        skips_history: request.skip_history,
        version: version_of(request.version, &request.version_epoch)?,
    };
    // All at once, so that the engine can take them in one batch.
    let publishes = request
        .channels
        .iter()
        .map(|channel| to_channel(node, tenant, channel, &data, &request.tags, options));
    let outcomes = join_all(publishes).await;
    let responses = outcomes.into_iter().zip(&request.channels).map(|(outcome, channel)| match outcome {
        Ok(position) => ApiReply::Result(result_of(position)),
        Err(failure) => {
            if let Some(detail) = &failure.detail {
                tracing::error!(
                    tenant = tenant.handle.name(),
                    channel = &**channel,
                    detail,
                    "broadcast failed"
                );
            }
            ApiReply::Error(failure.into())
        }
    });
    Ok(encode(BroadcastResult { responses: responses.collect() }))
}
