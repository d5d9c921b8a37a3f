#![allow(dead_code, reason = "types are there for their schemas")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Value, json};

use super::ChangeKind::{self, *};
use super::*;

fn schema<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

/// The schema of the type `Order`, with types beside it.
macro_rules! order {
    ($($item:item)*) => {{ $(#[derive(JsonSchema, Serialize)] $item)* schema::<Order>() }};
}

fn definition(schema: Value) -> Definition {
    Definition {
        event_type: "order.placed".into(),
        version: 1,
        channel: Some("orders".into()),
        description: None,
        is_signed: false,
        is_sealed: false,
        schema,
    }
}

fn catalog(definitions: impl IntoIterator<Item = Definition>) -> Catalog {
    definitions
        .into_iter()
        .fold(Catalog::new(), |all, one| all.with_contract(Contract::new(one).unwrap()).unwrap())
}

fn between(older: &Value, newer: &Value) -> Vec<Change> {
    catalog([definition(newer.clone())]).changes_since(&catalog([definition(older.clone())]))
}

/// What is found between two schemas, without what is only said to people.
#[track_caller]
fn assert_finds(older: &Value, newer: &Value, expected: &[(ChangeKind, &str)]) {
    let changes = between(older, newer);
    let found: Vec<_> = changes
        .iter()
        .filter(|change| change.what != Described)
        .map(|change| (change.what, &*change.pointer))
        .collect();
    assert_eq!(found, expected, "{changes:#?}\nolder {older:#}\nnewer {newer:#}");
}

#[track_caller]
fn assert_both_ways(older: &Value, newer: &Value, forth: &[(ChangeKind, &str)], back: &[(ChangeKind, &str)]) {
    assert_finds(older, newer, forth);
    assert_finds(newer, older, back);
    assert_finds(older, older, &[]);
    assert_finds(newer, newer, &[]);
}

#[test]
fn properties() {
    let older = order! { struct Order { id: u64 } };
    let optional = order! { struct Order { id: u64, note: Option<String> } };
    let required = order! { struct Order { id: u64, note: String } };
    assert_both_ways(
        &older,
        &optional,
        &[(PropertyAdded, "/properties/note")],
        &[(PropertyRemoved, "/properties/note")],
    );
    assert_both_ways(
        &older,
        &required,
        &[(PropertyRequired, "/properties/note")],
        &[(PropertyRemoved, "/properties/note")],
    );
    assert_both_ways(
        &optional,
        &required,
        &[(Narrowed, "/properties/note"), (PropertyRequired, "/properties/note")],
        &[(Widened, "/properties/note"), (PropertyOptional, "/properties/note")],
    );
    let renamed = order! { struct Order { number: u64 } };
    let both = [(PropertyRemoved, "/properties/id"), (PropertyRequired, "/properties/number")];
    let back = [(PropertyRequired, "/properties/id"), (PropertyRemoved, "/properties/number")];
    assert_both_ways(&older, &renamed, &both, &back);
    let with_default = order! { struct Order { #[serde(default)] id: u64 } };
    assert_both_ways(
        &older,
        &with_default,
        &[(PropertyOptional, "/properties/id")],
        &[(PropertyRequired, "/properties/id")],
    );
}

#[test]
fn texts_say_what_was() {
    let older = order! { struct Order { id: u64, state: Option<String> } };
    let newer = order! { struct Order { #[schemars(range(min = 1))] id: u32, state: bool } };
    let texts: Vec<_> = between(&older, &newer).iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "order.placed version 1 at /properties/id/minimum: minimum is 1, was 0",
            "order.placed version 1 at /properties/id/format: maximum is 4294967295, was 18446744073709551615",
            "order.placed version 1 at /properties/state: boolean, was string or null",
            "order.placed version 1 at /properties/state: property \"state\" is required, was optional",
        ]
    );
}

#[test]
fn types_of_numbers() {
    let of = [
        order! { struct Order { n: u8 } },
        order! { struct Order { n: u16 } },
        order! { struct Order { n: u32 } },
        order! { struct Order { n: u64 } },
    ];
    for (small, large) in of.iter().zip(of.iter().skip(1)) {
        for (older, newer, what) in [(small, large, Widened), (large, small, Narrowed)] {
            let changes = between(older, newer);
            assert!(!changes.is_empty() && changes.iter().all(|change| change.what == what), "{changes:?}");
        }
    }
    let integer = order! { struct Order { n: i64 } };
    let number = order! { struct Order { n: f64 } };
    let forth = between(&integer, &number);
    assert!(!forth.iter().any(Change::is_breaking) && !forth.is_empty(), "{forth:?}");
    assert_finds(&number, &integer, &[(Narrowed, "/properties/n")]);
    assert_eq!(&*between(&number, &integer)[0].text, "integer, was number");
    let signed = order! { struct Order { n: i32 } };
    let unsigned = order! { struct Order { n: u64 } };
    let kinds: Vec<_> = between(&unsigned, &signed).iter().map(|change| change.what).collect();
    assert_eq!(kinds, [Narrowed, Widened]);
    let pointer_sized = order! { struct Order { n: usize } };
    assert_finds(&unsigned, &pointer_sized, &[]);
}

#[test]
fn types_and_unions() {
    let at = "/properties/a";
    let one = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    let string = one(json!({"type": "string"}));
    let nullable = one(json!({"anyOf": [{"type": "null"}, {"type": "string"}]}));
    assert_both_ways(&string, &nullable, &[(Widened, at)], &[(Narrowed, at)]);
    assert_finds(&nullable, &one(json!({"type": ["string", "null"]})), &[]);
    let integer = one(json!({"type": "integer"}));
    assert_both_ways(&string, &integer, &[(Narrowed, at)], &[(Narrowed, at)]);
    let anything = one(json!(true));
    assert_both_ways(&string, &anything, &[(Widened, at)], &[(Narrowed, at)]);
    let constant = one(json!({"const": "a"}));
    let other = one(json!({"const": "b"}));
    let swapped = [(ValueRemoved, at), (ValueAdded, at)];
    assert_both_ways(&constant, &other, &swapped, &swapped);
    assert_both_ways(&constant, &string, &[(Widened, at)], &[(Narrowed, at)]);
    assert_finds(&constant, &one(json!({"enum": ["a"], "type": "string"})), &[]);
    let twice = one(json!({"anyOf": [{"const": "a"}, {"enum": ["a"]}, {"type": "null"}, {"const": null}]}));
    assert_finds(&twice, &twice, &[]);
    let patterns = |all: [&str; 2]| {
        let [first, second] = all.map(|pattern| json!({"type": "string", "pattern": pattern}));
        one(json!({"anyOf": [true, {"not": {"const": 1}}, first, second]}))
    };
    assert_both_ways(&patterns(["^a", "^b"]), &patterns(["^b", "^a"]), &[], &[]);
}

#[test]
fn bounds_formats_and_patterns() {
    let at = |keyword: &str| format!("/properties/a/{keyword}");
    for (keyword, of, loose, tight) in [
        ("minimum", "integer", json!(1), json!(2)),
        ("maximum", "integer", json!(2.5), json!(2)),
        ("exclusiveMinimum", "number", json!(1), json!(1.5)),
        ("exclusiveMaximum", "number", json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64)),
        ("minLength", "string", json!(1), json!(2)),
        ("maxLength", "string", json!(2), json!(1)),
        ("minItems", "array", json!(1), json!(2)),
        ("maxItems", "array", json!(2), json!(1)),
        ("minProperties", "object", json!(1), json!(2)),
        ("maxProperties", "object", json!(2), json!(1)),
        ("multipleOf", "integer", json!(2), json!(4)),
        ("uniqueItems", "array", json!(false), json!(true)),
    ] {
        let with =
            |asked: &Value| json!({"type": "object", "properties": {"a": {"type": of, keyword: asked}}});
        let without = json!({"type": "object", "properties": {"a": {"type": of}}});
        let pointer = at(keyword);
        let gone = if keyword == "uniqueItems" { "/properties/a" } else { &pointer };
        assert_both_ways(&with(&loose), &with(&tight), &[(Narrowed, &pointer)], &[(Widened, gone)]);
        assert_both_ways(&without, &with(&tight), &[(Narrowed, &pointer)], &[(Widened, "/properties/a")]);
    }
    for (keyword, one, other) in [("pattern", "^a", "^b"), ("format", "uuid", "date-time")] {
        let with =
            |asked: &str| json!({"type": "object", "properties": {"a": {"type": "string", keyword: asked}}});
        let without = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let pointer = at(keyword);
        let changed = [(Narrowed, &*pointer)];
        assert_both_ways(&with(one), &with(other), &changed, &changed);
        assert_both_ways(&without, &with(one), &changed, &[(Widened, "/properties/a")]);
    }
}

#[test]
fn enums_of_values() {
    let three = order! { struct Order { state: State } enum State { Open, Paid, Sent } };
    let two = order! { struct Order { state: State } enum State { Open, Paid } };
    let at = "/properties/state";
    assert_both_ways(&two, &three, &[(ValueAdded, at)], &[(ValueRemoved, at)]);
    // Words beside a value make another schema of the same meaning.
    let described = order! {
        struct Order { state: State }
        enum State {
            /// Not paid yet.
            Open,
            Paid,
        }
    };
    assert_both_ways(&two, &described, &[], &[]);
    let renamed = order! { struct Order { state: Named } enum Named { Open, Paid } };
    assert_both_ways(&two, &renamed, &[], &[]);
    let optional = order! { struct Order { state: Option<State> } enum State { Open, Paid } };
    assert_both_ways(
        &two,
        &optional,
        &[(Widened, at), (PropertyOptional, at)],
        &[(Narrowed, at), (PropertyRequired, at)],
    );
    let text = order! { struct Order { state: String } };
    assert_both_ways(&two, &text, &[(Widened, at)], &[(Narrowed, at)]);
}

#[test]
fn enums_of_shapes() {
    let outside = order! {
        struct Order { by: Payment }
        enum Payment { Card { number: String }, Cash, Other(u32) }
    };
    let fewer = order! { struct Order { by: Payment } enum Payment { Card { number: String }, Cash } };
    let at = "/properties/by";
    assert_both_ways(&fewer, &outside, &[(ValueAdded, at)], &[(ValueRemoved, at)]);
    let tagged = order! {
        struct Order { by: Payment }
        #[serde(tag = "type")]
        enum Payment { Card { number: String }, Bank { iban: String } }
    };
    let more = order! {
        struct Order { by: Payment }
        #[serde(tag = "type")]
        enum Payment { Bank { iban: String, bic: Option<String> }, Card { number: String }, Cash }
    };
    let bic = "/$defs/Payment/oneOf/0/properties/bic";
    assert_both_ways(
        &tagged,
        &more,
        &[(ValueAdded, at), (PropertyAdded, bic)],
        &[(ValueRemoved, at), (PropertyRemoved, bic)],
    );
    let untagged = order! {
        struct Order { by: Payment }
        #[serde(untagged)]
        enum Payment { Card { number: String, name: String }, Bank { iban: String, bic: String } }
    };
    let changed = order! {
        struct Order { by: Payment }
        #[serde(untagged)]
        enum Payment { Bank { iban: String, bic: Option<String> }, Card { number: String, name: String } }
    };
    let at = "/$defs/Payment/anyOf/0/properties/bic";
    assert_finds(&untagged, &changed, &[(Widened, at), (PropertyOptional, at)]);
}

#[test]
fn lists_tuples_and_maps() {
    let older = order! { struct Order { ids: Vec<u64>, place: (f64, f64), by_name: BTreeMap<String, u64> } };
    let newer = order! {
        struct Order { ids: Vec<Option<u64>>, place: (f64, f64, f64), by_name: BTreeMap<String, String> }
    };
    let expected = [
        (Narrowed, "/properties/by_name/additionalProperties"),
        (Narrowed, "/properties/place/minItems"),
        (Widened, "/properties/ids/items"),
        (Widened, "/properties/place/maxItems"),
        (Narrowed, "/properties/place/prefixItems/2"),
    ];
    let changes = between(&older, &newer);
    for (what, pointer) in expected {
        assert!(
            changes.iter().any(|change| (change.what, &*change.pointer) == (what, pointer)),
            "{changes:#?}"
        );
    }
    let closed = order! { #[serde(deny_unknown_fields)] struct Order { id: u64 } };
    let open = order! { struct Order { id: u64 } };
    assert_both_ways(&open, &closed, &[(Narrowed, "/additionalProperties")], &[(Widened, "")]);
    let numbered = order! { struct Order { by: BTreeMap<u32, u64> } };
    let wider = order! { struct Order { by: BTreeMap<u32, Option<u64>> } };
    let found = between(&numbered, &wider);
    assert!(found.iter().all(|change| change.what == Widened) && found.len() == 1, "{found:?}");
}

#[test]
fn definitions_are_compared_by_what_is_in_them() {
    let older = order! {
        struct Order { first: Line, more: Vec<Line>, next: Option<Box<Order>> }
        struct Line { sku: String, price: Money }
        struct Money { cents: u64 }
    };
    let newer = order! {
        struct Order { first: Item, more: Vec<Item>, next: Option<Box<Order>> }
        struct Item { sku: String, price: Amount }
        struct Amount { cents: u64, currency: String }
    };
    assert_both_ways(
        &older,
        &newer,
        &[(PropertyRequired, "/$defs/Amount/properties/currency")],
        &[(PropertyRemoved, "/$defs/Amount/properties/currency")],
    );
    let flat = order! {
        struct Order { id: u64, #[serde(flatten)] more: More }
        struct More { note: Option<String> }
    };
    let written = order! { struct Order { id: u64, note: Option<String> } };
    assert_both_ways(&flat, &written, &[], &[]);
    let all_of = json!({"allOf": [{"$ref": "#/$defs/A"}, {"properties": {"b": true}}],
        "$defs": {"A": {"type": "object", "properties": {"a": {"type": "string"}}}}});
    let one = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": true}});
    assert_both_ways(&all_of, &one, &[], &[]);
}

#[test]
fn what_cannot_be_told_is_breaking() {
    for keyword in ["not", "if", "propertyNames", "contains"] {
        let of = |asked: Value| json!({"properties": {"a": {keyword: asked}}, "$defs": {"A": {"maxLength": 1}, "B": {"maxLength": 1}, "C": {"maxLength": 2}}});
        let one = of(json!({"$ref": "#/$defs/A"}));
        let pointer = format!("/properties/a/{keyword}");
        assert_both_ways(&one, &of(json!({"$ref": "#/$defs/B"})), &[], &[]);
        let unclear = [(Unclear, &*pointer)];
        assert_both_ways(&one, &of(json!({"$ref": "#/$defs/C"})), &unclear, &unclear);
        assert!(Unclear.is_breaking() && !TypeAdded.is_breaking());
    }
    let of = |pattern: &str| json!({"type": "object", "patternProperties": {pattern: {"type": "string"}}});
    assert_both_ways(&of("^a"), &of("^b"), &[(Unclear, "")], &[(Unclear, "")]);
    let text = &between(&of("^a"), &of("^b"))[0].text;
    assert!(text.contains("cannot be told"), "{text}");
}

#[test]
fn marks_of_the_schema() {
    let of = |a: Value, b: Value| json!({"type": "object", "properties": {"a": a, "b": b}});
    let plain = of(json!({}), json!({}));
    let hidden = of(json!({"x-redact": true}), json!({}));
    let at = "/properties/a";
    assert_both_ways(&plain, &hidden, &[(RedactionAdded, at)], &[(RedactionRemoved, at)]);
    // What is hidden with all that is around it stays hidden.
    let within = json!({"properties": {"p": {"type": "object", "properties": {"a": {"x-redact": true}}}}});
    let around = json!({"properties": {"p": {"type": "object", "x-redact": true, "properties": {"a": {}}}}});
    assert_finds(&within, &around, &[(RedactionAdded, "/properties/p")]);
    for mark in ["x-key", "x-tenant", "x-subject"] {
        let marked = of(json!({mark: true}), json!({}));
        let moved = of(json!({}), json!({mark: true}));
        assert_both_ways(&marked, &moved, &[(MarkChanged, "")], &[(MarkChanged, "")]);
        let added = if mark == "x-subject" { Declared } else { MarkChanged };
        assert_both_ways(&plain, &marked, &[(added, "")], &[(MarkChanged, "")]);
    }
}

#[test]
fn what_is_only_said_to_people() {
    let older = order! {
        /// An order.
        struct Order { id: u64 }
    };
    let newer = order! {
        /// Somebody ordered something.
        struct Order {
            /// Its number.
            #[schemars(example = 7)]
            id: u64,
        }
    };
    let changes = between(&older, &newer);
    assert!(changes.len() == 3 && changes.iter().all(|change| change.what == Described), "{changes:?}");
    assert!(!changes.iter().any(Change::is_breaking));
}

#[test]
fn types_versions_and_what_is_agreed_beside_the_schema() {
    let base = definition(json!({}));
    let version = |version: u32, channel: Option<&str>| Definition {
        version,
        channel: channel.map(Into::into),
        ..definition(json!({}))
    };
    let found = |older: &[Definition], newer: &[Definition]| -> Vec<_> {
        let changes = catalog(newer.iter().cloned()).changes_since(&catalog(older.iter().cloned()));
        changes.into_iter().map(|change| (change.version, change.what)).collect()
    };
    let one = [base.clone()];
    let two = [base.clone(), version(2, Some("orders"))];
    assert_eq!(found(&[], &one), [(1, TypeAdded)]);
    assert_eq!(found(&one, &[]), [(1, TypeRemoved)]);
    assert_eq!(found(&one, &two), [(2, VersionAdded)]);
    assert_eq!(found(&two, &one), [(2, VersionRemoved)]);
    assert_eq!(found(&one, &[version(1, Some("sales"))]), [(1, ChannelChanged)]);
    assert_eq!(found(&one, &[version(1, None)]), [(1, ChannelChanged)]);
    assert_eq!(found(&[version(1, None)], &one), [(1, Declared)]);
    assert_eq!(
        found(&one, &[version(1, None), version(2, Some("orders"))]),
        [(1, Declared), (2, VersionAdded)]
    );
    let signed = [Definition { is_signed: true, ..base.clone() }];
    let sealed = [Definition { is_sealed: true, ..base.clone() }];
    assert_eq!(found(&one, &signed), [(1, SigningChanged)]);
    assert_eq!(found(&signed, &sealed), [(1, SigningChanged), (1, SealingChanged)]);
    assert_eq!(found(&one, &[Definition { description: Some("An order".into()), ..base }]), [(1, Described)]);
}

#[test]
fn schemas_without_end_come_to_one() {
    let doubling: serde_json::Map<_, _> = (0..60)
        .map(|n| {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            (format!("d{n}"), json!({"allOf": [next, next], "description": "x"}))
        })
        .chain([("d60".to_owned(), json!({"type": "string"}))])
        .collect();
    let doubling = json!({"$ref": "#/$defs/d0", "$defs": doubling});
    let changes = between(&doubling, &json!({"type": "string"}));
    assert_eq!(changes.iter().filter(|change| change.what == Unclear).count(), 1, "{changes:?}");
    let product: Vec<_> = (0..20)
        .map(|n| json!({"anyOf": [{"properties": {"a": {"const": n}}}, {"required": ["a"]}]}))
        .collect();
    let changes = between(&json!({"allOf": product}), &json!({"type": "object"}));
    assert!(changes.iter().any(|change| change.what == Unclear), "{changes:?}");
    let own = json!({"$ref": "#", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}});
    assert_finds(&own, &own, &[]);
}
