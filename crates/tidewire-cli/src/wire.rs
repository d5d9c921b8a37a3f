//! One WebSocket connection that speaks the client protocol.

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tidewire_protocol::codes::DisconnectCode;
use tidewire_protocol::{
    Command, ConnectData, ConnectRequest, Encoding, Method, Reply, ReplyBody, ReplyError,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::hint::explain;
use crate::server_url::{ServerPlace, ServerUrl};
use crate::tls;

/// For the connection to stand, and again for the answer to the connect command.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// What a ping may take on its way, on top of the interval that the server announces; as in the published SDKs.
const PING_DELAY_MAX: Duration = Duration::from_secs(10);

/// TCP, or TLS on it.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An open connection whose connect command was accepted.
pub(crate) struct Wire {
    socket: WebSocketStream<Box<dyn Stream>>,
    last_id: u32,
    /// Longer silence means that nobody is there any more.
    silence_max: Duration,
    expects_pong: bool,
}

/// Why a connection ended, or none came to be.
pub(crate) enum Ended {
    /// Another attempt may succeed.
    Lost(String),
    /// No attempt will, until something is changed.
    Final(anyhow::Error),
}

/// What the server sent at once.
pub(crate) struct Frame(Utf8Bytes);

impl Wire {
    /// Connects, anonymously without a token.
    pub(crate) async fn open(server: &ServerPlace, token: Option<&str>) -> Result<Self, Ended> {
        let url = &server.url;
        let (socket, _response) =
            timeout(CONNECT_WITHIN, async { client_async(url.websocket(), connect(server).await?).await })
                .await
                .map_err(|_| Ended::Lost(format!("{url} did not answer within {CONNECT_WITHIN:?}")))?
                .map_err(|error| Ended::at_upgrade(url, error))?;
        let mut wire = Self { socket, last_id: 0, silence_max: CONNECT_WITHIN, expects_pong: false };
        let id = wire
            .send(Method::Connect(ConnectRequest {
                token: token.unwrap_or_default().into(),
                name: env!("CARGO_BIN_NAME").into(),
                version: env!("CARGO_PKG_VERSION").into(),
                data: ConnectData { redact: true }.to_data(),
                ..ConnectRequest::default()
            }))
            .await?;
        let frame = wire.next().await?;
        match frame.replies()?.into_iter().find(|reply| reply.id == id).map(|reply| reply.body) {
            Some(ReplyBody::Connect(result)) => {
                wire.expects_pong = result.pong;
                wire.silence_max = match result.ping {
                    0 => Duration::MAX,
                    seconds => Duration::from_secs(seconds.into()) + PING_DELAY_MAX,
                };
                Ok(wire)
            }
            Some(ReplyBody::Error(error)) => Err(Ended::by_error("connect", &error)),
            _ => Err(Ended::off_protocol("the first answer is none to connect")),
        }
    }

    /// Sends a command; the reply to it carries the id returned.
    pub(crate) async fn send(&mut self, method: Method<'_>) -> Result<u32, Ended> {
        self.last_id += 1;
        let command = Command { id: self.last_id, method };
        self.write(command.encode(Encoding::Json)).await?;
        Ok(self.last_id)
    }

    /// Answers a ping.
    pub(crate) async fn pong(&mut self) -> Result<(), Ended> {
        if self.expects_pong { self.write(Encoding::Json.ping()).await } else { Ok(()) }
    }

    /// The next frame of the server. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Frame, Ended> {
        loop {
            let next = timeout(self.silence_max, self.socket.next()).await;
            let next = next.map_err(|_| Ended::Lost(format!("server silent for {:?}", self.silence_max)))?;
            match next {
                Some(Ok(Message::Text(text))) => return Ok(Frame(text)),
                Some(Ok(Message::Close(Some(close)))) => return Err(Ended::by_close(&close)),
                Some(Ok(Message::Binary(_))) => return Err(Ended::off_protocol("a binary frame")),
                // The answer to a WebSocket ping goes out by itself.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Ended::Lost(error.to_string())),
                None => return Err(Ended::Lost("server closed the connection".into())),
            }
        }
    }

    /// Says good-bye. The server finds out anyhow, so failing at it is no failure.
    pub(crate) async fn close(mut self) {
        let _said = timeout(CONNECT_WITHIN, self.socket.close(None)).await;
    }

    async fn write(&mut self, frame: Bytes) -> Result<(), Ended> {
        let text = Utf8Bytes::try_from(frame).map_err(Ended::off_protocol)?;
        let sent = timeout(CONNECT_WITHIN, self.socket.send(Message::Text(text))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Ended::Lost(error.to_string())),
            Err(_) => Err(Ended::Lost("server takes nothing".into())),
        }
    }
}

/// Connects to a server, over TLS if its URL says so.
async fn connect(server: &ServerPlace) -> io::Result<Box<dyn Stream>> {
    let ServerPlace { url, roots } = server;
    let stream = TcpStream::connect((url.host(), url.port())).await?;
    stream.set_nodelay(true)?;
    let Some(roots) = roots else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(url.host()).map_err(io::Error::other)?;
    let connector = roots.connector().map_err(io::Error::other)?;
    Ok(Box::new(connector.connect(name, stream).await?))
}

impl Frame {
    pub(crate) fn replies(&self) -> Result<Vec<Reply<'_>>, Ended> {
        Encoding::Json.decode_replies(self.0.as_bytes()).map_err(Ended::off_protocol)
    }
}

impl Ended {
    /// What an error in reply to the command `what` means.
    pub(crate) fn by_error(what: &str, error: &ReplyError<'_>) -> Self {
        let text = format!("{what}: {}", explain(error.code, &error.message));
        if error.temporary { Self::Lost(text) } else { Self::Final(anyhow!(text)) }
    }

    fn by_close(close: &CloseFrame) -> Self {
        let number = u16::from(close.code);
        let text = format!("server closed the connection: {} (code {number})", close.reason);
        let code = DisconnectCode { number, text: "" };
        match code.may_reconnect() {
            true => Self::Lost(text),
            false if number == DisconnectCode::INVALID_TOKEN.number => Self::Final(anyhow!(
                "{text}; give --token or TIDEWIRE_TOKEN one that is signed with one of the tenant's token_secrets, \
                     such as `tidewire token` makes"
            )),
            false => Self::Final(anyhow!(text)),
        }
    }

    fn at_upgrade(url: &ServerUrl, error: Error) -> Self {
        match error {
            Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => Self::Lost(url.refused()),
            Error::Io(error) => match tls::remedy(&error) {
                Some(remedy) => Self::Final(anyhow!("cannot trust {url}: {error}; {remedy}")),
                None => Self::Lost(format!("cannot reach {url}: {error}")),
            },
            Error::Http(response) if response.status().is_server_error() => {
                Self::Lost(format!("{url} takes no connection now: status {}", response.status()))
            }
            Error::Http(response) => Self::Final(anyhow!(
                "{} answers status {}: is that a Tidewire server?",
                url.websocket(),
                response.status()
            )),
            error => Self::Final(anyhow::Error::new(error).context(format!("cannot connect to {url}"))),
        }
    }

    fn off_protocol(what: impl fmt::Display) -> Self {
        Self::Final(anyhow!("server does not keep to the client protocol: {what}"))
    }
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Final(error)
    }
}
