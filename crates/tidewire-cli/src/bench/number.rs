//! The data of our events: a number that is found without reading the rest, and what became of the numbers.

use std::ops::Range;

use anyhow::{Result, anyhow};

/// Stands in front of the number, and nowhere else in a frame of ours.
const MARK: u8 = b'~';
/// Digits of a number: all of a `u64`.
const DIGITS: usize = 20;

/// Data of an event with a number in it: JSON of `bytes` bytes, or of 29 where less than 36 are asked for.
pub(super) fn data(number: u64, bytes: usize) -> String {
    let head = format!(r#"{{"n":"~{number:0DIGITS$}""#);
    match bytes.checked_sub(head.len() + r#","x":""}"#.len()) {
        Some(room) => format!(r#"{head},"x":"{}"}}"#, "x".repeat(room)),
        None => format!("{head}}}"),
    }
}

/// The number in a line of JSON that holds the data of an event.
pub(super) fn number_in_line(line: &str) -> Option<u64> {
    // Unlike a search in bytes this one takes many at a time.
    number_in(line.get(line.find(char::from(MARK))?..)?.as_bytes())
}

/// The number in the data of an event.
pub(super) fn number_in(bytes: &[u8]) -> Option<u64> {
    let mark = bytes.iter().position(|byte| *byte == MARK)?;
    let digits = bytes.get(mark + 1..)?.get(..DIGITS)?;
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// What one subscriber heard of numbers that come one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    next: u64,
    pub(super) faults: Faults,
}

/// Events that did not come once and in order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Faults {
    /// Others came in their place.
    pub(super) missing: u64,
    /// They came before, or after a later one.
    pub(super) repeated: u64,
}

impl Faults {
    /// Fails where there are any.
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self { missing: 0, repeated: 0 } => Ok(()),
            Self { missing, repeated } => Err(anyhow!(
                "not each event came once and in order: {missing} are missing, {repeated} came again or late"
            )),
        }
    }
}

impl Sequence {
    /// Expects the numbers from `first` on.
    pub(super) fn from(first: u64) -> Self {
        Self { next: first, faults: Faults::default() }
    }

    pub(super) fn hear(&mut self, number: u64) {
        match number.checked_sub(self.next) {
            None => self.faults.repeated += 1,
            Some(skipped) => {
                self.faults.missing += skipped;
                self.next = number.saturating_add(1);
            }
        }
    }

    /// What comes before `number` and is not here will not come.
    pub(super) fn skip_to(&mut self, number: u64) {
        self.faults.missing += number.saturating_sub(self.next);
        self.next = self.next.max(number);
    }

    /// The number that comes next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }
}

/// Gives each event the number after the one before.
#[derive(Debug)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new() -> Self {
        Self(0)
    }

    pub(super) fn take(&mut self, count: u64) -> Range<u64> {
        let first = self.0;
        self.0 = first.saturating_add(count);
        first..self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_in_its_data_which_is_as_long_as_asked_for() {
        for (number, bytes, length) in [(0, 0, 29), (42, 128, 128), (u64::MAX, 40, 40)] {
            let data = data(number, bytes);
            assert_eq!((number_in(data.as_bytes()), data.len()), (Some(number), length), "{data}");
            assert_eq!(number_in_line(&format!(r#"{{"push":{{"pub":{{"data":{data}}}}}}}"#)), Some(number));
            assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok(), "{data}");
        }
        for other in ["", "~", "~1234", "~0000000000000000000x", "~99999999999999999999"] {
            assert_eq!((number_in(other.as_bytes()), number_in_line(other)), (None, None), "{other}");
        }
    }

    #[test]
    fn what_is_missing_repeated_or_late_is_counted() {
        let mut sequence = Sequence::from(5);
        for number in [5, 6, 9, 7, 9, 10] {
            sequence.hear(number);
        }
        assert_eq!(sequence.faults, Faults { missing: 2, repeated: 2 });
        assert_eq!(sequence.next(), 11);
    }
}
