//! The event log: a line for each stage of an event's way, for programs. Never its data.
//!
//! Lines are `tracing` events of level trace on the target [`TARGET`]; while nobody listens to it they cost one look at a
//! flag each. `docs/metrics.md` says what is in them.

use std::time::Duration;

use tracing::{Level, enabled, trace};

use super::group::{DeadLetter, Delivery, Outcome};
use crate::engine::{Append, Appended, Effect};
use crate::error::Error;
use crate::event::Event;

/// The target of the lines of the event log.
pub const TARGET: &str = "tidewire::events";

fn is_on() -> bool {
    enabled!(target: TARGET, Level::TRACE)
}

/// The engine has taken an append, or has not, after so long.
pub(super) fn appended(append: &Append, outcome: Result<&Appended, &Error>, took: impl FnOnce() -> Duration) {
    if !is_on() {
        return;
    }
    let Ok(event) = Event::try_from(append.envelope.clone()) else { return };
    trace!(
        target: TARGET,
        stage = "appended",
        id = %event.id(),
        r#type = event.event_type(),
        tenant = append.channel.tenant(),
        channel = append.channel.channel(),
        position = outcome.ok().and_then(|appended| appended.position).map(display),
        is_duplicate = outcome.is_ok_and(|appended| appended.effect == Effect::Duplicate),
        is_stale = outcome.is_ok_and(|appended| appended.effect == Effect::Stale),
        latency_us = micros(took()),
        error = outcome.err().map(display),
        correlation_id = event.correlation_id(),
    );
}

/// A delivery is handed to a handler, so long after its event was appended.
pub(super) fn delivered(delivery: &Delivery, waited: impl FnOnce() -> Duration) {
    if !is_on() {
        return;
    }
    let (event, channel) = (delivery.event(), delivery.group().channel());
    trace!(
        target: TARGET,
        stage = "delivered",
        id = %event.id(),
        r#type = event.event_type(),
        tenant = channel.tenant(),
        channel = channel.channel(),
        group = delivery.group().group(),
        position = %delivery.position(),
        attempt = delivery.attempt(),
        latency_us = micros(waited()),
        correlation_id = event.correlation_id(),
    );
}

/// What became of a delivery, and how long its handler took; none if whoever had it is gone.
pub(super) fn settled(delivery: &Delivery, outcome: Option<&Outcome>, took: Duration) {
    if !is_on() {
        return;
    }
    let (event, channel) = (delivery.event(), delivery.group().channel());
    let (outcome, error) = match outcome {
        None => ("abandoned", None),
        Some(Outcome::Ack) => ("ack", None),
        Some(Outcome::Retry { error, .. }) => ("retry", Some(&**error)),
        Some(Outcome::Reject { reason }) => ("reject", Some(&**reason)),
        Some(Outcome::Park { reason }) => ("park", Some(&**reason)),
        Some(Outcome::HandBack) => ("hand_back", None),
    };
    trace!(
        target: TARGET,
        stage = "settled",
        id = %event.id(),
        r#type = event.event_type(),
        tenant = channel.tenant(),
        channel = channel.channel(),
        group = delivery.group().group(),
        position = %delivery.position(),
        attempt = delivery.attempt(),
        outcome,
        latency_us = micros(took),
        error,
        correlation_id = event.correlation_id(),
    );
}

/// A delivery went to the dead letters, so long after its event was appended.
pub(super) fn dead(letter: &DeadLetter) {
    if !is_on() {
        return;
    }
    // One that cannot be decoded is dead for that.
    let (event, channel) = (letter.event().ok(), letter.group.channel());
    let event = event.as_ref();
    trace!(
        target: TARGET,
        stage = "dead",
        id = event.map(|event| display(event.id())),
        r#type = event.map(Event::event_type),
        tenant = channel.tenant(),
        channel = channel.channel(),
        group = letter.group.group(),
        position = %letter.position,
        attempt = letter.attempts,
        kind = letter.kind.as_str(),
        latency_us = micros(letter.died.since(letter.appended)),
        error = &*letter.reason,
        correlation_id = event.and_then(Event::correlation_id),
    );
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
