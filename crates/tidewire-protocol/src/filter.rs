//! Tag filters: which events of a channel a subscriber wants.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::omit::is_default;

mod compile;
mod decimal;

pub use compile::FilterError;
use decimal::Decimal;

/// A tag filter as it travels: a comparison, or an operation on other filters. [`Filter`] is what answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterNode<'a> {
    /// `and`, `or`, `not`; empty for a comparison.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub op: Cow<'a, str>,
    /// Which tag to compare.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub key: Cow<'a, str>,
    /// How to compare it: `eq`, `neq`, `in`, `nin`, `ex`, `nex`, `sw`, `ew`, `ct`, `lt`, `lte`, `gt`, `gte`.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub cmp: Cow<'a, str>,
    /// What to compare it with; a number too is written as text.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub val: Cow<'a, str>,
    /// The values of `in` and `nin`.
    #[serde(skip_serializing_if = "is_default")]
    pub vals: Vec<Cow<'a, str>>,
    /// The filters that `and`, `or` and `not` are about.
    #[serde(borrow, skip_serializing_if = "is_default")]
    pub nodes: Vec<FilterNode<'a>>,
}

/// A checked tag filter.
///
/// Filters that say the same in the same order are equal and have one hash, so that subscribers can share the answer; the order
/// and repetition of values in a list, and how a number is written (`1.50`, `+1.5`), make no difference.
///
/// It answers as Centrifugo does (its `internal/filter/filter.go` and
/// [documentation](https://centrifugal.dev/docs/server/publication_filtering)):
///
/// | comparison | admits | where the event lacks the tag |
/// |---|---|---|
/// | `eq`, `neq` | the tag is, is not, `val` | no, yes |
/// | `in`, `nin` | the tag is, is not, one of `vals` | as for an empty tag |
/// | `ex`, `nex` | the event has, lacks, the tag | no, yes |
/// | `sw`, `ew`, `ct` | the tag starts with, ends with, contains, `val` | no |
/// | `lt`, `lte`, `gt`, `gte` | the tag is a number less than, at most, more than, at least `val` | no |
///
/// Numbers are compared as decimals, exactly and whatever their size: an optional sign, digits, and optionally a point with 1 to 19
/// digits behind it, in at most 200 bytes. Other text is no number, `1e3`, `.5` and `1.` among it. Where the tag or `val` is no
/// number the comparison admits nothing (and `not` of it everything). All other comparisons are of text, byte by byte: for
/// `eq`, `1` is not `1.0`.
///
/// ```
/// use tidewire_protocol::{Filter, FilterNode};
///
/// let node: FilterNode<'_> = serde_json::from_str(r#"{"key":"price","cmp":"gte","val":"100"}"#)?;
/// let filter = Filter::new(&node)?;
/// assert!(filter.admits(|key| (key == "price").then_some("100.00")));
/// assert!(!filter.admits(|_| None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter(Clause);

impl Filter {
    /// Whether an event with these tags passes. `tags` gives the value of a tag by its key.
    ///
    /// Allocates nothing; its work is bounded by the filter's bounds and the tags.
    pub fn admits<'t>(&self, tags: impl Fn(&str) -> Option<&'t str>) -> bool {
        self.0.admits(&tags)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Clause {
    All(Box<[Clause]>),
    Any(Box<[Clause]>),
    Not(Box<Clause>),
    Tag { key: Box<str>, test: Test },
}

/// What is asked of one tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Test {
    Is(Box<str>),
    IsNot(Box<str>),
    /// Sorted, each value once.
    OneOf(Box<[Box<str>]>),
    NoneOf(Box<[Box<str>]>),
    Exists,
    Lacks,
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Number(Relation, Decimal<Box<str>>),
    /// A comparison with what is no number.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Relation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Clause {
    fn admits<'t>(&self, tags: &impl Fn(&str) -> Option<&'t str>) -> bool {
        match self {
            Self::All(clauses) => clauses.iter().all(|clause| clause.admits(tags)),
            Self::Any(clauses) => clauses.iter().any(|clause| clause.admits(tags)),
            Self::Not(clause) => !clause.admits(tags),
            Self::Tag { key, test } => test.passes(tags(key)),
        }
    }
}

impl Test {
    fn passes(&self, tag: Option<&str>) -> bool {
        let is_one_of = |values: &[Box<str>]| {
            let tag = tag.unwrap_or_default();
            values.binary_search_by(|value| (**value).cmp(tag)).is_ok()
        };
        match self {
            Self::Is(value) => tag == Some(&**value),
            Self::IsNot(value) => tag != Some(&**value),
            Self::OneOf(values) => is_one_of(values),
            Self::NoneOf(values) => !is_one_of(values),
            Self::Exists => tag.is_some(),
            Self::Lacks => tag.is_none(),
            Self::StartsWith(value) => tag.is_some_and(|tag| tag.starts_with(&**value)),
            Self::EndsWith(value) => tag.is_some_and(|tag| tag.ends_with(&**value)),
            Self::Contains(value) => tag.is_some_and(|tag| tag.contains(&**value)),
            Self::Number(relation, value) => {
                let number = tag.and_then(Decimal::parse);
                number.is_some_and(|number| relation.holds(number.compare(value)))
            }
            Self::Never => false,
        }
    }
}

impl Relation {
    fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

#[cfg(test)]
mod tests;
