//! Tokens that are verified with public keys.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::json;
use tidewire_server::config::DEFAULT_TENANT;

use crate::client::{Client, dev, dev_token, start};

fn signed(key: &KeyPair, id: Option<&str>) -> String {
    let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::ES384) };
    encode(&header, &json!({"sub": "ann"}), &EncodingKey::from_ec_der(&key.serialize_der())).unwrap()
}

#[tokio::test]
async fn a_token_of_a_key_in_a_file_connects_and_one_of_another_key_does_not() {
    let [key, other] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("public.pem");
    std::fs::write(&file, key.public_key_pem()).unwrap();
    let mut config = dev();
    config.tenants.get_mut(DEFAULT_TENANT).unwrap().token_keys = vec![file];
    let server = start(config).await;
    Client::with_token(&server, &signed(&key, None)).await;
    Client::with_token(&server, &dev_token("bob")).await;
    let mut client = Client::open(&server).await;
    client.send(json!({"id": 1, "connect": {"token": signed(&other, None)}}).to_string()).await;
    assert_eq!(client.closed().await.0, 3500);
}

#[tokio::test]
async fn a_token_whose_key_cannot_be_fetched_may_come_again() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut config = dev();
    let tenant = config.tenants.get_mut(DEFAULT_TENANT).unwrap();
    // At a private address, where it may not be: nothing is asked.
    tenant.jwks = vec!["http://127.0.0.1:1/jwks.json".into()];
    let server = start(config).await;
    let mut client = Client::open(&server).await;
    let refused = client.call("connect", json!({"token": signed(&key, Some("k"))})).await.unwrap_err();
    assert_eq!((&refused["code"], &refused["temporary"]), (&json!(100), &json!(true)));
    client.call("connect", json!({"token": dev_token("bob")})).await.unwrap();
    let refused = client.call("refresh", json!({"token": signed(&key, Some("k"))})).await.unwrap_err();
    assert_eq!(refused["code"], 100);
}
