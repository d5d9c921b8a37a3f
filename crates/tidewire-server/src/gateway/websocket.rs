//! The WebSocket of a connection, over the upgraded TCP connection itself.
//!
//! Framing is ours (`tidewire_protocol::websocket`): frames are encoded once and shared, a write takes all that waits, and
//! an idle connection holds no buffer.

mod sink;
mod source;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tidewire_protocol::Encoding;
use tidewire_protocol::codes::DisconnectCode;
use tidewire_protocol::websocket::{self, DeflateAgreement, WindowBits};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::sink::SocketSink;
use self::source::SocketSource;
use super::admission::{self, Admission};
use super::connection::{Connection, Vitals};
use super::serve::{End, Shared, serve};
use crate::hub::outbox::{Disconnect, Outbox};
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
pub(crate) async fn both_ways(State(node): State<Arc<Node>>, request: Request) -> Response {
    accept(node, request, false)
}

/// `GET /connection/uni_websocket`.
pub(crate) async fn one_way(State(node): State<Arc<Node>>, request: Request) -> Response {
    accept(node, request, true)
}

fn accept(node: Arc<Node>, mut request: Request, is_unidirectional: bool) -> Response {
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
    let admission = match admission::admit(&node, headers) {
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
            Ok(upgraded) => match upgraded.downcast::<TokioIo<TcpStream>>() {
                Ok(parts) => {
                    run(parts.io.into_inner(), parts.read_buf, node, admission, Agreed { form, deflate })
                        .await
                }
                Err(_) => tracing::error!("a WebSocket came over something that is no TCP connection"),
            },
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

/// Serves the connection to its end.
async fn run(socket: TcpStream, early: Bytes, node: Arc<Node>, admission: Admission, agreed: Agreed) {
    let Agreed { form, deflate } = agreed;
    let outbox = Arc::new(Outbox::new(node.config.limits.outbox_bytes_max));
    let vitals = Arc::<Vitals>::default();
    let Admission { place, origin } = admission;
    let connection = Connection::new(node.clone(), outbox.clone(), vitals.clone(), place, origin, form).over(
        match form.is_unidirectional {
            true => "uni_websocket",
            false => "websocket",
        },
    );
    let frame_bytes_max = node.config.limits.client_frame_bytes_max;
    let source = SocketSource::new(&socket, early, form.encoding, frame_bytes_max, deflate.is_some());
    let mut sink =
        SocketSink::new(&socket, form, deflate.map(|_| node.config.websocket.compression_bytes_min));
    let shared = Shared { node, outbox, vitals, transport: "websocket" };
    if let End::Ours(disconnect) = serve(source, &mut sink, connection, &shared).await {
        Box::pin(close(&socket, &mut sink, disconnect)).await;
    }
}

/// Sends the close frame, and waits for the client to take it.
async fn close(socket: &TcpStream, sink: &mut SocketSink<'_>, disconnect: Disconnect) {
    let farewell = async {
        let close = websocket::encode_close(Some((disconnect.code.number, &disconnect.reason)), None);
        if sink.write_raw(&close).await.is_ok() {
            source::drain(socket, disconnect.code == DisconnectCode::FRAME_TOO_LARGE).await;
        }
    };
    // A client that does not take part is cut off all the same.
    let _in_time = timeout(CLOSE_WITHIN, farewell).await.is_ok();
}
