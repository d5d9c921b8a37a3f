//! One request to an endpoint: signed, bounded in time and size, only to addresses that it may go to, and never redirected.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, crypto};
use tidewire::name::ChannelPath;
use tidewire::{Clock, Event, Timestamp};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::address::is_public;
use super::signature::{SigningKey, sign};
use super::{body, retry_after};
use crate::config::{WebhookBody, WebhookConfig};

/// Bytes of an answer's head. The rest of an answer is never read.
const HEAD_BYTES_MAX: usize = 16 * 1024;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Sends events to one endpoint.
pub(super) struct Sender {
    url: Url,
    keys: Vec<SigningKey>,
    shape: WebhookBody,
    time_max: Duration,
    allows_private: bool,
    tls: Option<TlsConnector>,
    clock: Clock,
}

/// What an endpoint said to an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 2xx: it has the event.
    Accepted(StatusCode),
    /// 410: it wants no more of them.
    Gone,
    /// 429 or 503 with `Retry-After`: not now, but after so long.
    Later(StatusCode, Duration),
    /// Anything else.
    Refused(StatusCode),
    /// It was not reached, or did not answer.
    Failed(String),
}

impl Answer {
    fn of(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Self {
        let later = || retry_after::read(headers.get(RETRY_AFTER)?.to_str().ok()?, now);
        match status {
            _ if status.is_success() => Self::Accepted(status),
            StatusCode::GONE => Self::Gone,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                later().map_or(Self::Refused(status), |after| Self::Later(status, after))
            }
            _ => Self::Refused(status),
        }
    }

    /// The status, if there was an answer.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Accepted(status) | Self::Later(status, _) | Self::Refused(status) => Some(*status),
            Self::Gone => Some(StatusCode::GONE),
            Self::Failed(_) => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted(status) => write!(f, "the endpoint answered {}", status.as_u16()),
            Self::Gone => f.write_str("the endpoint answered 410: it wants no more events"),
            Self::Refused(status) if status.is_redirection() => {
                write!(f, "the endpoint answered {}; redirects are not followed", status.as_u16())
            }
            Self::Later(status, _) | Self::Refused(status) => {
                write!(f, "the endpoint answered {}", status.as_u16())
            }
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Sender {
    /// # Errors
    /// What cannot be used of the settings, or the system has no roots for TLS.
    pub(super) fn new(config: &WebhookConfig, clock: Clock) -> Result<Self, String> {
        let url: Url = config.url.parse().map_err(|error| format!("url cannot be used: {error}"))?;
        let keys = config.secrets.iter().map(|secret| SigningKey::parse(secret.expose()));
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
            shape: config.body,
            time_max: config.timeout,
            allows_private: config.allow_private,
            tls: (url.scheme() == "https").then(system_tls).transpose()?,
            url,
            clock,
        })
    }

    /// Sends an event and tells what became of it. Dropping the future ends the connection; the endpoint may have the event
    /// all the same.
    pub(super) async fn send(&self, event: &Event, channel: &ChannelPath) -> Answer {
        let request = match self.request(event, channel) {
            Ok(request) => request,
            Err(error) => return Answer::Failed(format!("the request cannot be made: {error}")),
        };
        match timeout(self.time_max, self.exchange(request)).await {
            Ok(Ok((status, headers))) => Answer::of(status, &headers, self.clock.now()),
            Ok(Err(why)) => Answer::Failed(why),
            Err(_) => Answer::Failed(format!("the endpoint did not answer within {:?}", self.time_max)),
        }
    }

    fn request(
        &self,
        event: &Event,
        channel: &ChannelPath,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let (headers, body) = body::of(event, channel, self.shape);
        // Of the request, not of the event: a receiver refuses old ones, so that nobody can send them again.
        let seconds = self.clock.now().as_millis() / 1_000;
        let id = event.id().to_string();
        let signature = sign(&self.keys, &id, seconds, &body);
        let path = self
            .url
            .query()
            .map_or_else(|| self.url.path().to_owned(), |query| format!("{}?{query}", self.url.path()));
        let host = self.url.host_str().unwrap_or_default();
        let authority = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Request::post(path)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("tidewire/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close")
            .header(ID, id)
            .header(TIMESTAMP, seconds)
            .header(SIGNATURE, signature);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(trace_parent) = event.trace_parent().and_then(|text| HeaderValue::from_str(text).ok()) {
            request = request.header(TRACE_PARENT, trace_parent);
        }
        request.body(Full::new(body))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, HeaderMap), String> {
        let stream = self.connect().await?;
        let Some(tls) = &self.tls else { return over(stream, request).await };
        let name = match self.url.host() {
            Some(Host::Domain(name)) => {
                ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?
            }
            Some(Host::Ipv4(address)) => ServerName::IpAddress(std::net::IpAddr::V4(address).into()),
            Some(Host::Ipv6(address)) => ServerName::IpAddress(std::net::IpAddr::V6(address).into()),
            None => return Err("the URL names no host".into()),
        };
        let stream = tls.connect(name, stream).await.map_err(|error| format!("TLS failed: {error}"))?;
        over(stream, request).await
    }

    /// Connects to the first address that it may. The address that is looked at is the one that is connected to, so that a
    /// name that changes its mind between the two gains nothing.
    async fn connect(&self) -> Result<TcpStream, String> {
        let port = self.url.port_or_known_default().unwrap_or(443);
        let addresses: Vec<SocketAddr> = match self.url.host() {
            Some(Host::Domain(name)) => {
                let found = lookup_host((name, port)).await;
                found.map_err(|error| format!("host {name} was not found: {error}"))?.collect()
            }
            Some(Host::Ipv4(address)) => vec![(address, port).into()],
            Some(Host::Ipv6(address)) => vec![(address, port).into()],
            None => Vec::new(),
        };
        let is_allowed = |address: &&SocketAddr| self.allows_private || is_public(address.ip());
        let mut failed: Option<io::Error> = None;
        for address in addresses.iter().filter(is_allowed) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(error),
            }
        }
        match (failed, addresses.first()) {
            (Some(error), _) => Err(format!("the endpoint cannot be connected to: {error}")),
            (None, Some(_)) => {
                Err("the endpoint is at a private address, which it may not be (allow_private)".into())
            }
            (None, None) => Err("the endpoint's host has no address".into()),
        }
    }
}

/// Sends a request over a connection and reads the head of the answer.
async fn over<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, HeaderMap), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: hyper::Error| format!("the endpoint gave no answer: {error}");
    let builder = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).clone();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let (mut answer, connection) = (pin!(sender.send_request(request)), pin!(connection));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // An answer that came with the end of the connection is there by now.
        _ = connection => answer.await,
    };
    let (head, _unread) = answer.map_err(failed)?.into_parts();
    Ok((head.status, head.headers))
}

/// TLS with the roots of the system.
fn system_tls() -> Result<TlsConnector, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system may hold roots that are older than any rule for them; those that can be used are enough.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!("the system has no root certificates that can be used{why}"));
    }
    tls(roots)
}

fn tls(roots: RootCertStore) -> Result<TlsConnector, String> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| format!("TLS: {error}"))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

#[cfg(test)]
mod tests;
