//! Who is let in, and for how long.

use std::time::Duration;

use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use tidewire_server::config::DEV_TOKEN_SECRET;

use crate::client::{ACME_SECRET, Client, acme_token, dev, dev_token, get, start, strict, token};

#[tokio::test]
async fn an_anonymous_connection_is_told_its_id_and_pings() {
    let server = start(dev()).await;
    let mut client = Client::open(&server).await;
    let result =
        client.call("connect", json!({"name": "js", "version": "5.8.0", "data": null})).await.unwrap();
    assert!(result["client"].as_str().is_some_and(|id| !id.is_empty()));
    assert_eq!((&result["ping"], &result["pong"]), (&json!(25), &json!(true)));
    assert_eq!(result.get("expires"), None);
}

#[tokio::test]
async fn a_token_that_expires_says_when() {
    let server = start(dev()).await;
    let mut client = Client::open(&server).await;
    let result = client.call("connect", json!({"token": dev_token("ann")})).await.unwrap();
    assert_eq!(result["expires"], true);
    let ttl = result["ttl"].as_u64().unwrap();
    assert!((3590..=3600).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn an_expired_token_is_told_from_a_forged_one() {
    let server = start(dev()).await;
    let mut client = Client::open(&server).await;
    let expired = token(&json!({"sub": "ann", "exp": get_current_timestamp() - 1}), DEV_TOKEN_SECRET);
    let error = client.call("connect", json!({"token": expired})).await.unwrap_err();
    assert_eq!(error, json!({"code": 109, "message": "token expired"}));
    // The client may try again with a fresh one on the same connection.
    client.call("connect", json!({"token": dev_token("ann")})).await.unwrap();

    for forged in [
        token(&json!({"sub": "ann"}), "not-the-secret"),
        token(&json!({"sub": "ann", "exp": get_current_timestamp() - 1}), "not-the-secret"),
        token(&json!({"sub": ""}), DEV_TOKEN_SECRET),
        token(&json!({"sub": "ann", "tenant": "nobody"}), DEV_TOKEN_SECRET),
        "rubbish".to_owned(),
    ] {
        let mut client = Client::open(&server).await;
        client.send(json!({"id": 1, "connect": {"token": forged}}).to_string()).await;
        assert_eq!(client.closed().await, (3500, "invalid token".into()), "{forged}");
    }
}

#[tokio::test]
async fn a_token_of_one_tenant_is_nothing_to_another() {
    let mut config = dev();
    config.tenants.extend(strict().tenants);
    let server = start(config).await;
    Client::with_token(&server, &acme_token("ann")).await;
    for forged in [
        token(&json!({"sub": "ann", "tenant": "acme"}), DEV_TOKEN_SECRET),
        token(&json!({"sub": "ann", "tenant": "default"}), ACME_SECRET),
    ] {
        let mut client = Client::open(&server).await;
        client.send(json!({"id": 1, "connect": {"token": forged}}).to_string()).await;
        assert_eq!(client.closed().await.0, 3500);
    }
}

#[tokio::test]
async fn nothing_is_open_by_default() {
    let mut config = strict();
    config.tenants.clear();
    let server = start(config).await;
    for connect in [json!({}), json!({"token": dev_token("ann")})] {
        let mut client = Client::open(&server).await;
        client.send(json!({"id": 1, "connect": connect}).to_string()).await;
        assert_eq!(client.closed().await, (3500, "invalid token".into()));
    }
    assert_eq!(get(&server, "/").await.status, 404);
}

#[tokio::test]
async fn the_first_command_must_be_connect_and_only_the_first() {
    let server = start(dev()).await;
    for (frame, reason) in [
        (r#"{"id":1,"ping":{}}"#, "the first command must be connect"),
        (r#"{"connect":{}}"#, "command without an id"),
        ("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"connect\":{}}", "second connect command"),
        ("{\"id\":1,\"connect\":{}}\n{\"ping\":{}}", "command without an id"),
    ] {
        let mut client = Client::open(&server).await;
        client.send(frame).await;
        assert_eq!(client.closed().await, (3501, format!("bad request: {reason}")), "{frame}");
    }
}

#[tokio::test]
async fn a_web_page_of_another_origin_is_kept_out() {
    let server = start(strict()).await;
    assert_eq!(Client::open_from(&server, Some("https://evil.example")).await.err(), Some(403));
    let own = format!("http://{}", server.addr());
    for origin in ["https://acme.example", own.as_str()] {
        let mut client = Client::open_from(&server, Some(origin)).await.unwrap();
        client.call("connect", json!({"token": acme_token("ann")})).await.unwrap();
    }
    // Dev lets in the pages of this machine, and none that only calls itself by our name.
    let server_dev = start(dev()).await;
    assert!(Client::open_from(&server_dev, Some("http://localhost:5173")).await.is_ok());
    assert_eq!(Client::open_from(&server_dev, Some("https://evil.example")).await.err(), Some(403));

    // The page of one tenant cannot use another tenant's token.
    let mut config = strict();
    let mut other = config.tenants["acme"].clone();
    other.origins = vec!["https://other.example".into()];
    other.api_keys.clear();
    config.tenants.insert("other".into(), other);
    let server = start(config).await;
    let mut client = Client::open_from(&server, Some("https://other.example")).await.unwrap();
    client.send(json!({"id": 1, "connect": {"token": acme_token("ann")}}).to_string()).await;
    assert_eq!(client.closed().await, (3507, "permission denied".into()));
}

#[tokio::test]
async fn a_connection_that_never_connects_is_closed() {
    let mut config = dev();
    config.timing.connect_within = Duration::from_millis(50);
    let server = start(config).await;
    let mut client = Client::open(&server).await;
    assert_eq!(client.closed().await, (3502, "stale".into()));
}

#[tokio::test]
async fn a_client_that_answers_pings_stays_and_one_that_does_not_is_closed() {
    let mut config = dev();
    config.timing.ping_every = Duration::from_millis(200);
    config.timing.pong_within = Duration::from_millis(100);
    let server = start(config).await;
    let mut silent = Client::anonymous(&server).await;
    assert_eq!(silent.line().await.unwrap(), json!({}), "a ping");
    assert_eq!(silent.closed().await, (3012, "no pong".into()));

    let mut answering = Client::anonymous(&server).await;
    for _ in 0..3 {
        assert_eq!(answering.line().await.unwrap(), json!({}));
        answering.send("{}").await;
    }
    answering.call("ping", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_its_token_unless_it_is_refreshed() {
    let mut config = dev();
    config.timing.expired_grace = Duration::ZERO;
    let server = start(config).await;
    let short = || token(&json!({"sub": "ann", "exp": get_current_timestamp() + 2}), DEV_TOKEN_SECRET);
    let mut forgetful = Client::with_token(&server, &short()).await;
    let mut careful = Client::with_token(&server, &short()).await;
    let result = careful.call("refresh", json!({"token": dev_token("ann")})).await.unwrap();
    assert_eq!(result["expires"], true);
    assert_eq!(forgetful.closed().await, (3005, "connection expired".into()));
    careful.call("ping", json!({})).await.unwrap();

    let error =
        careful.call("refresh", json!({"token": token(&json!({"sub": "ann", "exp": 1}), DEV_TOKEN_SECRET)}));
    assert_eq!(error.await.unwrap_err()["code"], 109);
    careful.send(json!({"id": 99, "refresh": {"token": dev_token("bob")}}).to_string()).await;
    assert_eq!(careful.closed().await.0, 3500, "a connection cannot become another user's");
}

#[tokio::test]
async fn a_full_node_refuses_before_the_upgrade() {
    let mut config = dev();
    config.limits.connections_max = 1;
    let server = start(config).await;
    let _first = Client::anonymous(&server).await;
    assert_eq!(Client::open_from(&server, None).await.err(), Some(503));
}
