use serde_json::json;

use super::*;
use crate::event::Definition;

fn contract(event_type: &str, version: u32, channel: Option<&str>, schema: Value) -> Contract {
    Contract::new(Definition {
        event_type: event_type.into(),
        version,
        channel: channel.map(Into::into),
        description: Some("An order was placed.".into()),
        is_signed: version > 1,
        is_sealed: false,
        schema,
    })
    .unwrap()
}

fn catalog() -> Catalog {
    let line = json!({"type": "object", "properties": {"sku": {"type": "string", "x-redact": true}}});
    let newest = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "id": {"type": "integer", "x-key": true},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
            "first": {"$ref": "#/$defs/Line", "description": "The first line."},
            "place": {"type": "array", "prefixItems": [{"type": "number"}], "items": false},
            "previous": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        },
        "$defs": {"Line": line},
    });
    let all = [
        contract("order.placed", 1, Some("shop:orders"), json!({"type": "object"})),
        contract("order.placed", 2, Some("shop:orders"), newest),
        contract("order.lost", 1, None, json!(true)),
        contract("shop.closed", 1, Some("shop_orders"), json!(true)),
    ];
    all.into_iter().fold(Catalog::new(), |catalog, one| catalog.with_contract(one).unwrap())
}

#[test]
fn a_channel_has_all_versions_and_sends_the_newest() {
    let document = catalog().asyncapi("Shop", "1.2.3");
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(document["info"], json!({"title": "Shop", "version": "1.2.3"}));
    assert_eq!(document["channels"]["shop_orders"]["address"], "shop:orders");
    assert_eq!(document["channels"]["shop_orders_2"]["address"], "shop_orders");
    let references = |operation: &str| document["operations"][operation]["messages"].clone();
    let reference =
        |version: u32| json!({"$ref": format!("#/channels/shop_orders/messages/order.placed.{version}")});
    assert_eq!(references("receive.shop_orders"), json!([reference(1), reference(2)]));
    assert_eq!(references("send.shop_orders"), json!([reference(2)]));
    let newest = &document["components"]["messages"]["order.placed.2"];
    assert_eq!(newest["payload"], json!({"$ref": "#/components/schemas/order.placed.2"}));
    assert_eq!((&newest["x-newest"], &newest["x-signed"]), (&json!(true), &json!(true)));
    assert_eq!(newest["headers"]["properties"]["dataschema"]["const"], "tidewire:order.placed/2");
    assert_eq!(newest["headers"]["properties"]["partitionkey"]["description"], "the data's id");
    assert!(document["components"]["messages"]["order.lost.1"].is_object());
}

#[test]
fn schemas_are_of_draft_7_with_their_definitions_beside_them() {
    let document = catalog().asyncapi("Shop", "1");
    let schemas = &document["components"]["schemas"];
    let line = json!({"$ref": "#/components/schemas/order.placed.2.Line"});
    assert_eq!(
        schemas["order.placed.2"],
        json!({
            "type": "object",
            "properties": {
                "id": {"type": "integer", "x-key": true},
                "lines": {"type": "array", "items": line},
                "first": {"allOf": [line], "description": "The first line."},
                "place": {"type": "array", "items": [{"type": "number"}], "additionalItems": false},
                "previous": {"anyOf": [{"$ref": "#/components/schemas/order.placed.2"}, {"type": "null"}]},
            },
        })
    );
    assert_eq!(schemas["order.placed.2.Line"]["properties"]["sku"]["x-redact"], true);
    assert_eq!(schemas["order.lost.1"], json!({}));
}

#[test]
fn the_same_catalog_gives_the_same_document() {
    let again = Catalog::from_json(&catalog().to_json()).unwrap();
    let [one, other] = [catalog(), again].map(|catalog| catalog.asyncapi("Shop", "1").to_string());
    assert_eq!(one, other);
}
