use serde_json::json;

use super::*;
use crate::tokens::caps::Capability;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const EXPECTED: Expected<'_> = Expected { tenant: "default", audience: None, issuer: None, now: NOW };

fn raw(claims: &serde_json::Value) -> Box<RawValue> {
    RawValue::from_string(claims.to_string()).unwrap()
}

fn connection(claims: serde_json::Value) -> Result<ConnectionClaims, Refusal> {
    ConnectionClaims::read(&raw(&claims), &EXPECTED)
}

/// Of `ann`, on connection `c1`, to channel `news`.
fn subscription(claims: serde_json::Value) -> Result<SubscriptionClaims, Refusal> {
    SubscriptionClaims::read(&raw(&claims), &EXPECTED, ("news", "ann", "c1"))
}

fn reason<C: std::fmt::Debug>(outcome: Result<C, Refusal>) -> String {
    match outcome {
        Err(Refusal::Invalid(reason)) => reason,
        other => panic!("accepted, or refused for another reason: {other:?}"),
    }
}

fn json_of(data: &str) -> Option<Opaque<'static>> {
    Some(Opaque::Json(std::borrow::Cow::Owned(RawValue::from_string(data.into()).unwrap())))
}

#[test]
fn a_connection_has_all_that_its_token_says() {
    let claims = connection(json!({
        "sub": "ann", "exp": 1_001, "nbf": 1_000, "iat": 999.5, "jti": "t1", "tenant": "default",
        "info": {"name": "Ann"}, "meta": {"plan": "gold"},
        "channels": ["a", "b"],
        "subs": {"b": {"info": 1, "data": {"x": []}, "override": {"presence": {"value": true}, "join_leave": {"value": false}}}},
        "unknown": {"is": "passed over"},
    }))
    .unwrap();
    assert_eq!((&*claims.user, claims.id.as_deref()), ("ann", Some("t1")));
    assert_eq!(claims.expires_at, Some(Timestamp::from_millis(1_001_000)));
    assert_eq!(claims.issued_at, Some(Timestamp::from_millis(999_500)));
    assert_eq!(claims.info, json_of(r#"{"name":"Ann"}"#));
    assert_eq!(claims.meta.as_deref(), Some(r#"{"plan":"gold"}"#));
    assert!(claims.caps.is_none());
    let overrides = Overrides { presence: Some(true), join_leave: Some(false), ..Overrides::default() };
    let b = SubscriptionOptions { info: json_of("1"), data: json_of(r#"{"x":[]}"#), overrides };
    let expected = [("a".to_owned(), SubscriptionOptions::default()), ("b".to_owned(), b)];
    assert_eq!(claims.subscriptions, BTreeMap::from(expected));
}

#[test]
fn a_claim_that_is_null_is_not_there() {
    let names =
        ["exp", "aud", "info", "b64info", "channels", "subs", "meta", "expire_at", "caps", "tenant", "jti"];
    let mut claims = json!({"sub": "ann"});
    for name in names {
        claims[name] = json!(null);
    }
    let claims = connection(claims).unwrap();
    assert!(claims.subscriptions.is_empty() && claims.caps.is_none() && claims.info.is_none());
}

#[test]
fn a_connection_token_that_says_too_little_or_nonsense_is_refused_by_the_name_of_the_claim() {
    for (claims, named) in [
        (json!({}), "(sub)"),
        (json!({"sub": ""}), "(sub)"),
        (json!({"sub": 5}), "integer `5`"),
        (json!({"sub": "ann", "nbf": 1_001}), "(nbf)"),
        (json!({"sub": "ann", "exp": -1}), "(exp)"),
        (json!({"sub": "ann", "exp": 1e300}), "(exp)"),
        (json!({"sub": "ann", "iat": -1}), "(iat)"),
        (json!({"sub": "ann", "expire_at": -5}), "(expire_at)"),
        (json!({"sub": "ann", "exp": "9999999999"}), "expected f64"),
        (json!({"sub": "ann", "tenant": "acme"}), "\"acme\""),
        (json!({"sub": "ann", "channel": "news"}), "(channel)"),
        (json!({"sub": "ann", "b64info": "?"}), "b64info"),
        (json!({"sub": "ann", "subs": {"a": {"b64data": "AAA"}}}), "b64data"),
        (json!({"sub": "ann", "channels": ["no spaces"]}), "no spaces"),
        (json!({"sub": "ann", "channels": "a"}), "expected a sequence"),
        (json!({"sub": "ann", "subs": {"a*": {}}}), "a*"),
        (json!({"sub": "ann", "caps": [{"channels": ["a"], "allow": ["all"]}]}), "`all`"),
        (json!({"sub": "ann", "caps": [{"channels": ["a b"], "allow": []}]}), "caps"),
        (json!({"sub": "ann", "caps": [{"channels": [".*"], "match": "regex"}]}), "\"regex\""),
    ] {
        let reason = reason(connection(claims.clone()));
        assert!(reason.contains(named), "{claims}: {reason}");
    }
}

#[test]
fn a_token_names_so_many_subscriptions_at_most() {
    let channels = |count: usize| (0..count).map(|number| format!("c{number}")).collect::<Vec<_>>();
    let full = json!({"sub": "ann", "channels": channels(128), "subs": {"c0": {}}});
    assert_eq!(connection(full).unwrap().subscriptions.len(), SUBSCRIPTIONS_MAX);
    let over = json!({"sub": "ann", "channels": channels(128), "subs": {"other": {}}});
    assert!(reason(connection(over)).contains("129 subscriptions"));
}

#[test]
fn a_connection_ends_with_its_token_unless_that_says_otherwise() {
    let ends = |claims: serde_json::Value| connection(claims).map(|claims| claims.expires_at);
    let at = |millis| Ok(Some(Timestamp::from_millis(millis)));
    assert_eq!(ends(json!({"sub": "ann"})), Ok(None));
    assert_eq!(ends(json!({"sub": "ann", "exp": 1_000.5})), at(1_000_500));
    assert_eq!(ends(json!({"sub": "ann", "exp": 1_001, "expire_at": 0})), Ok(None));
    assert_eq!(ends(json!({"sub": "ann", "exp": 1_001, "expire_at": 5_000})), at(5_000_000));
    assert_eq!(ends(json!({"sub": "ann", "expire_at": 5_000})), at(5_000_000));
    for expired in [
        json!({"sub": "ann", "exp": 1_000}),
        json!({"sub": "ann", "exp": 1, "expire_at": 0}),
        json!({"sub": "ann", "exp": 5_000, "expire_at": 1_000}),
    ] {
        assert_eq!(ends(expired.clone()), Err(Refusal::Expired), "{expired}");
    }
}

#[test]
fn audience_and_issuer_are_asked_for_where_the_settings_do() {
    let strict = Expected { audience: Some("tidewire"), issuer: Some("https://id"), ..EXPECTED };
    let read = |claims: serde_json::Value| ConnectionClaims::read(&raw(&claims), &strict);
    assert!(read(json!({"sub": "ann", "aud": "tidewire", "iss": "https://id"})).is_ok());
    assert!(read(json!({"sub": "ann", "aud": ["other", "tidewire"], "iss": "https://id"})).is_ok());
    for (claims, named) in [
        (json!({"sub": "ann", "iss": "https://id"}), "aud"),
        (json!({"sub": "ann", "aud": [], "iss": "https://id"}), "aud"),
        (json!({"sub": "ann", "aud": "tidewire2", "iss": "https://id"}), "aud"),
        (json!({"sub": "ann", "aud": "tidewire"}), "iss"),
        (json!({"sub": "ann", "aud": "tidewire", "iss": "https://id/"}), "iss"),
        // It is of somebody else, whether or not it has expired too.
        (json!({"sub": "ann", "aud": "tidewire", "iss": "evil", "exp": 1}), "iss"),
    ] {
        assert!(reason(read(claims.clone())).contains(named), "{claims}");
    }
    let claims = json!({"sub": "ann", "channel": "news", "aud": "tidewire"});
    let outcome = SubscriptionClaims::read(&raw(&claims), &strict, ("news", "ann", "c1"));
    assert!(reason(outcome).contains("iss"), "of subscriptions too");
    assert!(connection(json!({"sub": "ann", "aud": "anybody", "iss": "anyone"})).is_ok());
}

#[test]
fn base64_goes_before_json_and_json_stands_on_one_line() {
    let both = connection(json!({"sub": "ann", "info": 1, "b64info": "AP8="})).unwrap();
    assert_eq!(both.info, Some(Opaque::from(&[0, 255][..])));
    let text = RawValue::from_string("{\"sub\": \"ann\", \"info\": {\n\"a\":\r\n1}}".into()).unwrap();
    let info = ConnectionClaims::read(&text, &EXPECTED).unwrap().info.unwrap();
    assert_eq!(info.as_bytes(), b"{ \"a\":  1}");
    let deep = format!("{{\"sub\": \"ann\", \"info\": {}{}}}", "[".repeat(500), "]".repeat(500));
    let outcome = ConnectionClaims::read(&RawValue::from_string(deep).unwrap(), &EXPECTED);
    assert!(reason(outcome).contains("info"));
}

#[test]
fn the_first_entry_of_caps_that_has_a_channel_decides() {
    let claims = json!({"sub": "ann", "caps": [
        {"channels": ["news:secret"]},
        {"channels": ["news:*", "chat"], "allow": ["sub", "hst"], "match": "wildcard"},
        {"channels": ["chat", "*:own"], "allow": ["sub", "pub", "prs"]},
    ]});
    let caps = connection(claims).unwrap().caps.unwrap();
    for (channel, capability, is_allowed) in [
        ("news:eu", Capability::Subscribe, true),
        ("news:eu", Capability::History, true),
        ("news:eu", Capability::Publish, false),
        ("news:secret", Capability::Subscribe, false),
        ("chat", Capability::Publish, false),
        ("notes:own", Capability::Presence, true),
        ("notes:own:x", Capability::Presence, false),
        ("other", Capability::Subscribe, false),
    ] {
        assert_eq!(caps.allow(channel, capability), is_allowed, "{channel} {capability:?}");
    }
    let none = connection(json!({"sub": "ann", "caps": []})).unwrap().caps.unwrap();
    assert!(!none.allow("news", Capability::Subscribe), "an empty list allows nothing");
}

#[test]
fn a_subscription_is_of_its_user_channel_and_connection() {
    let claims = subscription(json!({
        "sub": "ann", "channel": "news", "client": "c1", "exp": 2_000, "info": {"role": "editor"},
        "override": {"force_recovery": {"value": true}, "force_positioning": {}, "force_push_join_leave": null},
    }))
    .unwrap();
    assert_eq!(claims.expires_at, Some(Timestamp::from_millis(2_000_000)));
    assert_eq!(claims.options.info, json_of(r#"{"role":"editor"}"#));
    let overrides =
        Overrides { force_recovery: Some(true), force_positioning: Some(false), ..Overrides::default() };
    assert_eq!(claims.options.overrides, overrides);
    assert!(subscription(json!({"sub": "ann", "channel": "news", "client": ""})).is_ok());
    for (claims, named) in [
        (json!({"sub": "ann"}), "(channel)"),
        (json!({"sub": "ann", "channel": "new"}), "\"new\""),
        (json!({"sub": "ann", "channel": "*"}), "\"*\""),
        (json!({"channel": "news"}), "(sub)"),
        (json!({"sub": "bob", "channel": "news"}), "(sub)"),
        (json!({"sub": "ann", "channel": "news", "client": "c2"}), "(client)"),
        (json!({"sub": "ann", "channel": "news", "tenant": "acme"}), "\"acme\""),
        (json!({"sub": "ann", "channel": "news", "nbf": 1_001}), "(nbf)"),
    ] {
        assert!(reason(subscription(claims.clone())).contains(named), "{claims}");
    }
    let expired = [
        json!({"sub": "ann", "channel": "news", "exp": 1_000}),
        json!({"sub": "ann", "channel": "news", "expire_at": 999}),
    ];
    for claims in expired {
        assert_eq!(subscription(claims).unwrap_err(), Refusal::Expired);
    }
    assert_eq!(
        subscription(json!({"sub": "ann", "channel": "news", "exp": 1_001, "expire_at": 0}))
            .unwrap()
            .expires_at,
        None
    );
}

#[test]
fn an_anonymous_connection_subscribes_with_a_token_without_a_user() {
    let read =
        |claims: serde_json::Value| SubscriptionClaims::read(&raw(&claims), &EXPECTED, ("news", "", "c1"));
    assert!(read(json!({"channel": "news"})).is_ok() && read(json!({"sub": "", "channel": "news"})).is_ok());
    assert!(read(json!({"sub": "ann", "channel": "news"})).is_err());
}
