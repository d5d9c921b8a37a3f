use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::json;

use super::*;
use crate::event::Definition;

/// Where an order goes.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "types are there for their schemas")]
struct Address {
    street: String,
    zip_code: Option<String>,
}

#[derive(JsonSchema, Serialize)]
#[allow(dead_code, reason = "types are there for their schemas")]
enum State {
    /// Nobody has paid yet.
    Open,
    Paid,
    Sent,
}

#[derive(JsonSchema, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(dead_code, reason = "types are there for their schemas")]
enum Payment {
    Card { number: String, month: u8 },
    Bank(Bank),
    Cash,
}

#[derive(JsonSchema, Serialize)]
#[allow(dead_code, reason = "types are there for their schemas")]
struct Bank {
    iban: String,
}

#[derive(JsonSchema, Serialize)]
#[allow(dead_code, reason = "types are there for their schemas")]
enum Gift {
    Card { text: String },
    Wrapped(bool),
    Nothing,
}

#[derive(JsonSchema, Serialize)]
#[allow(dead_code, reason = "types are there for their schemas")]
struct Line {
    sku: String,
    parts: Vec<Line>,
}

/// An order was placed.
///
/// With a comment that ends: */
#[derive(JsonSchema, Serialize)]
#[allow(dead_code, reason = "types are there for their schemas")]
struct OrderPlaced {
    /// Its number.
    id: u64,
    total: Option<f64>,
    to: Address,
    invoice_to: Option<Address>,
    state: State,
    last_state: Option<State>,
    payment: Payment,
    gift: Gift,
    lines: Vec<Line>,
    notes: Vec<Option<String>>,
    place: (f64, f64, Option<String>),
    by_name: BTreeMap<String, Vec<u64>>,
    by_number: BTreeMap<u32, State>,
    #[serde(rename = "class")]
    reserved: bool,
    #[serde(rename = "odd-name \"1\"")]
    odd: bool,
    anything: Value,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

fn contract(event_type: &str, version: u32, channel: Option<&str>, schema: Value) -> Contract {
    let description = schema.get("description").and_then(Value::as_str).map(Into::into);
    let (event_type, channel) = (event_type.into(), channel.map(Into::into));
    let definition =
        Definition { event_type, version, channel, description, is_signed: false, is_sealed: false, schema };
    Contract::new(definition).unwrap()
}

fn catalog(all: impl IntoIterator<Item = Contract>) -> Catalog {
    all.into_iter().fold(Catalog::new(), |catalog, one| catalog.with_contract(one).unwrap())
}

#[test]
fn types_are_as_they_were() {
    let placed =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<OrderPlaced>().to_value();
    let text = catalog([
        contract(
            "order.placed",
            1,
            Some("orders"),
            json!({"type": "object", "properties": {"id": {"type": "integer"}}}),
        ),
        contract("order.placed", 2, Some("orders"), placed),
        contract(
            "order.cancelled",
            1,
            Some("orders"),
            json!({"type": "object", "required": ["id"],
            "properties": {"id": {"type": ["integer", "string"]}, "why": {"const": "late"}}}),
        ),
        contract(
            "stock.counted",
            1,
            None,
            json!({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}}),
        ),
    ])
    .typescript();
    let golden = include_str!("golden.ts");
    assert_eq!(text, golden, "src/event/typescript/golden.ts is not as it is written now:\n{text}");
}

#[test]
fn names_do_not_collide() {
    let schema =
        json!({"$ref": "#/$defs/a.b", "$defs": {"a.b": {"type": "string"}, "a-b": {"type": "null"}}});
    let text = catalog([
        contract("order.placed", 1, None, json!(true)),
        contract("order.placed", 2, None, json!(true)),
        contract("order-placed", 1, None, schema),
        contract("order.placed.v1", 1, None, json!(true)),
        contract("events", 1, None, json!(true)),
        contract("2fa.used", 1, None, json!(true)),
        contract("_", 1, None, json!(true)),
    ])
    .typescript();
    let mut names: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("export ")?.split(' ').nth(1)).collect();
    names.sort_unstable();
    let expected = [
        "Channels",
        "Event",
        "Event2faUsed",
        "Events",
        "Events2",
        "OrderPlaced",
        "OrderPlaced2",
        "OrderPlacedAB",
        "OrderPlacedAB2",
        "OrderPlacedV1",
        "OrderPlacedV12",
    ];
    assert_eq!(names, expected, "{text}");
}
