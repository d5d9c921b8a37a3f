//! Who may come in at all: address lists, proxies, and what an address may do before it has authenticated.

use std::time::Duration;

use serde_json::json;
use tidewire_server::config::{DEV_API_KEY, Network, ProxyHeader};
use tidewire_server::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{
    ACME_KEY, ACME_SECRET, Client, acme_token, dev, get, post, request, start, strict, token,
};

/// Far above what any wait takes.
const DEADLINE: Duration = Duration::from_secs(20);

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Settings of a server whose clients come through a proxy on this machine.
fn behind_proxy(mut config: Config) -> Config {
    config.edge.trusted_proxies = networks(&["127.0.0.1"]);
    config
}

/// A TCP connection that the server has accepted, with the answer to one request on it; `None` if it was closed at once.
async fn accepted(server: &Server) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let exchange = async {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.ok()?;
        assert_eq!(&answer, b"HTTP/1.1 200");
        Some(())
    };
    timeout(DEADLINE, exchange).await.unwrap()?;
    Some(stream)
}

async fn forwarded(server: &Server, path: &str, lines: &[(&str, &str)]) -> u16 {
    request(server.addr(), "GET", path, lines, "").await.status
}

/// The status that a client of a proxy gets for a WebSocket, 101 if it has it.
async fn websocket_of(server: &Server, lines: &[(&'static str, &str)]) -> u16 {
    Client::open_with(server, lines).await.map_or_else(|status| status, |_| 101)
}

async fn wait_until_counted(server: &Server, line: &str) {
    let counted = async { while !get(server, "/metrics").await.body.contains(line) {} };
    timeout(DEADLINE, counted).await.unwrap_or_else(|_| panic!("{line} is not counted"));
}

#[tokio::test]
async fn an_address_that_may_not_come_in_is_closed_before_it_is_heard() {
    let mut config = dev();
    config.edge.deny = networks(&["127.0.0.0/8"]);
    let server = start(config).await;
    assert!(accepted(&server).await.is_none());

    let mut config = dev();
    config.edge.allow = networks(&["10.0.0.0/8"]);
    assert!(accepted(&start(config).await).await.is_none());

    let mut config = dev();
    config.edge.allow = networks(&["10.0.0.0/8", "::ffff:127.0.0.1"]);
    assert!(accepted(&start(config).await).await.is_some());
}

#[tokio::test]
async fn an_address_behind_a_proxy_that_may_not_come_in_is_told_so() {
    let mut config = behind_proxy(dev());
    config.edge.deny = networks(&["192.0.2.66"]);
    let server = start(config).await;
    for path in ["/health", "/api/info", "/connection/sse", "/nowhere"] {
        let bad = [("X-Forwarded-For", "192.0.2.1, 192.0.2.66")];
        assert_eq!(forwarded(&server, path, &bad).await, 403, "{path}");
    }
    assert_eq!(websocket_of(&server, &[("x-forwarded-for", "192.0.2.66")]).await, 403);
    assert_eq!(forwarded(&server, "/health", &[("X-Forwarded-For", "192.0.2.66, 192.0.2.1")]).await, 200);
    assert_eq!(forwarded(&server, "/health", &[("X-Forwarded-For", "nonsense")]).await, 400);
    assert_eq!(websocket_of(&server, &[("x-forwarded-for", "nonsense")]).await, 400);
}

#[tokio::test]
async fn a_proxy_that_is_not_known_is_not_believed() {
    let mut config = dev();
    config.edge.deny = networks(&["192.0.2.66"]);
    let server = start(config).await;
    for value in ["192.0.2.66", "nonsense"] {
        assert_eq!(forwarded(&server, "/health", &[("X-Forwarded-For", value)]).await, 200);
    }
}

#[tokio::test]
async fn the_other_header_of_proxies_can_be_chosen() {
    let mut config = behind_proxy(dev());
    config.edge.proxy_header = ProxyHeader::Forwarded;
    config.edge.deny = networks(&["2001:db8::/32"]);
    let server = start(config).await;
    for (name, value, status) in [
        ("Forwarded", "for=\"[2001:db8::1]:4711\";proto=https", 403),
        ("Forwarded", "for=192.0.2.1", 200),
        ("Forwarded", "for=\"192.0.2.1", 400),
        ("X-Forwarded-For", "2001:db8::1", 200),
    ] {
        assert_eq!(forwarded(&server, "/health", &[(name, value)]).await, status, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_page_of_the_host_that_the_proxy_is_reached_at_may_connect() {
    let server = start(behind_proxy(strict())).await;
    let page = ("origin", "https://app.example");
    assert_eq!(websocket_of(&server, &[page]).await, 403);
    assert_eq!(websocket_of(&server, &[page, ("x-forwarded-host", "app.example")]).await, 101);
    // Where TLS is spoken to the proxy, a page that came without it may be anybody's.
    let secure = [("x-forwarded-host", "app.example"), ("x-forwarded-proto", "https")];
    let [host, proto] = secure;
    assert_eq!(websocket_of(&server, &[page, host, proto]).await, 101);
    assert_eq!(websocket_of(&server, &[("origin", "http://app.example"), host, proto]).await, 403);
    // From anybody else neither is believed.
    let server = start(strict()).await;
    assert_eq!(websocket_of(&server, &[page, host]).await, 403);
}

#[tokio::test]
async fn so_many_connections_of_an_address_may_wait_to_authenticate() {
    let mut config = dev();
    config.edge.unauthenticated_max = 2;
    let server = start(config).await;
    let mut first = Client::open(&server).await;
    let second = accepted(&server).await.unwrap();
    assert!(accepted(&server).await.is_none());
    // With its connect command a connection stops to count.
    first.call("connect", json!({})).await.unwrap();
    let third = accepted(&server).await.unwrap();
    assert!(accepted(&server).await.is_none());
    drop((second, third));
    let counted = async {
        loop {
            if let Some(stream) = accepted(&server).await {
                return stream;
            }
        }
    };
    let _fourth = timeout(DEADLINE, counted).await.unwrap();
}

#[tokio::test]
async fn an_api_key_proves_a_connection() {
    let mut config = dev();
    config.edge.unauthenticated_max = 1;
    let server = start(config).await;
    let with_key = async |key: &str, status: &str| {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        let head = format!(
            "POST /api/info HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(DEADLINE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer[9..], status.as_bytes());
        stream
    };
    let _kept_alive = [with_key(DEV_API_KEY, "200").await, with_key(DEV_API_KEY, "200").await];
    let _unknown = with_key("a-key-that-nobody-has", "401").await;
    assert!(accepted(&server).await.is_none());
}

#[tokio::test]
async fn commands_of_a_session_prove_a_connection() {
    let mut config = dev();
    config.edge.unauthenticated_max = 1;
    let server = start(config).await;
    let post = async |path: &str, body: &str, until: &str| {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.contains(until) {
            let mut buffer = [0; 4096];
            let length = timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
            assert_ne!(length, 0, "{until} was not in {answer}");
            answer.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        (stream, answer)
    };
    let (_events, answer) = post("/connection/http_stream", "{\"id\":1,\"connect\":{}}", "\"session\"").await;
    let session = answer.split("\"session\":\"").nth(1).unwrap().split('"').next().unwrap();
    let command = json!({"session": session, "node": "", "data": "{\"id\":2,\"ping\":{}}"}).to_string();
    let _kept_alive =
        [post("/emulation", &command, "204 No Content").await, post("/emulation", &command, "204").await];
    let forged = json!({"session": "unknown", "node": "", "data": "{}"}).to_string();
    let _counted = post("/emulation", &forged, "404 Not Found").await;
    assert!(accepted(&server).await.is_none());
}

#[tokio::test]
async fn clients_of_a_proxy_are_counted_each() {
    let mut config = behind_proxy(dev());
    (config.edge.unauthenticated_max, config.edge.connections_per_second) = (1, 1);
    config.edge.connections_burst = 3;
    let server = start(config).await;
    let of = |client: &'static str| [("x-forwarded-for", client)];
    let mut first = Client::open_with(&server, &of("192.0.2.1")).await.unwrap();
    assert_eq!(websocket_of(&server, &of("192.0.2.1")).await, 429);
    let refused = request(server.addr(), "GET", "/connection/sse", &of("192.0.2.1"), "").await;
    assert_eq!((refused.status, refused.head.contains("retry-after: 5")), (429, true), "{refused:?}");
    let other = Client::open_with(&server, &of("192.0.2.2")).await;
    assert!(other.is_ok(), "another client is counted by itself");
    first.call("connect", json!({})).await.unwrap();
    // One by one, and still no more than three at once.
    for _ in 0..2 {
        let mut next = Client::open_with(&server, &of("192.0.2.1")).await.unwrap();
        next.call("connect", json!({})).await.unwrap();
    }
    let refused = request(server.addr(), "POST", "/connection/http_stream", &of("192.0.2.1"), "").await;
    assert_eq!((refused.status, refused.head.contains("retry-after: 1")), (429, true), "{refused:?}");
    // Requests that open no connection are not bound by it.
    assert_eq!(forwarded(&server, "/health", &of("192.0.2.1")).await, 200);
    for line in [
        "tidewire_edge_refused_total{reason=\"unauthenticated\"} 2",
        "tidewire_edge_refused_total{reason=\"arrivals\"} 1",
    ] {
        wait_until_counted(&server, line).await;
    }
}

#[tokio::test]
async fn connections_that_come_too_fast_are_closed() {
    let mut config = dev();
    // So slow that none comes back while the test runs.
    (config.edge.connections_per_second, config.edge.connections_burst) = (1, 4);
    let server = start(config).await;
    let mut let_in = 0;
    for _ in 0..20 {
        let_in += usize::from(accepted(&server).await.is_some());
    }
    assert!((4..20).contains(&let_in), "{let_in}");
}

#[tokio::test]
async fn who_guesses_secrets_is_refused_for_a_while_even_with_the_right_one() {
    for with in ["tokens", "keys"] {
        let mut config = strict();
        config.edge.failures_per_minute = 3;
        let server = start(behind_proxy(config)).await;
        let of = [("x-forwarded-for", "192.0.2.1")];
        let call = async |client: &str, key: &str| {
            let lines = [("X-Forwarded-For", client), ("X-API-Key", key)];
            post(&server, "info", &lines, "{}").await
        };
        assert_eq!(call("192.0.2.1", ACME_KEY).await.status, 200);
        for number in 0..4 {
            if with == "keys" {
                assert_eq!(call("192.0.2.1", "a-key-that-nobody-has").await.status, 401, "{number}");
                continue;
            }
            let mut client = Client::open_with(&server, &of).await.unwrap();
            let forged = token(&json!({"sub": "ann", "tenant": "acme"}), "another-secret-0123456789");
            client.send(json!({"id": 1, "connect": {"token": forged}}).to_string()).await;
            assert_eq!(client.closed().await.0, 3500, "{number}");
        }
        let refused = call("192.0.2.1", ACME_KEY).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!(111)), "{refused:?}");
        assert!(refused.head.contains("retry-after: 60"), "{refused:?}");
        let v1 = request(
            server.addr(),
            "GET",
            "/v1/schemas",
            &[("X-Forwarded-For", "192.0.2.1"), ("X-API-Key", ACME_KEY)],
            "",
        );
        assert_eq!(v1.await.status, 429);
        assert_eq!(websocket_of(&server, &of).await, 429);
        // Others are not.
        assert_eq!(call("192.0.2.2", ACME_KEY).await.status, 200);
        let mut other = Client::open_with(&server, &[("x-forwarded-for", "192.0.2.2")]).await.unwrap();
        other.call("connect", json!({"token": acme_token("ann")})).await.unwrap();
        wait_until_counted(&server, "tidewire_edge_refused_total{reason=\"failures\"} 3").await;
    }
}

#[tokio::test]
async fn a_token_that_was_good_and_nothing_at_all_are_no_guesses() {
    let mut config = strict();
    config.edge.failures_per_minute = 1;
    let server = start(config).await;
    for _ in 0..4 {
        assert_eq!(post(&server, "info", &[], "{}").await.status, 401);
        let mut client = Client::open(&server).await;
        let expired = token(&json!({"sub": "ann", "tenant": "acme", "exp": 1}), ACME_SECRET);
        assert_eq!(client.call("connect", json!({"token": expired})).await.unwrap_err()["code"], 109);
        client.call("connect", json!({"token": acme_token("ann")})).await.unwrap();
        let mut client = Client::open(&server).await;
        client.send("{\"id\":1,\"connect\":{}}").await;
        assert_eq!(client.closed().await.0, 3500);
    }
}
