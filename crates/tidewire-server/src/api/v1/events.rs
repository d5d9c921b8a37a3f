//! Events from other systems, as CloudEvents: published to a channel by its rule, each once.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::join_all;
use tidewire::{Effect, Event, cloudevents, limits};
use tidewire_protocol::codes::ErrorCode;
use tidewire_protocol::http::ApiError;
use tidewire_protocol::v1::{AcceptedEvent, EventOutcome, EventOutcomes, RefusedEvent};

use super::exchange::{OnChannel, Refused, bad_request, invalid_data, respond};
use crate::api::exchange::{Body, Refusal};
use crate::config::ChannelRule;
use crate::failure::Failure;
use crate::node::Node;
use crate::permission;
use crate::publishing::{self, Options, Published};
use crate::tenants::Tenant;

const METHOD: &str = "events";
/// What all attributes have before their names in binary mode.
const PREFIX: &str = "ce-";

/// How a request holds events; section 3 of the HTTP binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Structured,
    Binary,
    Batched,
}

pub(super) async fn publish(
    State(node): State<Arc<Node>>,
    OnChannel { channel, tenant, .. }: OnChannel,
    headers: HeaderMap,
    Body(body): Body,
) -> Response {
    let (node, tenant, channel) = (&*node, &*tenant, channel.name());
    let checked = permission::rule_of(&tenant.rules, channel)
        .map_err(|failure| Refused::from(Refusal::new(StatusCode::NOT_FOUND, failure)))
        .and_then(|rule| Ok((rule, mode_of(&headers)?)));
    match checked {
        Ok((rule, Mode::Batched)) => match cloudevents::from_batch(&body, limits::BATCH_EVENTS_MAX) {
            Ok(events) => batch(node, tenant, rule, channel, events).await,
            Err(error) => respond::<EventOutcomes>(node, METHOD, Err(error.into())),
        },
        Ok((rule, mode)) => {
            let outcome = async {
                let event = if mode == Mode::Structured {
                    cloudevents::from_json(&body)?
                } else {
                    from_binary(&headers, body)?
                };
                accept(node, tenant, rule, channel, event).await
            };
            respond(node, METHOD, outcome.await)
        }
        Err(refused) => respond::<AcceptedEvent>(node, METHOD, Err(refused)),
    }
}

/// Publishes each event of a batch, and answers for each. The status is 200 if one of them was published, or there is none;
/// else it is that of the first.
async fn batch(
    node: &Node,
    tenant: &Tenant,
    rule: &ChannelRule,
    channel: &str,
    events: Vec<tidewire::Result<Event>>,
) -> Response {
    let outcomes = events.into_iter().map(|event| async {
        let event = event.map_err(|error| (None, error.into()))?;
        let id = cloudevents::id(&event).into_owned();
        accept(node, tenant, rule, channel, event).await.map_err(|refused| (Some(id), refused))
    });
    let outcomes = if rule.keep.is_some() {
        // All at once, so that the engine can take them in one batch; it takes them in their order.
        join_all(outcomes).await
    } else {
        // A live event is marked as published before it is, which could change the order.
        let mut answers = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            answers.push(outcome.await);
        }
        answers
    };
    let mut status = outcomes.is_empty().then_some(StatusCode::OK);
    let events = outcomes.into_iter().map(|outcome| match outcome {
        Ok(accepted) => {
            status = Some(StatusCode::OK);
            EventOutcome::Accepted(accepted)
        }
        Err((id, refused)) => {
            let (refused_with, failure) = refused.into_parts();
            status.get_or_insert(refused_with);
            if let Some(detail) = &failure.detail {
                tracing::error!(tenant = tenant.handle.name(), channel, detail, "an event of a batch failed");
            }
            EventOutcome::Refused(RefusedEvent { id, error: ApiError::from(failure).into() })
        }
    });
    let events = events.collect();
    let mut response = respond(node, METHOD, Ok(EventOutcomes { events }));
    *response.status_mut() = status.unwrap_or_default();
    response
}

/// Checks an event and publishes it by the channel's rule. Every event of this route comes through here.
///
/// The same `source` and `id` within `timing.idempotency_window` is the same event: it is published once.
async fn accept(
    node: &Node,
    tenant: &Tenant,
    rule: &ChannelRule,
    channel: &str,
    event: Event,
) -> Result<AcceptedEvent, Refused> {
    let handle = tenant.handle.channel(channel)?;
    let event = handle.conform(event)?.map_err(invalid_data)?;
    let (id, uuid) = (cloudevents::id(&event).into_owned(), event.id().to_string());
    let dedup_id = cloudevents::dedup_id(&event);
    let options = Options { idempotency_key: &dedup_id, ..Options::default() };
    let published = publishing::publish(node, tenant, rule, channel, event, options).await?;
    let Published { position, effect } = published;
    let position = position.map(|position| position.to_string());
    let duplicate = effect == Effect::Duplicate;
    Ok(AcceptedEvent { event_id: (uuid != id).then_some(uuid), id, position, duplicate })
}

fn mode_of(headers: &HeaderMap) -> Result<Mode, Refused> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    match &*media_type {
        cloudevents::STRUCTURED => Ok(Mode::Structured),
        cloudevents::BATCH => Ok(Mode::Batched),
        other if !other.starts_with("application/cloudevents") && headers.keys().any(is_attribute) => {
            Ok(Mode::Binary)
        }
        _ => {
            let (one, many) = (cloudevents::STRUCTURED, cloudevents::BATCH);
            let message =
                format!("request is no cloud event: send content-type {one} or {many}, or ce- headers");
            let failure = Failure::new(ErrorCode::BAD_REQUEST, message);
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, failure).into())
        }
    }
}

fn is_attribute(name: &header::HeaderName) -> bool {
    name.as_str().starts_with(PREFIX)
}

fn from_binary(headers: &HeaderMap, body: Bytes) -> Result<Event, Refused> {
    let found = headers.iter().filter(|(name, _)| is_attribute(name) || **name == header::CONTENT_TYPE);
    let found = found.map(|(name, value)| match value.to_str() {
        Ok(value) => Ok((name.as_str(), value)),
        Err(_) => Err(bad_request(format!("header {name} has a character that must be percent-encoded"))),
    });
    let found = found.collect::<Result<Vec<_>, Refused>>()?;
    Ok(cloudevents::from_binary(found, body)?)
}
