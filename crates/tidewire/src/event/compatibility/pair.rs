//! Which shape of the newer schema takes the place of which of the older.

use super::alternative::{Alternative, Kind};

/// For each shape of the older schema, the newer one that takes what it took; none where that is gone.
pub(super) fn pairs(older: &[Alternative<'_>], newer: &[Alternative<'_>]) -> Vec<Option<usize>> {
    let mut pairs: Vec<Option<usize>> = older.iter().map(|old| same_value(old, newer)).collect();
    match_composites(older, newer, &mut pairs);
    for (old, pair) in older.iter().zip(&mut pairs) {
        if pair.is_some() {
            continue;
        }
        let takes = |new: &Alternative<'_>| new.value.is_none() && new.kind.covers(old.kind);
        *pair = match old.kind {
            // Its own shape is gone, but where anything is right it still is.
            Kind::Object | Kind::Array if old.value.is_none() => {
                newer.iter().position(|new| new.value.is_none() && new.kind == Kind::Any)
            }
            kind => {
                let same = newer.iter().position(|new| takes(new) && new.kind == kind);
                same.or_else(|| newer.iter().position(takes))
            }
        };
    }
    pairs
}

fn same_value(old: &Alternative<'_>, newer: &[Alternative<'_>]) -> Option<usize> {
    old.value.and_then(|value| newer.iter().position(|new| new.value == Some(value)))
}

/// Pairs objects with objects and arrays with arrays, the most alike first.
fn match_composites(older: &[Alternative<'_>], newer: &[Alternative<'_>], pairs: &mut [Option<usize>]) {
    let is_one =
        |shapes: &[Alternative<'_>]| shapes.iter().filter(|shape| shape.kind == Kind::Object).count() == 1;
    let is_one_object = is_one(older) && is_one(newer);
    let mut candidates = Vec::new();
    for (at, old) in older.iter().enumerate() {
        for (to, new) in newer.iter().enumerate() {
            let is_composite = matches!(old.kind, Kind::Object | Kind::Array);
            if is_composite && old.kind == new.kind && old.value.is_none() && new.value.is_none() {
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

/// How alike two objects are; none if they are different branches of a union.
fn likeness(old: &Alternative<'_>, new: &Alternative<'_>, is_one_object: bool) -> Option<usize> {
    let shared = old.properties.keys().filter(|name| new.properties.contains_key(*name)).count();
    if old.kind != Kind::Object || is_one_object {
        return Some(shared);
    }
    let (tags, others) = (old.tags(), new.tags());
    match tags == others {
        true if tags.is_empty() => Some(shared),
        true => Some(shared + old.properties.len()),
        false => None,
    }
}
