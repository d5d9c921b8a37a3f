use proptest::prelude::*;

use super::JsonRule::{ControlCharacter, DuplicateKey, Number, Surrogate, Syntax, Utf8};
use super::*;

fn rule_of(json: impl AsRef<[u8]>) -> Option<JsonRule> {
    check_json(json.as_ref(), &JsonLimits::default()).err().map(|fault| fault.rule)
}

fn fault_of(json: impl AsRef<[u8]>) -> String {
    check_json(json.as_ref(), &JsonLimits::default()).unwrap_err().to_string()
}

fn object(keys: std::ops::Range<usize>) -> String {
    let members: Vec<String> = keys.map(|key| format!("\"key{key}\":{key}")).collect();
    format!("{{{}}}", members.join(","))
}

/// An event such as shops have, about 1 KB.
fn order() -> String {
    let item = r#"{"sku":"A-1042","name":"Ceramic mug, blue","count":2,"price":{"amount":1299,"currency":"EUR"},"tags":["kitchen","gift"]}"#;
    let items = [item; 6].join(",");
    format!(
        r#"{{"id":"01a3f8e2-9f5f-7c3e-8f1b-6a1e0d9c4b7a","customer":{{"id":7219,"name":"Zoë Müller","email":"zoe@example.org","is_new":false}},"placed":"2026-11-27T10:15:30Z","items":[{items}],"total":7794.0,"note":null}}"#
    )
}

#[test]
fn json_within_the_limits_passes() {
    let order = order();
    let whole = [
        "{}",
        "[]",
        "0",
        "-0",
        "null",
        "true",
        "false",
        "\"\"",
        " [ ] ",
        "\t{\r\n}\n",
        "[[],{},[{}]]",
        "[1,2,3]",
        r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#,
        r#""\"\\\/\n\r\t""#,
        r#""\u0041\u00e9\ud83d\ude00""#,
        r#""é😀\u007e""#,
        r#"{"":1,"a~b":2,"a/b":3}"#,
        "1e308",
        "-1.7976931348623157e308",
        "1E-400",
        "0.1e+2",
        "123456789012345678901234567890",
        r#"{"a":1,"A":2}"#,
        "\"plain text that is longer than one word\"",
        &order,
    ];
    for json in whole {
        assert_eq!(check_json(json.as_bytes(), &JsonLimits::default()), Ok(()), "{json}");
    }
}

/// Texts that are refused, and the rule that each one breaks.
const REFUSED: &[(&[u8], JsonRule)] = &[
    (b"", Syntax),
    (b"  ", Syntax),
    (b"{", Syntax),
    (b"[1", Syntax),
    (b"[1,]", Syntax),
    (b"[,1]", Syntax),
    (b"[1 2]", Syntax),
    (b"[1}", Syntax),
    (b"{\"a\":1]", Syntax),
    (b"{\"a\"}", Syntax),
    (b"{\"a\":}", Syntax),
    (b"{\"a\":1,}", Syntax),
    (b"{a:1}", Syntax),
    (b"{1:1}", Syntax),
    (b"'a'", Syntax),
    (b"\"a", Syntax),
    (b"\"\\x41\"", Syntax),
    (b"\"\\u12g4\"", Syntax),
    (b"\"\\u12", Syntax),
    (b"\"\\", Syntax),
    (b"tru", Syntax),
    (b"True", Syntax),
    (b"nul1", Syntax),
    (b"1 1", Syntax),
    (b"{} x", Syntax),
    (b"/* */ 1", Syntax),
    (b"\xef\xbb\xbf1", Syntax),
    (b"01", Syntax),
    (b"+1", Syntax),
    (b".5", Syntax),
    (b"0x1", Syntax),
    (b"1.", Syntax),
    (b"1e", Syntax),
    (b"-", Syntax),
    (b"1.e1", Number),
    (b"-a", Number),
    (b"1e+x", Number),
    (b"NaN", Number),
    (b"[-Infinity]", Number),
    (b"Infinity", Number),
    (b"1e400", Number),
    (b"-1e309", Number),
    (b"1e99999999999999999999", Number),
    (b"{\"a\":1,\"a\":2}", DuplicateKey),
    (b"{\"a\":1,\"\\u0061\":2}", DuplicateKey),
    (b"{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}", DuplicateKey),
    (b"{\"/\":1,\"\\/\":2}", DuplicateKey),
    (b"{\"\":1,\"\":2}", DuplicateKey),
    (b"[\"\\ud800\"]", Surrogate),
    (b"[\"\\udc00\"]", Surrogate),
    (b"\"\\ud800\\ud800\"", Surrogate),
    (b"\"\\ud800x\"", Surrogate),
    (b"{\"\\udfff\":1}", Surrogate),
    (b"\"\\u0000\"", ControlCharacter),
    (b"\"\\u001f\"", ControlCharacter),
    (b"\"\\u007f\"", ControlCharacter),
    (b"\"\\b\"", ControlCharacter),
    (b"\"\\f\"", ControlCharacter),
    (b"{\"a\\u0000\":1}", ControlCharacter),
    (b"\"a\nb\"", ControlCharacter),
    (b"\"1234567\x7f\"", ControlCharacter),
    (b"\"1234567\x00\"", ControlCharacter),
    (b"\"\xff\"", Utf8),
    (b"{\"a\":\"\xc3\x28\"}", Utf8),
    (b"[1]\x80", Utf8),
    (b"\"\xed\xa0\x80\"", Utf8),
];

#[test]
fn each_rule_is_told_by_its_name() {
    for (json, rule) in REFUSED {
        assert_eq!(rule_of(json), Some(*rule), "{}", json.escape_ascii());
    }
}

#[test]
fn every_limit_holds_exactly() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!((rule_of(nested(64)), rule_of(nested(65))), (None, Some(JsonRule::Depth)));
    assert_eq!(rule_of(object(0..1_000)), None);
    assert_eq!(rule_of(object(0..1_001)), Some(JsonRule::Keys));
    let objects = |count: usize| format!("[{}]", vec![object(0..100); count].join(","));
    assert_eq!((rule_of(objects(100)), rule_of(objects(101))), (None, Some(JsonRule::Keys)));
    let values = |count: usize| format!("[{}]", vec!["0"; count - 1].join(","));
    assert_eq!((rule_of(values(100_000)), rule_of(values(100_001))), (None, Some(JsonRule::Values)));
    let string = |bytes: usize| format!("\"{}\"", "a".repeat(bytes));
    assert_eq!((rule_of(string(262_144)), rule_of(string(262_145))), (None, Some(JsonRule::StringBytes)));
    assert_eq!((rule_of("1".repeat(64)), rule_of("1".repeat(65))), (None, Some(JsonRule::Number)));
    let long = JsonLimits { number_bytes_max: 400, ..JsonLimits::default() };
    assert_eq!(check_json("9".repeat(308).as_bytes(), &long), Ok(()));
    assert_eq!(check_json("9".repeat(310).as_bytes(), &long).unwrap_err().rule, JsonRule::Number);
}

#[test]
fn a_key_is_found_again_among_few_and_among_many() {
    for keys in [1, 2, 31, 32, 33, 63, 64, 65, 990] {
        let whole = object(0..keys);
        assert_eq!(rule_of(&whole), None, "{keys}");
        for again in [0, keys / 2, keys - 1] {
            let twice = format!("{},\"\\u006bey{again}\":[]}}", whole.trim_end_matches('}'));
            assert_eq!(rule_of(&twice), Some(JsonRule::DuplicateKey), "{keys} {again}");
        }
        // Objects around and beside it have keys of their own, and what they had before it is not forgotten.
        let beside = format!("{{\"key0\":{whole},\"key1\":{whole},\"c\":[{whole},{whole}]}}");
        assert_eq!(rule_of(&beside), None, "{keys}");
        let inner = format!("{},\"inner\":{whole},\"key0\":1}}", whole.trim_end_matches('}'));
        assert_eq!(rule_of(inner), Some(JsonRule::DuplicateKey), "{keys}");
    }
}

#[test]
fn keys_of_every_length_are_told_apart() {
    let key = "abcdefghijklmnopqrstuvwxyz";
    let members: Vec<String> = (0..=key.len()).map(|bytes| format!("\"{}\":0", &key[..bytes])).collect();
    assert_eq!(rule_of(format!("{{{}}}", members.join(","))), None);
    for bytes in 0..=key.len() {
        let escaped: String = key[..bytes].chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        let twice = format!("{{\"{}\":0,\"{escaped}\":0}}", &key[..bytes]);
        assert_eq!(rule_of(twice), Some(JsonRule::DuplicateKey), "{bytes}");
        // With its last key at the very end, a whole word cannot be read.
        assert_eq!(rule_of(format!("{{\"{key}\":0,\"{}", &key[..bytes])), Some(JsonRule::Syntax));
    }
}

#[test]
fn a_fault_says_where_and_never_what_the_value_is() {
    let cases = [
        (r#"{"items":[{"id":1},{"id":2},{"a":0,"id":3,"id":4}]}"#, "data at /items/2/id: duplicate key"),
        (r#"{"a":{"b/c~d":[1e999]}}"#, "data at /a/b~1c~0d/0: number larger than a 64-bit float at byte 15"),
        (r#"{"\u0061\n":nope}"#, "data at /a\n: expected a value at byte 12"),
        ("[1,2 secret]", "data at /1: expected ',' or ']' at byte 5"),
        ("[\"secret\\u0001\"]", "data at /0: escaped control character at byte 8"),
        (r#"{"a":1,"secret\ud800":1}"#, "data: lone surrogate at byte 14"),
        ("", "data: expected a value at byte 0"),
        ("{} {}", "data: expected the end of the text at byte 3"),
        ("[[-Infinity]]", "data at /0/0: infinity, which JSON does not have, at byte 3"),
    ];
    for (json, text) in cases {
        assert_eq!(fault_of(json), text);
    }
    assert_eq!(fault_of(b"{\"name\":\"\xff\"}"), "data at /name: bytes that are not UTF-8 at byte 9");
    assert_eq!(
        fault_of("[".repeat(65)),
        format!("data at {}: nested deeper than 64 (depth_max)", "/0".repeat(64))
    );
    assert_eq!(JsonRule::DuplicateKey.to_string(), "duplicate_key");
}

#[test]
fn a_long_pointer_is_cut() {
    for key in ["k".repeat(1_000), "é".repeat(500), "\\u00e9".repeat(500), "~".repeat(400)] {
        let fault =
            check_json(format!("{{\"{key}\":[oops]}}").as_bytes(), &JsonLimits::default()).unwrap_err();
        assert!((250..=256).contains(&fault.pointer.len()), "{}", fault.pointer.len());
        assert!(fault.pointer.ends_with('…') && !fault.pointer.contains('\u{fffd}'), "{}", fault.pointer);
    }
}

/// Peak bytes on the heap while `json` is checked, and allocations.
fn cost(json: &str) -> (u64, u64) {
    // What is made once in a process is made before.
    assert_eq!(rule_of(r#"{"a":1}"#), None);
    let limits = JsonLimits::default();
    let measured = allocation_counter::measure(|| {
        let _either = std::hint::black_box(check_json(json.as_bytes(), &limits));
    });
    (measured.bytes_max, measured.count_total)
}

#[test]
fn memory_is_bounded_by_the_limits_and_not_by_the_text() {
    assert_eq!(cost(&order()), (0, 0));
    let wide = (0..100_000).map(|key| format!("\"k{key:05}\":0")).collect::<Vec<_>>().join(",");
    let many: Vec<String> = (0..1_000).map(|from| object(from..from + 100)).collect();
    // Of each of nine objects inside one another, all keys are known at once.
    let nested = (0..12).fold("0".to_owned(), |inner, _| {
        format!("{},\"inner\":{inner}}}", object(0..998).trim_end_matches('}'))
    });
    let texts = [
        "[".repeat(10_000),
        "[".repeat(10_000) + &"]".repeat(10_000),
        "{\"a\":".repeat(10_000),
        format!("{{{wide}}}"),
        format!("[{}]", many.join(",")),
        nested,
        format!("{{\"{}\":oops}}", "\\u0061".repeat(40_000)),
        format!("\"{}\"", "a".repeat(1 << 20)),
        "1".repeat(1 << 20),
    ];
    for json in texts {
        let (bytes, _) = cost(&json);
        assert!(bytes < 400_000, "{bytes} bytes for a text of {} bytes", json.len());
        assert!(rule_of(&json).is_some());
    }
}

/// Whether serde_json, which goes by the same RFC, takes `json`.
fn is_json(json: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(json).is_ok()
}

/// Rules that serde_json does not have: of the limits, only depth, and that at 128.
fn is_ours_alone(rule: JsonRule) -> bool {
    matches!(
        rule,
        JsonRule::Depth
            | JsonRule::Keys
            | JsonRule::Values
            | JsonRule::StringBytes
            | JsonRule::DuplicateKey
            | JsonRule::ControlCharacter
    )
}

/// Pieces of which texts are made that are JSON, or nearly.
fn near_json() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&'static [u8]> = vec![
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\"a\"",
        b"\"b\":",
        b"\"a\":1",
        b"\"\\u0061\":",
        b"0",
        b"-",
        b"12",
        b".5",
        b"e9",
        b"E-400",
        b"1e308",
        b"true",
        b"false",
        b"null",
        b" ",
        b"\n",
        b"\"\\ud83d\\ude00\"",
        b"\"\\ud800\"",
        b"\\u00e9",
        b"\xc3\xa9",
        b"\xff",
        b"\x7f",
        b"\x00",
        b"\"long enough for two words\"",
        b"NaN",
        b"\\n",
        b"\\/",
    ];
    proptest::collection::vec(proptest::sample::select(pieces), 0..24).prop_map(|pieces| pieces.concat())
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[^\\x00-\\x1f\\x7f]{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 200, 40, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..40).prop_map(Into::into),
            proptest::collection::btree_map("[^\\x00-\\x1f\\x7f]{0,12}", inner, 0..40)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_nearly_json_is_judged_as_serde_json_does(json in near_json()) {
        match rule_of(&json) {
            None => prop_assert!(is_json(&json), "{}", json.escape_ascii()),
            Some(rule) if is_ours_alone(rule) => {}
            Some(rule) => prop_assert!(!is_json(&json), "{rule}: {}", json.escape_ascii()),
        }
    }

    #[test]
    fn what_serde_json_writes_passes_and_one_changed_byte_is_judged_alike(
        value in any_json(), at: prop::sample::Index, byte: u8,
    ) {
        for mut json in [serde_json::to_vec(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
            prop_assert_eq!(rule_of(&json), None);
            let at = at.index(json.len());
            json[at] = byte;
            match rule_of(&json) {
                None => prop_assert!(is_json(&json)),
                Some(rule) if is_ours_alone(rule) => {}
                Some(rule) => prop_assert!(!is_json(&json), "{}: {}", rule, json.escape_ascii()),
            }
        }
    }

    #[test]
    fn any_bytes_are_judged_without_panic(json in proptest::collection::vec(any::<u8>(), 0..100)) {
        if rule_of(&json).is_none() {
            prop_assert!(is_json(&json));
        }
    }
}
