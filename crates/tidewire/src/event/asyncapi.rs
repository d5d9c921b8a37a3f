//! [AsyncAPI 3.0](https://www.asyncapi.com/docs/reference/specification/v3.0.0): a catalog as a document that its tools read.
//!
//! The document calls an event a "message" and its data a "payload"; nothing else here does.

mod components;
mod draft7;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use self::components::{SCHEMAS, schemas, unique};
use super::catalog::Catalog;
use super::contract::{Contract, Mark};

/// The version of the specification.
const ASYNCAPI: &str = "3.0.0";

impl Catalog {
    /// The catalog as an AsyncAPI 3.0.0 document: each channel with the events that are declared for it, two operations
    /// on it - `send` with the newest versions, `receive` with all that may still be read - and each version with its schema.
    ///
    /// Schemas are written in the draft 7 that AsyncAPI's tools read; marks such as `x-redact` stay. The same catalog gives
    /// the same document.
    pub fn asyncapi(&self, title: &str, version: &str) -> Value {
        let mut channels = BTreeMap::<&str, Vec<&Contract>>::new();
        for contract in self.contracts() {
            if let Some(channel) = contract.definition().channel.as_deref() {
                channels.entry(channel).or_default().push(contract);
            }
        }
        let mut document = Map::new();
        document.insert("asyncapi".into(), ASYNCAPI.into());
        document.insert("info".into(), json!({"title": title, "version": version}));
        document.insert("defaultContentType".into(), "application/json".into());
        let (mut named, mut operations) = (Map::new(), Map::new());
        let mut ids = BTreeSet::new();
        for (address, contracts) in channels {
            let id = unique(&mut ids, address);
            named.insert(id.clone(), channel(address, &contracts));
            operations.insert(format!("receive.{id}"), operation("receive", &id, &contracts));
            let sent: Vec<_> = contracts.into_iter().filter(|contract| self.is_newest(contract)).collect();
            if !sent.is_empty() {
                operations.insert(format!("send.{id}"), operation("send", &id, &sent));
            }
        }
        document.insert("channels".into(), named.into());
        document.insert("operations".into(), operations.into());
        let messages = self.contracts().map(|contract| (key(contract), self.message(contract)));
        let messages: Map<String, Value> = messages.collect();
        document.insert("components".into(), json!({"messages": messages, "schemas": schemas(self)}));
        document.into()
    }

    fn is_newest(&self, contract: &Contract) -> bool {
        let newest = self.newest(&contract.definition().event_type).map(Arc::as_ref);
        newest.is_some_and(|newest| newest.definition().version == contract.definition().version)
    }

    fn message(&self, contract: &Contract) -> Value {
        let definition = contract.definition();
        let mut message = Map::new();
        message.insert("name".into(), (*definition.event_type).into());
        let title = format!("{} version {}", definition.event_type, definition.version);
        message.insert("title".into(), title.into());
        if let Some(description) = &definition.description {
            message.insert("description".into(), (**description).into());
        }
        message.insert("contentType".into(), "application/json".into());
        message.insert("headers".into(), headers(contract));
        let correlated = json!({
            "description": "The event that began all that follows from it.",
            "location": "$message.header#/correlationid",
        });
        message.insert("correlationId".into(), correlated);
        message.insert("payload".into(), json!({"$ref": format!("{SCHEMAS}{}", key(contract))}));
        message.insert("x-version".into(), definition.version.into());
        for (mark, is_on) in [
            ("x-newest", self.is_newest(contract)),
            ("x-signed", definition.is_signed),
            ("x-sealed", definition.is_sealed),
        ] {
            if is_on {
                message.insert(mark.into(), true.into());
            }
        }
        message.into()
    }
}

/// The name that a version has among the messages and the schemas. A type has no `/`.
fn key(contract: &Contract) -> String {
    let definition = contract.definition();
    format!("{}.{}", definition.event_type, definition.version)
}

fn channel(address: &str, contracts: &[&Contract]) -> Value {
    let messages = contracts.iter().map(|contract| {
        let key = key(contract);
        let reference = json!({"$ref": format!("#/components/messages/{key}")});
        (key, reference)
    });
    json!({"address": address, "messages": messages.collect::<Map<_, _>>()})
}

fn operation(action: &str, channel: &str, contracts: &[&Contract]) -> Value {
    let here = format!("#/channels/{channel}");
    let messages: Vec<_> = contracts
        .iter()
        .map(|contract| json!({"$ref": format!("{here}/messages/{}", key(contract))}))
        .collect();
    json!({"action": action, "channel": {"$ref": here}, "messages": messages})
}

/// The CloudEvents attributes that an event has.
fn headers(contract: &Contract) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let marked = |mark: Mark| contract.property(mark).map(|name| format!("the data's {name}"));
    let mut attributes = json!({
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "format": "uuid"},
        "type": {"const": contract.definition().event_type},
        "dataschema": {"const": contract.uri()},
        "time": {"type": "string", "format": "date-time"},
        "correlationid": text("the event that began all that follows from it"),
        "causationid": text("the event that this one follows from"),
        "traceparent": text("W3C trace context"),
    });
    for (name, mark) in [("partitionkey", Mark::Key), ("subject", Mark::Subject)] {
        if let (Some(description), Some(attributes)) = (marked(mark), attributes.as_object_mut()) {
            attributes.insert(name.into(), text(&description));
        }
    }
    json!({"type": "object", "required": ["specversion", "id", "type", "time"], "properties": attributes})
}

#[cfg(test)]
mod tests;
