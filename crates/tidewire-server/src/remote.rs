//! Requests to a URL of the settings: over TLS, only to addresses that it may go to, bounded in size, never redirected.

mod address;
mod link;
mod links;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, crypto};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use self::address::is_public;
use self::link::{Link, Unanswered};
pub(crate) use self::links::Links;

/// What is at a URL of the settings.
pub(crate) struct Remote {
    url: Url,
    allows_private: bool,
    tls: Option<TlsConnector>,
}

/// What of an answer's body is read.
#[derive(Clone, Copy)]
pub(crate) enum Reading {
    /// Nothing: the head says it all.
    HeadOnly,
    /// All of it, up to so many bytes.
    UpTo(usize),
}

impl Remote {
    /// What is at `url`; at a private address only if `allows_private`.
    ///
    /// # Errors
    /// The URL cannot be used, or the system has no roots for TLS.
    pub(crate) fn new(url: &str, allows_private: bool) -> Result<Self, String> {
        let url: Url = url.parse().map_err(|error| format!("url cannot be used: {error}"))?;
        let tls = (url.scheme() == "https").then(system_tls).transpose()?;
        Ok(Self { url, allows_private, tls })
    }

    /// The same for a server of this machine whose certificate `roots` hold.
    #[cfg(test)]
    pub(crate) fn with_roots(url: &str, roots: RootCertStore) -> Self {
        Self { url: url.parse().unwrap(), allows_private: true, tls: Some(tls(roots).unwrap()) }
    }

    /// A request to it, with the headers that each has.
    pub(crate) fn request(&self, method: Method) -> Builder {
        let path = self
            .url
            .query()
            .map_or_else(|| self.url.path().to_owned(), |query| format!("{}?{query}", self.url.path()));
        let host = self.url.host_str().unwrap_or_default();
        let authority = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("tidewire/", env!("CARGO_PKG_VERSION")))
    }

    /// Sends a request over a connection of its own and reads the answer. It takes as long as the other side likes; dropping the
    /// future ends the connection.
    ///
    /// # Errors
    /// It was not reached, gave no answer, or one that is too large.
    pub(crate) async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        reading: Reading,
    ) -> Result<Response<Bytes>, String> {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let answer = self.link().await?.exchange(request, reading).await;
        answer.map_err(Unanswered::into_reason)
    }

    /// A connection to it.
    async fn link(&self) -> Result<Link, String> {
        let stream = self.connect().await?;
        let Some(tls) = &self.tls else { return Link::over(stream).await };
        let name = match self.url.host() {
            Some(Host::Domain(name)) => {
                ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?
            }
            Some(Host::Ipv4(address)) => ServerName::IpAddress(std::net::IpAddr::V4(address).into()),
            Some(Host::Ipv6(address)) => ServerName::IpAddress(std::net::IpAddr::V6(address).into()),
            None => return Err("the URL names no host".into()),
        };
        let stream = tls.connect(name, stream).await.map_err(|error| format!("TLS failed: {error}"))?;
        Link::over(stream).await
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
