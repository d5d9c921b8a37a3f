use proptest::prelude::*;

use super::*;

fn decode_all(pieces: &[&[u8]]) -> Result<Vec<Value>, ProtocolError> {
    let mut decoder = Decoder::default();
    let mut values = Vec::new();
    for piece in pieces {
        decoder.buffer().extend_from_slice(piece);
        decoder.decode(&mut values)?;
    }
    Ok(values)
}

fn bulk(text: &str) -> Value {
    Value::Bulk(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn reads_every_type_of_resp3() {
    let wire = b"_\r\n#t\r\n:-7\r\n,1.5\r\n(123456789012345678901\r\n+OK\r\n$2\r\nhi\r\n=6\r\ntxt:ab\r\n-ERR no\r\n\
        !5\r\nERR x\r\n*2\r\n:1\r\n$-1\r\n~1\r\n:1\r\n%1\r\n+k\r\n:2\r\n>2\r\n+message\r\n+x\r\n*0\r\n*-1\r\n";
    let values = decode_all(&[wire]).unwrap();
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert_eq!(
        values,
        [
            Value::Null,
            Value::Bool(true),
            Value::Int(-7),
            Value::Double(1.5),
            Value::BigNumber(text("123456789012345678901")),
            Value::Simple(text("OK")),
            bulk("hi"),
            Value::Verbatim(text("ab")),
            Value::Error(text("ERR no")),
            Value::Error(text("ERR x")),
            Value::Array(vec![Value::Int(1), Value::Null]),
            Value::Set(vec![Value::Int(1)]),
            Value::Map(vec![(Value::Simple(text("k")), Value::Int(2))]),
            Value::Push(vec![Value::Simple(text("message")), Value::Simple(text("x"))]),
            Value::Array(vec![]),
            Value::Null,
        ]
    );
}

#[test]
fn skips_attributes_wherever_they_stand() {
    let wire = b"|1\r\n+ttl\r\n:3\r\n*2\r\n|1\r\n+a\r\n*1\r\n:9\r\n:1\r\n:2\r\n|0\r\n:5\r\n";
    let values = decode_all(&[wire]).unwrap();
    assert_eq!(values, [Value::Array(vec![Value::Int(1), Value::Int(2)]), Value::Int(5)]);
}

#[test]
fn refuses_what_no_reply_of_ours_can_be() {
    assert_eq!(decode_all(&[b"HTTP/1.1 400\r\n"]), Err(ProtocolError::UnknownType(b'H')));
    assert_eq!(decode_all(&[b"$99999999999\r\n"]), Err(ProtocolError::LongFrame));
    assert_eq!(decode_all(&[b"*99999999999\r\n"]), Err(ProtocolError::LongFrame));
    assert_eq!(decode_all(&[b"$-2\r\n"]), Err(ProtocolError::BadNumber));
    assert_eq!(decode_all(&[b"$?\r\n"]), Err(ProtocolError::BadNumber));
    assert_eq!(decode_all(&[b"$2\r\nhello"]), Err(ProtocolError::BadEnd));
    assert_eq!(decode_all(&[&b"*1\r\n".repeat(DEPTH_MAX + 1)]), Err(ProtocolError::Deep));
    assert_eq!(decode_all(&[&[b'+'; LINE_BYTES_MAX + 2]]), Err(ProtocolError::LongLine));
}

#[test]
fn delivers_the_replies_before_a_malformed_one() {
    let mut decoder = Decoder::default();
    let mut values = Vec::new();
    decoder.buffer().extend_from_slice(b":1\r\n:2\r\n?");
    assert_eq!(decoder.decode(&mut values), Err(ProtocolError::UnknownType(b'?')));
    assert_eq!(values, [Value::Int(1), Value::Int(2)]);
}

#[test]
fn slices_share_the_read_buffer() {
    let mut decoder = Decoder::default();
    let mut values = Vec::new();
    decoder.buffer().extend_from_slice(b"$5\r\nhello\r\n");
    let home = decoder.buffer.as_ptr() as usize;
    decoder.decode(&mut values).unwrap();
    let slice = values.pop().unwrap().into_bytes().unwrap();
    assert_eq!(slice.as_ptr() as usize, home + 4);
}

#[test]
fn parses_the_ends_of_the_integers() {
    assert_eq!(parse_int(b"-9223372036854775808"), Some(i64::MIN));
    assert_eq!(parse_int(b"9223372036854775807"), Some(i64::MAX));
    assert_eq!(parse_int(b"9223372036854775808"), None);
    assert_eq!(parse_int(b"-"), None);
    assert_eq!(parse_int(b""), None);
}

/// Values as the server would write them.
fn any_value() -> impl Strategy<Value = Value> {
    let blob = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let line = || "[ -~]{0,20}".prop_map(|text| Bytes::from(text.into_bytes()));
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e9..1e9f64).prop_map(Value::Double),
        blob().prop_map(Value::Bulk),
        blob().prop_map(Value::Verbatim),
        line().prop_map(Value::Simple),
        line().prop_map(Value::Error),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Set),
            prop::collection::vec(inner.clone(), 1..6).prop_map(Value::Push),
            prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    })
}

fn write(value: &Value, out: &mut Vec<u8>) {
    let blob = |out: &mut Vec<u8>, kind: char, prefix: &str, bytes: &[u8]| {
        out.extend_from_slice(format!("{kind}{}\r\n{prefix}", prefix.len() + bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    };
    match value {
        Value::Null => out.extend_from_slice(b"_\r\n"),
        Value::Bool(truth) => out.extend_from_slice(if *truth { b"#t\r\n" } else { b"#f\r\n" }),
        Value::Int(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
        Value::Double(number) => out.extend_from_slice(format!(",{number}\r\n").as_bytes()),
        Value::BigNumber(digits) => out.extend_from_slice(&[b"(", &digits[..], b"\r\n"].concat()),
        Value::Simple(text) => out.extend_from_slice(&[b"+", &text[..], b"\r\n"].concat()),
        Value::Error(text) => out.extend_from_slice(&[b"-", &text[..], b"\r\n"].concat()),
        Value::Bulk(bytes) => blob(out, '$', "", bytes),
        Value::Verbatim(bytes) => blob(out, '=', "txt:", bytes),
        Value::Array(items) => write_items(out, '*', items),
        Value::Set(items) => write_items(out, '~', items),
        Value::Push(items) => write_items(out, '>', items),
        Value::Map(pairs) => {
            out.extend_from_slice(format!("%{}\r\n", pairs.len()).as_bytes());
            for (key, value) in pairs {
                write(key, out);
                write(value, out);
            }
        }
    }
}

fn write_items(out: &mut Vec<u8>, kind: char, items: &[Value]) {
    out.extend_from_slice(format!("{kind}{}\r\n", items.len()).as_bytes());
    for item in items {
        write(item, out);
    }
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_decodes_the_same(
        values in prop::collection::vec(any_value(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut wire = Vec::new();
        values.iter().for_each(|value| write(value, &mut wire));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut rest = &wire[..];
        let mut taken = 0;
        for cut in cuts {
            let (piece, after) = rest.split_at(cut - taken);
            pieces.push(piece);
            rest = after;
            taken = cut;
        }
        pieces.push(rest);
        prop_assert_eq!(decode_all(&pieces).unwrap(), values);
    }

    #[test]
    fn arbitrary_bytes_never_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        drop(decode_all(&pieces));
    }

    #[test]
    fn bytes_that_look_like_resp_never_panic(
        wire in prop::collection::vec(prop::sample::select(&b"*$>%|~=!:+-_#,(0123456789\r\n"[..]), 0..200),
    ) {
        let text = String::from_utf8(wire).unwrap().replace('\n', "\r\n");
        drop(decode_all(&[text.as_bytes()]));
    }
}
