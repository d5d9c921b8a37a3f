//! Who is in a channel, page by page.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use tidewire::Present;
use tidewire_protocol::v1::{Member, Members};
use tidewire_protocol::{ClientInfo, Opaque};

use super::exchange::{OnChannel, Refused, bad_request, query, respond};
use crate::api::exchange::Refusal;
use crate::members;
use crate::node::Node;
use crate::permission;

/// Members in one page.
const LIMIT_MAX: usize = 1_000;
const LIMIT: usize = 100;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PageQuery {
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(node): State<Arc<Node>>,
    OnChannel { channel, tenant, .. }: OnChannel,
    uri: Uri,
) -> Response {
    let outcome = async {
        let PageQuery { after, limit } = query(&uri)?;
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(bad_request(format!("limit is {limit}, not 1 to {LIMIT_MAX}")));
        }
        let after = after.map(|after| URL_SAFE_NO_PAD.decode(after)).transpose();
        let after = after.map_err(|_| bad_request("after is not the next of a page"))?;
        let presence = permission::rule_of(&tenant.rules, channel.name())
            .and_then(|rule| members::of(&tenant, rule, channel.name()))
            .map_err(|failure| Refused::from(Refusal::new(StatusCode::NOT_FOUND, failure)))?;
        let page = presence.list(after.map(Bytes::from), limit).await?;
        Ok(Members {
            members: page.members.iter().map(member_of).collect(),
            next: page.next.map(|next| URL_SAFE_NO_PAD.encode(next)),
        })
    };
    respond(&node, "presence_page", outcome.await)
}

/// What was said of a member, where a gateway said it; a service may say anything.
fn member_of(member: &Present) -> Member {
    let info: ClientInfo<'_> = serde_json::from_slice(&member.info).unwrap_or_default();
    let raw = |info: Option<Opaque<'_>>| serde_json::value::to_raw_value(&info?).ok();
    Member {
        id: member.id.to_string(),
        user: member.user.to_string(),
        node: member.node.to_string(),
        conn_info: raw(info.conn_info),
        chan_info: raw(info.chan_info),
    }
}
