use std::collections::VecDeque;

use serde_json::Value;
use tidewire::{Clock, Tidewire, Timestamp};
use tidewire_protocol::codes::DisconnectCode;
use tidewire_protocol::{
    Command, ConnectRequest, Encoding, Method, PublishRequest, RefreshRequest, SubscribeRequest,
};
use tokio::task::yield_now;

use super::*;
use crate::config::{Config, DEV_TOKEN_SECRET};
use crate::gateway::connection::{Connection, Origin, Vitals};
use crate::hub::connections::Handle;
use crate::hub::outbox::{Frame, Next, Outbox};
use crate::peers::Peers;
use crate::publication::Form;

/// Past it a wait has failed.
const DEADLINE: Duration = Duration::from_secs(20);

async fn node_on(engine: &str) -> Arc<Node> {
    node_with(Tidewire::open(engine).await.unwrap(), Clock::system()).await
}

async fn node_with(tidewire: Tidewire, clock: Clock) -> Arc<Node> {
    let node = Node::new(Config::dev(), tidewire, clock, ([127, 0, 0, 1], 0).into()).unwrap();
    Peers::listen(&node).await.unwrap();
    node
}

fn default_of(node: &Arc<Node>) -> Arc<Tenant> {
    node.tenants.named("default").unwrap().clone()
}

/// Who listens to a tap.
struct Reader {
    told: mpsc::Receiver<Bytes>,
    lines: VecDeque<Value>,
}

impl Reader {
    fn of(node: &Arc<Node>, user: &str, detail: Detail) -> Self {
        let told = listen(node, &default_of(node), user.to_owned(), detail).unwrap();
        Self { told, lines: VecDeque::new() }
    }

    async fn line(&mut self) -> Value {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(line) = self.lines.pop_front() {
                return line;
            }
            // Empty lines come for ever.
            let text = tokio::time::timeout_at(deadline, self.told.recv()).await.expect("no line in time");
            let text = text.expect("the tap has ended");
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            self.lines.extend(lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()));
        }
    }

    /// The next line, in few words.
    async fn words(&mut self) -> String {
        let line = self.line().await;
        let fields = ["what", "kind", "id", "channel", "offset", "code", "count", "bytes", "data"];
        let words = fields.iter().filter_map(|field| match line.get(field)? {
            Value::String(text) => Some(text.clone()),
            other => Some(format!("{field}={other}")),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    async fn watching(&mut self) -> u64 {
        let line = self.line().await;
        assert_eq!(line["what"], "watching", "{line}");
        line["count"].as_u64().unwrap()
    }
}

/// A connection that is listed as one of a user, as those of clients are.
fn listed(node: &Arc<Node>, user: &Arc<str>) -> (Arc<Outbox>, crate::hub::connections::Listed) {
    let outbox = Arc::new(Outbox::new(1 << 30));
    let handle = Handle {
        key: 1,
        client: "c".into(),
        form: Form::default(),
        outbox: outbox.clone(),
        orders: Arc::default(),
    };
    (outbox, default_of(node).people.add(user, handle))
}

#[tokio::test]
async fn what_is_too_much_is_left_out_and_told() {
    let node = node_on("memory:").await;
    let (outbox, _listed) = listed(&node, &"ann".into());
    let mut reader = Reader::of(&node, "ann", Detail::Size);
    assert_eq!(reader.watching().await, 1);
    let frame = Frame::new(r#"{"push":{"channel":"a","pub":{"data":1}}}"#.into());
    for _ in 0..3_000 {
        outbox.push(frame.clone());
    }
    let (mut told, mut left_out) = (0, 0);
    while told + left_out < 3_000 {
        let line = reader.line().await;
        match line["what"].as_str().unwrap() {
            "push" => told += 1,
            "left_out" => left_out += line["count"].as_u64().unwrap(),
            other => panic!("{other}"),
        }
    }
    assert_eq!((told, left_out), (1_000, 2_000));
}

#[tokio::test]
async fn a_tap_ends_with_its_listener() {
    let node = node_on("memory:").await;
    let (outbox, _listed) = listed(&node, &"ann".into());
    let (mut first, mut second) =
        (Reader::of(&node, "ann", Detail::Size), Reader::of(&node, "ann", Detail::Size));
    first.watching().await;
    second.watching().await;
    drop(first);
    while node.taps.watched.lock().len() > 1 {
        yield_now().await;
    }
    outbox.push(Frame::new(r#"{"id":1,"ping":{}}"#.into()));
    assert_eq!(second.words().await, "reply ping id=1", "the other one goes on");
    drop(second);
    while outbox.seat().is_some() {
        yield_now().await;
    }
    assert!(node.taps.heard.lock().is_empty());
}

#[tokio::test]
async fn a_tap_ends_when_nobody_asks_for_it_any_more() {
    let clock = Clock::virtual_at(Timestamp::default());
    let node = node_with(Tidewire::open("memory:").await.unwrap(), clock.clone()).await;
    let (outbox, _listed) = listed(&node, &"ann".into());
    let order = Order { tap: "t".into(), tenant: "default".into(), user: "ann".into(), has_data: false };
    let ask = || node.taps.hear(&node, "another", Word::Watch(order.clone()));
    ask();
    while outbox.seat().is_none() {
        yield_now().await;
    }
    clock.advance(LEASE / 2);
    ask();
    clock.advance(LEASE * 3 / 4);
    assert!(node.taps.is_watched("t", clock.now()), "it was asked for again");
    clock.advance(LEASE / 4);
    while outbox.seat().is_some() {
        yield_now().await;
    }
    assert!(node.taps.watched.lock().is_empty());
}

#[tokio::test]
async fn taps_are_bounded_where_they_are_listened_to_and_where_they_watch() {
    let node = node_on("memory:").await;
    let mut readers: Vec<_> =
        (0..TAPS_OF_TENANT_MAX).map(|_| Reader::of(&node, "ann", Detail::Size)).collect();
    let failure = listen(&node, &default_of(&node), "ann".into(), Detail::Size).unwrap_err();
    assert_eq!(failure.code, ErrorCode::TOO_MANY_REQUESTS);
    for reader in &mut readers {
        reader.watching().await;
    }
    for number in readers.len()..WATCHES_MAX {
        let order =
            Order { tap: number.to_string(), tenant: "default".into(), user: "ann".into(), has_data: false };
        node.taps.hear(&node, "another", Word::Watch(order));
    }
    drop(readers.pop());
    while node.taps.heard.lock().len() == TAPS_OF_TENANT_MAX {
        yield_now().await;
    }
    let order =
        Order { tap: "one more".into(), tenant: "default".into(), user: "ann".into(), has_data: false };
    node.taps.hear(&node, "another", Word::Watch(order));
    let mut late = Reader::of(&node, "bob", Detail::Size);
    let line = late.line().await;
    assert_eq!(line["what"], "not_watching", "{line}");
    assert!(line["reason"].as_str().unwrap().contains("64 taps"), "{line}");
}

/// A client of a node: its connection, and what it is sent.
struct Client {
    connection: Box<Connection>,
    outbox: Arc<Outbox>,
    encoding: Encoding,
    last_id: u32,
}

impl Client {
    async fn connect(node: &Arc<Node>, encoding: Encoding, token: &str) -> Self {
        let outbox = Arc::new(Outbox::new(100_000));
        let (place, form) = (node.take_place().unwrap(), Form { encoding, ..Form::default() });
        let connection = Connection::new(
            node.clone(),
            outbox.clone(),
            Arc::new(Vitals::over(crate::metrics::Transport::WebSocket)),
            place,
            Origin::default(),
            form,
        );
        let mut client = Self { connection, outbox, encoding, last_id: 0 };
        let request = ConnectRequest { token: token.into(), ..ConnectRequest::default() };
        client.run(Method::Connect(request)).await;
        client
    }

    /// Has a command run, as the connection's reader does.
    async fn run(&mut self, method: Method<'_>) {
        self.last_id += 1;
        let frame = Command { id: self.last_id, method }.encode(self.encoding);
        if let Some(seat) = self.outbox.seat() {
            seat.heard(&frame);
        }
        self.connection.handle(&frame).await.unwrap();
    }

    /// Waits until it was sent something.
    async fn sent(&self) {
        let Next::Write(frames) = self.outbox.next().await else { panic!("closed") };
        self.outbox.written(frames.iter().map(Frame::len).sum());
    }
}

fn token(user: &str) -> String {
    let claims = serde_json::json!({"sub": user});
    let key = jsonwebtoken::EncodingKey::from_secret(DEV_TOKEN_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// What a client of `other` does is told at `node`, whatever its encoding.
async fn is_told(node: &Arc<Node>, other: &Arc<Node>, encoding: Encoding, detail: Detail) {
    let user = Uuid::now_v7().simple().to_string();
    let channel = format!("tap-{user}");
    let mut reader = Reader::of(node, &user, detail);
    let mut nodes = vec![reader.line().await["node"].clone()];
    if !Arc::ptr_eq(node, other) {
        nodes.push(reader.line().await["node"].clone());
    }
    nodes.sort_by_key(ToString::to_string);
    nodes.dedup();
    assert!(nodes.contains(&other.id.as_str().into()), "{nodes:?} watch");

    let token = token(&user);
    let mut client = Client::connect(other, encoding, &token).await;
    assert_eq!(reader.words().await, "opened");
    let who = default_of(other).people.of(&user)[0].client.clone();
    let line = reader.line().await;
    assert_eq!((&line["kind"], &line["client"]), (&"connect".into(), &(*who).into()), "{line}");
    let request = SubscribeRequest { channel: channel.as_str().into(), ..SubscribeRequest::default() };
    client.run(Method::Subscribe(request)).await;
    client.sent().await;
    let data = match encoding {
        Encoding::Json => tidewire_protocol::Opaque::text("hi"),
        Encoding::Protobuf => tidewire_protocol::Opaque::Bytes(br#""hi""#.into()),
    };
    let request = PublishRequest { channel: channel.as_str().into(), data: Some(data) };
    client.run(Method::Publish(request)).await;
    client.sent().await;
    client.run(Method::Refresh(RefreshRequest { token: token.as_str().into() })).await;
    let shown = if detail == Detail::Data { " hi" } else { "" };
    let mut told = Vec::new();
    for _ in 0..7 {
        told.push(reader.words().await);
    }
    // The event comes by way of the relay: before or after the reply.
    told.sort();
    let mut expected = vec![
        format!("command subscribe id=2 {channel}"),
        format!("command publish id=3 {channel} bytes=4{shown}"),
        "command refresh id=4".into(),
        "reply subscribe id=2".into(),
        "reply publish id=3".into(),
        "reply refresh id=4".into(),
        format!("push publication {channel} offset=1 bytes=4{shown}"),
    ];
    expected.sort();
    assert_eq!(told, expected);

    let seat = client.outbox.seat().unwrap();
    drop(client);
    seat.closed(DisconnectCode::SLOW.number.into(), "slow");
    assert_eq!(reader.words().await, "closed code=3008");
}

#[tokio::test]
async fn what_a_client_does_is_told_at_its_own_node() {
    let node = node_on("memory:").await;
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        for detail in [Detail::Size, Detail::Data] {
            is_told(&node, &node, encoding, detail).await;
        }
    }
}

#[tokio::test]
async fn what_a_client_of_another_node_on_redis_does_is_told_too() {
    #[expect(clippy::disallowed_methods, reason = "where the tests' server is")]
    let url = std::env::var("TIDEWIRE_TEST_REDIS_URL").expect("run `cargo xtask test`, which starts Redis");
    let (node, other) = (node_on(&url).await, node_on(&url).await);
    assert_ne!(node.id, other.id);
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        is_told(&node, &other, encoding, Detail::Data).await;
    }
    // Of one connection's end there: it stops when the listener is gone.
    let user: Arc<str> = Uuid::now_v7().simple().to_string().into();
    let (outbox, _listed) = listed(&other, &user);
    let reader = Reader::of(&node, &user, Detail::Size);
    while outbox.seat().is_none() {
        yield_now().await;
    }
    drop(reader);
    while outbox.seat().is_some() {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_user_of_the_same_name_in_another_tenant_is_not_watched() {
    let tidewire = Tidewire::open("memory:").await.unwrap();
    let mut config = Config::dev();
    let other = config.tenants.get("default").cloned().unwrap();
    config.tenants.insert("other".into(), crate::config::TenantConfig { anonymous: false, ..other });
    let node = Node::new(config, tidewire, Clock::system(), ([127, 0, 0, 1], 0).into()).unwrap();
    let (outbox, _listed) = listed(&node, &"ann".into());
    let tenant = node.tenants.named("other").unwrap();
    let told = listen(&node, tenant, "ann".into(), Detail::Data).unwrap();
    let mut reader = Reader { told, lines: VecDeque::new() };
    assert_eq!(reader.watching().await, 0);
    assert!(outbox.seat().is_none());
    let mut own = Reader::of(&node, "ann", Detail::Data);
    assert_eq!(own.watching().await, 1);
    outbox.push(Frame::new(r#"{"id":1,"ping":{}}"#.into()));
    assert_eq!(own.words().await, "reply ping id=1");
    assert!(reader.told.try_recv().is_err());
}
