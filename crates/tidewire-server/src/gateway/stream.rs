//! Connections over HTTP: the response is the way out, and commands come in with the request and by requests of their own
//! ([`super::emulation`]).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use tidewire_protocol::{Disconnect as DisconnectPush, Encoding, Push, PushBody};
use tokio::sync::mpsc;
use url::form_urlencoded;

use super::admission::{self, Admission};
use super::connection::{Connection, Vitals};
use super::emulation::{Inbox, Session};
use super::serve::{End, Shared, Sink, Source, serve};
use crate::edge::Visitor;
use crate::hub::outbox::{Frame, Outbox};
use crate::metrics::Transport;
use crate::node::Node;
use crate::publication::Form;

/// Pieces of a response that wait for the client: the outbox holds the others.
const PIECES_MAX: usize = 1;

/// How what is sent stands in the body of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Messages of a `text/event-stream` (HTML Living Standard, 9.2).
    Events,
    /// JSON: a line each. Protobuf: behind its length.
    Plain,
}

/// `GET` or `POST /connection/sse`.
pub(crate) async fn sse(
    State(node): State<Arc<Node>>,
    Extension(visitor): Extension<Visitor>,
    query: RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let first = first_of(&query, body);
    open(node, visitor, &headers, Framing::Events, Form::default(), first)
}

/// `GET` or `POST /connection/uni_sse`.
pub(crate) async fn uni_sse(
    State(node): State<Arc<Node>>,
    Extension(visitor): Extension<Visitor>,
    query: RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let first = first_of(&query, body);
    open(node, visitor, &headers, Framing::Events, Form { is_unidirectional: true, ..Form::default() }, first)
}

/// `POST /connection/http_stream`.
pub(crate) async fn http_stream(
    State(node): State<Arc<Node>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let encoding = encoding_of(&headers);
    open(node, visitor, &headers, Framing::Plain, Form { encoding, ..Form::default() }, body)
}

/// `POST /connection/uni_http_stream`.
pub(crate) async fn uni_http_stream(
    State(node): State<Arc<Node>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = Form { encoding: encoding_of(&headers), is_unidirectional: true, ..Form::default() };
    open(node, visitor, &headers, Framing::Plain, form, body)
}

/// The encoding of a body.
pub(super) fn encoding_of(headers: &HeaderMap) -> Encoding {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match content_type.is_some_and(|kind| kind.starts_with("application/octet-stream")) {
        true => Encoding::Protobuf,
        false => Encoding::Json,
    }
}

/// What the client says first: a browser's `EventSource` has no body, and says it in the query.
fn first_of(RawQuery(query): &RawQuery, body: Bytes) -> Bytes {
    let query = query.as_deref().unwrap_or_default().as_bytes();
    let connect = form_urlencoded::parse(query).find(|(name, _)| name == "cf_connect");
    connect.map_or(body, |(_, value)| value.into_owned().into())
}

fn open(
    node: Arc<Node>,
    visitor: Visitor,
    headers: &HeaderMap,
    framing: Framing,
    form: Form,
    first: Bytes,
) -> Response {
    let Admission { place, origin } = match admission::admit(&node, headers, visitor) {
        Ok(admission) => admission,
        Err(refusal) => return refusal.into_response(),
    };
    let outbox = Arc::new(Outbox::new(node.config.limits.outbox_bytes_max));
    let transport = match framing {
        Framing::Events => Transport::Sse,
        Framing::Plain => Transport::HttpStream,
    };
    let vitals = Arc::new(Vitals::over(transport));
    let connection = Connection::new(node.clone(), outbox.clone(), vitals.clone(), place, origin, form);
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    // A unidirectional client says nothing more, so there is nothing that could be taken for it.
    let session = (!form.is_unidirectional).then(|| node.sessions.open());
    let (connection, session, inbox) = match session {
        Some((session, inbox)) => (connection.with_session(session.name()), Some(session), Some(inbox)),
        None => (connection, None, None),
    };
    let mut source = RequestSource { first: Some(first), inbox, gone: sender.clone() };
    let mut sink = ResponseSink { framing, form, sender };
    let shared = Shared { node: node.clone(), outbox, vitals };
    node.tasks.spawn(async move {
        let _session: Option<Session> = session;
        if let End::Ours(disconnect) = serve(&mut source, &mut sink, connection, &shared).await {
            let body = PushBody::Disconnect(DisconnectPush {
                code: disconnect.code.number.into(),
                reason: disconnect.reason.as_ref().into(),
                reconnect: disconnect.code.may_reconnect(),
            });
            let farewell = [form.push(Push { body, ..Push::default() })];
            // A client that takes nothing is not told.
            let _taken = sink.sender.try_send(sink.body_of(&farewell)).is_ok();
        }
    });
    let content_type = match (framing, form.encoding) {
        (Framing::Events, _) => "text/event-stream",
        (Framing::Plain, Encoding::Json) => "application/json",
        (Framing::Plain, Encoding::Protobuf) => "application/octet-stream",
    };
    let opening = (framing == Framing::Events).then(|| Bytes::from_static(b"\r\n"));
    let body = stream::unfold((opening, receiver), async |(opening, mut receiver)| {
        let piece = match opening {
            Some(opening) => opening,
            None => receiver.recv().await?,
        };
        Some((Ok::<_, Infallible>(piece), (None, receiver)))
    });
    let headers_out = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache, no-store, must-revalidate, max-age=0"),
        ),
        // Proxies such as nginx would hold back what is sent.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (StatusCode::OK, headers_out, Body::from_stream(body)).into_response()
}

/// Commands: the first with the request, the others by requests of their own.
struct RequestSource {
    first: Option<Bytes>,
    inbox: Option<Inbox>,
    /// Closed when the client is gone.
    gone: mpsc::Sender<Bytes>,
}

impl Source for RequestSource {
    async fn next(&mut self, _outbox: &Outbox) -> Result<Bytes, End> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let next = async {
            match &mut self.inbox {
                Some(inbox) => inbox.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.gone.closed() => Err(End::Theirs),
            frame = next => Ok(frame),
        }
    }
}

/// The body of a response.
struct ResponseSink {
    framing: Framing,
    form: Form,
    sender: mpsc::Sender<Bytes>,
}

impl ResponseSink {
    fn body_of(&self, frames: &[Frame]) -> Bytes {
        let (before, after): (&[u8], &[u8]) = match (self.framing, self.form.encoding) {
            (Framing::Events, _) => (b"data: ", b"\n\n"),
            (Framing::Plain, Encoding::Json) => (b"", b"\n"),
            (Framing::Plain, Encoding::Protobuf) => (b"", b""),
        };
        let bytes: usize = frames.iter().map(|frame| before.len() + frame.len() + after.len()).sum();
        let mut body = BytesMut::with_capacity(bytes);
        for frame in frames {
            body.put_slice(before);
            body.put_slice(frame.as_bytes());
            body.put_slice(after);
        }
        body.freeze()
    }
}

impl Sink for ResponseSink {
    async fn write(&mut self, frames: &[Frame]) -> io::Result<()> {
        let body = self.body_of(frames);
        self.sender.send(body).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn finish(&mut self, rest: &[u8]) -> io::Result<()> {
        self.sender.send(Bytes::copy_from_slice(rest)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn pong(&mut self, _payload: Bytes) -> io::Result<()> {
        Ok(())
    }
}
