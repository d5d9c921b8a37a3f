use serde_json::json;

use super::*;
use crate::event::{Contract, Definition, Keys};

/// A catalog of `order.placed` with the versions 1 and 2, the newer of them signed, sealed or neither.
fn catalog(is_signed: bool, is_sealed: bool) -> Catalog {
    let versions = [
        (1, false, false, json!({"required": ["euros"]})),
        (
            2,
            is_signed,
            is_sealed,
            json!({"required": ["cents"], "properties": {
                "customer": {"type": "string", "x-key": true}, "shop": {"x-tenant": true}, "card": {"type": "string", "x-redact": true},
            }}),
        ),
    ];
    versions.into_iter().fold(Catalog::new(), |catalog, (version, is_signed, is_sealed, schema)| {
        let event_type = "order.placed".into();
        let (channel, description) = (None, None);
        let definition =
            Definition { event_type, version, channel, description, is_signed, is_sealed, schema };
        catalog.with_contract(Contract::new(definition).unwrap()).unwrap()
    })
}

fn keys() -> Keys {
    let secret = "A".repeat(43) + "=";
    let ring = json!([{"id": "k", "secret": secret}]);
    Keys::from_json(&json!({"tenants": {"*": {"signing": ring, "sealing": ring}}}).to_string()).unwrap()
}

fn sent(event: Event, catalog: &Catalog) -> Result<Event, String> {
    let keys = keys();
    let sending = Sending { tenant: "shop", keys: &keys, now: Timestamp::from_millis(7) };
    conform(event, catalog, &sending).unwrap().map_err(|violation| violation.to_string())
}

fn received(event: &Event, catalog: &Catalog) -> Result<(), String> {
    verify(event, catalog, &Receiving { tenant: "shop", keys: &keys() }).map_err(|why| why.to_string())
}

fn order(data: &serde_json::Value) -> Event {
    Event::new("order.placed", data.to_string())
}

#[test]
fn what_is_sent_is_what_its_contract_says_and_is_received() {
    for (is_signed, is_sealed) in [(false, false), (true, false), (false, true), (true, true)] {
        let catalog = catalog(is_signed, is_sealed);
        let event = sent(order(&json!({"cents": 1, "customer": "ann"})), &catalog).unwrap();
        assert_eq!((event.key(), event.data_schema()), (Some("ann"), Some("tidewire:order.placed/2")));
        assert_eq!((event.is_signed(), event.is_sealed()), (is_signed, is_sealed));
        assert_eq!(received(&event, &catalog), Ok(()));
        // An older version is guarded as the newest is.
        let older = order(&json!({"euros": 1})).with_data_schema("tidewire:order.placed/1");
        let event = sent(older.clone(), &catalog).unwrap();
        assert_eq!((event.is_signed(), event.is_sealed()), (is_signed, is_sealed));
        assert_eq!(received(&event, &catalog), Ok(()));
        assert_eq!(received(&older, &catalog).is_ok(), !is_signed && !is_sealed);
        // What was guarded before is kept as it is.
        assert_eq!(sent(event.clone(), &catalog), Ok(event));
    }
}

#[test]
fn what_is_guarded_and_names_no_version_is_read_as_version_1() {
    let guarded = |data: &serde_json::Value| {
        let event = order(data).with_time(Timestamp::from_millis(7));
        let event = seal::seal(event, "shop", &keys()).unwrap();
        sign::sign(event, "shop", &keys()).unwrap()
    };
    let catalog = catalog(true, true);
    let event = guarded(&json!({"euros": 1}));
    assert_eq!(sent(event.clone(), &catalog), Ok(event.clone()));
    assert_eq!(received(&event, &catalog), Ok(()));
    let error = sent(guarded(&json!({"cents": 1})), &catalog).unwrap_err();
    assert_eq!(error, "data: has no \"euros\", which is required");
}

#[test]
fn a_seal_that_its_type_does_not_have_is_refused() {
    let event = order(&json!({"cents": 1})).with_data_schema("tidewire:order.placed/2");
    let event = seal::seal(event, "shop", &keys()).unwrap();
    let error = sent(event, &catalog(false, false)).unwrap_err();
    assert_eq!(error, "data: is sealed, which events of its type are not");
}

#[test]
fn what_is_wrong_is_told_without_its_value() {
    let catalog = catalog(false, false);
    for (event, why) in [
        (order(&json!({"cents": 1, "card": ["4111"]})), "data at /card: does not keep to type \"string\""),
        (order(&json!({"cents": 1, "card": {"4111": 1}})), "data at /card: does not keep to type \"string\""),
        (Event::new("order.placed", r#"{"card":{"4111":1,"4111":1}}"#), "data at /card: duplicate key"),
        (order(&json!({"cents": 1, "shop": "other"})), "data at /shop: is of another tenant than \"shop\""),
    ] {
        assert_eq!(sent(event.clone(), &catalog).unwrap_err(), why);
        let event = event.with_data_schema("tidewire:order.placed/2");
        assert_eq!(received(&event, &catalog).unwrap_err(), why);
    }
}

#[test]
fn what_everybody_sees_cannot_be_hidden() {
    let text = json!({"catalog": 1, "events": [{"type": "a", "version": 1, "schema": {
        "properties": {"mail": {"x-key": true, "$ref": "#/$defs/mail"}}, "$defs": {"mail": {"x-redact": true}},
    }}]});
    let error = Catalog::from_json(&text.to_string()).unwrap_err().to_string();
    assert!(error.contains("\"mail\" of a version 1 is hidden by x-redact"), "{error}");
}
