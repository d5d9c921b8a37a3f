//! Numbers in deltas: 64 digits, the first one largest.

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

const BITS_PER_DIGIT: u32 = 6;

pub(super) fn write(delta: &mut Vec<u8>, number: usize) {
    for place in (0..digit_count(number)).rev() {
        let digit = (number >> (BITS_PER_DIGIT * place)) & 63;
        delta.extend(DIGITS.get(digit));
    }
}

/// How many digits `number` is written with.
pub(super) fn digit_count(number: usize) -> u32 {
    (usize::BITS - number.leading_zeros()).div_ceil(BITS_PER_DIGIT).max(1)
}

/// What `byte` is worth as a digit.
pub(super) fn value(byte: u8) -> Option<u32> {
    Some(match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'A'..=b'Z' => u32::from(byte - b'A') + 10,
        b'_' => 36,
        b'a'..=b'z' => u32::from(byte - b'a') + 37,
        b'~' => 63,
        _ => return None,
    })
}
