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
use crate::tokens::{self, RawOptions, SubscriptionOptions};

/// Clients that a disconnect may leave.
const WHITELIST_MAX: usize = 1_000;

pub(super) async fn subscribe(node: &Arc<Node>, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: SubscribeRequest<'_> = parse(body)?;
    permission::rule_of(&tenant.rules, &request.channel)?;
    without_session(&request.session)?;
    let order = Order::Subscribe {
        options: Box::new(options_of(&request)?),
        channel: request.channel.into(),
        since: request.recover_since.map(|since| (since.offset, since.epoch.into())),
    };
    spread(node, tenant, &request.user, &request.client, What::Order(order)).await
}

pub(super) async fn unsubscribe(node: &Arc<Node>, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: UnsubscribeRequest<'_> = parse(body)?;
    permission::rule_of(&tenant.rules, &request.channel)?;
    without_session(&request.session)?;
    let what = What::Unsubscribe { channel: request.channel.into() };
    spread(node, tenant, &request.user, &request.client, what).await
}

pub(super) async fn disconnect(node: &Arc<Node>, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: DisconnectRequest<'_> = parse(body)?;
    without_session(&request.session)?;
    if request.whitelist.len() > WHITELIST_MAX {
        let count = request.whitelist.len();
        let message =
            format!("bad request: whitelist names {count} clients, at most {WHITELIST_MAX} are taken");
        return Err(Failure::new(ErrorCode::BAD_REQUEST, message).into());
    }
    let but = request.whitelist.into_iter().map(String::from).collect();
    let what = match request.disconnect {
        Some(told) => {
            let code = u16::try_from(told.code).ok().filter(|code| (3000..=4999).contains(code));
            let code = code.ok_or_else(|| {
                let message = format!("bad request: disconnect.code is {}, not 3000 to 4999", told.code);
                Failure::new(ErrorCode::BAD_REQUEST, message)
            })?;
            What::Disconnect { code, reason: told.reason.into(), but }
        }
        None => {
            let DisconnectCode { number, text } = DisconnectCode::FORCE_NO_RECONNECT;
            What::Disconnect { code: number, reason: text.into(), but }
        }
    };
    spread(node, tenant, &request.user, &request.client, what).await
}

pub(super) async fn refresh(node: &Arc<Node>, tenant: &Tenant, body: &Bytes) -> Result<Bytes, Refusal> {
    let request: RefreshRequest<'_> = parse(body)?;
    without_session(&request.session)?;
    if request.info.is_some() {
        let message = "not available: info; it comes with the token that a connection is refreshed with";
        return Err(Failure::new(ErrorCode::NOT_AVAILABLE, message).into());
    }
    let what = if request.expired {
        let DisconnectCode { number, text } = DisconnectCode::EXPIRED;
        What::Disconnect { code: number, reason: text.into(), but: Vec::new() }
    } else {
        let since_epoch = Duration::from_secs(request.expire_at);
        let expires_at =
            (request.expire_at > 0).then(|| Timestamp::default().saturating_add(since_epoch).as_millis());
        What::Order(Order::Refresh { expires_at })
    };
    spread(node, tenant, &request.user, &request.client, what).await
}

/// Connections are not named by their sessions here.
fn without_session(session: &str) -> Result<(), Failure> {
    match session {
        "" => Ok(()),
        _ => Err(Failure::new(ErrorCode::NOT_AVAILABLE, "not available: session, name the client")),
    }
}

/// How a subscription is to be, checked.
fn options_of(request: &SubscribeRequest<'_>) -> Result<RawOptions, Failure> {
    let bad_request =
        |message: String| Failure::new(ErrorCode::BAD_REQUEST, format!("bad request: {message}"));
    for (name, json, base64) in
        [("info", request.info, &request.b64info), ("data", request.data, &request.b64data)]
    {
        if json.is_some() && !base64.is_empty() {
            return Err(bad_request(format!("{name} and b64{name}, send one of them")));
        }
    }
    let overrides = request.overrides.map(|overrides| serde_json::from_str(overrides.get())).transpose();
    let options = RawOptions {
        info: request.info.map(ToOwned::to_owned),
        b64info: Some(request.b64info.to_string()),
        data: request.data.map(ToOwned::to_owned),
        b64data: Some(request.b64data.to_string()),
        overrides: overrides.map_err(|error| bad_request(format!("override: {error}")))?,
    };
    match SubscriptionOptions::try_from(options.clone()) {
        Ok(_) => Ok(options),
        Err(tokens::Refusal::Invalid(reason)) => Err(bad_request(reason)),
        Err(tokens::Refusal::Expired | tokens::Refusal::Unavailable(_)) => Err(ErrorCode::INTERNAL.into()),
    }
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
