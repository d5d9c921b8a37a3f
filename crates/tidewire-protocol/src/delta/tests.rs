use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

const BYTES_MAX: usize = DELTA_BYTES_MAX;

/// Written by the npm package `fossil-delta` 2.0.0.
const GOLDEN: &[(&str, &str, &str)] = &[
    (
        r#"{"symbol":"ACME","price":"101.25","market":"open"}"#,
        r#"{"symbol":"ACME","price":"101.50","market":"open"}"#,
        "n\nU@0,2:50I@W,3O_BEU;",
    ),
    (
        r#"{"first":"aaaaaaaaaaaaaaaaaaaaaaaa","second":"bbbbbbbbbbbbbbbbbbbbbbbb"}"#,
        r#"{"second":"bbbbbbbbbbbbbbbbbbbbbbbb","first":"aaaaaaaaaaaaaaaaaaaaaaaa"}"#,
        "18\nB:{\"second\":\"M@l,D:bb\",\"first\":\"I@G,8:aaaaaa\"}1l6eU5;",
    ),
    (
        r#"{"name":"Zoë 日本語 😀","city":"Köln","text":"the rest of it stays as it was"}"#,
        r#"{"name":"Zoé 日本語 😁","city":"Köln","text":"the rest of it stays as it was"}"#,
        "1L\nS:{\"name\":\"Zoé 日本語 😁u@S,bnW7N;",
    ),
    ("{}", r#"{"a":1}"#, "7\n7:{\"a\":1}2qKytY;"),
    (r#"{"a":"0123456789abcdef0123456789"}"#, "", "0\n0;"),
];

/// The same, of bytes: from the 200 bytes 0, 7, 14, … the second half, three others, the first half.
const GOLDEN_BYTES: &[u8] = b"3B\n1_@1_,3:\xFF\xFE\x001_@0,337st9;";

/// What texts are made of; some of the letters differ in their last byte only.
const PARTS: &[&str] = &[
    "\"price\":",
    "101.25",
    "é",
    "è",
    "日",
    "旦",
    "😀",
    "😁",
    "e\u{301}",
    "{",
    "},",
    "x",
    "aaaaaaaa",
    "Привет",
];

#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, String),
    Remove(Index, usize),
    Move(Index, usize, Index),
    Replace(Index, String),
}

fn text(size: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    vec(select(PARTS), size).prop_map(|parts| parts.concat())
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), text(1..6)).prop_map(|(at, text)| Edit::Insert(at, text)),
        (any::<Index>(), 1..40usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        (any::<Index>(), 1..40usize, any::<Index>()).prop_map(|(at, count, to)| Edit::Move(at, count, to)),
        (any::<Index>(), text(1..3)).prop_map(|(at, text)| Edit::Replace(at, text)),
    ]
}

fn edited<T: Clone>(old: &[T], edits: &[Edit], of_text: impl Fn(&str) -> Vec<T>) -> Vec<T> {
    let mut new = old.to_vec();
    for edit in edits {
        let place = |at: &Index, new: &[T]| at.index(new.len() + 1);
        match edit {
            Edit::Insert(at, text) => {
                let at = place(at, &new);
                new.splice(at..at, of_text(text));
            }
            Edit::Remove(at, count) => {
                let at = place(at, &new);
                new.drain(at..new.len().min(at + count));
            }
            Edit::Move(at, count, to) => {
                let at = place(at, &new);
                let moved: Vec<T> = new.drain(at..new.len().min(at + count)).collect();
                let to = place(to, &new);
                new.splice(to..to, moved);
            }
            Edit::Replace(at, text) => {
                let (at, text) = (place(at, &new), of_text(text));
                new.splice(at..new.len().min(at + text.len()), text);
            }
        }
    }
    new
}

fn check(old: &[u8], new: &[u8], delta: &[u8]) {
    assert!(delta.len() < new.len());
    assert_eq!(apply(old, delta, new.len()).unwrap(), new);
}

proptest! {
    #[test]
    fn an_edited_text_comes_back(old in text(0..120), edits in vec(edit(), 0..6)) {
        let chars: Vec<char> = old.chars().collect();
        let new: String = edited(&chars, &edits, |text| text.chars().collect()).iter().collect();
        if let Some(delta) = create_text(&old, &new) {
            check(old.as_bytes(), new.as_bytes(), delta.as_bytes());
        }
        if let Some(delta) = create(old.as_bytes(), new.as_bytes()) {
            check(old.as_bytes(), new.as_bytes(), &delta);
        }
    }

    #[test]
    fn edited_bytes_come_back(old in vec(0u8..4, 0..600), edits in vec(edit(), 0..6)) {
        let new = edited(&old, &edits, |text| text.bytes().collect());
        if let Some(delta) = create(&old, &new) {
            check(&old, &new, &delta);
        }
    }

    #[test]
    fn a_small_edit_of_a_long_text_makes_a_short_delta(old in text(120..200), edit in edit()) {
        let chars: Vec<char> = old.chars().collect();
        let new: String = edited(&chars, &[edit], |text| text.chars().collect()).iter().collect();
        let delta = create_text(&old, &new).unwrap();
        prop_assert!(delta.len() < new.len() / 2, "{} of {}", delta.len(), new.len());
        check(old.as_bytes(), new.as_bytes(), delta.as_bytes());
    }

    #[test]
    fn any_bytes_are_applied_or_refused(old in vec(any::<u8>(), 0..60), delta in vec(any::<u8>(), 0..60)) {
        let _refused = apply(&old, &delta, 100);
    }

    /// What looks like commands reaches further into the reader than noise does.
    #[test]
    fn any_commands_are_applied_or_refused(old in "[a-z]{0,60}", delta in "[0-9A-Z]{1,2}\n([0-9A-Z~]{1,2}[@:;,][0-9A-Z]{0,3},?){0,6}") {
        if let Ok(new) = apply(old.as_bytes(), delta.as_bytes(), 100) {
            prop_assert!(new.len() <= 100);
        }
    }

    #[test]
    fn a_damaged_delta_is_refused_or_makes_as_much(old in text(40..80), edit in edit(), at in any::<Index>(), byte in any::<u8>()) {
        let chars: Vec<char> = old.chars().collect();
        let new: String = edited(&chars, &[edit], |text| text.chars().collect()).iter().collect();
        let mut delta = create_text(&old, &new).unwrap().into_bytes();
        let at = at.index(delta.len());
        delta[at] = byte;
        if let Ok(made) = apply(old.as_bytes(), &delta, BYTES_MAX) {
            prop_assert_eq!(made.len(), new.len());
        }
    }
}

#[test]
fn deltas_of_another_writer_are_applied() {
    for (old, new, delta) in GOLDEN {
        assert_eq!(apply(old.as_bytes(), delta.as_bytes(), BYTES_MAX).unwrap(), new.as_bytes(), "{delta}");
    }
    let old: Vec<u8> = (0..200u32).map(|i| (i * 7).to_le_bytes()[0]).collect();
    let new = [&old[100..], &[255, 254, 0], &old[..100]].concat();
    assert_eq!(apply(&old, GOLDEN_BYTES, BYTES_MAX).unwrap(), new);
    assert_eq!(create(&old, &new).unwrap(), GOLDEN_BYTES);
}

#[test]
fn moved_blocks_are_copied() {
    let (old, new, theirs) = GOLDEN[1];
    let delta = create_text(old, new).unwrap();
    assert!(delta.len() <= theirs.len(), "{delta}");
    check(old.as_bytes(), new.as_bytes(), delta.as_bytes());
}

/// 日 is E6 97 A5, 旦 is E6 97 A6: the common begin of the bytes ends within a character.
#[test]
fn a_text_delta_cuts_no_character() {
    let filling = "0123456789abcdefghijklmnopqrstuvwxyz".repeat(2);
    let [old, new] = ["日", "旦"].map(|letter| format!("{filling}{letter}{filling}"));
    assert!(String::from_utf8(create(old.as_bytes(), new.as_bytes()).unwrap()).is_err());
    let delta = create_text(&old, &new).unwrap();
    assert!(delta.contains("3:旦"), "{delta}");
    check(old.as_bytes(), new.as_bytes(), delta.as_bytes());
}

#[test]
fn what_no_delta_shortens_has_none() {
    let old = "0123456789abcdef".repeat(4);
    assert_eq!(create_text(&old, &"ABCDEFGHIJKLMNOP".repeat(4)), None);
    assert_eq!(create_text(&old, &old[..DELTA_BYTES_MIN - 1]), None);
    assert_eq!(create_text(&old[..DELTA_BYTES_MIN - 1], &old), None);
    assert!(create_text(&old, &old[..DELTA_BYTES_MIN]).is_some());

    let large = vec![0; DELTA_BYTES_MAX + 1];
    assert_eq!(create(&large, old.as_bytes()), None);
    assert_eq!(create(&large[1..], &large), None);
    assert!(create(&large[1..], &large[1..]).is_some());
}

#[test]
fn each_fault_of_a_delta_has_its_name() {
    let old = b"0123456789";
    let cases: &[(&[u8], DeltaError)] = &[
        (b"", DeltaError::CutShort),
        (b"3", DeltaError::CutShort),
        (b"3\n", DeltaError::CutShort),
        (b"3\n3", DeltaError::CutShort),
        (b"3\n3@0", DeltaError::CutShort),
        (b"3\n3:ab", DeltaError::CutShort),
        (b"3\n3:abc", DeltaError::CutShort),
        (b"\n3:abc", DeltaError::Malformed { at: 0 }),
        (b"3 3:abc", DeltaError::Malformed { at: 1 }),
        (b"3\n3?abc", DeltaError::Malformed { at: 3 }),
        (b"3\n3@0;", DeltaError::Malformed { at: 5 }),
        (b"3\n~~~~~~:abc", DeltaError::Malformed { at: 2 }),
        (b"0\n0;0", DeltaError::Malformed { at: 4 }),
        (b"3\n3@8,", DeltaError::OutOfBounds),
        (b"3\n3@3~~~~~,", DeltaError::OutOfBounds),
        (b"3\n4:abcd", DeltaError::WrongSize),
        (b"3\n4@0,", DeltaError::WrongSize),
        (b"3\n2:ab0;", DeltaError::WrongSize),
        (b"3\n3:abc0;", DeltaError::WrongChecksum),
        (b"1c\n", DeltaError::TooLarge { bytes: 103, bytes_max: 100 }),
        (b"3~~~~~\n", DeltaError::TooLarge { bytes: u32::MAX as usize, bytes_max: 100 }),
    ];
    for (delta, error) in cases {
        let shown = String::from_utf8_lossy(delta);
        assert_eq!(apply(old, delta, 100), Err(*error), "{shown}");
    }
}

#[test]
fn a_delta_for_other_data_is_refused() {
    let (old, new, delta) = GOLDEN[0];
    let other = old.replace("ACME", "EMCA");
    assert_eq!(apply(other.as_bytes(), delta.as_bytes(), new.len()), Err(DeltaError::WrongChecksum));
    assert_eq!(apply(&other.as_bytes()[..40], delta.as_bytes(), new.len()), Err(DeltaError::OutOfBounds));
}

#[test]
fn numbers_are_read_as_they_are_written() {
    for value in [0, 1, 63, 64, 4095, 4096, 1 << 20, u32::MAX as usize] {
        let mut text = Vec::new();
        number::write(&mut text, value);
        assert_eq!(text.len(), number::digit_count(value) as usize);
        let read = text.iter().fold(0, |read, digit| read * 64 + number::value(*digit).unwrap() as usize);
        assert_eq!(read, value);
    }
}
