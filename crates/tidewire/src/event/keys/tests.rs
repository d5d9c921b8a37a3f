use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::event::{Event, seal, sign};

/// A secret that is seen at once where it should not be.
fn secret(number: u8, bytes: usize) -> String {
    STANDARD.encode(vec![number; bytes])
}

fn one(tenant: &str, kind: &str, id: &str, secret: &str) -> String {
    format!(r#"{{"tenants": {{"{tenant}": {{"{kind}": [{{"id": "{id}", "secret": "{secret}"}}]}}}}}}"#)
}

#[test]
fn debug_shows_tenants_and_ids_and_never_a_secret() {
    let (a, b) = (secret(0xa7, 32), secret(0xb9, 64));
    let keys = Keys::from_json(&format!(
        r#"{{"tenants": {{
            "shop": {{"signing": [{{"id": "2026-11", "secret": "{b}"}}, {{"id": "2026-10", "secret": "{a}"}}],
                      "sealing": [{{"id": "s", "secret": "{a}"}}]}},
            "*": {{"signing": [{{"id": "m", "secret": "{b}"}}]}},
            "bank": {{}}
        }}}}"#
    ));
    let keys = keys.unwrap();
    let shown = r#"{"*": {"signing": ["m"]}, "bank": {}, "shop": {"sealing": ["s"], "signing": ["2026-11", "2026-10"]}}"#;
    assert_eq!(format!("{keys:?}"), shown);
    let all = format!("{keys:#?}");
    assert!(!all.contains(&a[..8]) && !all.contains(&b[..8]) && !all.contains("167"), "{all}");
    assert_eq!(format!("{:?}", Keys::default()), "{}");
}

#[test]
fn a_wrong_text_of_keys_says_what_is_wrong_and_shows_no_secret() {
    let good = secret(0xa7, 32);
    let ring = |keys: &str| format!(r#"{{"tenants": {{"shop": {{"signing": {keys}}}}}}}"#);
    let key = |id: &str| format!(r#"{{"id": "{id}", "secret": "{good}"}}"#);
    let many: Vec<String> = (0..17).map(|number| key(&number.to_string())).collect();
    let cases = [
        (
            one("shop", "signing", "k", &secret(0xa7, 31)),
            "key \"k\" of the signing ring of tenant \"shop\" has a secret of 31 bytes, signing takes 32 to 64",
        ),
        (
            one("shop", "signing", "k", &secret(0xa7, 65)),
            "key \"k\" of the signing ring of tenant \"shop\" has a secret of 65 bytes, signing takes 32 to 64",
        ),
        (
            one("shop", "sealing", "k", &secret(0xa7, 33)),
            "key \"k\" of the sealing ring of tenant \"shop\" has a secret of 33 bytes, sealing takes 32",
        ),
        (
            one("*", "sealing", "k", &secret(0xa7, 16)),
            "key \"k\" of the sealing ring of tenant \"*\" has a secret of 16 bytes, sealing takes 32",
        ),
        (
            one("shop", "signing", "k", &good.replace("p6", "p-")),
            "key \"k\" of the signing ring of tenant \"shop\" has a secret that is not base64",
        ),
        (
            one("shop", "signing", &good, "k"),
            "key 1 of the signing ring of tenant \"shop\" has no id of 1 to 64 of A-Z a-z 0-9 - _ . (limits.KEY_ID_BYTES_MAX)",
        ),
        (
            one("shop", "signing", "", &good),
            "key 1 of the signing ring of tenant \"shop\" has no id of 1 to 64 of A-Z a-z 0-9 - _ . (limits.KEY_ID_BYTES_MAX)",
        ),
        (one(&good, "signing", "k", &good), "name 1 under \"tenants\" is neither \"*\" nor one of a tenant"),
        (one("shop", &good, "k", &good), "tenant \"shop\" has a member that is not signing or sealing"),
        (
            ring(&format!("[{}, {}]", key("a"), key("a"))),
            "key \"a\" of the signing ring of tenant \"shop\" stands there twice",
        ),
        (
            ring(&format!("[{}]", many.join(","))),
            "signing ring of tenant \"shop\" has 17 keys, limit is 16 (limits.RING_KEYS_MAX)",
        ),
        (ring("[]"), "signing ring of tenant \"shop\" is empty; leave it out if there is none"),
        (ring(&format!("\"{good}\"")), "signing ring of tenant \"shop\" is no list"),
        (ring(&format!("[\"{good}\"]")), "key 1 of the signing ring of tenant \"shop\" is no object"),
        (ring(r#"[{"id": "k"}]"#), "key \"k\" of the signing ring of tenant \"shop\" has no secret"),
        (
            ring(&format!("[{{\"id\": \"k\", \"{good}\": 1}}]")),
            "key 1 of the signing ring of tenant \"shop\" has a member that is not id or secret",
        ),
        (format!("{{\"tenants\": {{}}, \"{good}\": 1}}"), "the text has a member that is not tenants"),
        ("{}".to_owned(), "member \"tenants\" is missing or no object"),
        (good.clone(), "not as it should be: expected a value at byte 0"),
        (format!("{{\"{good}\": 1, \"{good}\": 1}}"), "not as it should be: duplicate key"),
        (format!("{{\"tenants\": \"{good}"), "not as it should be: expected the end of a string at byte 57"),
    ];
    for (text, wrong) in cases {
        let error = Keys::from_json(&text).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidName, wrong));
        assert!(!format!("{error:?} {error}").contains(&good[..4]), "{error}");
    }
}

#[test]
fn keys_of_a_tenant_come_from_its_own_ring_or_else_from_the_master() {
    let text = format!(
        r#"{{"tenants": {{"shop": {{"signing": [{{"id": "own", "secret": "{}"}}]}},
            "*": {{"signing": [{{"id": "m", "secret": "{}"}}], "sealing": [{{"id": "m", "secret": "{}"}}]}}}}}}"#,
        secret(1, 32),
        secret(2, 32),
        secret(3, 32)
    );
    let keys = Keys::from_json(&text).unwrap();
    let first = |tenant: &str| keys.signing(tenant).and_then(|ring| Some(ring.first()?.0.to_owned()));
    assert_eq!((first("shop").as_deref(), first("bank").as_deref()), (Some("own"), Some("m")));
    assert!(keys.sealing("shop").is_some_and(|ring| ring.get("m").is_some() && ring.get("own").is_none()));
    // The second time, nothing is derived.
    let again = (keys.sealing("bank").unwrap(), keys.sealing("bank").unwrap());
    assert!(Arc::ptr_eq(&again.0, &again.1));
    let alone = Keys::from_json(&one("shop", "signing", "k", &secret(1, 32))).unwrap();
    assert!(alone.signing("bank").is_none() && alone.sealing("shop").is_none());
}

#[test]
fn derived_keys_are_bounded() {
    let keys = Keys::from_json(&one("*", "signing", "m", &secret(2, 32))).unwrap();
    for number in 0..limits::DERIVED_TENANTS_MAX + 10 {
        assert!(keys.signing(&format!("tenant-{number}")).is_some());
    }
    let kept = keys.0.read().derived.read().len();
    assert_eq!(kept, 10);
}

#[test]
fn tenants_under_one_master_cannot_read_or_sign_for_each_other() {
    let text = format!(
        r#"{{"tenants": {{"*": {{"signing": [{{"id": "m", "secret": "{0}"}}], "sealing": [{{"id": "m", "secret": "{0}"}}]}}}}}}"#,
        secret(2, 32)
    );
    let keys = Keys::from_json(&text).unwrap();
    let event = Event::new("order.placed", "{}");
    let sealed = seal::seal(event.clone(), "shop", &keys).unwrap();
    assert_eq!(seal::open(&sealed, "shop", &keys).unwrap(), "{}");
    assert_eq!(seal::open(&sealed, "bank", &keys), Err(sign::Untrusted::Wrong(sign::Guard::Seal)));
    let signed = sign::sign(event, "shop", &keys).unwrap();
    assert_eq!(sign::verify(&signed, "shop", &keys), Ok(()));
    assert_eq!(sign::verify(&signed, "bank", &keys), Err(sign::Untrusted::Wrong(sign::Guard::Signature)));
}

#[test]
fn a_rotation_reaches_all_clones() {
    let keys = Keys::from_json(&one("shop", "signing", "old", &secret(1, 32))).unwrap();
    let elsewhere = keys.clone();
    keys.replace(&Keys::from_json(&one("shop", "signing", "new", &secret(2, 32))).unwrap());
    assert_eq!(format!("{elsewhere:?}"), r#"{"shop": {"signing": ["new"]}}"#);
    keys.replace(&elsewhere);
    assert_eq!(format!("{keys:?}"), r#"{"shop": {"signing": ["new"]}}"#);
}

#[test]
fn a_file_is_followed_and_a_wrong_one_changes_nothing() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(one("shop", "signing", "old", &secret(1, 32)).as_bytes()).unwrap();
    let keys = Keys::from_file(file.path()).unwrap();
    assert!(!keys.reload(file.path()).unwrap());
    std::fs::write(file.path(), one("shop", "signing", "new", &secret(0xa7, 31))).unwrap();
    let error = keys.reload(file.path()).unwrap_err().to_string();
    assert!(error.starts_with("keys in ") && error.ends_with("signing takes 32 to 64"), "{error}");
    assert_eq!(format!("{keys:?}"), r#"{"shop": {"signing": ["old"]}}"#);
    std::fs::write(file.path(), one("shop", "signing", "new", &secret(2, 32))).unwrap();
    assert!(keys.reload(file.path()).unwrap());
    assert!(!keys.reload(file.path()).unwrap());
    assert_eq!(format!("{keys:?}"), r#"{"shop": {"signing": ["new"]}}"#);
    std::fs::write(file.path(), b"\"\xff").unwrap();
    assert!(keys.reload(file.path()).unwrap_err().to_string().ends_with("not UTF-8 at byte 1"));
    std::fs::remove_file(file.path()).unwrap();
    assert_eq!(keys.reload(file.path()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_variable_that_is_not_set_or_holds_no_keys_is_told_by_its_name() {
    let error = Keys::from_env("TIDEWIRE_TEST_NO_SUCH_KEYS").unwrap_err();
    let text = "environment variable TIDEWIRE_TEST_NO_SUCH_KEYS is not set";
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, text));
    let error = Keys::from_env("PATH").unwrap_err().to_string();
    assert!(error.starts_with("keys in PATH: not as it should be: ") && !error.contains("bin"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), one("shop", "signing", "k", &secret(1, 32))).unwrap();
    for (mode, is_told) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let log = Log::default();
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || written.clone()).finish();
        tracing::subscriber::with_default(subscriber, || Keys::from_file(file.path()).map(drop)).unwrap();
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.contains("keys can be read by every user"), is_told, "{mode:o}: {log}");
    }
}
