use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use super::*;
use crate::Timestamp;
use crate::event::sign;

fn keys(ids: &[(&str, u8)]) -> Keys {
    let ring: Vec<String> = ids
        .iter()
        .map(|(id, byte)| format!(r#"{{"id": "{id}", "secret": "{}"}}"#, STANDARD.encode([*byte; 32])))
        .collect();
    let ring = ring.join(",");
    let text = format!(
        r#"{{"tenants": {{"shop": {{"sealing": [{ring}], "signing": [{ring}]}}, "bank": {{"sealing": [{ring}]}}}}}}"#
    );
    Keys::from_json(&text).unwrap()
}

fn event() -> Event {
    Event::new("order.placed", r#"{"id":7}"#)
        .with_id(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
        .with_data_schema("urn:tidewire:order.placed:1")
}

/// What `docs/formats/signature.md` shows. Append-only: data that any release sealed is opened by all later ones.
const GOLDEN: &str = "000102030405060708090a0bfba8459655f46cab6498d69ddb44d4c82a08f6fae6129b76";
/// Of the same event, with a key that is derived from a master's.
const GOLDEN_DERIVED: &str = "000102030405060708090a0b3e74c2db7c71f339c8719361a277e3222aa4c7cf8c72f50c";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_golden_seal_never_changes() {
    let keys = keys(&[("2026-11", 0x0c)]);
    let nonce = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    let sealed = seal_with(event(), "shop", &keys, nonce).unwrap();
    assert_eq!((sealed.extension(SEALED), hex(sealed.data()).as_str()), (Some("2026-11"), GOLDEN));
    assert_eq!(open(&sealed, "shop", &keys).unwrap(), r#"{"id":7}"#);
    let secret = STANDARD.encode([0x0d; 32]);
    let master = format!(r#"{{"tenants": {{"*": {{"sealing": [{{"id": "m", "secret": "{secret}"}}]}}}}}}"#);
    let sealed = seal_with(event(), "shop", &Keys::from_json(&master).unwrap(), nonce).unwrap();
    assert_eq!((sealed.extension(SEALED), hex(sealed.data()).as_str()), (Some("m"), GOLDEN_DERIVED));
}

#[test]
fn sealed_data_opens_for_the_same_event_and_tenant_alone() {
    let keys = keys(&[("k", 1)]);
    let sealed = seal(event(), "shop", &keys).unwrap();
    assert_eq!(sealed.data().len(), event().data().len() + SEAL_BYTES);
    assert_eq!(open(&sealed, "shop", &keys).unwrap(), event().into_data());
    assert_ne!(seal(event(), "shop", &keys).unwrap().data(), sealed.data());
    let retyped = Event::new("order.placee", sealed.data().clone())
        .with_id(sealed.id())
        .with_data_schema("urn:tidewire:order.placed:1")
        .with_extension(SEALED, "k");
    let changed = [
        ("bank", sealed.clone()),
        ("shop", sealed.clone().with_id(Uuid::nil())),
        ("shop", sealed.clone().with_data_schema("urn:tidewire:order.placed:2")),
        ("shop", retyped),
    ];
    for (tenant, event) in changed {
        assert_eq!(open(&event, tenant, &keys), Err(Untrusted::Wrong(Guard::Seal)), "{event:?}");
    }
    for at in 0..sealed.data().len() {
        let mut data = sealed.data().to_vec();
        data[at] ^= 0x80;
        let event = Event { data: data.into(), ..sealed.clone() };
        assert_eq!(open(&event, "shop", &keys), Err(Untrusted::Wrong(Guard::Seal)), "{at}");
        let event = Event { data: sealed.data().slice(..at), ..sealed.clone() };
        let cut = if at < SEAL_BYTES { Untrusted::Cut(Guard::Seal) } else { Untrusted::Wrong(Guard::Seal) };
        assert_eq!(open(&event, "shop", &keys), Err(cut), "{at}");
    }
}

#[test]
fn empty_data_can_be_sealed() {
    let keys = keys(&[("k", 1)]);
    let sealed = seal(Event::new("ping", ""), "shop", &keys).unwrap();
    assert_eq!((sealed.data().len(), open(&sealed, "shop", &keys).unwrap()), (SEAL_BYTES, Bytes::new()));
}

#[test]
fn after_a_rotation_old_seals_open_until_their_key_is_taken_out() {
    let keys = keys(&[("old", 10)]);
    let sealed = seal(event(), "shop", &keys).unwrap();
    keys.replace(&super::tests::keys(&[("new", 11), ("old", 10)]));
    assert!(open(&sealed, "shop", &keys).is_ok());
    assert_eq!(seal(event(), "shop", &keys).unwrap().extension(SEALED), Some("new"));
    keys.replace(&super::tests::keys(&[("new", 11)]));
    let unknown = open(&sealed, "shop", &keys).unwrap_err();
    assert_eq!(unknown, Untrusted::UnknownKey(Guard::Seal, "old".into()));
    assert_eq!(unknown.to_string(), "sealed with key \"old\", which this node does not have");
}

#[test]
fn what_cannot_be_sealed_or_opened_says_why() {
    let keys = keys(&[("k", 1)]);
    assert_eq!(
        seal(event(), "nobody", &keys).unwrap_err().to_string(),
        "tenant \"nobody\" has no sealing key"
    );
    let sealed = seal(event(), "shop", &keys).unwrap();
    assert_eq!(seal(sealed, "shop", &keys).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(open(&event(), "shop", &keys).unwrap_err().to_string(), "seal is missing");
    let odd = open(&event().with_extension(SEALED, "not an id"), "shop", &keys);
    assert_eq!(odd, Err(Untrusted::Cut(Guard::Seal)));
}

#[test]
fn a_signature_covers_the_seal() {
    let keys = keys(&[("k", 1), ("l", 1)]);
    let event = seal(event().with_time(Timestamp::from_millis(1)), "shop", &keys).unwrap();
    let signed = sign::sign(event, "shop", &keys).unwrap();
    assert_eq!(sign::verify(&signed, "shop", &keys), Ok(()));
    assert_eq!(open(&signed, "shop", &keys).unwrap(), r#"{"id":7}"#);
    // The same secret under another id opens it, but that is not what was signed.
    let renamed = signed.with_extension(SEALED, "l");
    assert_eq!(sign::verify(&renamed, "shop", &keys), Err(Untrusted::Wrong(Guard::Signature)));
}
