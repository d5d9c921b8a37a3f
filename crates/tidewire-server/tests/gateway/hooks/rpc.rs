//! Calls of clients, and what they send, over each kind of connection.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tidewire_protocol::{
    Command, ConnectRequest, Encoding, Method, Opaque, PublishRequest, Reply, ReplyBody, RpcRequest,
    SendRequest,
};
use tidewire_server::config::{HookData, RpcRule};
use tidewire_server::{Config, Server};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::backend::{App, Say, asking, tenant};
use crate::client::{Client, dev, dev_token, get, request, start};

/// `--dev`, with a backend that is called.
fn settings(backend: &App) -> Config {
    let mut config = asking(dev(), backend.endpoint());
    let hooks = &mut tenant(&mut config).hooks;
    hooks.rpc = vec![RpcRule { method: "app.*".into(), endpoint: "app".into() }];
    hooks.send = Some("app".into());
    config
}

/// Sends commands over a WebSocket in Protobuf, and gives the last reply to `look`.
async fn in_protobuf(server: &Server, commands: Vec<Method<'_>>, look: impl FnOnce(ReplyBody<'_>)) {
    let url = format!("ws://{}/connection/websocket?format=protobuf", server.addr());
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let last = u32::try_from(commands.len()).unwrap();
    for (id, method) in (1..).zip(commands) {
        let frame = Command { id, method }.encode(Encoding::Protobuf);
        socket.send(Message::Binary(frame)).await.unwrap();
    }
    loop {
        let message =
            timeout(std::time::Duration::from_secs(20), socket.next()).await.unwrap().unwrap().unwrap();
        let Message::Binary(frame) = message else { panic!("{message:?}") };
        for Reply { id, body } in Encoding::Protobuf.decode_replies(&frame).unwrap() {
            if id == last {
                return look(body);
            }
        }
    }
}

#[tokio::test]
async fn a_call_goes_to_the_backend_of_its_method() {
    let mut backend = App::start().await;
    backend.result("rpc", json!({"data": {"sum": 3}}));
    let server = start(settings(&backend)).await;
    let mut client = Client::with_token(&server, &dev_token("ann")).await;
    let result = client.call("rpc", json!({"method": "app.add", "data": [1, 2]})).await.unwrap();
    assert_eq!(result, json!({"data": {"sum": 3}}));
    let mut body = backend.next().await.json();
    assert!(body["client"].take().is_string());
    assert_eq!(
        body,
        json!({
            "client": null, "transport": "websocket", "protocol": "json", "encoding": "json", "user": "ann",
            "method": "app.add", "data": [1, 2],
        })
    );
    assert_eq!(client.call("rpc", json!({"method": "other"})).await.unwrap_err()["code"], 108);
    assert!(backend.is_idle());
    for (say, code) in [
        (Say::Json(json!({"error": {"code": 404, "message": "no such thing"}})), 404),
        (Say::Status(503), 100),
        (Say::Text("3"), 100),
    ] {
        backend.say("rpc", say);
        assert_eq!(client.call("rpc", json!({"method": "app.add"})).await.unwrap_err()["code"], code);
    }
    backend.say("rpc", Say::Json(json!({})));
    assert_eq!(client.call("rpc", json!({"method": "app.none"})).await.unwrap(), json!({}));
}

#[tokio::test]
async fn bytes_go_to_the_backend_and_back_in_base64() {
    let mut backend = App::start().await;
    backend.result("rpc", json!({"b64data": "/wA="}));
    let mut config = settings(&backend);
    let server = start(config.clone()).await;
    let call = |data: &'static [u8]| RpcRequest { method: "app.x".into(), data: Some(data.into()) };
    let connect = || Method::Connect(ConnectRequest::default());
    in_protobuf(&server, vec![connect(), Method::Rpc(call(b"\xff\x01"))], |body| {
        let ReplyBody::Rpc(result) = body else { panic!("{body:?}") };
        assert_eq!(result.data.unwrap().as_bytes(), b"\xff\0");
    })
    .await;
    let asked = backend.next().await.json();
    let told = (&asked["protocol"], &asked["encoding"], &asked["b64data"], asked.get("data"));
    assert_eq!(told, (&json!("protobuf"), &json!("binary"), &json!("/wE="), None));
    // JSON goes as it is, also out of Protobuf.
    in_protobuf(&server, vec![connect(), Method::Rpc(call(b"{\"a\":1}"))], |_| ()).await;
    let asked = backend.next().await.json();
    assert_eq!((&asked["encoding"], &asked["data"]), (&json!("json"), &json!({"a": 1})));
    // A JSON client sees bytes as a string.
    let mut client = Client::anonymous(&server).await;
    let result = client.call("rpc", json!({"method": "app.x", "data": 1})).await.unwrap();
    assert_eq!(result["data"], "/wA=");
    backend.next().await;

    tenant(&mut config).hooks.endpoints.get_mut("app").unwrap().data = HookData::Base64;
    let server = start(config).await;
    let mut client = Client::anonymous(&server).await;
    client.call("rpc", json!({"method": "app.x", "data": 1})).await.unwrap();
    let asked = backend.next().await.json();
    assert_eq!((&asked["encoding"], &asked["b64data"]), (&json!("binary"), &json!("MQ==")));
}

#[tokio::test]
async fn bytes_that_are_published_are_what_the_backend_says() {
    let backend = App::start().await;
    backend.result("publish", json!({"b64data": "/wA="}));
    let mut config = settings(&backend);
    tenant(&mut config).channels[0].ask.publish = Some("app".into());
    let server = start(config).await;
    let data = Some(Opaque::from(&b"\x01"[..]));
    let publish = Method::Publish(PublishRequest { channel: "bytes".into(), data });
    let commands = vec![Method::Connect(ConnectRequest::default()), publish];
    in_protobuf(&server, commands, |body| assert!(matches!(body, ReplyBody::Publish(_)), "{body:?}")).await;
    let mut client = Client::anonymous(&server).await;
    let history = client.call("history", json!({"channel": "bytes", "limit": 1})).await.unwrap();
    assert_eq!(history["publications"][0]["data"], "/wA=");
}

#[tokio::test]
async fn what_a_client_sends_comes_in_order_also_when_the_client_is_gone() {
    let mut backend = App::start().await;
    let gate = Arc::new(Semaphore::new(0));
    backend.say("send", Say::Held(gate.clone(), json!({"error": {"code": 400, "message": "of no account"}})));
    let server = start(settings(&backend)).await;
    let mut client = Client::anonymous(&server).await;
    for number in 0..3 {
        client.send(json!({"send": {"data": number}}).to_string()).await;
    }
    assert_eq!(backend.next().await.json()["data"], 0);
    client.send(r#"{"id":2,"ping":{}}"#).await;
    drop(client);
    assert!(backend.is_idle(), "one at a time");
    gate.add_permits(3);
    assert_eq!(backend.next().await.json()["data"], 1);
    assert_eq!(backend.next().await.json()["data"], 2);
    assert_eq!(backend.at_once_max(), 1);

    backend.say("send", Say::Json(json!({"disconnect": {"code": 4_504, "reason": "enough"}})));
    let mut client = Client::anonymous(&server).await;
    client.send(r#"{"send":{"data":1}}"#).await;
    assert_eq!(client.closed().await, (4504, "enough".into()));
}

#[tokio::test]
async fn what_nobody_takes_is_dropped_and_counted() {
    let backend = App::start().await;
    let mut config = settings(&backend);
    tenant(&mut config).hooks.send = None;
    let server = start(config).await;
    let send = Method::Send(SendRequest { data: Some(Opaque::from(&b"1"[..])) });
    assert_eq!(
        Command { id: 0, method: send }.encode(Encoding::Json),
        r#"{"send":{"data":"1"}}"#.replace("\"1\"", "1")
    );
    let mut client = Client::anonymous(&server).await;
    client.send(r#"{"send":{"data":1}}"#).await;
    client.call("ping", json!({})).await.unwrap();
    let page = get(&server, "/metrics").await.body;
    assert!(page.contains(r#"tidewire_commands_total{method="send",code="108"} 1"#), "{page}");
    assert!(backend.is_idle());
}

#[tokio::test]
async fn other_transports_ask_as_a_websocket_does() {
    let mut backend = App::start().await;
    backend.result("connect", json!({"user": "ann"}));
    backend.result("rpc", json!({"data": "done"}));
    let mut config = settings(&backend);
    tenant(&mut config).hooks.connect = Some("app".into());
    let server = start(config).await;
    let (mut one_way, mut both_ways) = (
        Stream::open(&server, "uni_sse", "{}").await,
        Stream::open(&server, "sse", r#"{"id":1,"connect":{}}"#).await,
    );
    let told = one_way.next().await;
    assert!(told["connect"]["client"].is_string(), "{told}");
    let connected = both_ways.next().await["connect"].take();
    let mut transports =
        [backend.next().await, backend.next().await].map(|asked| asked.json()["transport"].clone());
    transports.sort_by_key(ToString::to_string);
    assert_eq!(transports, [json!("sse"), json!("uni_sse")]);

    let frame = r#"{"id":2,"rpc":{"method":"app.x"}}"#;
    let emulated = json!({"session": connected["session"], "node": connected["node"], "data": frame});
    let taken = request(server.addr(), "POST", "/emulation", &[], &emulated.to_string()).await;
    assert_eq!(taken.status, 204, "{taken:?}");
    assert_eq!(both_ways.next().await["rpc"]["data"], "done");

    backend.say("connect", Say::Json(json!({"error": {"code": 103, "message": "no"}})));
    let told = Stream::open(&server, "uni_sse", "{}").await.next().await;
    assert_eq!(told["disconnect"]["code"], 3507, "{told}");
}

/// The response of a connection over SSE.
struct Stream(tokio::io::BufReader<tokio::net::TcpStream>);

impl Stream {
    async fn open(server: &Server, endpoint: &str, body: &str) -> Self {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
        let head = format!(
            "POST /connection/{endpoint} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        Self(tokio::io::BufReader::new(stream))
    }

    async fn next(&mut self) -> serde_json::Value {
        use tokio::io::AsyncBufReadExt as _;
        loop {
            let mut line = String::new();
            let read =
                timeout(std::time::Duration::from_secs(20), self.0.read_line(&mut line)).await.unwrap();
            assert_ne!(read.unwrap(), 0, "the response ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}
