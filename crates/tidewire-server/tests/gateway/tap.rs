//! Taps: what goes on at the connections of one user, over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tidewire_server::config::{DEV_API_KEY, TenantConfig};
use tidewire_server::{Secret, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::{ACME_KEY, Client, acme_token, api, dev, dev_token, publish, rest, start, strict, token};

/// Past it a wait has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// Who reads a tap.
struct Tap(BufReader<TcpStream>);

impl Tap {
    async fn open(server: &Server, path: &str, key: &str) -> Self {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut tap = Self(BufReader::new(stream));
        assert!(tap.text().await.starts_with("HTTP/1.1 200"));
        while !tap.text().await.trim().is_empty() {}
        tap
    }

    async fn text(&mut self) -> String {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        let read = tokio::time::timeout(DEADLINE, read).await;
        assert!(read.expect("no line in time").unwrap() > 0, "the tap has ended");
        line
    }

    /// The next line; what stands between the pieces of the body is passed over.
    async fn line(&mut self) -> Value {
        let line = async {
            loop {
                let text = self.text().await;
                if text.starts_with('{') {
                    return serde_json::from_str(&text).unwrap();
                }
            }
        };
        // Empty lines come for ever.
        tokio::time::timeout(DEADLINE, line).await.expect("no line in time")
    }

    #[track_caller]
    fn expect(line: &Value, what: &str, kind: &str) {
        let seen = (line["what"].as_str().unwrap(), line["kind"].as_str().unwrap_or_default());
        assert_eq!(seen, (what, kind), "{line}");
    }
}

#[tokio::test]
async fn a_tap_tells_what_a_user_does_and_gets_until_the_end() {
    let server = start(dev()).await;
    let mut tap = Tap::open(&server, "/v1/users/ann%2F1/tap", DEV_API_KEY).await;
    assert_eq!(tap.line().await["count"], 0);
    let mut ann = Client::with_token(&server, &dev_token("ann/1")).await;
    let _bob = Client::with_token(&server, &dev_token("bob")).await;
    ann.subscribe("news", None).await.unwrap();
    publish(&server, "news", json!("secret")).await;
    ann.publication("news").await;
    api(&server, "disconnect", json!({"user": "ann/1"})).await;
    ann.closed().await;
    for (what, kind) in [
        ("opened", ""),
        ("reply", "connect"),
        ("command", "subscribe"),
        ("reply", "subscribe"),
        ("push", "publication"),
        ("closed", ""),
    ] {
        let line = tap.line().await;
        Tap::expect(&line, what, kind);
        assert!(line["data"].is_null() && !line.to_string().contains("secret"), "{line}");
        if kind == "publication" {
            assert_eq!((&line["offset"], &line["bytes"]), (&json!(1), &json!(8)), "{line}");
        }
        if what == "closed" {
            assert_eq!(line["code"], 3503, "{line}");
        }
    }
}

#[tokio::test]
async fn a_tap_shows_data_where_it_is_asked_to() {
    let server = start(dev()).await;
    let mut ann = Client::with_token(&server, &dev_token("ann")).await;
    let mut tap = Tap::open(&server, "/v1/users/ann/tap?data=true", DEV_API_KEY).await;
    assert_eq!(tap.line().await["count"], 1, "it is open already");
    ann.call("publish", json!({"channel": "news", "data": {"a": 1}})).await.unwrap();
    let line = tap.line().await;
    Tap::expect(&line, "command", "publish");
    assert_eq!(line["data"], json!({"a": 1}));
    Tap::expect(&tap.line().await, "reply", "publish");
}

#[tokio::test]
async fn a_key_taps_its_own_tenant_alone() {
    let mut config = strict();
    let other = TenantConfig {
        api_keys: vec![Secret::from("other-key-0123456789")],
        token_secrets: vec![Secret::from("other-secret-0123456789")],
        ..TenantConfig::default()
    };
    config.tenants.insert("other".into(), other);
    let server = start(config).await;
    let mut own = Tap::open(&server, "/v1/users/ann/tap", ACME_KEY).await;
    let mut foreign = Tap::open(&server, "/v1/users/ann/tap", "other-key-0123456789").await;
    own.line().await;
    foreign.line().await;
    let _ann = Client::with_token(&server, &acme_token("ann")).await;
    Tap::expect(&own.line().await, "opened", "");
    Tap::expect(&own.line().await, "reply", "connect");
    let claims = json!({"sub": "ann", "tenant": "other"});
    let mut same = Client::open(&server).await;
    let connect = json!({"token": token(&claims, "other-secret-0123456789")});
    let client = same.call("connect", connect).await.unwrap()["client"].take();
    let line = foreign.line().await;
    Tap::expect(&line, "opened", "");
    assert_eq!(line["client"], client, "nothing of the other tenant comes before it");
    assert_eq!(rest(&server, "GET", "/v1/users/ann/tap", "wrong", "").await.status, 401);
}

#[tokio::test]
async fn a_tap_that_is_too_much_or_wrong_is_refused() {
    let server = start(dev()).await;
    let reply = rest(&server, "GET", "/v1/users/ann/tap?dat=true", DEV_API_KEY, "").await;
    assert_eq!(reply.status, 400);
    let mut taps = Vec::new();
    for _ in 0..8 {
        taps.push(Tap::open(&server, "/v1/users/ann/tap", DEV_API_KEY).await);
    }
    let reply = rest(&server, "GET", "/v1/users/ann/tap", DEV_API_KEY, "").await;
    assert_eq!(reply.status, 429, "{reply:?}");
    // A place is free again as soon as the server has noticed.
    taps.pop();
    while rest_is_refused(&server).await {}
}

async fn rest_is_refused(server: &Server) -> bool {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let request = format!("GET /v1/users/ann/tap HTTP/1.1\r\nHost: a\r\nX-API-Key: {DEV_API_KEY}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).await.unwrap();
    status.contains("429")
}

#[tokio::test]
async fn a_server_that_closes_ends_its_taps_and_tells_how_connections_ended() {
    let server = start(dev()).await;
    let mut ann = Client::with_token(&server, &dev_token("ann")).await;
    let mut tap = Tap::open(&server, "/v1/users/ann/tap", DEV_API_KEY).await;
    assert_eq!(tap.line().await["count"], 1);
    let closing = tokio::join!(server.close(Duration::from_secs(15)), ann.closed()).0;
    closing.unwrap();
    let line = tap.line().await;
    Tap::expect(&line, "closed", "");
    assert_eq!(line["code"], 3001, "{line}");
    let mut rest = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut tap.0, &mut rest).await.unwrap();
}
