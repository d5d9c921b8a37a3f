//! Fossil deltas: an event's data as what has changed since the data before it.
//!
//! The format is that of the [Fossil version control system](https://fossil-scm.org/home/doc/trunk/www/delta_format.wiki),
//! which the `centrifuge` SDKs apply: the new size and a newline, commands, the new data's checksum and `;`.
//!
//! | command | written | means |
//! |---|---|---|
//! | copy | `COUNT@OFFSET,` | take bytes of the former data |
//! | insert | `COUNT:BYTES` | take the bytes that follow |
//!
//! Numbers have 64 digits (`0-9A-Z_a-z~`), the first one largest. The checksum is the sum of the data's big-endian
//! 32-bit words, the last one filled up with zeros, modulo 2^32.
//!
//! ```
//! use tidewire_protocol::delta;
//!
//! let old = r#"{"symbol":"ACME","price":"101.25","market":"open"}"#;
//! let new = r#"{"symbol":"ACME","price":"101.50","market":"open"}"#;
//! let delta = delta::create_text(old, new).ok_or("not shorter")?;
//! assert_eq!(delta, "n\nU@0,2:50I@W,3O_BEU;");
//! let applied = delta::apply(old.as_bytes(), delta.as_bytes(), 1024)?;
//! assert_eq!(applied, new.as_bytes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod landmarks;
mod matches;
mod number;

pub use apply::{DeltaError, apply};

use crate::limits::{DELTA_BYTES_MAX, DELTA_BYTES_MIN};
use matches::{Borders, Matches};

/// The delta that makes `new` of `old`.
///
/// `None` where it would not be shorter than `new`, and where one of the two is smaller than [`DELTA_BYTES_MIN`] or larger
/// than [`DELTA_BYTES_MAX`]. Its work is linear in both, whatever they are; its memory is the delta and at most
/// three quarters of `old`.
pub fn create(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    write(old, new, Borders::Bytes)
}

/// As [`create`], for data that travels as text: no command begins or ends within a character, so the delta is text too.
pub fn create_text(old: &str, new: &str) -> Option<String> {
    write(old.as_bytes(), new.as_bytes(), Borders::Characters).and_then(|delta| String::from_utf8(delta).ok())
}

fn write(old: &[u8], new: &[u8], borders: Borders) -> Option<Vec<u8>> {
    let sizes = DELTA_BYTES_MIN..=DELTA_BYTES_MAX;
    if !sizes.contains(&old.len()) || !sizes.contains(&new.len()) {
        return None;
    }
    let mut delta = Vec::new();
    number::write(&mut delta, new.len());
    delta.push(b'\n');
    let mut written = 0;
    for copy in Matches::new(old, new, borders) {
        insert(&mut delta, new.get(written..copy.new_at)?);
        number::write(&mut delta, copy.count);
        delta.push(b'@');
        number::write(&mut delta, copy.old_at);
        delta.push(b',');
        written = copy.new_end();
    }
    insert(&mut delta, new.get(written..)?);
    number::write(&mut delta, checksum(new) as usize);
    delta.push(b';');
    (delta.len() < new.len()).then_some(delta)
}

fn insert(delta: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        number::write(delta, bytes.len());
        delta.push(b':');
        delta.extend_from_slice(bytes);
    }
}

fn checksum(data: &[u8]) -> u32 {
    let words = data.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word.iter_mut().zip(chunk).for_each(|(byte, from)| *byte = *from);
        u32::from_be_bytes(word)
    });
    words.fold(0, u32::wrapping_add)
}

#[cfg(test)]
mod tests;
