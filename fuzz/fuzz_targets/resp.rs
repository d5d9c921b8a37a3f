//! Whatever a server sends: the decoder never panics, and gives the same values however the bytes are cut into reads.

#![no_main]

use bytes::BufMut as _;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/tidewire/src/engine/redis/resp.rs"]
#[allow(dead_code, reason = "the engine uses more of it")]
mod resp;

use resp::{Decoder, ProtocolError, Value};

/// Feeds the parts one after the other, until one is refused.
fn decode<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Value>, Option<ProtocolError>) {
    let (mut decoder, mut values) = (Decoder::default(), Vec::new());
    for part in parts {
        decoder.buffer().put_slice(part);
        if let Err(error) = decoder.decode(&mut values) {
            return (values, Some(error));
        }
    }
    (values, None)
}

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, step) = input;
    let (whole, fault) = decode(std::iter::once(bytes.as_slice()));
    let (cut, cut_fault) = decode(bytes.chunks(usize::from(step) + 1));
    // A number that is none equals nothing, so what is compared is how values are shown and how many there are.
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
    assert_eq!(fault.is_some(), cut_fault.is_some());
});
