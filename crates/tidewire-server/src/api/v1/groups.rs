//! Groups: which there are, how far they are, and how they are made, moved and deleted.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use tidewire::{GroupStatus, SeekPreview};
use tidewire_protocol::v1::{self, DeclareRequest, Declared, SeekRequest};

use super::exchange::{OnChannel, OnGroup, Refused, query, respond, start_of};
use crate::api::exchange::{Body, parse};
use crate::node::Node;

pub(super) async fn list(State(node): State<Arc<Node>>, on: OnChannel) -> Response {
    let names = on.channel.groups().await.map_err(Refused::from);
    let groups = |names: Vec<Box<str>>| v1::Groups { groups: names.into_iter().map(Into::into).collect() };
    respond(&node, "groups", names.map(groups))
}

pub(super) async fn status(State(node): State<Arc<Node>>, OnGroup { group, on }: OnGroup) -> Response {
    let status = group.status().await.map_err(Refused::from);
    let channel = on.channel.name();
    respond(&node, "group_status", status.map(|status| view(channel, group.name(), status)))
}

pub(super) async fn declare(
    State(node): State<Arc<Node>>,
    OnGroup { group, on }: OnGroup,
    Body(body): Body,
) -> Response {
    let outcome = async {
        let request: DeclareRequest = parse(&body)?;
        let group = on.channel.group(group.name(), start_of(&request.start)?)?;
        let group = if request.partitions == 0 { group } else { group.ordered(request.partitions) };
        let opened = group.declare().await?;
        let next = opened.next.to_string();
        Ok(Declared { is_new: opened.is_new, is_rebuilt: opened.is_rebuilt, next })
    };
    let outcome: Result<Declared, Refused> = outcome.await;
    let is_new = outcome.as_ref().is_ok_and(|declared| declared.is_new);
    let mut response = respond(&node, "group_declare", outcome);
    if is_new {
        *response.status_mut() = StatusCode::CREATED;
    }
    response
}

pub(super) async fn seek(
    State(node): State<Arc<Node>>,
    OnGroup { group, on }: OnGroup,
    Body(body): Body,
) -> Response {
    let outcome = async {
        let request: SeekRequest = parse(&body)?;
        let start = start_of(&request.to)?;
        let SeekPreview { from, to, again_count, skipped_count } = match request.preview {
            true => group.preview_seek(start).await?,
            false => group.seek(start, &on.who(&request.by)?).await?,
        };
        Ok(v1::Seek { from: from.to_string(), to: to.to_string(), again_count, skipped_count })
    };
    respond(&node, "group_seek", outcome.await)
}

/// The query of a deletion.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DeleteQuery {
    by: String,
}

pub(super) async fn delete(
    State(node): State<Arc<Node>>,
    OnGroup { group, on }: OnGroup,
    uri: Uri,
) -> Response {
    let outcome = async {
        let DeleteQuery { by } = query(&uri)?;
        let who = on.who(&by)?;
        node.pulls.stop(group.path()).await;
        Ok(group.delete(&who).await.map(|()| serde_json::Map::new())?)
    };
    respond(&node, "group_delete", outcome.await)
}

pub(super) async fn audit(State(node): State<Arc<Node>>, OnGroup { group, .. }: OnGroup) -> Response {
    let entries = group.audit().await.map_err(Refused::from);
    let entry = |entry: tidewire::AuditEntry| v1::AuditEntry {
        time: entry.time.to_string(),
        who: entry.who.into(),
        action: entry.action.to_string(),
        detail: entry.detail.into(),
        count: entry.count,
    };
    let audit = |entries: Vec<_>| v1::Audit { entries: entries.into_iter().map(entry).collect() };
    respond(&node, "group_audit", entries.map(audit))
}

fn view(channel: &str, group: &str, status: GroupStatus) -> v1::Group {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let sessions = status.sessions.into_iter().map(|session| v1::Session {
        name: session.name.into(),
        lease_left_ms: millis(session.lease_left),
        partitions: session.partitions,
        in_flight: session.in_flight,
    });
    v1::Group {
        channel: channel.into(),
        group: group.into(),
        partitions: status.partitions,
        epoch: status.epoch.to_string(),
        first: status.first,
        last: status.last,
        next: status.next,
        floor: status.floor,
        lag_events: status.lag_events,
        lag_ms: millis(status.lag),
        in_flight: status.in_flight,
        waiting: status.waiting,
        dead_letters: status.dead_letters,
        outbox: status.outbox,
        moves: status.moves,
        sessions: sessions.collect(),
        now: status.now.to_string(),
    }
}
