use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use super::*;
use crate::Timestamp;
use crate::event::Priority;

fn keys(ids: &[(&str, u8)]) -> Keys {
    let ring: Vec<String> = ids
        .iter()
        .map(|(id, byte)| format!(r#"{{"id": "{id}", "secret": "{}"}}"#, STANDARD.encode([*byte; 32])))
        .collect();
    Keys::from_json(&format!(r#"{{"tenants": {{"shop": {{"signing": [{}]}}}}}}"#, ring.join(","))).unwrap()
}

fn event() -> Event {
    Event::new("order.placed", r#"{"id":7}"#)
        .with_id(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
        .with_time(Timestamp::from_millis(0x0192_d3c4_e5f6))
        .with_source("/shop")
        .with_subject("order/7")
        .with_key("customer-7")
        .with_content_type("application/json")
        .with_data_schema("urn:tidewire:order.placed:1")
}

/// What `docs/formats/signature.md` shows. Append-only: a signature that any release made is verified by all later ones.
const GOLDEN: &str = "2026-11:Giv7uDlsUHg2ThjFSeMYtduwSdr7xH5jlHQMk-vKLv0";
/// Of an event that has nothing but its type.
const GOLDEN_BARE: &str = "2026-11:DxcE9kz04pWxmxsRkdrs94Ke0ExehRuwBSN_RVErOpY";
/// Of the same event, with a key that is derived from a master's.
const GOLDEN_DERIVED: &str = "m:FE6oHA4AhKEXJNBRO87Cl6ukIwn-3mrdGrw07SqbkT8";

#[test]
fn the_golden_signature_never_changes() {
    let keys = keys(&[("2026-11", 0x0b)]);
    assert_eq!(sign(event(), "shop", &keys).unwrap().extension(SIGNATURE), Some(GOLDEN));
    let bare = Event::new("ping", "").with_id(Uuid::nil()).with_time(Timestamp::from_millis(1));
    assert_eq!(sign(bare.clone(), "shop", &keys).unwrap().extension(SIGNATURE), Some(GOLDEN_BARE));
    let secret = STANDARD.encode([0x0d; 32]);
    let master = format!(r#"{{"tenants": {{"*": {{"signing": [{{"id": "m", "secret": "{secret}"}}]}}}}}}"#);
    let signed = sign(bare, "shop", &Keys::from_json(&master).unwrap()).unwrap();
    assert_eq!(signed.extension(SIGNATURE), Some(GOLDEN_DERIVED));
}

#[test]
fn whatever_says_what_the_event_is_cannot_be_changed() {
    let keys = keys(&[("k", 1)]);
    let signed = sign(event(), "shop", &keys).unwrap();
    assert_eq!(verify(&signed, "shop", &keys), Ok(()));
    let signature = signed.extension(SIGNATURE).unwrap();
    let without = |event: Event| event.with_extension(SIGNATURE, signature);
    let bare =
        Event::new("order.placed", signed.data().clone()).with_id(signed.id()).with_time(signed.time());
    let changed = [
        signed.clone().with_id(Uuid::nil()),
        signed.clone().with_time(Timestamp::from_millis(0x0192_d3c4_e5f7)),
        signed.clone().with_source("/shoq"),
        signed.clone().with_subject("order/8"),
        signed.clone().with_subject(""),
        signed.clone().with_key("customer-8"),
        signed.clone().with_content_type("text/plain"),
        signed.clone().with_data_schema("urn:tidewire:order.placed:2"),
        signed.clone().with_extension(SEALED, "k"),
        without(bare),
    ];
    for event in changed {
        assert_eq!(verify(&event, "shop", &keys), Err(Untrusted::Wrong(Guard::Signature)), "{event:?}");
    }
    let retyped = |event_type: &str, data: &[u8]| {
        Event { data: data.to_vec().into(), ..signed.clone() }.retyped(event_type)
    };
    assert_eq!(verify(&retyped("order.placed", signed.data()), "shop", &keys), Ok(()));
    assert!(verify(&retyped("order.placee", signed.data()), "shop", &keys).is_err());
    for at in 0..signed.data().len() {
        let mut data = signed.data().to_vec();
        data[at] ^= 1;
        assert!(verify(&retyped("order.placed", &data), "shop", &keys).is_err(), "{at}");
    }
    assert!(verify(&retyped("order.placed", b"{\"id\":7} "), "shop", &keys).is_err());
}

impl Event {
    fn retyped(self, event_type: &str) -> Self {
        self.with(crate::event::Attribute::Type, event_type)
    }
}

#[test]
fn what_the_bus_adds_may_be_added() {
    let keys = keys(&[("k", 1)]);
    let signed = sign(event(), "shop", &keys).unwrap();
    let mut moved = signed
        .caused_by(&event())
        .with_trace_parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .with_extension("replayof", "1")
        .with_extension("replayfor", "billing")
        .with_priority(Priority::High);
    moved.mark_retried();
    let limits = crate::Limits::default();
    moved.stamp(crate::NodeId::random(), Timestamp::from_millis(9), &limits).unwrap();
    let arrived = Event::try_from(bytes::Bytes::from(&moved)).unwrap();
    assert_eq!(verify(&arrived, "shop", &keys), Ok(()));
}

#[test]
fn a_signature_of_another_shape_is_told_apart_from_a_wrong_one() {
    let keys = keys(&[("k", 1)]);
    let signed = sign(event(), "shop", &keys).unwrap();
    let signature = signed.extension(SIGNATURE).unwrap().to_owned();
    assert_eq!(signature.len(), 2 + 43);
    let verify_with = |text: &str| verify(&event().with_extension(SIGNATURE, text), "shop", &keys);
    assert_eq!(verify_with(&signature), Ok(()));
    for at in 0..signature.len() {
        let mut flipped = signature.clone().into_bytes();
        flipped[at] ^= 1;
        assert!(verify_with(&String::from_utf8(flipped).unwrap()).is_err(), "{at}");
        assert!(verify_with(&signature[..at]).is_err(), "{at}");
    }
    let tag = &signature[2..];
    let cut = Err(Untrusted::Cut(Guard::Signature));
    for text in [
        "",
        "k",
        "k:",
        &format!(":{tag}"),
        &format!("k:{tag}A"),
        &format!("k:{tag}="),
        &format!("a b:{tag}"),
        &format!("{}:{tag}", "k".repeat(65)),
    ] {
        assert_eq!(verify_with(text), cut, "{text}");
    }
    assert_eq!(verify_with(&format!("k:{}", "A".repeat(43))), Err(Untrusted::Wrong(Guard::Signature)));
    assert_eq!(verify(&event(), "shop", &keys), Err(Untrusted::Missing(Guard::Signature)));
}

#[test]
fn after_a_rotation_old_keys_verify_until_they_are_taken_out() {
    let keys = keys(&[("2026-10", 10)]);
    let old = sign(event(), "shop", &keys).unwrap();
    keys.replace(&super::tests::keys(&[("2026-11", 11), ("2026-10", 10)]));
    let new = sign(event(), "shop", &keys).unwrap();
    assert!(new.extension(SIGNATURE).unwrap().starts_with("2026-11:"));
    assert_eq!((verify(&old, "shop", &keys), verify(&new, "shop", &keys)), (Ok(()), Ok(())));
    keys.replace(&super::tests::keys(&[("2026-11", 11)]));
    let unknown = verify(&old, "shop", &keys).unwrap_err();
    assert_eq!(unknown, Untrusted::UnknownKey(Guard::Signature, "2026-10".into()));
    assert_eq!(unknown.to_string(), "signed with key \"2026-10\", which this node does not have");
    // Signed again, it has one signature.
    let again = sign(old, "shop", &keys).unwrap();
    assert_eq!(again.extensions().filter(|(name, _)| *name == SIGNATURE).count(), 1);
    assert_eq!(verify(&again, "shop", &keys), Ok(()));
}

#[test]
fn a_tenant_without_keys_cannot_sign_and_trusts_nobody() {
    let keys = keys(&[("k", 1)]);
    let error = sign(event(), "bank", &keys).unwrap_err();
    let text = "tenant \"bank\" has no signing key";
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, text));
    let signed = sign(event(), "shop", &keys).unwrap();
    assert_eq!(verify(&signed, "bank", &keys), Err(Untrusted::UnknownKey(Guard::Signature, "k".into())));
    assert_eq!(Untrusted::Missing(Guard::Signature).to_string(), "signature is missing");
    assert_eq!(Untrusted::Wrong(Guard::Signature).to_string(), "signature is wrong");
}
