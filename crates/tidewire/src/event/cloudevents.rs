//! [CloudEvents 1.0.2](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md): events as JSON, as JSON batches,
//! and in the headers and body of HTTP.
//!
//! What is read is checked: names, types, characters, what is required, what stands twice, and the 8 KiB that an event's
//! attributes may have. What is written can be read again, and is valid if the event's type and source are.
//!
//! | of CloudEvents | of an [`Event`] |
//! |---|---|
//! | `id` | [`Event::id`], if it is a UUID in lower case with hyphens; else that is derived from `source` and `id`, the same each time |
//! | `time` | [`Event::time`], to the millisecond |
//! | `type` `source` `subject` `datacontenttype` `dataschema` | the attributes of these names |
//! | `partitionkey` `correlationid` `causationid` `traceparent` | [`Event::key`], [`Event::correlation_id`], [`Event::causation_id`], [`Event::trace_parent`] |
//! | other extensions | [`Event::extensions`], as text |
//! | `data` `data_base64` | [`Event::data`]: JSON byte for byte, text, or bytes |
//!
//! Priority and node are not told: CloudEvents has no attributes for them.
//!
//! ```
//! use tidewire::cloudevents;
//! let json = br#"{"specversion":"1.0","id":"7","source":"/shop","type":"order.placed","data":{"total": 1e2}}"#;
//! let event = cloudevents::from_json(json)?;
//! assert_eq!((event.source(), &event.data()[..]), (Some("/shop"), &br#"{"total": 1e2}"#[..]));
//! assert_eq!(cloudevents::id(&event), "7");
//! # Ok::<(), tidewire::Error>(())
//! ```

mod attributes;
mod binary;
mod json;
mod media_type;

use std::borrow::Cow;

use aws_lc_rs::digest::{Context, SHA256};
use uuid::Uuid;

use super::Event;

pub use self::binary::{from_binary, to_binary};
pub use self::json::{from_batch, from_json, to_batch, to_json};
pub use self::media_type::is_json;

/// Media type of one event in the JSON format.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of several events in the JSON batch format.
pub const BATCH: &str = "application/cloudevents-batch+json";

/// The extension that keeps an `id` that is no UUID. It is told as `id`.
const ORIGINAL_ID: &str = "originalid";

/// The `id` of an event as CloudEvents tell it: the one that it came with, or its UUID.
pub fn id(event: &Event) -> Cow<'_, str> {
    match original_id(event) {
        Some(id) => id.into(),
        None => event.id().to_string().into(),
    }
}

/// A dedup id for [`append`](crate::Channel::append): equal for events with the same `source` and `id`, which CloudEvents says
/// are the same event. At most 255 bytes.
pub fn dedup_id(event: &Event) -> String {
    format!("cloudevent:{}", derived_id(event.source().unwrap_or_default(), &id(event)))
}

/// The `id` that an event came with, if its UUID is derived from that. An extension of that name alone proves nothing: anybody
/// can set it.
fn original_id(event: &Event) -> Option<&str> {
    let id = event.extension(ORIGINAL_ID)?;
    (derived_id(event.source()?, id) == event.id()).then_some(id)
}

/// A UUID of version 8 (RFC 9562, 5.8) from SHA-256 of the source's length (8 bytes, big-endian), the source and the id.
fn derived_id(source: &str, id: &str) -> Uuid {
    let mut digest = Context::new(&SHA256);
    digest.update(&(source.len() as u64).to_be_bytes());
    digest.update(source.as_bytes());
    digest.update(id.as_bytes());
    let digest = digest.finish();
    // A digest of SHA-256 has 32 bytes.
    let bytes = digest.as_ref().first_chunk::<16>().copied().unwrap_or_default();
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests;
