//! Schemas of any shape: nothing that is made of them panics, and none is different from itself.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};
use tidewire::{Catalog, Change, ChangeKind, Contract, Definition, Event, JsonLimits};

/// Names of few, so that they meet.
const NAMES: [&str; 4] = ["a", "b", "type", "odd name/~"];

fn literal() -> impl Strategy<Value = Value> {
    let scalars = [json!(null), json!(1), json!(1.5), json!("a"), json!("b"), json!(true)];
    select([scalars.as_slice(), &[json!([1]), json!({"a": 1})]].concat())
}

/// A keyword that holds no schema.
fn plain() -> impl Strategy<Value = (&'static str, Value)> {
    let kinds = ["boolean", "integer", "number", "string", "array", "object"];
    prop_oneof![
        select(kinds.to_vec()).prop_map(|kind| ("type", json!(kind))),
        select(kinds.to_vec()).prop_map(|kind| ("type", json!([kind, "null"]))),
        literal().prop_map(|value| ("const", value)),
        vec(literal(), 1..4).prop_map(|values| ("enum", json!(values))),
        select(NAMES.to_vec()).prop_map(|name| ("required", json!([name]))),
        select(vec!["#", "#/$defs/a", "#/$defs/b"]).prop_map(|target| ("$ref", json!(target))),
        (select(vec!["minimum", "exclusiveMaximum"]), -2..3_i32).prop_map(|(name, n)| (name, json!(n))),
        (select(vec!["minLength", "maxItems", "minProperties"]), 0..3_u32)
            .prop_map(|(name, n)| (name, json!(n))),
        select(vec!["uint8", "int64", "double", "uuid"]).prop_map(|format| ("format", json!(format))),
        Just(("pattern", json!("^a"))),
        Just(("uniqueItems", json!(true))),
        select(vec!["x-redact", "x-key"]).prop_map(|mark| (mark, json!(true))),
        Just(("description", json!("text */"))),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any::<bool>().prop_map(Value::from), vec(plain(), 0..3).prop_map(object)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let named = btree_map(select(NAMES.to_vec()).prop_map(str::to_owned), inner.clone(), 1..3);
        let lists = select(vec!["allOf", "anyOf", "oneOf", "prefixItems"]);
        let single =
            ["items", "additionalProperties", "unevaluatedProperties", "not", "if", "then", "contains"];
        let holding = prop_oneof![
            (lists, vec(inner.clone(), 1..4)).prop_map(|(name, all)| (name, json!(all))),
            (select(vec!["properties", "patternProperties"]), named)
                .prop_map(|(name, all)| (name, json!(all))),
            (select(single.to_vec()), inner),
        ];
        (vec(plain(), 0..3), vec(holding, 0..3))
            .prop_map(|(plain, holding)| object(plain.into_iter().chain(holding)))
    })
}

fn object(keywords: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    keywords.into_iter().map(|(name, asked)| (name.to_owned(), asked)).collect::<Map<_, _>>().into()
}

/// A schema with definitions; none for `true` and `false`, which have no room for them.
fn catalog((mut schema, one, other): (Value, Value, Value)) -> Option<Catalog> {
    schema.as_object_mut()?.insert("$defs".into(), json!({"a": one, "b": other}));
    let definition = Definition {
        event_type: "a".into(),
        version: 1,
        channel: Some("a".into()),
        description: None,
        is_signed: false,
        is_sealed: false,
        schema,
    };
    Catalog::new().with_contract(Contract::new(definition).ok()?).ok()
}

/// Whether all that was right still is. An object took any value for a property that is new now, `oneOf` refuses what two of its
/// shapes take, and what is unevaluated hangs on all that stands beside it.
fn takes_all(change: &Change) -> bool {
    !change.is_breaking() && !matches!(change.what, ChangeKind::PropertyAdded | ChangeKind::ValueAdded)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn no_schema_is_different_from_itself(parts in (schema(), schema(), schema())) {
        if let Some(catalog) = catalog(parts) {
            let mut changes = catalog.changes_since(&catalog);
            // What is too large or too deep is not looked at.
            changes.retain(|change| !change.text.contains(" too "));
            prop_assert!(changes.is_empty(), "{changes:#?}");
        }
    }

    #[test]
    fn what_passes_takes_what_was_right(
        (schema, one, other) in (schema(), schema(), schema()),
        older in vec(plain(), 0..3),
        newer in vec(plain(), 0..3),
        data in vec(literal(), 8),
    ) {
        let with = |keywords: Vec<(&str, Value)>| {
            let mut schema = schema.clone();
            schema.as_object_mut()?.extend(keywords.into_iter().map(|(name, asked)| (name.to_owned(), asked)));
            Some((schema, one.clone(), other.clone()))
        };
        let [older, newer] = [older, newer].map(|keywords| with(keywords).and_then(catalog));
        if let (Some(older), Some(newer)) = (older, newer)
            && !["oneOf", "unevaluated"].iter().any(|keyword| newer.to_json().contains(keyword))
            && newer.changes_since(&older).iter().all(takes_all)
            && let (Some(before), Some(now)) = (older.get("a", 1), newer.get("a", 1))
        {
            for data in data {
                let (data, limits) = (data.to_string(), JsonLimits::default());
                if before.check(data.as_bytes(), &limits).is_ok() {
                    let what = format!("{data}\n{:#?}\n{:#?}", before.definition().schema, now.definition().schema);
                    prop_assert!(now.check(data.as_bytes(), &limits).is_ok(), "{}", what);
                }
            }
        }
    }

    #[test]
    fn documents_are_made_of_any_schema(parts in (schema(), schema(), schema()), data in literal()) {
        if let Some(catalog) = catalog(parts) {
            let document = catalog.asyncapi("a", "1");
            prop_assert!(document["components"]["schemas"]["a.1"].is_object());
            prop_assert!(catalog.typescript().contains("export interface Events "));
            for contract in catalog.contracts() {
                contract.redacted(&Event::new("a", data.to_string()));
            }
        }
    }
}
