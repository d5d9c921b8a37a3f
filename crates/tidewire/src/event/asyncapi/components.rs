//! The schemas of a catalog in one place, each under a name of its own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{draft7, key};
use crate::event::Catalog;

/// Where schemas stand in the document.
pub(super) const SCHEMAS: &str = "#/components/schemas/";

/// The schema of each version, under the version's name, and each definition within under a name that begins with it.
pub(super) fn schemas(catalog: &Catalog) -> Map<String, Value> {
    let mut taken: BTreeSet<String> = catalog.contracts().map(|contract| key(contract)).collect();
    let mut schemas = BTreeMap::new();
    for contract in catalog.contracts() {
        let (whole, root) = (key(contract), &contract.definition().schema);
        let definitions =
            || DEFINITIONS.into_iter().filter_map(|within| Some((within, root.get(within)?.as_object()?)));
        let mut names = BTreeMap::new();
        for (within, definitions) in definitions() {
            for name in definitions.keys() {
                let unique = unique(&mut taken, &format!("{whole}.{name}"));
                names.insert(format!("/{within}/{}", name.replace('~', "~0").replace('/', "~1")), unique);
            }
        }
        let refer = |reference: &str| {
            let Some(pointer) = reference.strip_prefix('#') else { return reference.to_owned() };
            let mut known = names.iter().filter_map(|(at, name)| {
                let rest = pointer.strip_prefix(at.as_str())?;
                (rest.is_empty() || rest.starts_with('/')).then_some((name.as_str(), rest))
            });
            let (name, rest) = known.next().unwrap_or((&whole, pointer));
            format!("{SCHEMAS}{name}{rest}")
        };
        for (within, definitions) in definitions() {
            for (name, definition) in definitions {
                let at = format!("/{within}/{}", name.replace('~', "~0").replace('/', "~1"));
                if let Some(name) = names.get(&at) {
                    schemas.insert(name.clone(), component(definition, &refer));
                }
            }
        }
        schemas.insert(whole.clone(), component(root, &refer));
    }
    schemas.into_iter().collect()
}

/// A schema that has a name, which the tools of AsyncAPI take as an object only.
fn component(schema: &Value, refer: &dyn Fn(&str) -> String) -> Value {
    match draft7::schema(schema, refer) {
        Value::Bool(true) => json!({}),
        Value::Bool(false) => json!({"not": {}}),
        schema => schema,
    }
}

/// Where a schema holds definitions, by this draft and by those before.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// A name as AsyncAPI takes it, of letters, digits and `. - _`, that is not `taken` yet.
pub(super) fn unique(taken: &mut BTreeSet<String>, name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let mut unique = plain.clone();
    let mut number = 2;
    while !taken.insert(unique.clone()) {
        unique = format!("{plain}_{number}");
        number += 1;
    }
    unique
}
