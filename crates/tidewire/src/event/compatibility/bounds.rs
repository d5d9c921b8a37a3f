//! Bounds of numbers, lengths and counts.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use serde_json::Value;

use super::ChangeKind;
use super::alternative::Alternative;

/// Formats that say which numbers a Rust type holds: the least and the largest of them.
const RANGES: [(&str, Bound, Option<Bound>); 13] = [
    ("int8", Bound::Whole(i8::MIN as i128), Some(Bound::Whole(i8::MAX as i128))),
    ("int16", Bound::Whole(i16::MIN as i128), Some(Bound::Whole(i16::MAX as i128))),
    ("int32", Bound::Whole(i32::MIN as i128), Some(Bound::Whole(i32::MAX as i128))),
    ("int64", Bound::Whole(i64::MIN as i128), Some(Bound::Whole(i64::MAX as i128))),
    ("int", Bound::Whole(i64::MIN as i128), Some(Bound::Whole(i64::MAX as i128))),
    ("int128", Bound::Whole(i128::MIN), Some(Bound::Whole(i128::MAX))),
    ("uint8", Bound::Whole(0), Some(Bound::Whole(u8::MAX as i128))),
    ("uint16", Bound::Whole(0), Some(Bound::Whole(u16::MAX as i128))),
    ("uint32", Bound::Whole(0), Some(Bound::Whole(u32::MAX as i128))),
    ("uint64", Bound::Whole(0), Some(Bound::Whole(u64::MAX as i128))),
    ("uint", Bound::Whole(0), Some(Bound::Whole(u64::MAX as i128))),
    ("uint128", Bound::Whole(0), None),
    ("float", Bound::Real(f32::MIN as f64), Some(Bound::Real(f32::MAX as f64))),
];

/// Whether a format is one of numbers, and so says nothing about a text.
pub(super) fn is_format_of_number(format: &str) -> bool {
    format == "double" || RANGES.iter().any(|(known, ..)| *known == format)
}

/// A number that others are compared with, whole ones exactly.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Whole(i128),
    Real(f64),
}

impl Bound {
    fn of(value: &Value) -> Option<Self> {
        let number = value.as_number()?;
        number.as_i128().map(Self::Whole).or_else(|| number.as_f64().map(Self::Real))
    }

    fn cmp(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => one.cmp(&other),
            (one, other) => one.as_real().total_cmp(&other.as_real()),
        }
    }

    fn as_real(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number:?}"),
        }
    }
}

/// Where values begin or end.
#[derive(Debug, Clone)]
struct End {
    bound: Bound,
    is_exclusive: bool,
    pointer: Rc<str>,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = if self.is_exclusive { " exclusive" } else { "" };
        write!(f, "{}{beside}", self.bound)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Lower,
    Upper,
}

impl Side {
    /// How much tighter one end is than another; none is the widest.
    fn tightness(self, one: Option<&End>, other: Option<&End>) -> Ordering {
        match (one, other) {
            (Some(one), Some(other)) => {
                let by_bound = match self {
                    Self::Lower => one.bound.cmp(other.bound),
                    Self::Upper => other.bound.cmp(one.bound),
                };
                by_bound.then(one.is_exclusive.cmp(&other.is_exclusive))
            }
            (one, other) => one.is_some().cmp(&other.is_some()),
        }
    }
}

const NUMBERS: [(&str, &str, Side); 2] =
    [("minimum", "exclusiveMinimum", Side::Lower), ("maximum", "exclusiveMaximum", Side::Upper)];

const COUNTS: [(&str, Side); 6] = [
    ("minLength", Side::Lower),
    ("maxLength", Side::Upper),
    ("minItems", Side::Lower),
    ("maxItems", Side::Upper),
    ("minProperties", Side::Lower),
    ("maxProperties", Side::Upper),
];

/// Keywords that are compared here.
pub(super) fn is_bound(keyword: &str) -> bool {
    COUNTS.iter().any(|(count, _)| *count == keyword)
        || NUMBERS.iter().any(|(inclusive, exclusive, _)| *inclusive == keyword || *exclusive == keyword)
}

/// The bounds that have changed: where, and how.
pub(super) fn compare(
    older: &Alternative<'_>,
    newer: &Alternative<'_>,
) -> Vec<(Rc<str>, ChangeKind, String)> {
    let of_numbers = NUMBERS.map(|(name, exclusive, side)| {
        (name, side, number_end(older, name, exclusive, side), number_end(newer, name, exclusive, side))
    });
    let of_counts =
        COUNTS.map(|(name, side)| (name, side, count_end(older, name, side), count_end(newer, name, side)));
    let changed = |(name, side, before, after): (&str, Side, Option<End>, Option<End>)| {
        let what = match side.tightness(after.as_ref(), before.as_ref()) {
            Ordering::Greater => ChangeKind::Narrowed,
            Ordering::Less => ChangeKind::Widened,
            Ordering::Equal => return None,
        };
        let said = |end: &Option<End>| end.as_ref().map_or_else(|| "none".to_owned(), End::to_string);
        let text = format!("{name} is {}, was {}", said(&after), said(&before));
        let pointer = after.map_or_else(|| newer.pointer.clone(), |end| end.pointer);
        Some((pointer, what, text))
    };
    of_numbers.into_iter().chain(of_counts).filter_map(changed).collect()
}

fn number_end(shape: &Alternative<'_>, inclusive: &str, exclusive: &str, side: Side) -> Option<End> {
    let formats = shape.asked.get("format").into_iter().flatten().filter_map(|place| {
        let (_, least, largest) = RANGES.iter().find(|(format, ..)| place.value == format)?;
        let bound = if side == Side::Lower { Some(*least) } else { *largest };
        Some(End { bound: bound?, is_exclusive: false, pointer: place.pointer.clone() })
    });
    let ends = ends(shape, inclusive, false).chain(ends(shape, exclusive, true)).chain(formats);
    ends.max_by(|one, other| side.tightness(Some(one), Some(other)))
}

fn count_end(shape: &Alternative<'_>, keyword: &str, side: Side) -> Option<End> {
    let tightest = ends(shape, keyword, false).max_by(|one, other| side.tightness(Some(one), Some(other)));
    // None is as many as at least none.
    tightest.filter(|end| side == Side::Upper || end.bound.cmp(Bound::Whole(0)).is_gt())
}

fn ends(shape: &Alternative<'_>, keyword: &str, is_exclusive: bool) -> impl Iterator<Item = End> {
    let places = shape.asked.get(keyword).into_iter().flatten();
    places.filter_map(move |place| {
        Some(End { bound: Bound::of(place.value)?, is_exclusive, pointer: place.pointer.clone() })
    })
}
