use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::limits;
use crate::name::ChannelPath;

fn orders() -> ChannelPath {
    ChannelPath::new("test", "shop", "orders").unwrap()
}

/// What CloudEvents tells of an event.
#[derive(Debug, PartialEq)]
struct Told {
    id: String,
    time: Timestamp,
    attributes: BTreeMap<String, String>,
    data: Bytes,
}

fn told(event: &Event) -> Told {
    let attributes = event.attributes().chain([("type", event.event_type())]);
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Told { id: id(event).into_owned(), time: event.time(), attributes, data: event.data().clone() }
}

fn read(json: &Value) -> Result<Event> {
    from_json(json.to_string().as_bytes())
}

fn headers_of<'a>(headers: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a str, &'a str)> {
    headers.iter().copied()
}

fn through_binary(event: &Event) -> Event {
    let (headers, body) = to_binary(event, &orders());
    from_binary(headers.iter().map(|(name, value)| (&**name, &**value)), body).unwrap()
}

/// A cloud event with all that is required, and these members over it.
fn with(members: Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed"});
    for (name, value) in members.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn golden_event() -> Event {
    Event::new("order.placed", r#"{"total": 1e2,  "for":"Zoë"}"#)
        .with_id(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
        .with_time(Timestamp::from_millis(1_730_000_000_123))
        .with_source("/shop/web?a=b")
        .with_subject("order 7, 100%")
        .with_content_type("application/json")
        .with_data_schema("urn:shop:order:1")
        .with_key("customer-é")
        .with_extension("correlationid", "no second one")
        .with_extension("data", "no data")
        .with_extension("Bad-Name", "left out")
        .with_extension("region", "eu \"west\"")
}

#[test]
fn the_golden_forms_never_change() {
    let event = golden_event();
    let expected = concat!(
        r#"{"specversion":"1.0","id":"01234567-89ab-cdef-0123-456789abcdef","type":"order.placed","#,
        r#""time":"2024-10-27T03:33:20.123Z","source":"/shop/web?a=b","subject":"order 7, 100%","#,
        r#""dataschema":"urn:shop:order:1","partitionkey":"customer-é","region":"eu \"west\"","#,
        r#""datacontenttype":"application/json","data":{"total": 1e2,  "for":"Zoë"}}"#,
    );
    assert_eq!(to_json(&event, &orders()), expected);
    assert_eq!(to_batch([&event, &event], &orders()), format!("[{expected},{expected}]"));
    let (headers, body) = to_binary(&event, &orders());
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let expected = [
        "ce-specversion: 1.0",
        "ce-id: 01234567-89ab-cdef-0123-456789abcdef",
        "ce-type: order.placed",
        "ce-time: 2024-10-27T03:33:20.123Z",
        "ce-source: /shop/web?a=b",
        "ce-subject: order%207,%20100%25",
        "ce-dataschema: urn:shop:order:1",
        "ce-partitionkey: customer-%C3%A9",
        "ce-region: eu%20%22west%22",
        "content-type: application/json",
    ];
    assert_eq!((headers, &body), (expected.map(String::from).into(), event.data()));
}

#[test]
fn ids_that_are_no_uuid_are_derived_the_same_way_for_ever() {
    let event = read(&with(json!({}))).unwrap();
    assert_eq!(event.id().to_string(), "cfe52bea-e2f9-8284-bd21-1246fdea1d2b");
    assert_eq!((event.id().get_version_num(), event.extension("originalid")), (8, Some("7")));
    assert_eq!(id(&event), "7");
    assert_eq!(dedup_id(&event), format!("cloudevent:{}", event.id()));
    // Another spelling of a UUID is another id.
    for other in ["0123456789abcdef0123456789abcdef", "01234567-89AB-cdef-0123-456789abcdef", "nil"] {
        let event = read(&with(json!({"id": other}))).unwrap();
        assert_eq!((event.id().get_version_num(), &*id(&event)), (8, other));
    }
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let one = read(&with(json!({"id": uuid}))).unwrap();
    let other = read(&with(json!({"id": uuid, "source": "/erp"}))).unwrap();
    assert_eq!((one.id(), one.id().to_string()), (other.id(), uuid.to_owned()));
    assert_ne!(dedup_id(&one), dedup_id(&other), "an id is unique for its source only");
    assert_ne!(derived_id("ab", "c"), derived_id("a", "bc"));
}

#[test]
fn an_original_id_that_an_event_is_not_derived_from_is_an_attribute_like_others() {
    let event = golden_event().with_extension("originalid", "7");
    let json: Value = serde_json::from_slice(&to_json(&event, &orders())).unwrap();
    assert_eq!((&json["id"], &json["originalid"]), (&json!(event.id().to_string()), &json!("7")));
    assert_eq!(id(&read(&json).unwrap()), event.id().to_string());
    let error = read(&with(json!({"originalid": "8"}))).unwrap_err();
    assert!(error.to_string().contains("\"originalid\" is reserved"), "{error}");
}

#[test]
fn the_examples_of_the_json_format_are_read_and_told_in_headers_as_it_says() {
    let common = |members: Value| {
        let mut event = json!({
            "specversion": "1.0", "type": "com.example.someevent", "source": "/mycontext", "id": "A234-1234-1234",
            "time": "2018-04-05T17:31:00Z", "comexampleextension1": "value", "comexampleothervalue": 5,
            "unsetextension": null, "subject": null,
        });
        for (name, value) in members.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    };
    let thrift = "application/vnd.apache.thrift.binary";
    let cases = [
        (json!({"datacontenttype": thrift, "data_base64": "AAH/"}), &b"\x00\x01\xff"[..], thrift),
        (
            json!({"datacontenttype": "application/xml", "data": "<much wow=\"xml\"/>"}),
            br#"<much wow="xml"/>"#,
            "application/xml",
        ),
        (
            json!({"datacontenttype": "application/json", "data": {"appinfoB": 123}}),
            br#"{"appinfoB":123}"#,
            "application/json",
        ),
        (json!({"data": "I'm just a string"}), br#""I'm just a string""#, "application/json"),
        (json!({"data": null}), b"null", "application/json"),
    ];
    let batch: Vec<Value> = cases.iter().map(|(members, ..)| common(members.clone())).collect();
    let batch = from_batch(&serde_json::to_vec(&batch).unwrap(), 5).unwrap();
    for ((members, body, content_type), element) in cases.into_iter().zip(batch) {
        let event = read(&common(members)).unwrap();
        assert_eq!(told(&event), told(&element.unwrap()));
        let (headers, data) = to_binary(&event, &orders());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [
            ("ce-specversion", "1.0"),
            ("ce-id", "A234-1234-1234"),
            ("ce-type", "com.example.someevent"),
            ("ce-time", "2018-04-05T17:31:00Z"),
            ("ce-source", "/mycontext"),
            ("ce-comexampleextension1", "value"),
            ("ce-comexampleothervalue", "5"),
            ("content-type", content_type),
        ];
        assert_eq!((headers, &data[..]), (expected.into(), body));
        // The type that JSON implies is told, so that it is there when it comes back.
        assert_eq!(told(&through_binary(&event)), told(&event.with_content_type(content_type)));
    }
    assert_eq!(from_batch(b" [ ] ", 0).unwrap().len(), 0);
}

#[test]
fn attributes_of_ours_are_read_into_their_places() {
    let names = ["partitionkey", "correlationid", "causationid", "traceparent"];
    let mut json =
        with(json!({"subject": "s", "datacontenttype": "text/plain", "dataschema": "urn:s", "flag": true}));
    for name in names {
        json[name] = json!(format!("of {name}"));
    }
    let event = read(&json).unwrap();
    let places = [event.key(), event.correlation_id(), event.causation_id(), event.trace_parent()];
    assert_eq!(places, names.map(|name| json[name].as_str()));
    let places = [event.source(), event.subject(), event.content_type(), event.data_schema()];
    assert_eq!(places, [Some("/shop"), Some("s"), Some("text/plain"), Some("urn:s")]);
    assert_eq!(event.extensions().collect::<Vec<_>>(), [("flag", "true"), ("originalid", "7")]);
    assert_eq!((event.event_type(), event.time()), ("order.placed", Timestamp::default()));
}

#[test]
fn numbers_and_booleans_become_their_canonical_text() {
    for (json, text) in
        [("-0", "0"), ("-2147483648", "-2147483648"), ("5", "5"), ("true", "true"), ("false", "false")]
    {
        let json = with(json!({})).to_string().replacen('{', &format!("{{\"n\": {json},"), 1);
        assert_eq!(from_json(json.as_bytes()).unwrap().extension("n"), Some(text));
    }
}

#[test]
fn json_is_kept_byte_for_byte_and_told_as_it_is() {
    let data = "{\"b\" :  1.50,\n \"a\":\"\\u00e9\", \"big\":123456789012345678901234567890}";
    let json = format!(r#"{{"specversion":"1.0","id":"7","source":"/shop","type":"t","data" :  {data} }}"#);
    let event = from_json(json.as_bytes()).unwrap();
    assert_eq!(event.data(), data);
    let out = to_json(&event, &orders());
    assert!(std::str::from_utf8(&out).unwrap().contains(data), "{out:?}");
    assert_eq!(from_json(&out).unwrap(), event);
}

#[test]
fn data_that_is_not_json_is_a_string_or_base64() {
    let event = |content_type: &str, data: &'static [u8]| {
        let event = Event::new("a", data).with_content_type(content_type);
        let json: Value = serde_json::from_slice(&to_json(&event, &orders())).unwrap();
        assert_eq!(from_json(json.to_string().as_bytes()).unwrap().data(), event.data());
        (json.get("data").cloned(), json.get("data_base64").cloned())
    };
    assert_eq!(event("text/plain", b"{\"a\": 1}"), (Some(json!("{\"a\": 1}")), None));
    assert_eq!(event("image/svg+xml; charset=UTF-8", b"<a/>"), (Some(json!("<a/>")), None));
    assert_eq!(event("text/plain; charset=latin1", b"a"), (None, Some(json!("YQ=="))));
    assert_eq!(event("text/plain", b"\xff"), (None, Some(json!("/w=="))));
    assert_eq!(event("application/octet-stream", b"a"), (None, Some(json!("YQ=="))));
    assert_eq!(event("application/json", b"{"), (None, Some(json!("ew=="))));
    assert_eq!(event("application/json", b""), (None, None));
}

#[test]
fn an_event_without_a_source_has_its_channel_as_one() {
    let channel = ChannelPath::new("test", "shop", "a:b/c#d%|e").unwrap();
    let json: Value = serde_json::from_slice(&to_json(&Event::new("a", ""), &channel)).unwrap();
    assert_eq!(json["source"], "/shop/a:b/c%23d%25%7Ce");
    assert!(json.get("time").is_none(), "{json}");
    read(&json).unwrap();
}

#[test]
fn a_cloud_event_that_is_wrong_is_told_what_is_wrong_without_its_values() {
    let cases = [
        (json!({"specversion": "0.3"}), "specversion \"0.3\""),
        (json!({"specversion": null}), "has no specversion"),
        (json!({"id": null}), "has no id"),
        (json!({"source": null}), "has no source"),
        (json!({"type": null}), "has no type"),
        (json!({"id": ""}), "\"id\" is empty"),
        (json!({"subject": ""}), "\"subject\" is empty"),
        (json!({"id": 7}), "\"id\" is no string"),
        (json!({"source": "secret shop"}), "\"source\" is no URI"),
        (json!({"dataschema": "urn:secret%2"}), "\"dataschema\" is no URI"),
        (json!({"time": "secret"}), "RFC 3339"),
        (json!({"time": "2".repeat(65)}), "65 bytes"),
        (json!({"time": "1969-12-31T23:59:59Z"}), "1970"),
        (json!({"Region": "secret"}), "\"Region\" has a name with other characters"),
        (json!({"my_ext": "secret"}), "\"my_ext\" has a name"),
        (json!({"": "secret"}), "\"\" has a name"),
        (json!({"region": "secret\n"}), "U+000A"),
        (json!({"region": "secret\u{9f}"}), "U+009F"),
        (json!({"region": "secret\u{ffff}"}), "U+FFFF"),
        (json!({"region": 1.5}), "\"region\" is no whole number"),
        (json!({"region": 2_147_483_648_u32}), "\"region\" is no whole number"),
        (json!({"region": ["secret"]}), "\"region\" is an array or an object"),
        (json!({"data": 1, "data_base64": ""}), "both data and data_base64"),
        (json!({"data_base64": "secret!"}), "data_base64 is no base64"),
        (json!({"data_base64": 7}), "data_base64 is no string"),
        (json!({"datacontenttype": "text/plain", "data": {"secret": 1}}), "data is no string"),
        (json!({"datacontenttype": "text/plain; charset=latin1", "data": "secret"}), "character set"),
    ];
    for (members, said) in cases {
        let error = read(&with(members)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec, "{error}");
        let text = error.to_string();
        assert!(text.contains(said), "{text:?} does not say {said:?}");
        assert!(!text.contains("secret") || said == "RFC 3339", "{text}");
    }
    let whole = [
        ("\"secret\"", "no JSON object"),
        ("[]", "no JSON object"),
        ("", "no JSON object"),
        ("{} secret", "no JSON object"),
        (r#"{"specversion":"1.0","id":"\ud800"}"#, "surrogate"),
        (r#"{"id":"1","id":"1"}"#, "\"id\" is there twice"),
        (r#"{"a":null,"\u0061":null}"#, "\"a\" is there twice"),
        (r#"{"data":1,"data":1}"#, "\"data\" is there twice"),
        (r#"{"data_base64":null,"data_base64":null}"#, "\"data_base64\" is there twice"),
    ];
    for (json, said) in whole {
        let error = from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("secret"), "{error:?} does not say {said:?}");
    }
}

#[test]
fn headers_are_unquoted_and_percent_decoded_once() {
    let with = |value: &str| {
        let headers = [
            ("CE-SpecVersion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/shop"),
            ("ce-type", "order.placed"),
            ("ce-region", value),
            ("traceparent", "of the request"),
            ("Content-Type", " text/plain "),
        ];
        from_binary(headers, Bytes::from_static(b"x")).map(|event| {
            assert_eq!((event.content_type(), event.trace_parent()), (Some("text/plain"), None));
            event.extension("region").unwrap().to_owned()
        })
    };
    for (value, text) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41%2520", "A%20"),
        ("\"a \\\"b\\\" \\\\ %25\"", "a \"b\" \\ %"),
        ("a \"b\"", "a \"b\""),
        ("", ""),
    ] {
        assert_eq!(with(value).unwrap(), text);
    }
    for (value, said) in [
        ("100%", "write %25"),
        ("%zz", "write %25"),
        ("%C0%A0", "not UTF-8"),
        ("%0A", "U+000A"),
        ("\"a", "not closed"),
        ("\"a\\", "not closed"),
        ("\"a\" b", "not closed"),
        ("é", "percent-encoded"),
    ] {
        let error = with(value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
        assert!(error.to_string().contains(said), "{error} does not say {said:?}");
    }
}

#[test]
fn headers_that_are_wrong_are_told_by_name() {
    let required =
        [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/shop"), ("ce-type", "order.placed")];
    for left_out in 0..required.len() {
        let mut headers = required.to_vec();
        let (name, _) = headers.remove(left_out);
        let error = from_binary(headers_of(&headers), Bytes::new()).unwrap_err().to_string();
        assert!(error.contains(&format!("has no {}", &name[3..])), "{error}");
    }
    for (name, said) in [
        ("ce-data", "\"data\" is reserved"),
        ("ce-datacontenttype", "send content-type"),
        ("ce-my-name", "\"my-name\" has a name"),
        ("CE-ID", "\"id\" is there twice"),
        ("ce-", "\"\" has a name"),
    ] {
        let headers: Vec<_> = required.into_iter().chain([(name, "1")]).collect();
        let error = from_binary(headers_of(&headers), Bytes::new()).unwrap_err().to_string();
        assert!(error.contains(said), "{error} does not say {said:?}");
    }
}

#[test]
fn attributes_and_batches_over_their_limits_are_told_with_them() {
    let fits =
        limits::METADATA_BYTES_MAX - through_binary(&read(&with(json!({"x": ""}))).unwrap()).attributes.len();
    let event = read(&with(json!({"x": "y".repeat(fits)}))).unwrap();
    assert_eq!(event.attributes.len(), limits::METADATA_BYTES_MAX);
    let error = read(&with(json!({"x": "y".repeat(fits + 1)}))).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("8193")), (ErrorKind::TooLarge, true), "{error}");
    let many: String = (0..2_000).map(|n| format!("\"a{n}\":null,")).collect();
    let error = from_json(format!("{{{many}\"z\":1}}").as_bytes()).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("2001")), (ErrorKind::TooLarge, true), "{error}");
    let error = from_batch(b"[1,2,3]", 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(error.to_string(), "batch has 3 cloud events, limit is 2");
}

#[test]
fn an_event_of_a_batch_that_is_wrong_does_not_stop_the_others() {
    let batch = json!([with(json!({"id": "1"})), 7, with(json!({"id": 2})), with(json!({"id": "3"}))]);
    let read = from_batch(batch.to_string().as_bytes(), 10).unwrap();
    let ids: Vec<_> =
        read.iter().map(|event| event.as_ref().ok().map(|event| id(event).into_owned())).collect();
    assert_eq!(ids, [Some("1".into()), None, None, Some("3".into())]);
    for broken in ["{}", "[", "[{]", "[] secret"] {
        let error = from_batch(broken.as_bytes(), 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Codec);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn data_that_nests_deep_is_read_without_a_stack() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let json = format!(r#"{{"specversion":"1.0","id":"7","source":"/shop","type":"t","data":{deep}}}"#);
    let event = from_json(json.as_bytes()).unwrap();
    assert_eq!(event.data().len(), 200_000);
    assert_eq!(from_json(&to_json(&event, &orders())).unwrap(), event);
}

/// Text that may be an attribute.
fn text(at_least: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), at_least..12).prop_filter_map("characters", |characters| {
        let text: String = characters.into_iter().collect();
        let code = |c: char| u32::from(c);
        let is_allowed =
            |c: char| !c.is_control() && code(c) & 0xfffe != 0xfffe && !(0xfdd0..=0xfdef).contains(&code(c));
        text.chars().all(is_allowed).then_some(text)
    })
}

prop_compose! {
    fn events()(
        (id, event_type, source) in (text(1), text(1), "[a-z/]{1,9}(%[0-9a-f]{2})?"),
        time in proptest::option::of(1_u64..253_402_207_200_000),
        subject in proptest::option::of(text(1)),
        key in proptest::option::of(text(0)),
        extensions in proptest::collection::btree_map("x[a-z0-9]{0,8}", text(0), 0..4),
        (content_type, data) in prop_oneof![
            (Just("application/json"), "[0-9]{1,9}|\"[a-z ]{0,9}\"|\\[1,  \\{\\}\\]").prop_map(|(t, d)| (t, d.into_bytes())),
            (Just("text/plain"), any::<String>()).prop_map(|(t, d)| (t, d.into_bytes())),
            (Just("text/plain"), any::<Vec<u8>>()),
            (Just("image/png"), any::<Vec<u8>>()),
        ],
    ) -> Event {
        let mut event = Event::new(&event_type, data).with_source(&source).with_content_type(content_type);
        event = event.with_time(time.map_or(Timestamp::default(), Timestamp::from_millis));
        event = event.with_id(derived_id(&source, &id)).with_extension(ORIGINAL_ID, &id);
        for (name, value) in &extensions {
            event = event.with_extension(name, value);
        }
        event = subject.into_iter().fold(event, |event, subject| event.with_subject(&subject));
        key.into_iter().fold(event, |event, key| event.with_key(&key))
    }
}

proptest! {
    #[test]
    fn what_is_told_is_read_as_it_was_in_both_modes(event in events()) {
        let structured = from_json(&to_json(&event, &orders())).unwrap();
        prop_assert_eq!(told(&structured), told(&event));
        prop_assert_eq!(structured.id(), event.id());
        prop_assert_eq!(dedup_id(&structured), dedup_id(&event));
        let batched = from_batch(&to_batch([&event], &orders()), 1).unwrap().remove(0).unwrap();
        prop_assert_eq!(&batched, &structured);
        prop_assert_eq!(through_binary(&event), structured);
    }

    #[test]
    fn any_bytes_are_read_or_said_to_be_wrong(mut bytes in any::<Vec<u8>>(), at: prop::sample::Index, value: u8) {
        let _either = from_json(&bytes).is_ok();
        let mut json = to_json(&golden_event(), &orders()).to_vec();
        let at = at.index(json.len());
        json[at] = value;
        if let Ok(event) = from_json(&json) {
            prop_assert_eq!(told(&from_json(&to_json(&event, &orders())).unwrap()), told(&event));
        }
        bytes.truncate(40);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _either = from_binary([("ce-id", &*text), (&*text, "a"), ("content-type", &*text)], bytes.into()).is_ok();
    }
}
