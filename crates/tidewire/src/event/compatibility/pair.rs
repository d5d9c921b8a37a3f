//! Which shape of the newer schema takes the place of which of the older.

use std::collections::BTreeMap;

use super::alternative::{Alternative, Kind};
use super::place::{Place, is_same};

/// For each shape of the older schema, the newer one that takes what it took; none where that is gone.
pub(super) fn pairs(older: &[Alternative<'_>], newer: &[Alternative<'_>]) -> Vec<Option<usize>> {
    let mut pairs = vec![None; older.len()];
    match_kinds(older, newer, &mut pairs);
    for (old, pair) in older.iter().zip(&mut pairs) {
        if pair.is_some() {
            continue;
        }
        // A branch of objects or arrays that is gone is not taken by another, but where anything is right it still is.
        let is_branch = old.value.is_none() && matches!(old.kind, Kind::Object | Kind::Array);
        let takes = |new: &Alternative<'_>| {
            new.value.is_none() && new.kind.covers(old.kind) && (!is_branch || new.kind == Kind::Any)
        };
        *pair = same_value(old, newer).or_else(|| newer.iter().position(takes));
    }
    pairs
}

fn same_value(old: &Alternative<'_>, newer: &[Alternative<'_>]) -> Option<usize> {
    old.value.and_then(|value| newer.iter().position(|new| new.value == Some(value)))
}

/// Pairs shapes of one kind, or of one value, the most alike first, each with one other.
fn match_kinds(older: &[Alternative<'_>], newer: &[Alternative<'_>], pairs: &mut [Option<usize>]) {
    let is_one =
        |shapes: &[Alternative<'_>]| shapes.iter().filter(|shape| shape.kind == Kind::Object).count() == 1;
    let is_one_object = is_one(older) && is_one(newer);
    let mut candidates = Vec::new();
    for (at, old) in older.iter().enumerate() {
        for (to, new) in newer.iter().enumerate() {
            if old.kind == new.kind && old.value == new.value {
                candidates.extend(likeness(old, new, is_one_object).map(|likeness| (likeness, at, to)));
            }
        }
    }
    candidates.sort_by_key(|(likeness, at, to)| (std::cmp::Reverse(*likeness), *at, *to));
    let mut taken = vec![false; newer.len()];
    for (_, at, to) in candidates {
        if let (Some(pair @ None), Some(taken @ false)) = (pairs.get_mut(at), taken.get_mut(to)) {
            *pair = Some(to);
            *taken = true;
        }
    }
}

/// How alike two shapes of one kind are: what they share, less what only one of them has. None if they are different branches
/// of a union.
fn likeness(old: &Alternative<'_>, new: &Alternative<'_>, is_one_object: bool) -> Option<i64> {
    let is_tagged = old.kind == Kind::Object && !is_one_object;
    let (tags, others) = if is_tagged { (old.tags(), new.tags()) } else { Default::default() };
    if tags != others {
        return None;
    }
    let properties = shared(&old.properties, &new.properties, |_, _| true);
    let asked = shared(&old.asked, &new.asked, |one, other| {
        one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
    });
    Some(properties + asked)
}

fn shared<'s>(
    some: &BTreeMap<&str, Vec<Place<'s>>>,
    others: &BTreeMap<&str, Vec<Place<'s>>>,
    alike: impl Fn(&[Place<'s>], &[Place<'s>]) -> bool,
) -> i64 {
    let same =
        |(name, one): &(&&str, &Vec<Place<'s>>)| others.get(*name).is_some_and(|other| alike(one, other));
    let both = some.iter().filter(same).count();
    let all = some.len() + others.len() - both;
    // Counts of keywords and properties that were parsed: far below the bound.
    i64::try_from(both).unwrap_or(i64::MAX) * 2 - i64::try_from(all).unwrap_or(i64::MAX)
}
