//! What `/metrics` tells of connections, their tenants, and the engine's links.

use serde_json::json;
use tidewire_server::config::TenantConfig;
use tidewire_server::{Secret, Server};

use crate::client::{
    ACME_SECRET, Client, acme_token, dev, dev_token, get, publish, rest, start, strict, token,
};
use crate::openmetrics::Page;

async fn page(server: &Server) -> Page {
    Page::read(&get(server, "/metrics").await.body)
}

#[tokio::test]
async fn deliveries_are_counted_and_timed_and_so_is_what_clients_send() {
    let server = start(dev()).await;
    let (mut one, _) = Client::subscribed(&server, "news").await;
    let (mut other, _) = Client::subscribed(&server, "news").await;
    for number in 1..=3 {
        publish(&server, "news", json!(number)).await;
        one.publication("news").await;
        other.publication("news").await;
    }
    let page = page(&server).await;
    assert_eq!(page.value(r#"tidewire_deliveries_total{tenant="default"}"#), 6.0);
    assert_eq!(page.value(r#"tidewire_delivery_lag_seconds_count{tenant="default"}"#), 6.0);
    assert_eq!(page.value(r#"tidewire_delivery_lag_seconds_bucket{le="60.0",tenant="default"}"#), 6.0);
    // Two connects and two subscriptions.
    assert_eq!(page.value(r#"tidewire_received_frames_total{transport="websocket"}"#), 4.0);
    assert!(page.value(r#"tidewire_received_bytes_total{transport="websocket"}"#) > 100.0);
    assert_eq!(page.value(r#"tidewire_received_frames_total{transport="sse"}"#), 0.0);
    assert_eq!(page.value(r#"tidewire_outbox_bytes{tenant="default"}"#), 0.0);
    assert_eq!(page.value(r#"tidewire_link_up{link="pub/sub in process"}"#), 1.0);
}

#[tokio::test]
async fn some_writes_are_timed() {
    let server = start(dev()).await;
    let (mut client, _) = Client::subscribed(&server, "news").await;
    let mut timed = 0.0;
    while timed == 0.0 {
        publish(&server, "news", json!(1)).await;
        client.publication("news").await;
        timed = page(&server).await.value(r#"tidewire_write_lag_seconds_count{tenant="default"}"#);
    }
}

#[tokio::test]
async fn those_who_come_back_at_once_are_recovered_with_one_read() {
    let server = start(dev()).await;
    let (client, subscribed) = Client::subscribed(&server, "news").await;
    drop(client);
    for number in 1..=5 {
        publish(&server, "news", json!(number)).await;
    }
    let epoch = subscribed["epoch"].as_str().unwrap();
    let back = (0..10).map(|_| async {
        let mut client = Client::anonymous(&server).await;
        let result = client.subscribe("news", Some((epoch, 0))).await.unwrap();
        assert_eq!(result["publications"].as_array().unwrap().len(), 5);
        client
    });
    let clients = futures_util::future::join_all(back).await;
    let page = page(&server).await;
    let reads = |purpose| {
        page.value(&format!(r#"tidewire_stream_reads_total{{tenant="default",purpose="{purpose}"}}"#))
    };
    assert_eq!((reads("recovery"), reads("end")), (1.0, 0.0));
    assert_eq!(page.value(r#"tidewire_recovered_events_total{tenant="default"}"#), 50.0);
    assert_eq!(page.value(r#"tidewire_recoveries_total{tenant="default",outcome="complete"}"#), 10.0);
    drop(clients);
}

#[tokio::test]
async fn who_is_not_let_in_is_counted_by_kind() {
    let server = start(strict()).await;
    let refused = async |token: &str| {
        let mut client = Client::open(&server).await;
        let _error_or_end = client.send(json!({"id": 1, "connect": {"token": token}}).to_string()).await;
        let _told = client.line().await;
    };
    refused("").await;
    refused("no token").await;
    refused(&token(&json!({"sub": "ann", "tenant": "nobody"}), ACME_SECRET)).await;
    refused(&token(&json!({"sub": "ann", "tenant": "acme"}), "another-secret-0123456789")).await;
    refused(&token(&json!({"sub": "ann", "tenant": "acme", "exp": 1}), ACME_SECRET)).await;
    assert!(Client::open_from(&server, Some("https://evil.example")).await.is_err());
    rest(&server, "GET", "/v1/schemas", "wrong", "").await;
    let mut ann = Client::with_token(&server, &acme_token("ann")).await;
    ann.subscribe("inner:a", None).await.unwrap_err();
    ann.call("publish", json!({"channel": "news:a", "data": 1})).await.unwrap_err();
    ann.call("subscribe", json!({"channel": "live:a", "token": "forged"})).await.unwrap_err();

    let page = page(&server).await;
    for (tenant, kind, count) in [
        ("", "token_missing", 1.0),
        ("", "token_invalid", 2.0),
        ("", "origin", 1.0),
        ("", "api_key", 1.0),
        ("acme", "token_invalid", 1.0),
        ("acme", "token_expired", 1.0),
        ("acme", "permission", 2.0),
        ("acme", "subscription_token", 1.0),
        ("acme", "origin", 0.0),
    ] {
        let sample = format!(r#"tidewire_auth_failures_total{{tenant="{tenant}",kind="{kind}"}}"#);
        assert_eq!(page.value(&sample), count, "{sample}");
    }
}

#[tokio::test]
async fn tenants_past_the_bound_are_counted_as_one() {
    let mut config = strict();
    config.metrics.tenants_max = 1;
    for name in ["a", "b"] {
        let secret = Secret::from(format!("{name}-secret-0123456789").as_str());
        let tenant = TenantConfig { token_secrets: vec![secret], ..TenantConfig::default() };
        config.tenants.insert(name.into(), tenant);
    }
    let server = start(config).await;
    let of = |tenant| format!(r#"tidewire_connections{{tenant="{tenant}"}}"#);
    assert_eq!(page(&server).await.value(&of("*")), 0.0);
    let _first = Client::with_token(&server, &acme_token("ann")).await;
    assert_eq!(page(&server).await.value(&of("acme")), 1.0);
    let others = ["a", "b"]
        .map(|name| token(&json!({"sub": "ann", "tenant": name}), &format!("{name}-secret-0123456789")));
    let _second = Client::with_token(&server, &others[0]).await;
    let _third = Client::with_token(&server, &others[1]).await;
    let page = page(&server).await;
    assert_eq!((page.value(&of("acme")), page.value(&of("*"))), (1.0, 2.0));
    assert_eq!((page.get(&of("a")), page.get(&of("b"))), (None, None));
}

#[tokio::test]
async fn what_cannot_be_told_to_a_connection_is_counted() {
    let mut config = dev();
    config.limits.outbox_bytes_max = 20_000;
    let server = start(config).await;
    let mut slow = Client::with_token(&server, &dev_token("ann")).await;
    slow.subscribe("flood", None).await.unwrap();
    let data = "x".repeat(100_000);
    let sample = r#"tidewire_drops_total{tenant="default",reason="slow"}"#;
    while page(&server).await.value(sample) == 0.0 {
        publish(&server, "flood", json!(data)).await;
    }
}
