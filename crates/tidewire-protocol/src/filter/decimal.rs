//! Decimal numbers in the text of tags.

use std::cmp::Ordering;

/// Longest text of a number in bytes, and most digits behind its point: those of Centrifugo's `udecimal`.
const TEXT_BYTES_MAX: usize = 200;
const FRACTION_DIGITS_MAX: usize = 19;

/// A number as the digits of its text: no leading zeros before the point, no trailing ones behind it, no negative zero. So
/// equal numbers are equal values, and comparing needs no arithmetic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decimal<Digits> {
    is_negative: bool,
    whole: Digits,
    fraction: Digits,
}

impl<'a> Decimal<&'a str> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (whole, fraction) = match digits.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (digits, None),
        };
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_fraction = |part: &str| is_digits(part) && part.len() <= FRACTION_DIGITS_MAX;
        if !is_digits(whole) || !fraction.is_none_or(is_fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.unwrap_or_default().trim_end_matches('0');
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self { is_negative: text.starts_with('-') && !is_zero, whole, fraction })
    }

    pub(super) fn into_owned(self) -> Decimal<Box<str>> {
        Decimal { is_negative: self.is_negative, whole: self.whole.into(), fraction: self.fraction.into() }
    }

    pub(super) fn compare(&self, other: &Decimal<Box<str>>) -> Ordering {
        let size = || {
            let by_length = self.whole.len().cmp(&other.whole.len());
            by_length.then_with(|| (self.whole, self.fraction).cmp(&(&other.whole, &other.fraction)))
        };
        match (self.is_negative, other.is_negative) {
            (false, false) => size(),
            (true, true) => size().reverse(),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}
