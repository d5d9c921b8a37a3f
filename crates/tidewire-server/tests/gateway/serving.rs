//! The server as a whole: slow clients, probes, the page, its end.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, dev, get, publish, start, strict};

#[tokio::test]
async fn a_slow_client_is_cut_and_the_others_miss_nothing() {
    let mut config = dev();
    config.limits.outbox_bytes_max = 64 * 1024;
    config.timing.write_within = Duration::from_secs(60);
    let server = start(config).await;
    let (mut slow, subscribed) = Client::subscribed(&server, "flood").await;
    let (mut quick, _) = Client::subscribed(&server, "flood").await;
    // Far more than the kernel buffers between the two ends of a connection hold.
    let data = "x".repeat(64 * 1024);
    for offset in 1..=400 {
        assert_eq!(publish(&server, "flood", json!(data)).await, offset);
        assert_eq!(quick.publication("flood").await.1, offset);
    }
    let mut last = 0;
    let (code, _) = loop {
        match slow.line().await {
            Ok(line) => last = line["push"]["pub"]["offset"].as_u64().unwrap_or(last),
            Err(closed) => break closed,
        }
    };
    assert!(last < 400, "it was cut on the way");
    assert!(matches!(code, 3008 | 1006), "{code}");
    let metrics = get(&server, "/metrics").await.body;
    assert!(metrics.contains("tidewire_disconnects_total{code=\"3008\"} 1"), "{metrics}");

    // It comes back for the rest.
    let mut back = Client::anonymous(&server).await;
    let result = back.subscribe("flood", Some((subscribed["epoch"].as_str().unwrap(), last))).await.unwrap();
    assert_eq!(result["recovered"], true);
    let in_reply = result["publications"].as_array().unwrap().len() as u64;
    for offset in last + in_reply + 1..=400 {
        assert_eq!(back.publication("flood").await.1, offset);
    }
}

#[tokio::test]
async fn a_connection_that_sends_no_request_is_closed() {
    let mut config = dev();
    config.timing.request_within = Duration::from_millis(100);
    let server = start(config).await;
    for start_of_request in ["", "GET /health HTTP/1.1\r\nHost: a\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
        stream.write_all(start_of_request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "still open after {start_of_request:?}");
    }
}

#[tokio::test]
async fn probes_tell_how_it_is() {
    let server = start(dev()).await;
    let (_client, _) = Client::subscribed(&server, "probe").await;
    assert_eq!(get(&server, "/health").await.status, 200);
    let ready = get(&server, "/ready").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ready")));
    let metrics = get(&server, "/metrics").await;
    for line in [
        "tidewire_connections{tenant=\"default\"} 1",
        "tidewire_subscriptions{tenant=\"default\"} 1",
        "tidewire_commands_total{method=\"subscribe\",code=\"0\"} 1",
    ] {
        assert!(metrics.body.contains(line), "{line} is not in {}", metrics.body);
    }
}

#[tokio::test]
async fn only_dev_serves_the_page() {
    let server = start(dev()).await;
    let page = get(&server, "/").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy"), "{}", page.head);
    assert!(page.body.contains("id=\"feed\"") && page.body.contains("data-state="));
    assert_eq!(get(&start(strict()).await, "/").await.status, 404);
}

#[tokio::test]
async fn dev_refuses_to_listen_on_anything_but_loopback() {
    let mut config = dev();
    config.listen = "0.0.0.0:0".into();
    let error = tidewire_server::Server::start(config).await.err().unwrap().to_string();
    assert!(error.contains("loopback only"), "{error}");
}

#[tokio::test]
async fn an_address_or_engine_that_cannot_be_used_is_named() {
    let taken = start(dev()).await;
    let mut config = dev();
    config.listen = taken.addr().to_string();
    let error = tidewire_server::Server::start(config).await.err().unwrap().to_string();
    assert!(error.contains(&taken.addr().to_string()), "{error}");
    let mut config = dev();
    config.engine = tidewire_server::EngineUrl::from("nonsense://user:secret@host");
    let error = tidewire_server::Server::start(config).await.err().unwrap().to_string();
    assert!(error.contains("nonsense") && !error.contains("secret"), "{error}");
}

#[tokio::test]
async fn closing_tells_clients_to_reconnect_elsewhere() {
    let server = start(dev()).await;
    let addr = server.addr();
    let (mut client, _) = Client::subscribed(&server, "end").await;
    publish(&server, "end", json!(1)).await;
    let (closed, outcome) = tokio::join!(
        async {
            assert_eq!(client.publication("end").await.1, 1);
            client.closed().await
        },
        server.close(Duration::from_secs(10)),
    );
    assert_eq!(closed, (3001, "shutdown".into()));
    outcome.unwrap();
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "it no longer listens");
}
