//! The envelope: how an event travels and is kept. Drawn in `docs/formats/envelope.md`.
//!
//! All numbers big-endian. Data runs to the end and is never looked at.
//!
//! ```text
//! 0   u8   version = 1
//! 1   u8   bits 0-1 priority (0 low, 1 normal, 2 high), bit 2 retried, others 0
//! 2   16   id, a UUID
//! 18  u64  time, ms since the Unix epoch
//! 26  u64  node
//! 34  u32  bytes of the attributes that follow
//! 38  attributes: { u8 tag, u32 length, UTF-8 text }*
//! ..  data
//! ```

use std::fmt;
use std::io::Write as _;

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use super::{Event, NodeId, Priority};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

pub(super) const HEADER_BYTES: usize = 38;
pub(super) const ATTRIBUTE_HEADER_BYTES: usize = 5;
const VERSION: u8 = 1;
const FLAGS_AT: usize = 1;
const ID_AT: usize = 2;
const NODE_AT: usize = 26;
const RETRIED: u8 = 0b100;

/// The node that published the event in `envelope`, without decoding the rest.
pub(crate) fn node_of(envelope: &[u8]) -> NodeId {
    let bytes = envelope.get(NODE_AT..NODE_AT + 8).and_then(|bytes| bytes.try_into().ok());
    NodeId(bytes.map_or(0, u64::from_be_bytes))
}

/// The id of the event in `envelope` and whether it is marked as retried, without decoding the rest.
pub(crate) fn identity_of(envelope: &[u8]) -> Option<(u128, bool)> {
    let flags = envelope.get(FLAGS_AT)?;
    let id = envelope.get(ID_AT..ID_AT + 16)?.try_into().ok()?;
    Some((u128::from_be_bytes(id), flags & RETRIED != 0))
}

pub(super) fn header(event: &Event) -> [u8; HEADER_BYTES] {
    let priority = match event.priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    };
    let mut header = [0; HEADER_BYTES];
    let mut out = header.as_mut_slice();
    out.put_u8(VERSION);
    out.put_u8(priority | if event.is_retried { RETRIED } else { 0 });
    out.put_slice(event.id.as_bytes());
    out.put_u64(event.time.as_millis());
    out.put_u64(event.node.0);
    out.put_u32(length(event.attributes.len()));
    header
}

/// Lengths are checked against limits far below 4 GiB before an event leaves the process.
pub(super) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

pub(super) fn put_attribute(out: &mut Vec<u8>, tag: u8, text: &str) {
    let [a, b, c, d] = length(text.len()).to_be_bytes();
    out.extend_from_slice(&[tag, a, b, c, d]);
    out.extend_from_slice(text.as_bytes());
}

/// A part of what is signed or sealed: its length, then its bytes.
pub(super) fn put_field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes.len()).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// As [`put_attribute`], with a text that is written for the first time.
pub(super) fn put_display(out: &mut Vec<u8>, tag: u8, text: &dyn fmt::Display) {
    let start = out.len();
    put_attribute(out, tag, "");
    // Into memory: only a `Display` that fails by itself can fail, and then says less.
    let _said = write!(out, "{text}");
    let bytes = length(out.len() - start - ATTRIBUTE_HEADER_BYTES);
    if let Some(field) = out.get_mut(start + 1..start + ATTRIBUTE_HEADER_BYTES) {
        field.copy_from_slice(&bytes.to_be_bytes());
    }
}

/// Splits the first attribute off `rest`; `None` at the end and at anything that is not an attribute.
fn split_attribute<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a str)> {
    let (&tag, after) = rest.split_first()?;
    let (length, after) = after.split_first_chunk::<4>()?;
    let (text, after) = after.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
    *rest = after;
    Some((tag, std::str::from_utf8(text).ok()?))
}

/// Tags and texts of encoded attributes, in order.
pub(super) fn attributes(mut encoded: &[u8]) -> impl Iterator<Item = (u8, &str)> {
    std::iter::from_fn(move || split_attribute(&mut encoded))
}

pub(super) fn decode(mut envelope: Bytes) -> Result<Event> {
    let fault = |text: String| Err(Error::new(ErrorKind::Codec, text));
    if envelope.len() < HEADER_BYTES {
        return fault(format!("envelope has {} bytes, its header alone has {HEADER_BYTES}", envelope.len()));
    }
    let version = envelope.get_u8();
    if version != VERSION {
        return fault(format!("envelope has version {version}, this node reads version {VERSION}"));
    }
    let flags = envelope.get_u8();
    let priority = match flags & 0b11 {
        0 => Priority::Low,
        1 => Priority::Normal,
        2 => Priority::High,
        _ => return fault("envelope has priority 3, known are 0 to 2".into()),
    };
    let id = Uuid::from_u128(envelope.get_u128());
    let time = Timestamp::from_millis(envelope.get_u64());
    let node = NodeId(envelope.get_u64());
    let attributes_bytes = envelope.get_u32() as usize;
    if attributes_bytes > limits::METADATA_BYTES_MAX || attributes_bytes > envelope.len() {
        return fault(format!("envelope claims {attributes_bytes} bytes of attributes"));
    }
    let attributes = envelope.split_to(attributes_bytes);
    let mut rest = attributes.as_ref();
    while !rest.is_empty() {
        if split_attribute(&mut rest).is_none() {
            return fault("envelope has an attribute that is cut or not UTF-8".into());
        }
    }
    Ok(Event { id, time, node, priority, is_retried: flags & RETRIED != 0, attributes, data: envelope })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Version 1, byte for byte. Append-only: a stream written by any release is read by all later ones.
    const GOLDEN: &str = "01060123456789abcdef0123456789abcdef\
        00000192d3c4e5f600000000000000070000001d\
        010000000c6f726465722e706c61636564ff00000007613d6265746131\
        7b2269642220203a377d";

    fn golden_event() -> Event {
        let mut event = Event::new("order.placed", r#"{"id"  :7}"#)
            .with_extension("a", "beta1")
            .with_id(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
            .with_time(Timestamp::from_millis(0x0192_d3c4_e5f6))
            .with_priority(Priority::High);
        event.node = NodeId(7);
        event.mark_retried();
        event
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_golden_envelope_never_changes() {
        let event = golden_event();
        let encoded = Bytes::from(&event);
        assert_eq!(hex(&encoded), GOLDEN);
        assert_eq!(node_of(&encoded), NodeId(7));
        assert_eq!(Event::try_from(encoded).unwrap(), event);
    }

    #[test]
    fn setting_an_attribute_again_replaces_it() {
        let event = Event::new("a", "").with_subject("one").with_key("k").with_subject("two");
        assert_eq!((event.subject(), event.key(), event.event_type()), (Some("two"), Some("k"), "a"));
        let event = event.with_extension("x", "1").with_extension("y", "2").with_extension("x", "3");
        assert_eq!(event.extensions().collect::<Vec<_>>(), [("y", "2"), ("x", "3")]);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_say_why(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(event) = Event::try_from(Bytes::from(bytes.clone())) {
                prop_assert_eq!(Bytes::from(&event).len(), bytes.len());
            }
        }

        #[test]
        fn a_flipped_byte_of_the_header_never_panics(at in 0..HEADER_BYTES, value: u8) {
            let mut bytes = Bytes::from(&golden_event()).to_vec();
            bytes[at] = value;
            let _either = Event::try_from(Bytes::from(bytes));
        }
    }
}
