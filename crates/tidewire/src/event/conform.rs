//! Events from outside, held against their contracts by a node that does not know their Rust types.

use std::sync::Arc;

use super::contract::{Contract, Mark, Violation};
use super::json::JsonLimits;
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
    let Some(newest) = catalog.newest(event.event_type()) else { return Ok(Ok(event)) };
    let receiving = Receiving { tenant: sending.tenant, keys: sending.keys };
    let checked = named(catalog, newest, &event)
        .and_then(|contract| Ok((contract, checked(&event, contract, &receiving)?)));
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
    let definition = newest.definition();
    if definition.is_signed {
        sign::verify(event, receiving.tenant, receiving.keys)?;
    }
    if definition.is_sealed {
        seal::open(event, receiving.tenant, receiving.keys)?;
    }
    let invalid = |violation: Violation| Unreadable::Invalid(violation.to_string().into());
    checked(event, contract, receiving).map(drop).map_err(invalid)
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

/// What the data says of its event, once it is known to keep to the schema.
fn checked(event: &Event, contract: &Contract, receiving: &Receiving<'_>) -> Result<Texts, Violation> {
    if event.is_signed() {
        sign::verify(event, receiving.tenant, receiving.keys)
            .map_err(|why| violation("signature", why.to_string()))?;
    }
    let data = match event.is_sealed() {
        true => seal::open(event, receiving.tenant, receiving.keys)
            .map_err(|why| violation("sealed", why.to_string()))?,
        false => event.data().clone(),
    };
    if !cloudevents::is_json(event.content_type()) {
        let seen = event.content_type().unwrap_or_default();
        return Err(violation("datacontenttype", format!("is {seen}, its schema is of JSON")));
    }
    let data = contract.parse(&data, &JsonLimits::default())?;
    let text = |mark| data.root().property(contract.property(mark)?)?.text();
    match text(Mark::Tenant) {
        Some(tenant) if tenant != receiving.tenant => {
            let pointer = contract.property(Mark::Tenant).map(|name| format!("/{name}")).unwrap_or_default();
            let text = format!("is of another tenant than {:?}", receiving.tenant).into();
            Err(Violation { pointer: pointer.into(), rule: "x-tenant".into(), text })
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
