//! Whatever the other side sends: the reader never panics, gives nothing over its bound, and gives the same however the
//! bytes are cut into reads. The first byte says who reads, the second how the bytes are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire_protocol::websocket::{
    CONTROL_PAYLOAD_BYTES_MAX, Incoming, ReadError, Reader, Role, WindowBits, agree_deflate, inflate,
};

const BYTES_MAX: usize = 4_096;

/// Feeds the parts one after the other, until one is refused.
fn read<'a>(mut reader: Reader, parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Incoming>, Option<ReadError>) {
    let mut all = Vec::new();
    for mut input in parts {
        loop {
            match reader.read(&mut input) {
                Ok(Some(incoming)) => all.push(incoming),
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
        assert!(input.is_empty());
    }
    (all, None)
}

fn check_bound(incoming: &Incoming) {
    let (size, bound) = match incoming {
        Incoming::Text(text) => (text.len(), BYTES_MAX),
        Incoming::Binary(bytes) => (bytes.len(), BYTES_MAX),
        Incoming::Ping(bytes) | Incoming::Pong(bytes) => (bytes.len(), CONTROL_PAYLOAD_BYTES_MAX),
        Incoming::Close(close) => {
            (close.as_ref().map_or(0, |(_, reason)| reason.len()), CONTROL_PAYLOAD_BYTES_MAX)
        }
    };
    assert!(size <= bound, "{size} bytes");
}

fuzz_target!(|input: &[u8]| {
    let Some((&[who, step], bytes)) = input.split_first_chunk() else { return };
    let reader = || {
        let reader = Reader::new(if who & 1 == 0 { Role::Server } else { Role::Client }, BYTES_MAX);
        if who & 2 == 0 { reader } else { reader.with_deflate() }
    };
    let whole = read(reader(), std::iter::once(bytes));
    whole.0.iter().for_each(check_bound);
    assert_eq!(read(reader(), bytes.chunks(usize::from(step) + 1)), whole);

    if let Ok(inflated) = inflate(bytes, BYTES_MAX) {
        assert!(inflated.capacity() <= BYTES_MAX);
    }
    if let Ok(header) = std::str::from_utf8(bytes) {
        let _agreed = agree_deflate([header], WindowBits::MAX);
    }
});
