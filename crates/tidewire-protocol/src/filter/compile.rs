//! From a filter as it travels to one that is checked.

use super::{Clause, Decimal, Filter, FilterNode, Relation, Test};
use crate::limits::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_NODES_MAX, FILTER_VALUES_MAX};

/// Why a filter is refused: bad request.
///
/// What Centrifugo takes is taken, within the bounds, and what it refuses is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Over [`FILTER_DEPTH_MAX`].
    #[error("filter nests deeper than {FILTER_DEPTH_MAX} levels")]
    TooDeep,
    /// Over [`FILTER_NODES_MAX`].
    #[error("filter has more than {FILTER_NODES_MAX} nodes")]
    TooManyNodes,
    /// Over [`FILTER_VALUES_MAX`].
    #[error("filter has more than {FILTER_VALUES_MAX} values in its lists")]
    TooManyValues,
    /// Over [`FILTER_BYTES_MAX`].
    #[error("filter has more than {FILTER_BYTES_MAX} bytes of keys and values")]
    TooLarge,
    /// `op` is none of ours. The name is cut at 32 characters.
    #[error("filter has the unknown op {0:?}, it must be `and`, `or`, `not` or empty")]
    UnknownOp(String),
    /// `cmp` is none of ours. The name is cut at 32 characters.
    #[error("filter has the unknown cmp {0:?}")]
    UnknownComparison(String),
    /// A node has neither an `op` nor a `cmp`.
    #[error("filter has a node with neither op nor cmp")]
    MissingComparison,
    /// The comparison is of no tag.
    #[error("filter's `{0}` needs a key")]
    MissingKey(&'static str),
    /// The comparison has nothing to compare with.
    #[error("filter's `{comparison}` needs a non-empty {field}")]
    MissingValue {
        /// Its `cmp`.
        comparison: &'static str,
        /// `val` or `vals`.
        field: &'static str,
    },
    /// The comparison has a value that means nothing to it.
    #[error("filter's `{comparison}` takes no {field}")]
    UnexpectedValue {
        /// Its `cmp`.
        comparison: &'static str,
        /// `val` or `vals`.
        field: &'static str,
    },
    /// An `and` or `or` has no nodes, or a `not` another number than one.
    #[error("filter's `{op}` has {count} nodes, it needs {needed}")]
    WrongNodeCount {
        /// Its `op`.
        op: &'static str,
        /// The nodes that it has.
        count: usize,
        /// The nodes that it needs, in words.
        needed: &'static str,
    },
}

impl Filter {
    /// Checks a filter and copies what it needs of it.
    ///
    /// Fields that mean nothing to a node are passed over, as Centrifugo does: `key`, `cmp`, `val` and `vals` beside an `op`,
    /// `nodes` without one.
    pub fn new(node: &FilterNode<'_>) -> Result<Self, FilterError> {
        let mut allowance =
            Allowance { nodes: FILTER_NODES_MAX, values: FILTER_VALUES_MAX, bytes: FILTER_BYTES_MAX };
        allowance.clause(node, FILTER_DEPTH_MAX).map(Self)
    }
}

/// What a filter may still have.
struct Allowance {
    nodes: usize,
    values: usize,
    bytes: usize,
}

impl Allowance {
    fn clause(&mut self, node: &FilterNode<'_>, depth: usize) -> Result<Clause, FilterError> {
        let depth = depth.checked_sub(1).ok_or(FilterError::TooDeep)?;
        self.nodes = self.nodes.checked_sub(1).ok_or(FilterError::TooManyNodes)?;
        let count = node.nodes.len();
        match &*node.op {
            "" => {
                let test = self.test(node)?;
                Ok(Clause::Tag { key: self.text(&node.key)?, test })
            }
            "and" => Ok(Clause::All(self.clauses("and", node, depth)?)),
            "or" => Ok(Clause::Any(self.clauses("or", node, depth)?)),
            "not" => match &*node.nodes {
                [node] => Ok(Clause::Not(Box::new(self.clause(node, depth)?))),
                _ => Err(FilterError::WrongNodeCount { op: "not", count, needed: "one" }),
            },
            op => Err(FilterError::UnknownOp(cut(op))),
        }
    }

    fn clauses(
        &mut self,
        op: &'static str,
        node: &FilterNode<'_>,
        depth: usize,
    ) -> Result<Box<[Clause]>, FilterError> {
        if node.nodes.is_empty() {
            return Err(FilterError::WrongNodeCount { op, count: 0, needed: "at least one" });
        }
        node.nodes.iter().map(|node| self.clause(node, depth)).collect()
    }

    fn test(&mut self, node: &FilterNode<'_>) -> Result<Test, FilterError> {
        match &*node.cmp {
            "eq" => self.one_value("eq", node).map(Test::Is),
            "neq" => self.one_value("neq", node).map(Test::IsNot),
            "in" => self.values("in", node).map(Test::OneOf),
            "nin" => self.values("nin", node).map(Test::NoneOf),
            "ex" => no_value("ex", node).map(|()| Test::Exists),
            "nex" => no_value("nex", node).map(|()| Test::Lacks),
            "sw" => self.one_value("sw", node).map(Test::StartsWith),
            "ew" => self.one_value("ew", node).map(Test::EndsWith),
            "ct" => self.one_value("ct", node).map(Test::Contains),
            "lt" => self.number("lt", Relation::Less, node),
            "lte" => self.number("lte", Relation::LessOrEqual, node),
            "gt" => self.number("gt", Relation::Greater, node),
            "gte" => self.number("gte", Relation::GreaterOrEqual, node),
            "" => Err(FilterError::MissingComparison),
            comparison => Err(FilterError::UnknownComparison(cut(comparison))),
        }
    }

    fn one_value(
        &mut self,
        comparison: &'static str,
        node: &FilterNode<'_>,
    ) -> Result<Box<str>, FilterError> {
        if node.val.is_empty() {
            return Err(FilterError::MissingValue { comparison, field: "val" });
        }
        without_vals(comparison, node)?;
        with_key(comparison, node)?;
        self.text(&node.val)
    }

    fn values(
        &mut self,
        comparison: &'static str,
        node: &FilterNode<'_>,
    ) -> Result<Box<[Box<str>]>, FilterError> {
        if node.vals.is_empty() {
            return Err(FilterError::MissingValue { comparison, field: "vals" });
        }
        without_val(comparison, node)?;
        with_key(comparison, node)?;
        self.values = self.values.checked_sub(node.vals.len()).ok_or(FilterError::TooManyValues)?;
        let mut values = node.vals.iter().map(|value| self.text(value)).collect::<Result<Vec<_>, _>>()?;
        values.sort_unstable();
        values.dedup();
        Ok(values.into())
    }

    fn number(
        &mut self,
        comparison: &'static str,
        relation: Relation,
        node: &FilterNode<'_>,
    ) -> Result<Test, FilterError> {
        self.one_value(comparison, node).map(|value| match Decimal::parse(&value) {
            Some(number) => Test::Number(relation, number.into_owned()),
            None => Test::Never,
        })
    }

    fn text(&mut self, text: &str) -> Result<Box<str>, FilterError> {
        self.bytes = self.bytes.checked_sub(text.len()).ok_or(FilterError::TooLarge)?;
        Ok(text.into())
    }
}

/// Centrifugo asks no key of `ex` and `nex`: they are then about the tag with the empty name.
fn no_value(comparison: &'static str, node: &FilterNode<'_>) -> Result<(), FilterError> {
    without_val(comparison, node)?;
    without_vals(comparison, node)
}

fn without_val(comparison: &'static str, node: &FilterNode<'_>) -> Result<(), FilterError> {
    let error = FilterError::UnexpectedValue { comparison, field: "val" };
    if node.val.is_empty() { Ok(()) } else { Err(error) }
}

fn without_vals(comparison: &'static str, node: &FilterNode<'_>) -> Result<(), FilterError> {
    let error = FilterError::UnexpectedValue { comparison, field: "vals" };
    if node.vals.is_empty() { Ok(()) } else { Err(error) }
}

fn with_key(comparison: &'static str, node: &FilterNode<'_>) -> Result<(), FilterError> {
    if node.key.is_empty() { Err(FilterError::MissingKey(comparison)) } else { Ok(()) }
}

/// Enough of a name to recognize it; clients are told in a close reason or a log line.
fn cut(name: &str) -> String {
    name.chars().take(32).collect()
}
