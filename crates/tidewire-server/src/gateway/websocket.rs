//! The WebSocket of a connection, over the upgraded TCP connection itself, or TLS on it.
//!
//! Framing is ours (`tidewire_protocol::websocket`): frames are encoded once and shared, a write takes all that waits, and
//! an idle connection holds no buffer.

mod sink;
mod socket;
mod source;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tidewire_protocol::Encoding;
use tidewire_protocol::codes::DisconnectCode;
use tidewire_protocol::websocket::{self, DeflateAgreement, WindowBits};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use self::sink::{SocketSink, Wire};
use self::socket::{Secured, Socket};
use self::source::SocketSource;
use super::admission::{self, Admission};
use super::connection::{Connection, Vitals};
use super::serve::{End, Shared, serve};
use crate::edge::Visitor;
use crate::hub::outbox::{Disconnect, Outbox};
use crate::metrics::Transport;
use crate::node::Node;
use crate::publication::Form;

/// How long the close frame and the client's answer to it may take. The socket stays open for it, because closing it with
/// unread bytes in it would make the kernel take back the close frame.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The subprotocols of the two encodings; JSON is the default where a client names none.
const JSON_SUBPROTOCOL: &str = "centrifuge-json";
const PROTOBUF_SUBPROTOCOL: &str = "centrifuge-protobuf";

/// How a WebSocket is spoken, as its handshake has it.
#[derive(Clone, Copy)]
struct Agreed {
    form: Form,
    deflate: Option<DeflateAgreement>,
}

/// `GET /connection/websocket`.
pub(crate) async fn both_ways(
    State(node): State<Arc<Node>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    accept(node, visitor, request, false)
}

/// `GET /connection/uni_websocket`.
pub(crate) async fn one_way(
    State(node): State<Arc<Node>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Response {
    accept(node, visitor, request, true)
}

fn accept(node: Arc<Node>, visitor: Visitor, mut request: Request, is_unidirectional: bool) -> Response {
    let refuse = |reason: &'static str| (StatusCode::BAD_REQUEST, reason).into_response();
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return refuse("this is a WebSocket: connect with one\n");
    };
    let headers = request.headers();
    let is_websocket = has_token(headers, header::CONNECTION, "upgrade")
        && has_token(headers, header::UPGRADE, "websocket")
        && text(headers, header::SEC_WEBSOCKET_VERSION) == Some("13");
    if !is_websocket {
        return refuse("this is a WebSocket: connect with one, version 13\n");
    }
    let key = text(headers, header::SEC_WEBSOCKET_KEY).and_then(websocket::accept_key);
    let Some(accepted) = key else { return refuse("Sec-WebSocket-Key is missing or malformed\n") };
    let Ok(deflate) = agreed_deflate(&node, headers) else {
        return refuse("Sec-WebSocket-Extensions is malformed\n");
    };
    let protocol = requested_protocol(headers);
    let by_query = request.uri().query().is_some_and(|query| {
        query.split('&').any(|pair| matches!(pair, "cf_protocol=protobuf" | "format=protobuf"))
    });
    let encoding = match protocol == Some(PROTOBUF_SUBPROTOCOL) || by_query {
        true => Encoding::Protobuf,
        false => Encoding::Json,
    };
    let admission = match admission::admit(&node, headers, visitor) {
        Ok(admission) => admission,
        Err(refusal) => return refusal.into_response(),
    };
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let mut answer = |name, value: &str| {
        // Base64 and names of ours: nothing that a header could not hold.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    answer(header::CONNECTION, "upgrade");
    answer(header::UPGRADE, "websocket");
    answer(header::SEC_WEBSOCKET_ACCEPT, &accepted);
    if let Some(protocol) = protocol {
        answer(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    if let Some(deflate) = &deflate {
        answer(header::SEC_WEBSOCKET_EXTENSIONS, &deflate.response_header());
    }
    let form = Form { encoding, is_unidirectional, ..Form::default() };
    node.tasks.clone().spawn(async move {
        match upgrade.await {
            Ok(upgraded) => run_over(upgraded, node, admission, Agreed { form, deflate }),
            Err(error) => tracing::debug!(%error, "the upgrade was not completed"),
        }
    });
    response
}

fn agreed_deflate(
    node: &Node,
    headers: &HeaderMap,
) -> Result<Option<DeflateAgreement>, websocket::MalformedExtensions> {
    let offers =
        headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|offer| offer.to_str().ok());
    let agreed = websocket::agree_deflate(offers, WindowBits::MAX)?;
    Ok(agreed.filter(|_| node.config.websocket.compression))
}

/// The first subprotocol asked for that is spoken here.
fn requested_protocol(headers: &HeaderMap) -> Option<&'static str> {
    let asked =
        headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    websocket::requested_protocols(asked)
        .find_map(|name| [JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL].into_iter().find(|known| *known == name))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Serves the connection to its end, over what hyper had it on: in a task of its own, without the room that the upgrade took.
fn run_over(upgraded: Upgraded, node: Arc<Node>, admission: Admission, agreed: Agreed) {
    let tasks = node.tasks.clone();
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            return tasks.spawn(run(parts.io.into_inner(), parts.read_buf, node, admission, agreed));
        }
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
        Ok(parts) => {
            let socket = Secured::new(parts.io.into_inner());
            tasks.spawn(run(socket, parts.read_buf, node, admission, agreed));
        }
        Err(_) => tracing::error!("a WebSocket came over something that is neither TCP nor TLS"),
    }
}

/// Serves the connection to its end. What is only needed to begin is not held in the future.
fn run<S: Socket + Send + 'static>(
    socket: S,
    early: Bytes,
    node: Arc<Node>,
    admission: Admission,
    agreed: Agreed,
) -> impl Future<Output = ()> + Send {
    let Agreed { form, deflate } = agreed;
    let compressed_bytes_min = deflate.map(|_| node.config.websocket.compression_bytes_min);
    let wire = Arc::new(Wire::new(socket, form, compressed_bytes_min));
    let outbox = Outbox::new(node.config.limits.outbox_bytes_max).with_carrier(wire.clone());
    let (outbox, vitals) = (Arc::new(outbox), Arc::new(Vitals::over(Transport::WebSocket)));
    let Admission { place, origin } = admission;
    let connection = Connection::new(node.clone(), outbox.clone(), vitals.clone(), place, origin, form);
    let frame_bytes_max = node.config.limits.client_frame_bytes_max;
    let shared = Shared { node, outbox, vitals };
    async move {
        let mut source =
            SocketSource::new(wire.socket(), early, form.encoding, frame_bytes_max, deflate.is_some());
        let mut sink = SocketSink(&wire);
        if let End::Ours(disconnect) = serve(&mut source, &mut sink, connection, &shared).await {
            Box::pin(close(&wire, disconnect)).await;
        }
    }
}

/// Sends the close frame, and waits for the client to take it.
async fn close<S: Socket>(wire: &Wire<S>, disconnect: Disconnect) {
    let farewell = async {
        let close = websocket::encode_close(Some((disconnect.code.number, &disconnect.reason)), None);
        if wire.write_raw(&close).await.is_ok() {
            source::drain(wire.socket(), disconnect.code == DisconnectCode::FRAME_TOO_LARGE).await;
        }
    };
    // A client that does not take part is cut off all the same.
    let _in_time = timeout(CLOSE_WITHIN, farewell).await.is_ok();
}
