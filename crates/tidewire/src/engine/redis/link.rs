//! One open byte stream to a server, greeted: who dials it, and what the greeting checks.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::address::{Address, Endpoint};
use super::command::{Command, Encode as _};
use super::refusal::{self, Explained};
use super::resp::{Decoder, ProtocolError, Value};
use super::tls;

/// The reading half of a link.
pub(super) type Reader = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// The writing half of a link.
pub(super) type Writer = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// The grain of deadlines and of the watch for silence.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// A link that was silent for so long is asked whether it lives: 1.5 s, so that two idle links cost a server less than
/// two commands a second.
pub(super) const PING_TICKS: u32 = 15;
/// A link that stayed silent for so long is dead: 2.8 s, so that it is noticed within 3 s.
pub(super) const DEAD_TICKS: u32 = 28;

/// The oldest server whose RESP3, streams and functions we rely on. Valkey counts on from Redis 7.2.
const SERVER_MAJOR_MIN: u32 = 7;

/// Opens links to one server, again and again.
///
/// This is where a topology comes in: a fixed address, the primary that a sentinel names, one node of a cluster.
/// A dialer decides anew at each call where to go.
pub(super) trait Dial: Send + Sync + 'static {
    /// Opens a link and greets the server.
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Link, DialError>> + Send + '_>>;
}

/// A greeted link.
pub(super) struct Link {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// Holds what came with the last reply of the greeting.
    pub(super) decoder: Decoder,
    pub(super) server: Server,
}

/// The links that a connection has had, one at a time.
#[derive(Debug, Default)]
pub(super) struct Openings {
    count: AtomicU64,
    since: Mutex<Option<Instant>>,
}

impl Openings {
    /// A link was opened; its number, from 1.
    pub(super) fn open(&self) -> u64 {
        *self.since.lock() = Some(Instant::now());
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The link was lost.
    pub(super) fn close(&self) {
        *self.since.lock() = None;
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long the link that there is has been open.
    pub(super) fn open_for(&self) -> Option<Duration> {
        self.since.lock().map(|since| since.elapsed())
    }
}

/// What waits to be sent on a link, in pieces: writing stands beside reading in one task.
pub(super) struct Outgoing {
    pub(super) bytes: BytesMut,
    /// An encrypted link takes bytes before it has sent them.
    is_sent: bool,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), is_sent: true }
    }
}

impl Outgoing {
    /// Whether everything has left.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.is_sent
    }

    /// Writes on. Cancel-safe: what was not written waits for the next call.
    pub(super) async fn write(&mut self, writer: &mut Writer) -> io::Result<()> {
        if self.bytes.is_empty() {
            writer.flush().await?;
            self.is_sent = true;
            return Ok(());
        }
        self.is_sent = false;
        match writer.write_buf(&mut self.bytes).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(()),
        }
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) version: String,
    pub(super) is_replica: bool,
    pub(super) is_sentinel: bool,
}

/// Why a link could not be opened. None of the texts holds a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("cannot connect to {endpoint}")]
    Connect { endpoint: String, source: io::Error },
    #[error("cannot encrypt the link to {endpoint}{}", advice(source))]
    Encrypt { endpoint: String, source: io::Error },
    #[error("{endpoint} did not answer the greeting within {seconds} s{advice}")]
    Silent { endpoint: String, seconds: f32, advice: &'static str },
    #[error("the link broke during the greeting{}", advice(.0))]
    Broken(#[source] io::Error),
    /// What a TLS port does to those who come without.
    #[error(
        "{endpoint} closed the link during the greeting (if it speaks TLS on this port, write rediss in place of redis)"
    )]
    Closed { endpoint: String, source: io::Error },
    #[error("what answers does not speak the Redis protocol")]
    Protocol(#[from] ProtocolError),
    #[error("the server cannot speak RESP3 ({0}); Redis 7.0 or Valkey 7.2 or newer is needed")]
    NoResp3(String),
    #[error("the server is version {0}; Redis 7.0 or Valkey 7.2 or newer is needed")]
    OldServer(String),
    #[error("the server is a read-only replica; give the address of the primary")]
    Replica,
    #[error("the server refused the greeting: {}", Explained(.0))]
    Refused(Bytes),
    #[error("{0} is a sentinel; name what it watches: redis-sentinel://HOST:PORT,HOST:PORT/PRIMARY-NAME")]
    Sentinel(String),
    #[error("{0} is not a sentinel")]
    NoSentinel(String),
    #[error("{text}")]
    NoPrimary { text: String, is_permanent: bool },
    #[error("{0} is not a node of a cluster, or serves no slots")]
    NoSlots(String),
}

impl DialError {
    /// Whether a person has to change something; waiting will not help.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Protocol(_)
            | Self::NoResp3(_)
            | Self::OldServer(_)
            | Self::Sentinel(_)
            | Self::NoSentinel(_) => true,
            Self::NoPrimary { is_permanent, .. } => *is_permanent,
            Self::Refused(text) => !refusal::is_passing(text),
            Self::Encrypt { source, .. } | Self::Broken(source) => tls::remedy(source).is_some(),
            Self::Connect { .. }
            | Self::Silent { .. }
            | Self::Closed { .. }
            | Self::Replica
            | Self::NoSlots(_) => false,
        }
    }
}

fn advice(fault: &io::Error) -> String {
    tls::remedy(fault).map(|remedy| format!(" ({remedy})")).unwrap_or_default()
}

/// Dials a fixed address.
pub(super) struct DialAddress {
    address: Address,
    client_name: String,
    /// Sent after the greeting, each answered before the link is used: scripts to load.
    prelude: Arc<[Command]>,
    is_for_sentinel: bool,
}

impl DialAddress {
    /// Dials a server that holds data.
    pub(super) fn new(address: Address, client_name: String, prelude: impl Into<Arc<[Command]>>) -> Self {
        Self { address, client_name, prelude: prelude.into(), is_for_sentinel: false }
    }

    /// Dials a sentinel.
    pub(super) fn sentinel(address: Address, client_name: String) -> Self {
        Self { is_for_sentinel: true, ..Self::new(address, client_name, []) }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.address.endpoint
    }

    /// Asks a server of any role one thing, on a link of its own; an error reply is an error.
    pub(super) async fn ask(&self, command: Command) -> Result<Value, DialError> {
        match self.ask_all(&[command]).await?.pop() {
            Some(Value::Error(text)) => Err(DialError::Refused(text)),
            reply => Ok(reply.unwrap_or(Value::Null)),
        }
    }

    /// Asks a server of any role several things, on a link of its own; an error reply is a value here.
    pub(super) async fn ask_all(&self, commands: &[Command]) -> Result<Vec<Value>, DialError> {
        let answer = async {
            let mut link = self.open().await?;
            let Link { reader, writer, decoder, .. } = &mut link;
            exchange(reader, writer, decoder, commands).await
        };
        let time_max = self.address.access.connect_time_max;
        tokio::time::timeout(time_max, answer).await.unwrap_or_else(|_| Err(self.silent()))
    }

    fn silent(&self) -> DialError {
        let seconds = self.address.access.connect_time_max.as_secs_f32();
        // A server that expects no TLS waits for the end of what it takes for a command.
        let advice = match &self.address.access.tls {
            Some(_) => " (if it does not speak TLS on this port, write redis in place of rediss)",
            None => "",
        };
        DialError::Silent { endpoint: self.address.endpoint.to_string(), seconds, advice }
    }

    async fn open(&self) -> Result<Link, DialError> {
        let endpoint = || self.address.endpoint.to_string();
        let connect_error = |source| DialError::Connect { endpoint: endpoint(), source };
        let encrypt_error = |source| DialError::Encrypt { endpoint: endpoint(), source };
        let (reader, writer): (Reader, Writer) = match &self.address.endpoint {
            Endpoint::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(connect_error)?;
                stream.set_nodelay(true).map_err(connect_error)?;
                match &self.address.access.tls {
                    Some(tls) => {
                        let stream = tls.connect(stream, host).await.map_err(encrypt_error)?;
                        let (reader, writer) = tokio::io::split(stream);
                        (Box::new(reader), Box::new(writer))
                    }
                    None => {
                        let (reader, writer) = stream.into_split();
                        (Box::new(reader), Box::new(writer))
                    }
                }
            }
            Endpoint::Unix(path) => {
                let (reader, writer) = UnixStream::connect(path).await.map_err(connect_error)?.into_split();
                (Box::new(reader), Box::new(writer))
            }
        };
        match self.greet(reader, writer).await {
            Err(DialError::Broken(source)) if self.address.access.tls.is_none() => {
                Err(DialError::Closed { endpoint: endpoint(), source })
            }
            outcome => outcome,
        }
    }

    async fn greet(&self, mut reader: Reader, mut writer: Writer) -> Result<Link, DialError> {
        let mut hello = Command::new("HELLO").arg("3");
        if let Some(credentials) = &self.address.access.credentials {
            hello = hello.arg("AUTH").arg(&credentials.user).arg(&credentials.password);
        }
        hello = hello.arg("SETNAME").arg(&self.client_name);
        let mut decoder = Decoder::default();
        let server = match exchange(&mut reader, &mut writer, &mut decoder, &[hello]).await?.pop() {
            Some(Value::Map(facts)) => read_hello(&facts)?,
            Some(Value::Error(text)) => return Err(refused_hello(text)),
            _ => return Err(DialError::NoResp3("it does not know HELLO".to_owned())),
        };
        match (self.is_for_sentinel, server.is_sentinel) {
            (true, false) => return Err(DialError::NoSentinel(self.address.endpoint.to_string())),
            (false, true) => return Err(DialError::Sentinel(self.address.endpoint.to_string())),
            _ => {}
        }
        let database = self.address.access.database;
        let select = (database > 0).then(|| Command::new("SELECT").int(i64::from(database)));
        for reply in exchange(&mut reader, &mut writer, &mut decoder, select.as_slice()).await? {
            refuse_error(reply)?;
        }
        for reply in exchange(&mut reader, &mut writer, &mut decoder, &self.prelude).await? {
            refuse_error(reply)?;
        }
        Ok(Link { reader, writer, decoder, server })
    }
}

impl Dial for DialAddress {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Link, DialError>> + Send + '_>> {
        Box::pin(async {
            let time_max = self.address.access.connect_time_max;
            match tokio::time::timeout(time_max, self.open()).await {
                Ok(Ok(link)) if link.server.is_replica => Err(DialError::Replica),
                Ok(result) => result,
                Err(_) => Err(self.silent()),
            }
        })
    }
}

/// Writes commands at once and reads a reply for each, pushes left out.
async fn exchange(
    reader: &mut Reader,
    writer: &mut Writer,
    decoder: &mut Decoder,
    commands: &[Command],
) -> Result<Vec<Value>, DialError> {
    let mut out = BytesMut::new();
    commands.iter().for_each(|command| command.encode(&mut out));
    writer.write_all(&out).await.map_err(DialError::Broken)?;
    writer.flush().await.map_err(DialError::Broken)?;
    let mut replies = Vec::with_capacity(commands.len());
    while replies.len() < commands.len() {
        if reader.read_buf(decoder.buffer()).await.map_err(DialError::Broken)? == 0 {
            return Err(DialError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        decoder.decode(&mut replies)?;
        replies.retain(|reply| !matches!(reply, Value::Push(_)));
    }
    Ok(replies)
}

fn read_hello(facts: &[(Value, Value)]) -> Result<Server, DialError> {
    let fact = |name: &[u8]| {
        let value = facts.iter().find(|(key, _)| key.as_bytes() == Some(name))?.1.as_bytes()?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let version = fact(b"version").unwrap_or_default();
    let major = version.split('.').next().and_then(|number| number.parse::<u32>().ok());
    if major.is_none_or(|major| major < SERVER_MAJOR_MIN) {
        return Err(DialError::OldServer(version));
    }
    Ok(Server {
        version,
        is_replica: fact(b"role").is_some_and(|role| role != "master"),
        is_sentinel: fact(b"mode").is_some_and(|mode| mode == "sentinel"),
    })
}

fn refused_hello(refusal: Bytes) -> DialError {
    let text = String::from_utf8_lossy(&refusal);
    // An old server does not know HELLO at all; a proxy or a very new server may refuse version 3.
    if text.starts_with("NOPROTO") || text.to_ascii_lowercase().contains("unknown command") {
        DialError::NoResp3(text.into_owned())
    } else {
        DialError::Refused(refusal)
    }
}

fn refuse_error(reply: Value) -> Result<(), DialError> {
    match reply {
        Value::Error(text) => Err(DialError::Refused(text)),
        _ => Ok(()),
    }
}

/// An error with the faults underneath.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
