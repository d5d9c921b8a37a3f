//! A catalog as TypeScript: a type for each version of each event type, for those who read and send events in a browser.

mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use self::shape::{Names, Writer, doc};
use super::catalog::Catalog;
use super::contract::Contract;

const HEAD: &str = "// Events of this catalog, as `tidewire schema export --typescript` writes them. Change the catalog, not this file.\n";

impl Catalog {
    /// The catalog as TypeScript: a type for the newest version of each event type (`OrderPlaced` for `order.placed`), one for
    /// each older version (`OrderPlacedV1`), those that they are made of, and two maps: `Events`, from event type to type,
    /// and `Channels`, from channel to all types that are sent there. The same catalog gives the same text.
    ///
    /// Types say which properties there are; bounds, formats and patterns are left to the server. Whole numbers past 2^53
    /// lose digits in a JavaScript `number`.
    pub fn typescript(&self) -> String {
        let names = self.type_names();
        let name_of = |contract: &Contract| names.get(contract.uri()).map_or("unknown", String::as_str);
        let mut taken: BTreeSet<String> = names.values().cloned().collect();
        let mut text = HEAD.to_owned();
        for contract in self.contracts() {
            write_version(&mut text, contract, name_of(contract), &mut taken);
        }
        text.push_str("\n/** The newest version of each event type. */\nexport interface Events {\n");
        for contract in self.types().filter_map(|event_type| self.newest(event_type)) {
            let event_type = Value::from(&*contract.definition().event_type);
            line(&mut text, format_args!("  {event_type}: {};", name_of(contract)));
        }
        text.push_str("}\n\n/** What is sent to each channel. */\nexport interface Channels {\n");
        for (channel, contracts) in self.channels() {
            let types: Vec<_> = contracts.iter().map(|contract| name_of(contract)).collect();
            line(&mut text, format_args!("  {}: {};", Value::from(channel), types.join(" | ")));
        }
        text.push_str("}\n");
        text
    }

    /// The name of each version's type, by its `dataschema`. The newest versions choose first.
    fn type_names(&self) -> BTreeMap<&str, String> {
        let mut taken: BTreeSet<String> = RESERVED.iter().map(|name| (*name).to_owned()).collect();
        let newest: Vec<_> = self.types().filter_map(|event_type| self.newest(event_type)).collect();
        let mut names = BTreeMap::new();
        for contract in &newest {
            names.insert(contract.uri(), unique(&mut taken, &pascal(&contract.definition().event_type)));
        }
        for contract in self.contracts() {
            let definition = contract.definition();
            let name =
                || unique(&mut taken, &format!("{}V{}", pascal(&definition.event_type), definition.version));
            names.entry(contract.uri()).or_insert_with(name);
        }
        names
    }
}

/// Names that are taken by what is written beside the types, or that no type can have.
const RESERVED: &[&str] = &["Channels", "Events"];

/// Writes the type of a version, and those of its definitions after it.
fn write_version(text: &mut String, contract: &Contract, name: &str, taken: &mut BTreeSet<String>) {
    let definition = contract.definition();
    let root = &definition.schema;
    let mut names = Names::from([(String::from("#"), name.to_owned())]);
    let mut within = Vec::new();
    for holder in ["$defs", "definitions"] {
        for (key, schema) in root.get(holder).and_then(Value::as_object).into_iter().flatten() {
            let own = pascal(key);
            let wanted = if own.starts_with(name) { own } else { format!("{name}{own}") };
            let unique = unique(taken, &wanted);
            names.insert(format!("#/{holder}/{}", key.replace('~', "~0").replace('/', "~1")), unique.clone());
            within.push((unique, schema));
        }
    }
    let mut note = definition.description.as_deref().unwrap_or_default().to_owned();
    let place = format!("{} version {}", definition.event_type, definition.version);
    note.push_str(if note.is_empty() { "" } else { "\n\n" });
    note.push_str(&match &definition.channel {
        Some(channel) => format!("`{place}` on channel `{channel}`."),
        None => format!("`{place}`."),
    });
    declare(text, name, root, &note, &names);
    for (name, schema) in within {
        let note = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        declare(text, &name, schema, note, &names);
    }
}

fn declare(text: &mut String, name: &str, schema: &Value, note: &str, names: &Names) {
    text.push('\n');
    text.push_str(&doc(note, ""));
    let written = Writer::new(names).write(schema);
    // An object and nothing else: its own brace is the only one that begins a line.
    let is_object = written.starts_with("{\n") && written.find("\n}") == Some(written.len() - 2);
    match is_object {
        true => line(text, format_args!("export interface {name} {written}")),
        false => line(text, format_args!("export type {name} = {written};")),
    }
}

fn line(text: &mut String, written: std::fmt::Arguments<'_>) {
    // Writing into a text does not fail.
    let _infallible = writeln!(text, "{written}");
}

/// A name as types have it: `OrderPlaced` of `order.placed`.
fn pascal(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let pascal: String = words
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters)
        })
        .collect();
    match pascal.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => pascal,
        _ => format!("Event{pascal}"),
    }
}

/// A name that is not `taken` yet.
fn unique(taken: &mut BTreeSet<String>, name: &str) -> String {
    let mut unique = name.to_owned();
    let mut number = 2;
    while !taken.insert(unique.clone()) {
        unique = format!("{name}{number}");
        number += 1;
    }
    unique
}

#[cfg(test)]
mod tests;
