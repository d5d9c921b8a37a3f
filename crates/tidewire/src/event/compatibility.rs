//! Compatibility: what has changed between two catalogs, and whether it breaks those who send or read.

mod alternative;
mod bounds;
mod compare;
mod expand;
mod pair;
mod place;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use self::compare::Comparison;
use super::catalog::Catalog;
use super::contract::{Contract, Definition, Mark};

/// What is different in one version of an event type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The event type.
    #[serde(rename = "type")]
    pub event_type: Box<str>,
    /// Its version.
    pub version: u32,
    /// The place in the newer schema, as a [JSON pointer](https://www.rfc-editor.org/rfc/rfc6901): in the older one for what
    /// is gone, empty for the whole.
    pub pointer: Box<str>,
    /// What kind of change it is.
    pub what: ChangeKind,
    /// What has changed, for people.
    pub text: Box<str>,
}

/// What kind of change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// The event type is gone, with all its versions.
    TypeRemoved,
    /// The version is gone.
    VersionRemoved,
    /// A property is gone, or has another name now.
    PropertyRemoved,
    /// A property must be there that was left out before.
    PropertyRequired,
    /// Values that were right are not any more: another type, tighter bounds, a closed object.
    Narrowed,
    /// A value of an enum, or one of several shapes, is gone.
    ValueRemoved,
    /// It is sent to another channel.
    ChannelChanged,
    /// Another property is the key, the subject or the tenant.
    MarkChanged,
    /// It is signed and was not, or the other way round.
    SigningChanged,
    /// It is sealed and was not, or the other way round.
    SealingChanged,
    /// A part of the data is shown that was hidden.
    RedactionRemoved,
    /// It cannot be told whether what was right still is.
    Unclear,
    /// The event type is new.
    TypeAdded,
    /// The version is new.
    VersionAdded,
    /// A property may be there.
    PropertyAdded,
    /// A property may be left out.
    PropertyOptional,
    /// More values are right than before.
    Widened,
    /// A value of an enum, or one of several shapes, is new.
    ValueAdded,
    /// A channel, or a subject, is declared where there was none; or a newer version is sent in place of this one.
    Declared,
    /// A part of the data is hidden that was shown.
    RedactionAdded,
    /// What is only said to people is different: description, title, examples, default.
    Described,
}

impl ChangeKind {
    /// Whether events that were right may be refused, or those that read them may miss something.
    pub fn is_breaking(self) -> bool {
        self <= Self::Unclear
    }
}

impl Change {
    /// Whether events that were right may be refused, or those that read them may miss something.
    pub fn is_breaking(&self) -> bool {
        self.what.is_breaking()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.event_type, self.version)?;
        if !self.pointer.is_empty() {
            write!(f, " at {}", self.pointer)?;
        }
        write!(f, ": {}", self.text)
    }
}

impl Catalog {
    /// What is different here from an `older` catalog, by type and version: each is compared with the same of the other.
    ///
    /// An event that was right under the older catalog is right under this one, and whoever reads by this one finds all that
    /// was declared there, unless a change [is breaking](Change::is_breaking). What cannot be told counts as breaking.
    ///
    /// ```
    /// use tidewire::{Catalog, ChangeKind};
    /// # fn main() -> tidewire::Result<()> {
    /// let catalog = |schema: &str| {
    ///     let event = format!(r#"{{"type": "order.placed", "version": 1, "schema": {schema}}}"#);
    ///     Catalog::from_json(&format!(r#"{{"catalog": 1, "events": [{event}]}}"#))
    /// };
    /// let older = catalog(r#"{"properties": {"id": {"type": ["integer", "string"]}}}"#)?;
    /// let newer = catalog(r#"{"properties": {"id": {"type": "integer"}}}"#)?;
    /// let changes = newer.changes_since(&older);
    /// assert_eq!(changes[0].what, ChangeKind::Narrowed);
    /// assert_eq!(changes[0].to_string(), "order.placed version 1 at /properties/id: integer, was integer or string");
    /// # Ok(()) }
    /// ```
    pub fn changes_since(&self, older: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let types: BTreeSet<_> = older.types().chain(self.types()).collect();
        for event_type in types {
            let mut note = |version, (pointer, what, text): Noted| {
                changes.push(Change { event_type: event_type.into(), version, pointer, what, text });
            };
            let whole = |what, text: &str| (Box::default(), what, text.into());
            let (before, now) = (older.newest(event_type), self.newest(event_type));
            match (before, now) {
                (Some(before), None) => {
                    let version = before.definition().version;
                    note(version, whole(ChangeKind::TypeRemoved, "the event type is gone"));
                    continue;
                }
                (None, Some(now)) => {
                    let version = now.definition().version;
                    note(version, whole(ChangeKind::TypeAdded, "the event type is new"));
                    continue;
                }
                _ => {}
            }
            let versions: BTreeSet<u32> =
                older.versions(event_type).chain(self.versions(event_type)).collect();
            for version in versions {
                match (older.get(event_type, version), self.get(event_type, version)) {
                    (Some(_), None) => {
                        note(version, whole(ChangeKind::VersionRemoved, "the version is gone"))
                    }
                    (None, Some(_)) => note(version, whole(ChangeKind::VersionAdded, "the version is new")),
                    (Some(before), Some(same)) => {
                        let found = differences(before, same, now);
                        found.into_iter().for_each(|noted| note(version, noted));
                    }
                    (None, None) => {}
                }
            }
        }
        changes
    }
}

/// A place, what has changed there, and how that is said.
type Noted = (Box<str>, ChangeKind, Box<str>);

/// What is different in one version, the breaking changes first. `newest` is what is sent now.
fn differences(older: &Contract, newer: &Contract, newest: Option<&Arc<Contract>>) -> Vec<Noted> {
    let mut noted =
        agreements(older.definition(), newer.definition(), newest.map(|newest| newest.definition()));
    noted.extend(marks(older, newer));
    let (before, after) = (older.definition(), newer.definition());
    if before.description != after.description {
        noted.push((Box::default(), ChangeKind::Described, "another description".into()));
    }
    for change in Comparison::of(&before.schema, &after.schema) {
        if !noted.contains(&change) {
            noted.push(change);
        }
    }
    noted.sort_by_key(|(_, what, _)| !what.is_breaking());
    noted
}

/// What is different beside the schema.
fn agreements(older: &Definition, newer: &Definition, newest: Option<&Definition>) -> Vec<Noted> {
    let mut noted = Vec::new();
    let mut note = |what, text: String| noted.push((Box::default(), what, text.into()));
    match (older.channel.as_deref(), newer.channel.as_deref()) {
        (None, None) => {}
        (Some(before), Some(after)) if before == after => {}
        (None, Some(after)) => note(ChangeKind::Declared, format!("sent to channel {after:?}")),
        (Some(before), None) => match newest.filter(|newest| newest.channel.as_deref() == Some(before)) {
            Some(newest) if newest.version > newer.version => {
                note(ChangeKind::Declared, format!("only read, version {} is sent", newest.version));
            }
            _ => note(ChangeKind::ChannelChanged, format!("sent to no channel, was {before:?}")),
        },
        (Some(before), Some(after)) => {
            note(ChangeKind::ChannelChanged, format!("sent to channel {after:?}, was {before:?}"));
        }
    }
    let switched =
        |is_on: bool, what: &str| if is_on { format!("{what}, was not") } else { format!("not {what}, was") };
    if older.is_signed != newer.is_signed {
        note(ChangeKind::SigningChanged, switched(newer.is_signed, "signed"));
    }
    if older.is_sealed != newer.is_sealed {
        note(ChangeKind::SealingChanged, switched(newer.is_sealed, "sealed"));
    }
    noted
}

/// Marks of properties that have moved.
fn marks(older: &Contract, newer: &Contract) -> Vec<Noted> {
    let named =
        |name: Option<&str>| name.map_or_else(|| "none".to_owned(), |name| format!("property {name:?}"));
    let mut noted = Vec::new();
    for (mark, name) in [(Mark::Key, "key"), (Mark::Subject, "subject"), (Mark::Tenant, "tenant")] {
        let (before, after) = (older.property(mark), newer.property(mark));
        if before == after {
            continue;
        }
        // Nobody can have relied on a subject that was not there; keys order events, tenants part them.
        let is_harmless = mark == Mark::Subject && before.is_none();
        let what = if is_harmless { ChangeKind::Declared } else { ChangeKind::MarkChanged };
        let text = format!("{name} is {}, was {}", named(after), named(before));
        noted.push((Box::default(), what, text.into()));
    }
    noted
}

#[cfg(test)]
mod tests;
