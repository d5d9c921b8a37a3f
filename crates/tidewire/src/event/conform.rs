//! Events from outside, held against their contracts by a node that does not know their Rust types.

use std::sync::Arc;

use super::contract::{Contract, Definition, Mark, Violation};
use super::json::{JsonLimits, check_json};
use super::sign::Untrusted;
use super::typed::{Receiving, Sending, Unreadable};
use super::{Catalog, Event, cloudevents, seal, sign};
use crate::clock::Timestamp;
use crate::error::Result;

/// The event as the contract of its type has it: data checked; schema, key and subject named; sealed and signed.
///
/// # Errors
/// The first rule that does not hold; outside of that `NotFound` if a key to sign or seal it with is missing.
pub(crate) fn conform(
    event: Event,
    catalog: &Catalog,
    sending: &Sending<'_>,
) -> Result<Result<Event, Violation>> {
    let Some(newest) = catalog.newest(event.event_type()) else {
        return Ok(bounded(&event).map(|()| event));
    };
    let receiving = Receiving { tenant: sending.tenant, keys: sending.keys };
    let checked = named(catalog, newest, &event).and_then(|contract| {
        // What its type asks for beside is added below.
        let texts = checked(&event, contract, None, &receiving)?;
        Ok((contract, texts))
    });
    let (contract, texts) = match checked {
        Ok(checked) => checked,
        Err(violation) => return Ok(Err(violation)),
    };
    let definition = newest.definition();
    if event.is_sealed() && !definition.is_sealed {
        return Ok(Err(violation("sealed", "is sealed, which events of its type are not")));
    }
    let must_seal = definition.is_sealed && !event.is_sealed();
    if event.is_signed() {
        return Ok(match must_seal {
            true => Err(violation("sealed", "is signed and not sealed")),
            false => Ok(event),
        });
    }
    let mut event = completed(event, contract, texts);
    if event.time() == Timestamp::default() {
        event = event.with_time(sending.now);
    }
    if must_seal {
        event = seal::seal(event, sending.tenant, sending.keys)?;
    }
    if definition.is_signed {
        event = sign::sign(event, sending.tenant, sending.keys)?;
    }
    Ok(Ok(event))
}

/// Checks an event that was received: its signature, its seal, its data. One whose type has no contract is right.
///
/// # Errors
/// [`Unreadable`] says what is wrong, and whether a key is missing.
pub(crate) fn verify(event: &Event, catalog: &Catalog, receiving: &Receiving<'_>) -> Result<(), Unreadable> {
    let Some(newest) = catalog.newest(event.event_type()) else { return Ok(()) };
    let Some(contract) = catalog.of(event) else {
        let (event_type, uri) = (event.event_type(), newest.uri());
        let text = format!("event is of no known version of {event_type}; the newest is {uri}");
        return Err(Unreadable::UnknownVersion(text.into()));
    };
    // What the newest version asks for holds for all: else a signature is left out by naming an older version.
    checked(event, contract, Some(newest.definition()), receiving)?;
    Ok(())
}

/// Why an event from outside is not taken.
enum Unfit {
    Untrusted(Untrusted),
    Violation(Violation),
}

impl From<Untrusted> for Unfit {
    fn from(why: Untrusted) -> Self {
        Self::Untrusted(why)
    }
}

impl From<Violation> for Unfit {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Unfit> for Violation {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Untrusted(why) => violation(why.guard().attribute(), why.to_string()),
            Unfit::Violation(violation) => violation,
        }
    }
}

impl From<Unfit> for Unreadable {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Untrusted(why) => why.into(),
            Unfit::Violation(violation) => Self::Invalid(violation.to_string().into()),
        }
    }
}

/// Checks the bounds of data whose type has no contract.
fn bounded(event: &Event) -> Result<(), Violation> {
    if event.data().is_empty() || !cloudevents::is_json(event.content_type()) {
        return Ok(());
    }
    Ok(check_json(event.data(), &JsonLimits::default())?)
}

/// The contract that an event names, else the newest. What is signed or sealed cannot be told its version any more: without
/// one it is read as version 1.
fn named<'c>(
    catalog: &'c Catalog,
    newest: &'c Arc<Contract>,
    event: &Event,
) -> Result<&'c Contract, Violation> {
    if event.data_schema().is_none() && !event.is_signed() && !event.is_sealed() {
        return Ok(newest);
    }
    catalog.of(event).map(|contract| &**contract).ok_or_else(|| {
        let why = match event.data_schema() {
            Some(uri) => format!("is of unknown dataschema {uri:?}"),
            None => "has no dataschema, and version 1 is not known".into(),
        };
        violation("dataschema", format!("{why}; the newest is {}", newest.uri()))
    })
}

/// What the data says of its event.
struct Texts {
    key: Option<String>,
    subject: Option<String>,
}

/// What the data says of its event, once the signature and the seal that it has, or that `asked` asks for, are right and it
/// is known to keep to the schema.
fn checked(
    event: &Event,
    contract: &Contract,
    asked: Option<&Definition>,
    receiving: &Receiving<'_>,
) -> Result<Texts, Unfit> {
    if event.is_signed() || asked.is_some_and(|asked| asked.is_signed) {
        sign::verify(event, receiving.tenant, receiving.keys)?;
    }
    let data = match event.is_sealed() || asked.is_some_and(|asked| asked.is_sealed) {
        true => seal::open(event, receiving.tenant, receiving.keys)?,
        false => event.data().clone(),
    };
    if !cloudevents::is_json(event.content_type()) {
        let seen = event.content_type().unwrap_or_default();
        return Err(violation("datacontenttype", format!("is {seen}, its schema is of JSON")).into());
    }
    let data = contract.parse(&data, &JsonLimits::default())?;
    let text = |mark| data.root().property(contract.property(mark)?)?.text();
    match text(Mark::Tenant) {
        Some(tenant) if tenant != receiving.tenant => {
            let pointer = contract.property(Mark::Tenant).map(|name| format!("/{name}")).unwrap_or_default();
            let text = format!("is of another tenant than {:?}", receiving.tenant).into();
            Err(Violation { pointer: pointer.into(), rule: "x-tenant".into(), text }.into())
        }
        _ => Ok(Texts { key: text(Mark::Key), subject: text(Mark::Subject) }),
    }
}

/// The event with what its contract says of every such event.
fn completed(mut event: Event, contract: &Contract, texts: Texts) -> Event {
    // A seal holds for the schema that it was made with.
    if event.data_schema().is_none() && !event.is_sealed() {
        event = event.with_data_schema(contract.uri());
    }
    if event.key().is_none()
        && let Some(key) = texts.key
    {
        event = event.with_key(&key);
    }
    if event.subject().is_none()
        && let Some(subject) = texts.subject
    {
        event = event.with_subject(&subject);
    }
    event
}

fn violation(rule: &str, text: impl Into<Box<str>>) -> Violation {
    Violation { pointer: "".into(), rule: rule.into(), text: text.into() }
}

#[cfg(test)]
mod tests;
