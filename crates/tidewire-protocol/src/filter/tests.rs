use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::limits::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_NODES_MAX, FILTER_VALUES_MAX};

fn compare<'a>(key: &'a str, cmp: &'a str, val: &'a str) -> FilterNode<'a> {
    FilterNode { key: key.into(), cmp: cmp.into(), val: val.into(), ..Default::default() }
}

fn list<'a>(key: &'a str, cmp: &'a str, vals: &[&'a str]) -> FilterNode<'a> {
    let vals = vals.iter().map(|value| Cow::Borrowed(*value)).collect();
    FilterNode { key: key.into(), cmp: cmp.into(), vals, ..Default::default() }
}

fn all_of<'a>(op: &'a str, nodes: impl Into<Vec<FilterNode<'a>>>) -> FilterNode<'a> {
    FilterNode { op: op.into(), nodes: nodes.into(), ..Default::default() }
}

fn admits(node: &FilterNode<'_>, tags: &[(&str, &str)]) -> bool {
    let tags: HashMap<&str, &str> = tags.iter().copied().collect();
    Filter::new(node).unwrap().admits(|key| tags.get(key).copied())
}

fn refusal(node: &FilterNode<'_>) -> FilterError {
    Filter::new(node).unwrap_err()
}

/// The comparison, then whether it admits each of: the tag `a` is `42`, is `abc`, is empty, is absent.
#[test]
fn each_comparison_answers_by_its_rule() {
    const YES: bool = true;
    const NO: bool = false;
    let rules = [
        (compare("a", "eq", "42"), [YES, NO, NO, NO]),
        (compare("a", "eq", "42.0"), [NO, NO, NO, NO]),
        (compare("a", "neq", "42"), [NO, YES, YES, YES]),
        (list("a", "in", &["x", "42", "b"]), [YES, NO, NO, NO]),
        (list("a", "in", &["", "x"]), [NO, NO, YES, YES]),
        (list("a", "nin", &["x", "42", "b"]), [NO, YES, YES, YES]),
        (list("a", "nin", &["", "x"]), [YES, YES, NO, NO]),
        (compare("a", "ex", ""), [YES, YES, YES, NO]),
        (compare("a", "nex", ""), [NO, NO, NO, YES]),
        (compare("", "ex", ""), [NO, NO, NO, NO]),
        (compare("a", "sw", "4"), [YES, NO, NO, NO]),
        (compare("a", "sw", "2"), [NO, NO, NO, NO]),
        (compare("a", "ew", "bc"), [NO, YES, NO, NO]),
        (compare("a", "ew", "ab"), [NO, NO, NO, NO]),
        (compare("a", "ct", "b"), [NO, YES, NO, NO]),
        (compare("a", "ct", "B"), [NO, NO, NO, NO]),
        (compare("a", "gt", "41.9"), [YES, NO, NO, NO]),
        (compare("a", "gt", "42"), [NO, NO, NO, NO]),
        (compare("a", "gte", "42.0"), [YES, NO, NO, NO]),
        (compare("a", "lt", "100"), [YES, NO, NO, NO]),
        (compare("a", "lt", "42"), [NO, NO, NO, NO]),
        (compare("a", "lte", "42"), [YES, NO, NO, NO]),
        (compare("a", "gt", "abb"), [NO, NO, NO, NO]),
        (all_of("not", [compare("a", "gt", "abb")]), [YES, YES, YES, YES]),
        (all_of("not", [compare("a", "lt", "100")]), [NO, YES, YES, YES]),
        (all_of("and", [compare("a", "gt", "41"), compare("a", "ct", "4")]), [YES, NO, NO, NO]),
        (all_of("or", [compare("a", "nex", ""), compare("a", "eq", "abc")]), [NO, YES, NO, YES]),
    ];
    for (node, expected) in rules {
        let events: [&[(&str, &str)]; 4] = [&[("a", "42")], &[("a", "abc"), ("b", "42")], &[("a", "")], &[]];
        assert_eq!(events.map(|tags| admits(&node, tags)), expected, "{node:?}");
    }
}

#[test]
fn operations_nest() {
    let prod = all_of("and", [compare("env", "eq", "prod"), list("region", "in", &["us", "eu"])]);
    let quiet = all_of("not", [compare("debug", "ex", "")]);
    let filter = all_of("or", [prod, all_of("and", [compare("tier", "neq", "bronze"), quiet])]);
    assert!(admits(&filter, &[("env", "prod"), ("region", "us"), ("debug", "1")]));
    assert!(admits(&filter, &[("env", "staging")]));
    assert!(!admits(&filter, &[("env", "staging"), ("debug", "1")]));
    assert!(!admits(&filter, &[("tier", "bronze")]));
}

#[test]
fn numbers_are_compared_as_decimals() {
    use Ordering::{Equal, Greater, Less};
    let pairs = [
        ("42", "42.00000001", Less),
        ("41.99999999", "42", Less),
        ("9", "10", Less),
        ("-9", "-10", Greater),
        ("-1", "1", Less),
        ("-0.0", "0", Equal),
        ("+1.50", "001.5", Equal),
        ("0.5", "0.45", Greater),
        ("1.05", "1.5", Less),
        ("123456789012345678901234567890123456789", "123456789012345678901234567890123456788", Greater),
        ("0.0000000000000000001", "0", Greater),
    ];
    for (left, right, expected) in pairs {
        let holds = |cmp| admits(&compare("a", cmp, right), &[("a", left)]);
        let found = ["lt", "lte", "gt", "gte"].map(holds);
        let wanted = [expected.is_lt(), expected.is_le(), expected.is_gt(), expected.is_ge()];
        assert_eq!(found, wanted, "{left} and {right}");
    }
}

#[test]
fn what_is_no_decimal_compares_with_nothing() {
    let long = "1".repeat(201);
    let others =
        ["", "+", "-", ".5", "-.5", "1.", "1.2.3", "1e3", "0x10", " 1", "1 ", "--1", "NaN", "inf", "١"];
    for text in others.into_iter().chain(["0.00000000000000000001", &long]) {
        for cmp in ["lt", "lte", "gt", "gte"] {
            assert!(!admits(&compare("a", cmp, "0"), &[("a", text)]), "{text} {cmp} 0");
            if !text.is_empty() {
                assert!(!admits(&compare("a", cmp, text), &[("a", "0")]), "0 {cmp} {text}");
            }
        }
    }
    assert!(admits(&compare("a", "gt", "0"), &[("a", &long[..200])]));
}

#[test]
fn what_is_wrong_is_named() {
    let leaf = || compare("a", "eq", "1");
    let both = |cmp| FilterNode { vals: vec!["x".into()], ..compare("a", cmp, "1") };
    let unexpected = |comparison, field| FilterError::UnexpectedValue { comparison, field };
    let missing = |comparison, field| FilterError::MissingValue { comparison, field };
    let cases = [
        (FilterNode::default(), FilterError::MissingComparison),
        (compare("a", "", "1"), FilterError::MissingComparison),
        (compare("a", "like", "1"), FilterError::UnknownComparison("like".into())),
        (compare("a", "EQ", "1"), FilterError::UnknownComparison("EQ".into())),
        (all_of("xor", [leaf()]), FilterError::UnknownOp("xor".into())),
        (compare("", "eq", "1"), FilterError::MissingKey("eq")),
        (compare("", "gt", "1"), FilterError::MissingKey("gt")),
        (list("", "in", &["1"]), FilterError::MissingKey("in")),
        (compare("a", "sw", ""), missing("sw", "val")),
        (compare("a", "lte", ""), missing("lte", "val")),
        (compare("a", "nin", ""), missing("nin", "vals")),
        (compare("a", "in", "1"), missing("in", "vals")),
        (both("neq"), unexpected("neq", "vals")),
        (both("in"), unexpected("in", "val")),
        (both("ex"), unexpected("ex", "val")),
        (list("a", "nex", &["1"]), unexpected("nex", "vals")),
        (all_of("and", []), FilterError::WrongNodeCount { op: "and", count: 0, needed: "at least one" }),
        (all_of("or", []), FilterError::WrongNodeCount { op: "or", count: 0, needed: "at least one" }),
        (all_of("not", []), FilterError::WrongNodeCount { op: "not", count: 0, needed: "one" }),
        (all_of("not", [leaf(), leaf()]), FilterError::WrongNodeCount { op: "not", count: 2, needed: "one" }),
    ];
    for (node, error) in cases {
        assert_eq!(refusal(&node), error);
        assert_eq!(refusal(&all_of("or", [leaf(), all_of("not", [node])])), error);
    }
    let long = "x".repeat(10_000);
    assert!(refusal(&compare("a", &long, "1")).to_string().len() < 100);
    assert_eq!(refusal(&compare("", "eq", "1")).to_string(), "filter's `eq` needs a key");
}

#[test]
fn a_filter_at_its_bounds_is_taken_and_one_over_them_is_not() {
    let leaf = || compare("a", "eq", "1");
    let nested = |depth| (1..depth).fold(leaf(), |node, _| all_of("not", [node]));
    assert!(Filter::new(&nested(FILTER_DEPTH_MAX)).is_ok());
    assert_eq!(refusal(&nested(FILTER_DEPTH_MAX + 1)), FilterError::TooDeep);

    let wide = |count: usize| all_of("and", vec![leaf(); count - 1]);
    assert!(Filter::new(&wide(FILTER_NODES_MAX)).is_ok());
    assert_eq!(refusal(&wide(FILTER_NODES_MAX + 1)), FilterError::TooManyNodes);

    let half = list("a", "in", &vec!["x"; FILTER_VALUES_MAX / 2]);
    assert!(Filter::new(&all_of("or", [half.clone(), half.clone()])).is_ok());
    let over = all_of("or", [half.clone(), half, list("a", "in", &["x"])]);
    assert_eq!(refusal(&over), FilterError::TooManyValues);

    let text = "x".repeat(FILTER_BYTES_MAX);
    assert!(Filter::new(&compare("a", "eq", &text[1..])).is_ok());
    assert_eq!(refusal(&compare("a", "eq", &text)), FilterError::TooLarge);
}

#[test]
fn filters_that_say_the_same_are_one() {
    let same = [
        list("a", "in", &["x", "y"]),
        list("a", "in", &["y", "x", "y"]),
        FilterNode { nodes: vec![FilterNode::default()], ..list("a", "in", &["y", "x"]) },
    ];
    let numbers = [compare("a", "gt", "1.5"), compare("a", "gt", "+01.50")];
    let operations = [
        all_of("not", [compare("a", "ex", "")]),
        FilterNode { key: "b".into(), val: "c".into(), ..all_of("not", [compare("a", "ex", "")]) },
    ];
    for nodes in [&same[..], &numbers, &operations] {
        let filters: HashSet<Filter> = nodes.iter().map(|node| Filter::new(node).unwrap()).collect();
        assert_eq!(filters.len(), 1, "{nodes:?}");
    }
    assert_ne!(Filter::new(&same[0]), Filter::new(&list("a", "nin", &["x", "y"])));
    assert_ne!(Filter::new(&numbers[0]), Filter::new(&compare("a", "gte", "1.5")));
}

/// As the published JavaScript SDK sends it.
#[test]
fn a_filter_travels_without_its_empty_fields() {
    let json = r#"{"op":"and","nodes":[{"key":"ticker","cmp":"eq","val":"BTC"},{"key":"kind","cmp":"in","vals":["a","b\n"]}]}"#;
    let node: FilterNode<'_> = serde_json::from_str(json).unwrap();
    assert_eq!(node, all_of("and", [compare("ticker", "eq", "BTC"), list("kind", "in", &["a", "b\n"])]));
    assert_eq!(serde_json::to_string(&node).unwrap(), json);
    assert!(matches!(node.nodes[0].key, Cow::Borrowed("ticker")));
}

fn any_node() -> impl Strategy<Value = FilterNode<'static>> {
    let word = || prop_oneof![Just(""), Just("a"), Just("b"), Just("1"), Just("-2.5")];
    let cmp = proptest::sample::select(
        ["", "eq", "neq", "in", "nin", "ex", "nex", "sw", "ew", "ct", "lt", "lte", "gt", "gte", "?"]
            .as_slice(),
    );
    let vals = proptest::collection::vec(word().prop_map(Cow::Borrowed), 0..3);
    let leaf = (word(), cmp, word(), vals)
        .prop_map(|(key, cmp, val, vals)| FilterNode { vals, ..compare(key, cmp, val) });
    leaf.prop_recursive(4, 24, 3, |node| {
        let op = proptest::sample::select(["and", "or", "not", "nor"].as_slice());
        (op, proptest::collection::vec(node, 0..3)).prop_map(|(op, nodes)| all_of(op, nodes))
    })
}

proptest! {
    #[test]
    fn any_filter_answers_or_is_refused_and_not_turns_the_answer(node in any_node(), tag in "[ab12.-]{0,3}") {
        let tags = |key: &str| (key == "a").then_some(&*tag);
        if let Ok(filter) = Filter::new(&node) {
            let turned = Filter::new(&all_of("not", [node])).unwrap();
            prop_assert_ne!(filter.admits(tags), turned.admits(tags));
        }
    }
}
