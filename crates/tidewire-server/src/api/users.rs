//! `/api/subscribe`, `unsubscribe`, `disconnect` and `refresh`: what is done to the connections of a user, on all nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidewire::Timestamp;
use tidewire_protocol::codes::{DisconnectCode, ErrorCode};
use tidewire_protocol::http::{
    DisconnectRequest, EmptyResult, RefreshRequest, SubscribeRequest, UnsubscribeRequest,
};

use super::exchange::{Refusal, encode, parse};
use crate::effect::{Effect, Order, What};
use crate::failure::Failure;
use crate::node::Node;
use crate::permission;
use crate::tenants::Tenant;

pub(super) async fn subscribe(node: &Arc<Node>, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: SubscribeRequest<'_> = parse(body)?;
    permission::rule_of(&tenant.rules, &request.channel)?;
    let order = Order::Subscribe {
        channel: request.channel.into(),
        data: request.data.map(ToOwned::to_owned),
        since: request.recover_since.map(|since| (since.offset, since.epoch.into())),
    };
    spread(node, tenant, &request.user, &request.client, What::Order(order)).await
}

pub(super) async fn unsubscribe(node: &Arc<Node>, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: UnsubscribeRequest<'_> = parse(body)?;
    permission::rule_of(&tenant.rules, &request.channel)?;
    let what = What::Unsubscribe { channel: request.channel.into() };
    spread(node, tenant, &request.user, &request.client, what).await
}

pub(super) async fn disconnect(node: &Arc<Node>, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: DisconnectRequest<'_> = parse(body)?;
    let what = match request.disconnect {
        Some(told) => {
            let code = u16::try_from(told.code).ok().filter(|code| (3000..=4999).contains(code));
            let code = code.ok_or_else(|| {
                let message = format!("bad request: disconnect.code is {}, not 3000 to 4999", told.code);
                Failure::new(ErrorCode::BAD_REQUEST, message)
            })?;
            What::Disconnect { code, reason: told.reason.into() }
        }
        None => {
            let DisconnectCode { number, text } = DisconnectCode::FORCE_NO_RECONNECT;
            What::Disconnect { code: number, reason: text.into() }
        }
    };
    spread(node, tenant, &request.user, &request.client, what).await
}

pub(super) async fn refresh(node: &Arc<Node>, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: RefreshRequest<'_> = parse(body)?;
    let what = if request.expired {
        let DisconnectCode { number, text } = DisconnectCode::EXPIRED;
        What::Disconnect { code: number, reason: text.into() }
    } else {
        let since_epoch = Duration::from_secs(request.expire_at);
        let expires_at =
            (request.expire_at > 0).then(|| Timestamp::default().saturating_add(since_epoch).as_millis());
        What::Order(Order::Refresh { expires_at })
    };
    spread(node, tenant, &request.user, &request.client, what).await
}

async fn spread(
    node: &Arc<Node>,
    tenant: &Tenant,
    user: &str,
    client: &str,
    what: What,
) -> Result<Bytes, Refusal> {
    if user.is_empty() && client.is_empty() {
        let message = "bad request: user is missing; for connections without one name the client";
        return Err(Failure::new(ErrorCode::BAD_REQUEST, message).into());
    }
    let effect =
        Effect { tenant: tenant.handle.name().into(), user: user.into(), client: client.into(), what };
    effect.spread(node).await.map_err(Failure::from)?;
    Ok(encode(EmptyResult {}))
}
