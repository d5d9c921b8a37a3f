//! Dead letters: listed, shown, and counted by their reasons.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use tidewire::{Channel, DeadKind, DeadLetter, DeadLetters, Event};
use tidewire_protocol::v1::{self, DeadLetterFilter};
use tidewire_protocol::{JsonData, RawValue};

use super::exchange::{OnGroup, Refused, bad_request, query, respond, time_of};
use crate::node::Node;
use crate::publication::{self, View};

/// Letters of a page unless the query says otherwise.
const LETTERS_DEFAULT: usize = 100;

/// The query of a listing: a filter, and which page.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    after: String,
    limit: Option<usize>,
    reason: Option<String>,
    kind: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    since: Option<String>,
    before: Option<String>,
}

pub(super) async fn list(
    State(node): State<Arc<Node>>,
    OnGroup { group, on }: OnGroup,
    uri: Uri,
) -> Response {
    let outcome = async {
        let ListQuery { after, limit, reason, kind, event_type, since, before } = query(&uri)?;
        let filter = DeadLetterFilter { ids: Vec::new(), reason, kind, event_type, since, before };
        let letters = pick(group.dead_letters(), filter)?;
        let page = letters.list(&after, limit.unwrap_or(LETTERS_DEFAULT)).await?;
        let letters =
            page.letters.iter().map(|letter| view(&on.channel, letter, Shown::Attributes)).collect();
        Ok(v1::DeadLetters { letters, next: page.next.map(Into::into) })
    };
    respond(&node, "dead_letters", outcome.await)
}

pub(super) async fn get(State(node): State<Arc<Node>>, OnGroup { group, on }: OnGroup) -> Response {
    let letter = group.dead_letters().get(on.parameter("id")).await.map_err(Refused::from);
    respond(
        &node,
        "dead_letter",
        letter.map(|letter| view(&on.channel, &letter, Shown::Data(View::Redacted))),
    )
}

pub(super) async fn reasons(State(node): State<Arc<Node>>, OnGroup { group, .. }: OnGroup) -> Response {
    let found = group.dead_letters().reasons().await.map_err(Refused::from);
    let view = |reason: tidewire::DeadReason| v1::DeadReason {
        kind: reason.kind.to_string(),
        fingerprint: reason.fingerprint.into(),
        count: reason.count,
        first: reason.first.to_string(),
        last: reason.last.to_string(),
        example: reason.example.into(),
    };
    let found = found.map(|found| v1::DeadReasons {
        reasons: found.reasons.into_iter().map(view).collect(),
        others: found.others,
    });
    respond(&node, "dead_reasons", found)
}

/// The letters that a filter picks.
pub(super) fn pick(letters: DeadLetters, filter: DeadLetterFilter) -> Result<DeadLetters, Refused> {
    let DeadLetterFilter { ids, reason, kind, event_type, since, before } = filter;
    let mut letters = ids.iter().fold(letters, |letters, id| letters.id(id));
    if let Some(fingerprint) = reason {
        letters = letters.reason(&fingerprint);
    }
    if let Some(kind) = kind {
        letters = letters.kind(kind.parse::<DeadKind>()?);
    }
    if let Some(event_type) = event_type {
        letters = letters.event_type(&event_type);
    }
    if let Some(since) = since {
        letters = letters.since(time_of(&since)?);
    }
    if let Some(before) = before {
        letters = letters.before(time_of(&before)?);
    }
    if ids.len() > v1::IDS_MAX {
        return Err(bad_request(format!("filter has {} ids, limit is {}", ids.len(), v1::IDS_MAX)));
    }
    Ok(letters)
}

/// How much of an event is shown.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Shown {
    /// In listings: its data may be large.
    Attributes,
    /// Its data too.
    Data(View),
}

pub(super) fn view(channel: &Channel, letter: &DeadLetter, shown: Shown) -> v1::DeadLetter {
    let event = letter.event().ok();
    let is_unreadable = event.is_none() && shown != Shown::Attributes;
    v1::DeadLetter {
        id: letter.id().into(),
        kind: letter.kind.to_string(),
        reason: letter.reason.to_string(),
        fingerprint: letter.fingerprint().into(),
        attempts: letter.attempts,
        crashes: letter.crashes,
        position: letter.position.to_string(),
        appended: letter.appended.to_string(),
        first_delivered: letter.first_delivered.to_string(),
        last_delivered: letter.last_delivered.to_string(),
        died: letter.died.to_string(),
        session: letter.session.to_string(),
        node: letter.node.to_string(),
        event: event.map(|event| event_view(channel, &event, shown)),
        envelope: is_unreadable.then(|| raw(&letter.envelope)),
    }
}

pub(super) fn event_view(channel: &Channel, event: &Event, shown: Shown) -> v1::Event {
    let data = match shown {
        Shown::Attributes => None,
        Shown::Data(view) => Some(publication::shown(channel, event, view)),
    };

    v1::Event {
        id: event.id().to_string(),
        event_type: event.event_type().to_owned(),
        time: event.time().to_string(),
        attributes: event.attributes().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        data: data.map(|data| data.as_raw().to_owned()),
    }
}

fn raw(bytes: &[u8]) -> Box<RawValue> {
    JsonData::from_any(bytes).as_raw().to_owned()
}
