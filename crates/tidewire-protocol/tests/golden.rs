//! The wire as released: every line of `tests/golden/*.tsv` is what our types write, and what they read back.

#![expect(clippy::unwrap_used, reason = "a vector that cannot be read is the failure this test is for")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidewire_protocol::codes::{ErrorCode, UnsubscribeCode};
use tidewire_protocol::http::{self, ApiError, ApiReply};
use tidewire_protocol::v1;
use tidewire_protocol::{
    ChannelRequest, ClientInfo, Command, ConnectRequest, ConnectResult, Empty, Encoding, HistoryRequest,
    HistoryResult, Method, Publication, PublishRequest, Push, PushBody, RawValue, RefreshRequest,
    RefreshResult, Reply, ReplyBody, ReplyError, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest,
    SubscribeRequest, SubscribeResult,
};

/// The vectors of a file, less those that the test has taken; an unclaimed one fails the test.
struct Vectors(BTreeMap<&'static str, &'static str>);

impl Vectors {
    fn of(file: &'static str) -> Self {
        Self(file.lines().map(|line| line.split_once('\t').unwrap()).collect())
    }

    fn take(&mut self, name: &str) -> &'static str {
        self.0.remove(name).unwrap_or_else(|| panic!("no vector named {name}"))
    }

    fn finish(self) {
        assert!(self.0.is_empty(), "vectors without a test: {:?}", self.0.keys());
    }
}

fn raw(json: &str) -> &RawValue {
    serde_json::from_str(json).unwrap()
}

fn position() -> StreamPosition<'static> {
    StreamPosition { offset: 5, epoch: "Ab3".into() }
}

fn commands() -> Vec<(&'static str, u32, Method<'static>)> {
    let orders = || Cow::Borrowed("orders");
    let subscribe = SubscribeRequest { channel: orders(), ..Default::default() };
    let history = HistoryRequest { channel: orders(), ..Default::default() };
    let data = r#"{"n":1, "s":"\u00e9"}"#;
    vec![
        ("connect-anonymous", 1, Method::Connect(ConnectRequest::default())),
        (
            "connect-token",
            1,
            Method::Connect(ConnectRequest {
                token: "a.b.c".into(),
                name: "js".into(),
                version: "5.8.0".into(),
                ..ConnectRequest::default()
            }),
        ),
        ("subscribe", 2, Method::Subscribe(subscribe.clone())),
        (
            "subscribe-recover",
            3,
            Method::Subscribe(SubscribeRequest {
                recover: true,
                epoch: "Ab3".into(),
                offset: 42,
                flag: 1,
                ..subscribe.clone()
            }),
        ),
        (
            "subscribe-reject-unrecovered",
            4,
            Method::Subscribe(SubscribeRequest {
                recover: true,
                positioned: true,
                recoverable: true,
                flag: 3,
                ..subscribe
            }),
        ),
        ("unsubscribe", 5, Method::Unsubscribe(ChannelRequest { channel: orders() })),
        ("publish", 6, Method::Publish(PublishRequest { channel: orders(), data: Some(raw(data).into()) })),
        (
            "publish-null",
            7,
            Method::Publish(PublishRequest { channel: orders(), data: Some(raw("null").into()) }),
        ),
        ("history-position", 8, Method::History(history.clone())),
        (
            "history-since",
            9,
            Method::History(HistoryRequest {
                limit: 10,
                since: Some(position()),
                reverse: true,
                ..history.clone()
            }),
        ),
        ("history-all", 10, Method::History(HistoryRequest { limit: -1, ..history })),
        ("ping", 11, Method::Ping),
        ("presence", 12, Method::Presence(ChannelRequest::default())),
        ("presence-stats", 13, Method::PresenceStats(ChannelRequest::default())),
        ("rpc", 14, Method::Rpc(RpcRequest::default())),
        ("send", 0, Method::Send(SendRequest::default())),
        ("refresh", 15, Method::Refresh(RefreshRequest { token: "a.b.c".into() })),
        ("sub-refresh", 16, Method::SubRefresh(SubRefreshRequest::default())),
        ("pong", 0, Method::Pong),
        ("unknown", 17, Method::Unknown),
    ]
}

#[test]
fn commands_are_read_and_written_as_released() {
    let mut vectors = Vectors::of(include_str!("golden/commands.tsv"));
    for (name, id, method) in commands() {
        let command = Command { id, method };
        let wire = vectors.take(name);
        assert_eq!(
            Encoding::Json.decode_commands(wire.as_bytes()).unwrap(),
            std::slice::from_ref(&command),
            "{name}"
        );
        assert_eq!(command.encode(Encoding::Json), wire, "{name}");
    }
}

/// The Protobuf vectors were written by the published JavaScript SDK from the JSON ones.
#[test]
fn both_encodings_say_the_same() {
    let mut protobuf = Vectors::of(include_str!("golden/protobuf.tsv"));
    for (name, json) in Vectors::of(include_str!("golden/commands.tsv")).0 {
        let wire = bytes(protobuf.take(&format!("commands/{name}")));
        let [command] = &Encoding::Json.decode_commands(json.as_bytes()).unwrap()[..] else {
            panic!("{name}")
        };
        assert_eq!(command.encode(Encoding::Json), json, "{name}");
        assert_eq!(command.encode(Encoding::Protobuf), wire, "{name}");
        let [decoded] = &Encoding::Protobuf.decode_commands(&wire).unwrap()[..] else { panic!("{name}") };
        assert_eq!(decoded.encode(Encoding::Json), json, "{name}");
    }
    for (name, json) in Vectors::of(include_str!("golden/replies.tsv")).0 {
        let wire = bytes(protobuf.take(&format!("replies/{name}")));
        let [reply] = &Encoding::Json.decode_replies(json.as_bytes()).unwrap()[..] else { panic!("{name}") };
        assert_eq!(reply.encode(Encoding::Json), json, "{name}");
        assert_eq!(reply.encode(Encoding::Protobuf), wire, "{name}");
        let [decoded] = &Encoding::Protobuf.decode_replies(&wire).unwrap()[..] else { panic!("{name}") };
        assert_eq!(decoded.encode(Encoding::Json), json, "{name}");
    }
    protobuf.finish();
}

#[test]
fn a_push_alone_is_what_a_reply_holds() {
    let push = Push { channel: "orders".into(), body: PushBody::Direct(Default::default()) };
    assert_eq!(push.encode_bare(Encoding::Json), r#"{"channel":"orders","message":{"data":""}}"#);
    assert_eq!(push.clone().encode(Encoding::Json), r#"{"push":{"channel":"orders","message":{"data":""}}}"#);
    assert_eq!(push.encode_bare(Encoding::Protobuf), &b"\x0a\x12\x06orders\x42\0"[..]);
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let bytes = push.encode_bare(encoding);
        assert_eq!(encoding.decode_push(&bytes).unwrap().encode_bare(encoding), bytes);
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn publication(data: &str, offset: u64) -> Publication<'_> {
    Publication { data: raw(data).into(), offset, ..Publication::default() }
}

fn subscribe_replies() -> Vec<(&'static str, u32, ReplyBody<'static>)> {
    let kept = SubscribeResult {
        recoverable: true,
        positioned: true,
        epoch: "Ab3".into(),
        offset: 42,
        ..Default::default()
    };
    let recovering = SubscribeResult { was_recovering: true, ..kept.clone() };
    vec![
        ("subscribe-live", 2, ReplyBody::Subscribe(SubscribeResult::default())),
        ("subscribe-kept", 2, ReplyBody::Subscribe(kept)),
        (
            "subscribe-recovered",
            3,
            ReplyBody::Subscribe(SubscribeResult {
                recovered: true,
                publications: vec![publication("{\"n\":1}", 43), publication("\"two\"", 44)],
                ..recovering.clone()
            }),
        ),
        (
            "subscribe-not-recovered",
            3,
            ReplyBody::Subscribe(SubscribeResult { epoch: "Ab4".into(), offset: 7, ..recovering }),
        ),
    ]
}

fn other_replies() -> Vec<(&'static str, u32, ReplyBody<'static>)> {
    let published = Publication {
        info: Some(ClientInfo {
            user: "u".into(),
            client: "c-1".into(),
            conn_info: Some(raw("[1]").into()),
            chan_info: None,
        }),
        tags: BTreeMap::from([("k".into(), "v".into())]),
        ..publication("1", 4)
    };
    vec![
        ("error", 1, ReplyBody::Error(ErrorCode::PERMISSION_DENIED.into())),
        ("error-temporary", 1, ReplyBody::Error(ReplyError::from(ErrorCode::INTERNAL))),
        (
            "connect",
            1,
            ReplyBody::Connect(ConnectResult {
                client: "c-1".into(),
                version: "0.1.0".into(),
                expires: true,
                ttl: 3600,
                ping: 25,
                pong: true,
                node: "n-1".into(),
                ..ConnectResult::default()
            }),
        ),
        ("unsubscribe", 5, ReplyBody::Unsubscribe(Empty {})),
        ("publish", 6, ReplyBody::Publish(Empty {})),
        (
            "history",
            9,
            ReplyBody::History(HistoryResult {
                publications: vec![published],
                epoch: "Ab3".into(),
                offset: 44,
            }),
        ),
        ("ping", 11, ReplyBody::Ping(Empty {})),
        (
            "refresh",
            15,
            ReplyBody::Refresh(RefreshResult {
                client: "c-1".into(),
                version: "0.1.0".into(),
                expires: true,
                ttl: 60,
            }),
        ),
        ("server-ping", 0, ReplyBody::ServerPing),
        ("push-publication", 0, ReplyBody::Push(Push::publication("orders", publication("{\"n\":1}", 43)))),
        ("push-publication-live", 0, ReplyBody::Push(Push::publication("orders", publication("[1,2]", 0)))),
        (
            "push-unsubscribe",
            0,
            ReplyBody::Push(Push::unsubscribe("orders", UnsubscribeCode::INSUFFICIENT_STATE)),
        ),
    ]
}

#[test]
fn replies_are_read_and_written_as_released() {
    let mut vectors = Vectors::of(include_str!("golden/replies.tsv"));
    for (name, id, body) in subscribe_replies().into_iter().chain(other_replies()) {
        let wire = vectors.take(name);
        if let ReplyBody::Push(push) = &body {
            assert_eq!(push.clone().encode(Encoding::Json), wire, "{name}");
        }
        assert_eq!(Reply { id, body }.encode(Encoding::Json), wire, "{name}");
    }
}

fn assert_body<'a, T: Serialize + Deserialize<'a>>(vectors: &mut Vectors, name: &str, body: T) {
    let wire = vectors.take(name);
    assert_eq!(serde_json::to_string(&body).unwrap(), wire, "{name}");
    let decoded: T = serde_json::from_str(wire).unwrap();
    assert_eq!(serde_json::to_string(&decoded).unwrap(), wire, "{name}");
}

#[test]
fn http_bodies_are_read_and_written_as_released() {
    let mut vectors = Vectors::of(include_str!("golden/http.tsv"));
    let request = http::PublishRequest { channel: "orders".into(), ..Default::default() };
    assert_body(
        &mut vectors,
        "publish-request",
        http::PublishRequest {
            data: Some(raw("{\"n\":1}")),
            tags: BTreeMap::from([("k".into(), "v".into())]),
            idempotency_key: "id-1".into(),
            ..request.clone()
        },
    );
    assert_body(
        &mut vectors,
        "publish-request-live",
        http::PublishRequest { data: Some(raw("null")), skip_history: true, ..request },
    );
    let channels = vec!["a".into(), "b".into()];
    let broadcast = http::BroadcastRequest { channels, data: Some(raw("1")), ..Default::default() };
    assert_body(&mut vectors, "broadcast-request", broadcast);
    let since = Some(StreamPosition { offset: 1, ..position() });
    let history = http::HistoryRequest { channel: "orders".into(), limit: 2, since, reverse: true };
    assert_body(&mut vectors, "history-request", history);

    let published = |offset| http::PublishResult { offset, epoch: "Ab3".into() };
    assert_body(&mut vectors, "publish-result", ApiReply::Result(published(43)));
    assert_body(&mut vectors, "publish-result-live", ApiReply::Result(http::PublishResult::default()));
    let error = |code: ErrorCode| ApiReply::<http::PublishResult<'_>>::Error(ApiError::new(code, code.text));
    assert_body(&mut vectors, "publish-error", error(ErrorCode::UNKNOWN_CHANNEL));
    let responses = vec![ApiReply::Result(published(1)), error(ErrorCode::BAD_REQUEST)];
    assert_body(&mut vectors, "broadcast-result", ApiReply::Result(http::BroadcastResult { responses }));
    let publications = vec![publication("1", 1)];
    let history = http::HistoryResult { publications, epoch: "Ab3".into(), offset: 1 };
    assert_body(&mut vectors, "history-result", ApiReply::Result(history));
    let node = http::NodeInfo {
        uid: "n-1".into(),
        name: "host".into(),
        version: "0.1.0".into(),
        num_clients: 1,
        num_subs: 2,
        num_channels: 3,
        uptime: 4,
    };
    assert_body(&mut vectors, "info-result", ApiReply::Result(http::InfoResult { nodes: vec![node] }));
    vectors.finish();
}

/// What was released is read, and written again as it was.
fn assert_released<T: Serialize + for<'a> Deserialize<'a>>(vectors: &mut Vectors, name: &str) {
    let wire = vectors.take(name);
    let decoded: T = serde_json::from_str(wire).unwrap();
    assert_eq!(serde_json::to_string(&decoded).unwrap(), wire, "{name}");
}

#[test]
fn bodies_of_the_rest_api_are_read_and_written_as_released() {
    let mut vectors = Vectors::of(include_str!("golden/v1.tsv"));
    assert_released::<v1::Groups>(&mut vectors, "groups");
    assert_released::<v1::DeclareRequest>(&mut vectors, "declare-request");
    assert_released::<v1::Declared>(&mut vectors, "declared");
    assert_released::<v1::Group>(&mut vectors, "group");
    assert_released::<v1::SeekRequest>(&mut vectors, "seek-request");
    assert_released::<v1::Seek>(&mut vectors, "seek");
    assert_released::<v1::DeadLetters>(&mut vectors, "dead-letters");
    assert_released::<v1::DeadLetter>(&mut vectors, "dead-letter-undecodable");
    assert_released::<v1::DeadReasons>(&mut vectors, "dead-reasons");
    assert_released::<v1::SweepRequest>(&mut vectors, "sweep-request");
    assert_released::<v1::SweepRequest>(&mut vectors, "sweep-request-empty");
    assert_released::<v1::Swept>(&mut vectors, "swept");
    assert_released::<v1::Audit>(&mut vectors, "audit");
    assert_released::<v1::Trace>(&mut vectors, "trace");
    assert_released::<v1::FetchRequest>(&mut vectors, "fetch-request");
    assert_released::<v1::Fetched>(&mut vectors, "fetched");
    assert_released::<v1::Fetched>(&mut vectors, "fetched-nothing");
    assert_released::<v1::SettleRequest>(&mut vectors, "settle-request");
    assert_released::<v1::Settled>(&mut vectors, "settled");
    assert_released::<v1::ExtendRequest>(&mut vectors, "extend-request");
    assert_released::<v1::Extended>(&mut vectors, "extended");
    assert_released::<v1::Members>(&mut vectors, "members");
    assert_released::<v1::Members>(&mut vectors, "members-last");
    assert_released::<v1::Webhooks>(&mut vectors, "webhooks");
    assert_released::<v1::Webhook>(&mut vectors, "webhook-disabled");
    assert_released::<v1::DisableRequest>(&mut vectors, "disable-request");
    assert_released::<v1::WebhookTest>(&mut vectors, "webhook-test");
    assert_released::<v1::WebhookTest>(&mut vectors, "webhook-test-failed");
    assert_released::<v1::EventOutcomes>(&mut vectors, "event-outcomes");
    vectors.finish();
}

#[test]
fn a_field_that_is_not_known_is_refused() {
    assert!(serde_json::from_str::<v1::SweepRequest>(r#"{"filter":{"reasons":"x"}}"#).is_err());
    assert!(serde_json::from_str::<v1::SweepRequest>(r#"{"reason":"x"}"#).is_err());
    assert!(serde_json::from_str::<v1::FetchRequest>(r#"{"max":1}"#).is_err());
}
