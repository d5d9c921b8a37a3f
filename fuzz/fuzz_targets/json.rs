//! JSON from outside: the check never panics, and what it lets pass a parser takes.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/tidewire/src/event/json.rs"]
#[allow(dead_code, reason = "the library uses more of it")]
mod json;

use json::{JsonLimits, check_json};

fuzz_target!(|input: &[u8]| {
    match check_json(input, &JsonLimits::default()) {
        Ok(()) => {
            // Between the two stand only numbers that are rounded to the largest float or past it.
            if let Err(error) = serde_json::from_slice::<serde_json::Value>(input) {
                assert!(error.to_string().starts_with("number out of range"), "{error}");
            }
        }
        Err(fault) => assert!(fault.pointer.len() <= 256 && fault.to_string().len() < 512, "{fault}"),
    }
});
