use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::signing::Signer;
use super::*;
use crate::config::Secret;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn tokens(config: &TenantConfig) -> Tokens {
    Tokens::new("default", config, &Tasks::new(), &Clock::virtual_at(NOW)).unwrap()
}

fn with_secrets(secrets: &[&str]) -> Tokens {
    let token_secrets = secrets.iter().map(|secret| Secret::from(*secret)).collect();
    tokens(&TenantConfig { token_secrets, ..TenantConfig::default() })
}

async fn outcome(tokens: &Tokens, token: &str) -> Result<String, Refusal> {
    tokens.connection(token, NOW).await.map(|claims| claims.user.to_string())
}

async fn reason(tokens: &Tokens, token: &str) -> String {
    match outcome(tokens, token).await {
        Err(Refusal::Invalid(reason)) => {
            assert!(token.is_empty() || !reason.contains(token), "never the token: {reason}");
            reason
        }
        other => panic!("accepted, or refused for another reason: {other:?}"),
    }
}

/// Serves `keys` for ever.
async fn site(tasks: &Tasks, keys: Vec<Value>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let body = json!({"keys": keys}).to_string();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            assert_eq!(stream.read_u8().await.unwrap(), b'G');
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn each_of_several_secrets_is_accepted_so_that_they_rotate() {
    let both = with_secrets(&["old-secret-16-bytes", "new-secret-16-bytes"]);
    for secret in ["old-secret-16-bytes", "new-secret-16-bytes"] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let token = Signer::secret(secret).token(algorithm, &json!({"sub": "ann"}));
            assert_eq!(outcome(&both, &token).await, Ok("ann".into()));
        }
    }
    let token = Signer::secret("old-secret-16-bytes").token(Algorithm::HS256, &json!({"sub": "ann"}));
    assert!(
        reason(&with_secrets(&["new-secret-16-bytes"]), &token).await.contains("no key of the tenant signed")
    );
}

#[tokio::test]
async fn a_forged_token_says_nothing_about_its_claims() {
    let tokens = with_secrets(&["a-secret-of-16-bytes"]);
    let claims = json!({"sub": "ann", "exp": 1});
    let expired = Signer::secret("a-secret-of-16-bytes").token(Algorithm::HS256, &claims);
    assert_eq!(outcome(&tokens, &expired).await, Err(Refusal::Expired));
    let forged = Signer::secret("other").token(Algorithm::HS256, &claims);
    assert!(reason(&tokens, &forged).await.contains("signed"));
}

#[tokio::test]
async fn refuses_what_is_no_proof() {
    let signer = Signer::secret("a-secret-of-16-bytes");
    let tokens = with_secrets(&["a-secret-of-16-bytes"]);
    let claims = json!({"sub": "ann"});
    for algorithm in ["none", "None", "NONE", "", "HS1", "ES512", "ES256K"] {
        let token = signer.token_with(Algorithm::HS256, &json!({"alg": algorithm}), &claims);
        assert!(reason(&tokens, &token).await.contains("malformed token"), "{algorithm}");
    }
    // {"alg":"none"}.{"sub":"ann"}. with an empty signature.
    for token in
        ["eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.", "", "a.b.c", "....", "a.b", "\u{e9}.\u{e9}.\u{e9}"]
    {
        reason(&tokens, token).await;
    }
    let critical = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    assert!(reason(&tokens, &signer.token_with(Algorithm::HS256, &critical, &claims)).await.contains("crit"));
    for claims in [json!([]), json!("ann"), json!(null)] {
        reason(&tokens, &signer.token(Algorithm::HS256, &claims)).await;
    }
    let asymmetric = Signer::rsa().token(Algorithm::RS256, &claims);
    assert!(reason(&tokens, &asymmetric).await.contains("no key for a token of RS256"));
    assert!(
        reason(&with_secrets(&[]), &signer.token(Algorithm::HS256, &claims)).await.contains("token_secrets")
    );
}

#[tokio::test]
async fn a_token_is_bounded_and_so_is_what_the_log_gets() {
    let signer = Signer::secret("a-secret-of-16-bytes");
    let tokens = with_secrets(&["a-secret-of-16-bytes"]);
    let sized = |bytes: usize| signer.token(Algorithm::HS256, &json!({"sub": "x".repeat(bytes)}));
    assert!(outcome(&tokens, &sized(12_000)).await.is_ok());
    let over = sized(12_300);
    assert!(over.len() > TOKEN_BYTES_MAX);
    assert!(reason(&tokens, &over).await.contains("at most 16384"));
    assert!(claimed_tenant(&over).is_err());
    let long = signer.token(Algorithm::HS256, &json!({"sub": "ann", "tenant": "\u{e9}".repeat(4_000)}));
    assert!(reason(&tokens, &long).await.len() <= REASON_BYTES_MAX);
}

#[tokio::test]
async fn keys_of_files_are_read_at_the_start() {
    let (rsa, curve) = (Signer::rsa(), Signer::p384());
    let folder = tempfile::tempdir().unwrap();
    let files = [folder.path().join("a.pem"), folder.path().join("b.pem")];
    std::fs::write(&files[0], rsa.pem()).unwrap();
    std::fs::write(&files[1], curve.pem()).unwrap();
    let config = TenantConfig { token_keys: files.to_vec(), ..TenantConfig::default() };
    let tokens = tokens(&config);
    let claims = json!({"sub": "ann"});
    // A key of a file has no name, so it does not matter which one a token gives it.
    assert_eq!(outcome(&tokens, &rsa.token_of("any", Algorithm::PS256, &claims)).await, Ok("ann".into()));
    assert_eq!(outcome(&tokens, &curve.token(Algorithm::ES384, &claims)).await, Ok("ann".into()));
    assert!(outcome(&tokens, &Signer::rsa().token(Algorithm::RS256, &claims)).await.is_err());
    std::fs::write(&files[1], "nothing").unwrap();
    let error = |config: &TenantConfig| {
        Tokens::new("default", config, &Tasks::new(), &Clock::system()).err().unwrap()
    };
    assert!(
        error(&config).starts_with("token_keys: ") && error(&config).contains("b.pem: holds no public key")
    );
    let gone = TenantConfig { token_keys: vec![folder.path().join("gone.pem")], ..TenantConfig::default() };
    assert!(error(&gone).contains("gone.pem: cannot be read"));
}

#[tokio::test]
async fn keys_are_found_in_whichever_set_has_them() {
    let (one, two, tasks) = (Signer::p256(), Signer::ed25519(), Tasks::new());
    // Both have a key of the same name.
    let first = site(&tasks, vec![one.jwk("k"), Signer::ed25519().jwk("k")]).await;
    let second = site(&tasks, vec![two.jwk("k")]).await;
    let config = TenantConfig {
        token_secrets: vec![Secret::from("a-secret-of-16-bytes")],
        jwks: vec![first, second],
        jwks_allow_private: true,
        ..TenantConfig::default()
    };
    let tokens = tokens(&config);
    let claims = json!({"sub": "ann"});
    for _ in 0..2 {
        assert_eq!(outcome(&tokens, &one.token_of("k", Algorithm::ES256, &claims)).await, Ok("ann".into()));
        assert_eq!(outcome(&tokens, &two.token_of("k", Algorithm::EdDSA, &claims)).await, Ok("ann".into()));
    }
    let forged = Signer::p256().token_of("k", Algorithm::ES256, &claims);
    assert!(
        matches!(outcome(&tokens, &forged).await, Err(Refusal::Unavailable(_))),
        "the second may have it"
    );
    let public = Signer::Secret(one.der()).token_of("k", Algorithm::HS256, &claims);
    assert!(reason(&tokens, &public).await.contains("HS256"), "no set has secrets");
}

#[tokio::test]
async fn a_set_that_cannot_be_asked_makes_no_token_invalid() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let jwks = vec![format!("http://{}/", listener.local_addr().unwrap())];
    drop(listener);
    let token_secrets = vec![Secret::from("a-secret-of-16-bytes")];
    let config = TenantConfig { jwks, jwks_allow_private: true, token_secrets, ..TenantConfig::default() };
    let tokens = tokens(&config);
    let claims = json!({"sub": "ann"});
    let unknown = Signer::rsa().token_of("k", Algorithm::RS256, &claims);
    let Err(Refusal::Unavailable(why)) = outcome(&tokens, &unknown).await else { panic!("it was judged") };
    assert!(why.contains("cannot be connected to"), "{why}");
    let own = Signer::secret("a-secret-of-16-bytes").token(Algorithm::HS256, &claims);
    assert_eq!(outcome(&tokens, &own).await, Ok("ann".into()), "and is not needed for others");
}

#[tokio::test]
async fn a_subscription_token_is_no_connection_token_and_the_other_way_round() {
    let signer = Signer::secret("a-secret-of-16-bytes");
    let tokens = with_secrets(&["a-secret-of-16-bytes"]);
    let sign = |claims: Value| signer.token(Algorithm::HS256, &claims);
    let of_channel = sign(json!({"sub": "ann", "channel": "news"}));
    let of_connection = sign(json!({"sub": "ann"}));
    assert!(tokens.subscription(&of_channel, "news", "ann", "c1", NOW).await.is_ok());
    assert!(tokens.subscription(&of_connection, "news", "ann", "c1", NOW).await.is_err());
    assert!(reason(&tokens, &of_channel).await.contains("of a subscription"));
    let forged = Signer::secret("other").token(Algorithm::HS256, &json!({"sub": "ann", "channel": "news"}));
    assert!(tokens.subscription(&forged, "news", "ann", "c1", NOW).await.is_err());
}

#[tokio::test]
async fn a_token_is_of_one_tenant_also_where_two_share_a_key() {
    let signer = Signer::secret("a-secret-of-16-bytes");
    let config =
        TenantConfig { token_secrets: vec![Secret::from("a-secret-of-16-bytes")], ..TenantConfig::default() };
    let acme = Tokens::new("acme", &config, &Tasks::new(), &Clock::system()).unwrap();
    let token = |claims: Value| signer.token(Algorithm::HS256, &claims);
    assert!(outcome(&acme, &token(json!({"sub": "ann", "tenant": "acme"}))).await.is_ok());
    assert!(reason(&acme, &token(json!({"sub": "ann"}))).await.contains("\"default\""));
    let of_channel = token(json!({"sub": "ann", "channel": "news"}));
    assert!(acme.subscription(&of_channel, "news", "ann", "c1", NOW).await.is_err());
}

#[test]
fn a_token_without_a_tenant_is_of_the_default_one() {
    let token = |claims: &Value| Signer::secret("x").token(Algorithm::HS256, claims);
    assert_eq!(claimed_tenant(&token(&json!({"sub": "a"}))).unwrap(), "default");
    assert_eq!(claimed_tenant(&token(&json!({"tenant": "acme"}))).unwrap(), "acme");
    assert!(claimed_tenant("rubbish").is_err());
}
