//! The span that a delivery is handled in, and what links it to the trace of whoever appended the event.

use tracing::{Span, debug_span};

use super::delivery::Delivery;
use crate::event::Event;

/// The span of a delivery, at level debug on target `tidewire::consume`: nothing is read for it while nobody listens.
///
/// Fields that begin with `otel.` are those that `tracing-opentelemetry` reads.
pub(super) fn of(delivery: &Delivery) -> Span {
    let event = delivery.event();
    debug_span!(
        target: "tidewire::consume",
        "consume",
        otel.name = %format_args!("consume {}", delivery.group().channel().channel()),
        otel.kind = "consumer",
        tenant = delivery.group().channel().tenant(),
        channel = delivery.group().channel().channel(),
        group = delivery.group().group(),
        position = %delivery.position(),
        attempt = delivery.attempt(),
        event_id = %event.id(),
        event_type = event.event_type(),
        correlation_id = event.correlation_id(),
        trace_id = trace(event).map(|(trace, _)| trace),
        parent_span_id = trace(event).map(|(_, span)| span),
    )
}

/// The ids of the trace and of the span that an event was appended in.
fn trace(event: &Event) -> Option<(&str, &str)> {
    parse(event.trace_parent()?)
}

/// Takes a `traceparent` apart, as the [W3C trace context](https://www.w3.org/TR/trace-context/#traceparent-header) has
/// it. Of a later version only what stands in this one is read.
fn parse(text: &str) -> Option<(&str, &str)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let is_version = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    (is_version && is_id(trace, 32) && is_id(span, 16) && is_hex(flags, 2)).then_some((trace, span))
}

#[cfg(test)]
mod tests;
