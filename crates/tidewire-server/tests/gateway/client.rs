//! The language of these tests: a server, a client that speaks frames, HTTP calls. Every wait has a deadline.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tidewire::Durability;
use tidewire_server::config::{
    ChannelHooks, ChannelRule, DEV_API_KEY, DEV_TOKEN_SECRET, Keep, RecoveryMode, TenantConfig, Who,
};
use tidewire_server::{Config, EngineUrl, Secret, Server};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Past it a wait has failed. Far above what any of them takes, so that a busy machine does not fail a test.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const ACME_KEY: &str = "acme-key-0123456789";
pub(crate) const ACME_SECRET: &str = "acme-secret-0123456789";

/// The settings of `--dev` on a free port, in memory.
pub(crate) fn dev() -> Config {
    on_memory(Config::dev())
}

fn on_memory(mut config: Config) -> Config {
    config.listen = "127.0.0.1:0".into();
    config.engine = EngineUrl::from("memory:");
    config
}

/// Settings without dev: tenant `acme` with rules for each kind of channel, and `default` with nothing.
pub(crate) fn strict() -> Config {
    let keep = Some(Keep {
        events: 10,
        age: Duration::from_secs(3600),
        durability: Durability::Fast,
        at_bound: tidewire::AtBound::Block,
    });
    let rule = |pattern: &str, subscribe, publish, keep| ChannelRule {
        pattern: pattern.into(),
        subscribe,
        publish,
        presence: false,
        join_leave: false,
        tell: Vec::new(),
        ask: ChannelHooks::default(),
        keep,
        recovery: RecoveryMode::Stream,
    };
    let mut config = on_memory(Config::default());
    let acme = TenantConfig {
        api_keys: vec![Secret::from(ACME_KEY)],
        token_secrets: vec![Secret::from(ACME_SECRET)],
        origins: vec!["https://acme.example".into()],
        channels: vec![
            rule("news:*", Who::Authenticated, Who::Nobody, keep),
            rule("live:*", Who::Authenticated, Who::Authenticated, None),
            rule("inner:*", Who::Nobody, Who::Nobody, keep),
        ],
        ..TenantConfig::default()
    };
    config.tenants.insert("acme".into(), acme);
    config
}

pub(crate) async fn start(config: Config) -> Server {
    Server::start(config).await.unwrap()
}

/// A connection token of tenant `default` under [`dev`].
pub(crate) fn dev_token(user: &str) -> String {
    token(&json!({"sub": user, "exp": get_current_timestamp() + 3600}), DEV_TOKEN_SECRET)
}

/// A connection token of tenant `acme` under [`strict`].
pub(crate) fn acme_token(user: &str) -> String {
    token(&json!({"sub": user, "tenant": "acme"}), ACME_SECRET)
}

pub(crate) fn token(claims: &Value, secret: &str) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// TCP, or what is spoken over it.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A WebSocket client that sees what is on the wire.
pub(crate) struct Client {
    socket: WebSocketStream<Box<dyn Wire>>,
    /// Lines of frames that are not looked at yet.
    lines: VecDeque<Value>,
    last_id: u32,
    /// Pushes and pings that came while a reply was awaited.
    asides: VecDeque<Value>,
}

/// How a connection ended: close code and reason.
pub(crate) type Closed = (u16, String);

impl Client {
    /// Opens a WebSocket, without a connect command.
    pub(crate) async fn open(server: &Server) -> Self {
        Self::open_from(server, None).await.unwrap()
    }

    /// As a web page of `origin` would; the status if it is not let in.
    pub(crate) async fn open_from(server: &Server, origin: Option<&str>) -> Result<Self, u16> {
        let headers: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        Self::open_with(server, &headers).await
    }

    /// With headers of its own; the status if it is not let in.
    pub(crate) async fn open_with(server: &Server, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let stream = TcpStream::connect(server.addr()).await.unwrap();
        Self::open_over(Box::new(stream), server, headers).await
    }

    /// Over a stream of its own.
    pub(crate) async fn open_over(
        stream: Box<dyn Wire>,
        server: &Server,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let mut request =
            format!("ws://{}/connection/websocket", server.addr()).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match timeout(DEADLINE, client_async(request, stream)).await.unwrap() {
            Ok((socket, _)) => {
                Ok(Self { socket, lines: VecDeque::new(), last_id: 0, asides: VecDeque::new() })
            }
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("cannot connect: {error}"),
        }
    }

    /// Opens a WebSocket and connects without a token.
    pub(crate) async fn anonymous(server: &Server) -> Self {
        let mut client = Self::open(server).await;
        client.call("connect", json!({})).await.unwrap();
        client
    }

    /// Opens a WebSocket and connects with a token.
    pub(crate) async fn with_token(server: &Server, token: &str) -> Self {
        let mut client = Self::open(server).await;
        client.call("connect", json!({"token": token})).await.unwrap();
        client
    }

    /// Opens, connects and subscribes; the reply's result is returned too.
    pub(crate) async fn subscribed(server: &Server, channel: &str) -> (Self, Value) {
        let mut client = Self::anonymous(server).await;
        let result = client.subscribe(channel, None).await.unwrap();
        (client, result)
    }

    pub(crate) async fn send(&mut self, frame: impl Into<String>) {
        self.send_message(Message::Text(frame.into().into())).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        timeout(DEADLINE, self.socket.send(message)).await.unwrap().unwrap();
    }

    /// Sends one command and waits for its reply: the result, or the error.
    pub(crate) async fn call(&mut self, method: &str, body: Value) -> Result<Value, Value> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(json!({"id": id, method: body}).to_string()).await;
        self.reply(id, method).await
    }

    /// Waits for the reply to command `id`; pushes that come before it are kept for [`Client::push`].
    pub(crate) async fn reply(&mut self, id: u32, method: &str) -> Result<Value, Value> {
        loop {
            let mut line = self.line().await.unwrap_or_else(|closed| panic!("closed: {closed:?}"));
            if line["id"] != id {
                self.asides.push_back(line);
                continue;
            }
            if line.get("error").is_some() {
                return Err(line["error"].take());
            }
            assert!(line.get(method).is_some(), "not a reply to {method}: {line}");
            return Ok(line[method].take());
        }
    }

    pub(crate) async fn subscribe(
        &mut self,
        channel: &str,
        since: Option<(&str, u64)>,
    ) -> Result<Value, Value> {
        let mut request = json!({"channel": channel, "flag": 1});
        if let Some((epoch, offset)) = since {
            request["recover"] = true.into();
            request["epoch"] = epoch.into();
            request["offset"] = offset.into();
        }
        self.call("subscribe", request).await
    }

    /// The next push.
    pub(crate) async fn push(&mut self) -> Value {
        loop {
            let mut line = match self.asides.pop_front() {
                Some(line) => line,
                None => self.line().await.unwrap_or_else(|closed| panic!("closed: {closed:?}")),
            };
            if line.get("push").is_some() {
                return line["push"].take();
            }
            assert_eq!(line, json!({}), "expected a push");
        }
    }

    /// The data and offset of the next push, which is a publication of `channel`.
    pub(crate) async fn publication(&mut self, channel: &str) -> (Value, u64) {
        let mut push = self.push().await;
        assert_eq!(push["channel"], channel, "{push}");
        assert!(push.get("pub").is_some(), "not a publication: {push}");
        (push["pub"]["data"].take(), push["pub"]["offset"].as_u64().unwrap_or_default())
    }

    /// The next line of the wire, or how the connection ended.
    pub(crate) async fn line(&mut self) -> Result<Value, Closed> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(line);
            }
            match timeout(DEADLINE, self.socket.next()).await.expect("no frame in time") {
                Some(Ok(Message::Text(frame))) => {
                    self.lines
                        .extend(frame.split('\n').map(|line| serde_json::from_str::<Value>(line).unwrap()));
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Err((close.code.into(), close.reason.to_string()));
                }
                Some(Ok(Message::Close(None))) | None => return Err((1005, String::new())),
                Some(Err(error)) => return Err((1006, error.to_string())),
                Some(Ok(_)) => {}
            }
        }
    }

    /// Waits for the end of the connection, past everything else.
    pub(crate) async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.line().await {
                return closed;
            }
        }
    }
}

/// A reply of the HTTP server.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Calls a method of the server API with the key of [`dev`]; its result.
pub(crate) async fn api(server: &Server, method: &str, body: Value) -> Value {
    let reply = post(server, method, &[("X-API-Key", DEV_API_KEY)], &body.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Publishes one event to `channel`, as [`api`] does; its offset.
pub(crate) async fn publish(server: &Server, channel: &str, data: Value) -> u64 {
    let reply = api(server, "publish", json!({"channel": channel, "data": data})).await;
    assert!(reply.get("result").is_some(), "{reply}");
    reply["result"]["offset"].as_u64().unwrap_or_default()
}

pub(crate) async fn post(server: &Server, method: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    request(server.addr(), "POST", &format!("/api/{method}"), headers, body).await
}

pub(crate) async fn get(server: &Server, path: &str) -> Reply {
    request(server.addr(), "GET", path, &[], "").await
}

/// A request of the REST API.
pub(crate) async fn rest(server: &Server, verb: &str, path: &str, key: &str, body: &str) -> Reply {
    request(server.addr(), verb, path, &[("X-API-Key", key)], body).await
}

/// A request with headers of its own.
pub(crate) async fn request(
    addr: SocketAddr,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let stream = TcpStream::connect(addr).await.unwrap();
    request_over(Box::new(stream), verb, path, headers, body).await
}

/// Over a stream of its own, which is closed then.
pub(crate) async fn request_over(
    mut stream: Box<dyn Wire>,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut text = format!("{verb} {path} HTTP/1.1\r\nHost: tidewire.test\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let exchange = async {
        // A server that refuses a large body answers without reading all of it.
        let _written = stream.write_all(text.as_bytes()).await;
        let mut answer = Vec::new();
        let _read = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let answer = timeout(DEADLINE, exchange).await.expect("no answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_lowercase(), body: body.to_owned() }
}
