//! Where an event is, and why.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use tidewire::{Channel, Trace, TracedInGroup, Whereabouts};
use tidewire_protocol::v1;
use uuid::Uuid;

use super::dead_letters::{Shown, view as letter_view};
use super::exchange::{OnChannel, bad_request, query, respond, time_of};
use crate::node::Node;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TraceQuery {
    since: Option<String>,
}

pub(super) async fn trace(State(node): State<Arc<Node>>, on: OnChannel, uri: Uri) -> Response {
    let outcome = async {
        let TraceQuery { since } = query(&uri)?;
        let id = on.parameter("event");
        let id: Uuid = id.parse().map_err(|_| bad_request(format!("event id {id:?} is not a UUID")))?;
        let mut tracing = on.channel.trace(id);
        if let Some(since) = since {
            tracing = tracing.since(time_of(&since)?);
        }
        Ok(view(&on.channel, tracing.await?))
    };
    respond(&node, "trace", outcome.await)
}

fn view(channel: &Channel, trace: Trace) -> v1::Trace {
    let copies = trace.copies.into_iter().map(|copy| v1::TracedCopy {
        position: copy.position.to_string(),
        time: copy.time.to_string(),
        event_type: copy.event_type.into(),
        replay_of: copy.replay_of.map(Into::into),
    });
    v1::Trace {
        event: trace.event.to_string(),
        copies: copies.collect(),
        groups: trace.groups.into_iter().map(|group| in_group(channel, group)).collect(),
        first: trace.looked_at.0,
        last: trace.looked_at.1,
        has_more: trace.has_more,
    }
}

fn in_group(channel: &Channel, found: TracedInGroup) -> v1::TracedInGroup {
    let view = v1::TracedInGroup {
        group: found.group.into(),
        position: found.position.to_string(),
        state: found.whereabouts.as_str().to_owned(),
        ..v1::TracedInGroup::default()
    };
    match found.whereabouts {
        Whereabouts::Ahead { events_before } => {
            v1::TracedInGroup { events_before: Some(events_before), ..view }
        }
        Whereabouts::InFlight { session, attempts, error } => v1::TracedInGroup {
            session: session.map(Into::into),
            attempts: Some(attempts),
            error: (!error.is_empty()).then(|| error.into()),
            ..view
        },
        Whereabouts::Waiting { due, attempts, error } => v1::TracedInGroup {
            due: Some(due.to_string()),
            attempts: Some(attempts),
            error: Some(error.into()),
            ..view
        },
        Whereabouts::Dead(letter) => {
            v1::TracedInGroup { letter: Some(letter_view(channel, &letter, Shown::Attributes)), ..view }
        }
        _ => view,
    }
}
