//! Deltas from outside, and of any data: the two apart by a zero byte. Applying never panics and keeps to its limit, and what is
//! written makes the new data of the old.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire_protocol::delta;

const BYTES_MAX: usize = 4_096;

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (old, new) = input.split_at(at);
    let new = new.get(1..).unwrap_or_default();
    if let Ok(made) = delta::apply(old, new, BYTES_MAX) {
        assert!(made.len() <= BYTES_MAX, "{}", made.len());
    }
    if let Some(delta) = delta::create(old, new) {
        assert!(delta.len() < new.len(), "{}", delta.len());
        assert_eq!(delta::apply(old, &delta, new.len()).as_deref(), Ok(new));
    }
    let (Ok(old), Ok(new)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else { return };
    if let Some(delta) = delta::create_text(old, new) {
        assert!(delta.len() < new.len(), "{}", delta.len());
        assert_eq!(delta::apply(old.as_bytes(), delta.as_bytes(), new.len()).as_deref(), Ok(new.as_bytes()));
    }
});
