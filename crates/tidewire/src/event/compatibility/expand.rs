//! The shapes that schemas let a value have, references and combinations resolved.

use std::rc::Rc;

use serde_json::Value;

use super::alternative::Alternative;
use super::place::Place;

/// Shapes of one value, at most: a product of unions can have any number.
const ALTERNATIVES_MAX: usize = 1_024;
/// References and combinations within each other.
const DEPTH_MAX: usize = 64;
/// Schemas that are looked at for one value.
const STEPS_MAX: usize = 10_000;

/// Why shapes cannot be told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unclear {
    TooMany,
    TooDeep,
    Elsewhere,
}

impl Unclear {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::TooMany => "it has too many shapes to compare",
            Self::TooDeep => "it is nested too deep to compare",
            Self::Elsewhere => "it refers to what is not in the schema",
        }
    }
}

/// The shapes of a value that all of `places` hold for.
pub(super) fn expand<'s>(places: &[Place<'s>]) -> Result<Vec<Alternative<'s>>, Unclear> {
    let mut expanding = Expanding { within: Vec::new(), depth: DEPTH_MAX, steps: STEPS_MAX };
    let mut shapes: Option<Vec<Alternative<'s>>> = None;
    for (at, place) in places.iter().enumerate() {
        if places.iter().take(at).any(|known| known.pointer == place.pointer) {
            continue;
        }
        let more = expanding.shapes(place)?;
        shapes = Some(match shapes {
            Some(shapes) => both(&shapes, &more)?,
            None => more,
        });
    }
    Ok(shapes.unwrap_or_default())
}

struct Expanding {
    /// The schemas that this one is a part of, for the same value.
    within: Vec<Rc<str>>,
    depth: usize,
    steps: usize,
}

impl Expanding {
    fn shapes<'s>(&mut self, place: &Place<'s>) -> Result<Vec<Alternative<'s>>, Unclear> {
        self.depth = self.depth.checked_sub(1).ok_or(Unclear::TooDeep)?;
        self.steps = self.steps.checked_sub(1).ok_or(Unclear::TooMany)?;
        self.within.push(place.pointer.clone());
        let shapes = match place.value {
            Value::Bool(false) => Vec::new(),
            _ => self.of_schema(place)?,
        };
        self.within.pop();
        self.depth += 1;
        Ok(shapes)
    }

    fn of_schema<'s>(&mut self, place: &Place<'s>) -> Result<Vec<Alternative<'s>>, Unclear> {
        let mut shapes = Alternative::own(place);
        if let Some(reference) = place.get("$ref") {
            let target = reference.target().ok_or(Unclear::Elsewhere)?;
            // A schema that is itself asks for nothing more.
            if !self.within.contains(&target.pointer) {
                shapes = both(&shapes, &self.shapes(&target)?)?;
            }
        }
        for (_, part) in place.get("allOf").iter().flat_map(Place::children) {
            shapes = both(&shapes, &self.shapes(&part)?)?;
        }
        for keyword in ["anyOf", "oneOf"] {
            let Some(union) = place.get(keyword) else { continue };
            let mut branches = Vec::new();
            for (_, branch) in union.children() {
                branches.extend(self.shapes(&branch)?);
            }
            shapes = both(&shapes, &branches)?;
        }
        Ok(shapes)
    }
}

fn both<'s>(outer: &[Alternative<'s>], inner: &[Alternative<'s>]) -> Result<Vec<Alternative<'s>>, Unclear> {
    if outer.len().saturating_mul(inner.len()) > ALTERNATIVES_MAX {
        return Err(Unclear::TooMany);
    }
    Ok(outer.iter().flat_map(|outer| inner.iter().filter_map(|inner| outer.and(inner))).collect())
}
