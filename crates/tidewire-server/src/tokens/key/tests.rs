use serde_json::{Value, json};

use super::*;
use crate::tokens::signing::{Signer, pem};

fn is_signed(key: &Key, token: &str, algorithm: Algorithm) -> bool {
    matches!(key.verify(token, algorithm), Verdict::Signed(_))
}

fn in_pem(signer: &Signer) -> Key {
    Key::of_pem(signer.pem().as_bytes()).unwrap().remove(0)
}

fn in_set(keys: &[Value]) -> Result<Vec<Key>, String> {
    read_set(json!({"keys": keys}).to_string().as_bytes())
}

#[test]
fn each_algorithm_is_verified_with_a_key_of_its_kind_and_no_other() {
    let kinds = [
        (Signer::secret("a-secret-of-16-b"), OF_SECRETS),
        (Signer::rsa(), OF_RSA),
        (Signer::p256(), OF_P256),
        (Signer::p384(), OF_P384),
        (Signer::ed25519(), OF_ED25519),
    ];
    let all: Vec<Algorithm> = kinds.iter().flat_map(|(_, algorithms)| algorithms.iter().copied()).collect();
    assert_eq!(all.len(), 12);
    let claims = json!({"sub": "ann"});
    for (signer, own) in &kinds {
        let keys = match signer {
            Signer::Secret(secret) => vec![Key::of_secret(secret)],
            _ => vec![in_pem(signer), in_set(&[signer.jwk("k")]).unwrap().remove(0)],
        };
        for key in keys {
            for algorithm in &all {
                let token = signer.token(*algorithm, &claims);
                assert_eq!(is_signed(&key, &token, *algorithm), own.contains(algorithm), "{algorithm:?}");
            }
            for algorithm in *own {
                let token = signer.token(*algorithm, &claims);
                let (text, signature) = token.rsplit_once('.').unwrap();
                let other = signer.token(*algorithm, &json!({"sub": "bob"}));
                let forged = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
                assert!(!is_signed(&key, &forged, *algorithm), "{algorithm:?}");
                assert!(!is_signed(&key, &format!("{text}."), *algorithm), "{algorithm:?}");
            }
        }
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    for signer in [Signer::rsa(), Signer::p256(), Signer::ed25519()] {
        let public = [signer.pem().into_bytes(), signer.der(), signer.jwk("k").to_string().into_bytes()];
        for secret in public {
            let forged = Signer::Secret(secret).token(Algorithm::HS256, &json!({"sub": "ann"}));
            for key in [in_pem(&signer), in_set(&[signer.jwk("k")]).unwrap().remove(0)] {
                assert!(!key.fits(Algorithm::HS256) && !is_signed(&key, &forged, Algorithm::HS256));
                // Not even where the algorithm is taken for another one than the token's.
                assert!(OF_RSA.iter().all(|algorithm| !is_signed(&key, &forged, *algorithm)));
            }
        }
    }
}

#[test]
fn a_file_has_public_keys_only_and_may_have_several() {
    let both = Signer::rsa().pem() + "text beside them\n" + &Signer::p384().pem();
    let keys = Key::of_pem(both.as_bytes()).unwrap();
    assert_eq!(keys.iter().map(|key| &*key.algorithms).collect::<Vec<_>>(), [OF_RSA, OF_P384]);
    let error = |text: &str| Key::of_pem(text.as_bytes()).err().unwrap();
    assert!(error("").contains("holds no public key"));
    assert!(error(&pem("CERTIFICATE", b"x")).contains("holds no public key"));
    assert!(error(&(Signer::p256().pem() + &pem("PRIVATE KEY", b"x"))).contains("holds a private key"));
    assert!(error(&pem("PUBLIC KEY", b"x")).contains("none of RSA"));
    assert!(error("-----BEGIN PUBLIC KEY-----\n???\n-----END PUBLIC KEY-----\n").contains("is no PEM"));
    assert!(error(&Signer::ed25519().pem().repeat(KEYS_MAX + 1)).contains("65 keys"));
}

#[test]
fn a_set_gives_what_is_for_verifying_tokens() {
    let rsa = Signer::rsa().jwk("r");
    let with = |name: &str, value: Value| {
        let mut jwk = rsa.clone();
        jwk[name] = value;
        in_set(&[jwk]).map(|keys| keys.first().map(|key| key.algorithms.clone()))
    };
    assert_eq!(with("alg", json!("RS512")), Ok(Some(vec![Algorithm::RS512])), "its algorithm and no other");
    assert_eq!(with("key_ops", json!(["verify"])), Ok(Some(OF_RSA.to_vec())));
    for (name, value) in [
        ("alg", json!("HS256")),
        ("alg", json!("none")),
        ("alg", json!("ES256")),
        ("alg", json!("RSA-OAEP")),
        ("use", json!("enc")),
        ("key_ops", json!(["encrypt"])),
        ("kty", json!("AKP")),
    ] {
        assert_eq!(with(name, value.clone()), Ok(None), "{name} {value}");
    }
    assert_eq!(in_set(&[Signer::secret("a-secret-of-16-b").jwk("s")]).unwrap().len(), 0, "no secrets");
    assert_eq!(in_set(&[]).unwrap().len(), 0);
}

#[test]
fn a_broken_key_does_not_take_the_others_with_it() {
    let good = Signer::p256().jwk("good");
    let (mut off_curve, other) = (good.clone(), Signer::p256().jwk("other"));
    off_curve["y"] = other["y"].clone();
    let mut short = Signer::rsa().jwk("short");
    short["n"] = json!(URL_SAFE_NO_PAD.encode([0xff; 128]));
    let mut even = Signer::rsa().jwk("even");
    even["e"] = json!("Ag");
    let mut one = even.clone();
    one["e"] = json!("AQ");
    let mut cut = Signer::ed25519().jwk("cut");
    cut["x"] = json!("AAAA");
    let mut padded = good.clone();
    padded["x"] = json!("====");
    for broken in [off_curve, short, even, one, cut, padded, json!(5), json!({"kty": 5, "kid": {}})] {
        assert!(
            in_set(std::slice::from_ref(&broken)).is_err() || broken.get("kid") == Some(&json!({})),
            "{broken}"
        );
        let keys = in_set(&[broken, good.clone()]).unwrap();
        assert_eq!(keys.iter().map(Key::id).collect::<Vec<_>>(), [Some("good")]);
    }
}

#[test]
fn what_is_no_set_is_told() {
    let too_many = json!({"keys": vec![json!({"kty": "AKP"}); KEYS_MAX + 1]}).to_string();
    let deep = format!("{{\"keys\": [{}1{}]}}", "[".repeat(10_000), "]".repeat(10_000));
    for text in ["", "null", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": 1}"#, "\u{0}", &too_many, &deep] {
        assert!(read_set(text.as_bytes()).is_err(), "{:.40}", text);
    }
}
