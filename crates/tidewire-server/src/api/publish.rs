//! `/api/publish`: one event to one channel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
use crate::publishing::{self, Options, Version};
use crate::tenants::Tenant;

pub(super) async fn run(node: &Node, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: PublishRequest<'_> = parse(body)?;
    let data = data_of(request.data, &request.b64data)?;
    let options = Options {
        idempotency_key: &request.idempotency_key,
        skips_history: request.skip_history,
        version: version_of(request.version, &request.version_epoch)?,
    };
    let position = to_channel(node, tenant, &request.channel, &data, &request.tags, options).await?;
    Ok(encode(result_of(position)))
}

/// The data of a request, checked: one JSON value, or the bytes that `b64data` stands for.
pub(super) fn data_of(data: Option<&RawValue>, b64data: &str) -> Result<Bytes, Failure> {
    let bad_request = |message: String| Failure::new(ErrorCode::BAD_REQUEST, message);
    match data {
        Some(_) if !b64data.is_empty() => {
            Err(bad_request("bad request: data and b64data, send one of them".to_owned()))
        }
        Some(data) => {
            let data = JsonData::from_raw(data).map_err(|error| bad_request(error.to_string()))?;
            Ok(Bytes::copy_from_slice(data.get().as_bytes()))
        }
        None if b64data.is_empty() => Err(bad_request("bad request: data is missing".to_owned())),
        None => match STANDARD.decode(b64data) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(bad_request(format!("bad request: b64data is no base64: {error}"))),
        },
    }
}

/// The version of a request; 0 is none.
pub(super) fn version_of(number: u64, epoch: &str) -> Result<Option<Version<'_>>, Failure> {
    if number == 0 && !epoch.is_empty() {
        let message = "bad request: version_epoch without version, which begins with 1";
        return Err(Failure::new(ErrorCode::BAD_REQUEST, message));
    }
    Ok((number > 0).then_some(Version { epoch, number }))
}

/// Publishes to one channel by its rule.
pub(super) async fn to_channel(
    node: &Node,
    tenant: &Tenant,
    channel: &str,
    data: &Bytes,
    tags: &Tags<'_>,
    options: Options<'_>,
) -> Result<Option<Position>, Failure> {
    let rule = permission::rule_of(&tenant.rules, channel)?;
    let event = publication::event_of_api(data.clone(), tags);
    Ok(publishing::publish(node, tenant, rule, channel, event, options).await?.position)
}

/// A position as the wire tells it; empty for a live event.
pub(super) fn result_of(position: Option<Position>) -> PublishResult<'static> {
    match position {
        Some(position) => PublishResult { offset: position.offset, epoch: position.epoch.to_string().into() },
        None => PublishResult::default(),
    }
}
