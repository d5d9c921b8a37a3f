//! Who may come in at all, before anything is said: address lists, proxies that are believed, and what an address may do before it
//! has authenticated. `docs/edge.md` tells what an operator sees.
//!
//! The client's address is found out once, here: from the TCP connection, or from what a trusted proxy says. It travels with each
//! request as its [`Visitor`].

mod addresses;
mod bucket;
mod forwarded;
pub(crate) mod network;
pub(crate) mod tls;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidewire::clock::Stopwatch;

use self::addresses::{Addresses, Guest, TooMany};
use self::forwarded::{Malformed, Scheme};
use self::network::Network;
use crate::config::EdgeConfig;
use crate::metrics::{Metrics, RefusalLabel};
use crate::node::Node;

/// When to come again, for those that too many others of the same address stand in the way of.
const CROWDED_WAIT: Duration = Duration::from_secs(5);

/// Who may come in.
pub(crate) struct Edge {
    config: EdgeConfig,
    addresses: Arc<Addresses>,
    watch: Stopwatch,
    metrics: Arc<Metrics>,
    has_warned: AtomicBool,
}

/// The other end of a TCP connection.
#[derive(Clone)]
pub(crate) struct Peer {
    address: IpAddr,
    kind: PeerKind,
    transport: Transport,
    guest: Option<Arc<Guest>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerKind {
    Client,
    TrustedProxy,
}

/// What HTTP is spoken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP alone.
    Plain,
    /// TLS.
    Tls,
}

/// Whom a request is of.
#[derive(Clone)]
pub(crate) struct Visitor {
    /// The client's address; never an IPv4 address written as an IPv6 one.
    pub(crate) address: IpAddr,
    /// The host under which it knows this server, where a proxy says so.
    pub(crate) host: Option<String>,
    /// Whether it is known to have come over TLS, to here or to the proxy.
    pub(crate) is_secure: bool,
    /// What counts it until it has authenticated.
    guest: Option<Arc<Guest>>,
    /// Whether its connection was counted when it was accepted: one through a proxy is when it is asked for.
    is_entered: bool,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// By `edge.allow` or `edge.deny`.
    Address,
    /// By `edge.unauthenticated_max`.
    Unauthenticated,
    /// By `edge.connections_per_second`, until so much later.
    Arrivals(Duration),
    /// By `edge.failures_per_minute`, until so much later.
    Failures(Duration),
    /// A trusted proxy says something that cannot be read in this header.
    Malformed(HeaderName),
}

impl Edge {
    pub(crate) fn new(config: &EdgeConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            config: config.clone(),
            addresses: Addresses::new(config),
            watch: Stopwatch::start(),
            metrics,
            has_warned: AtomicBool::new(false),
        }
    }

    /// Lets a TCP connection in.
    ///
    /// # Errors
    /// It is to be closed at once.
    pub(crate) fn meet(&self, address: IpAddr, transport: Transport) -> Result<Peer, Refused> {
        let address = address.to_canonical();
        if self.is_trusted(address) {
            return Ok(Peer { address, kind: PeerKind::TrustedProxy, transport, guest: None });
        }
        let enter = || {
            self.check_lists(address)?;
            self.enter(address)
        };
        let guest = enter().inspect_err(|refused| self.count(refused, address))?;
        Ok(Peer { address, kind: PeerKind::Client, transport, guest })
    }

    /// Finds out whom a request is of.
    ///
    /// # Errors
    /// What is answered instead.
    fn visitor(&self, peer: &Peer, headers: &HeaderMap) -> Result<Visitor, Refused> {
        let Peer { address, guest, .. } = peer;
        if peer.kind == PeerKind::Client {
            self.warn_of_stranger(*address, headers);
            return Ok(Visitor {
                address: *address,
                host: None,
                is_secure: peer.transport == Transport::Tls,
                guest: guest.clone(),
                is_entered: true,
            });
        }
        let forwarded = forwarded::read(headers, self.config.proxy_header, |hop| self.is_trusted(hop))
            .map_err(|Malformed(header)| Refused::Malformed(header))?;
        let visitor = Visitor {
            // A proxy that names nobody asks for itself.
            address: forwarded.address.unwrap_or(*address),
            host: forwarded.host,
            is_secure: forwarded.scheme == Some(Scheme::Https),
            guest: None,
            is_entered: false,
        };
        self.check_lists(visitor.address)?;
        Ok(visitor)
    }

    /// Counts a connection that is about to be opened, unless its TCP connection has been counted.
    ///
    /// # Errors
    /// There are too many of its address, or it failed to authenticate too often.
    pub(crate) fn admit(&self, visitor: Visitor) -> Result<Visitor, Refused> {
        self.check_failures(&visitor)?;
        if visitor.is_entered {
            return Ok(visitor);
        }
        let guest = self.enter(visitor.address);
        let guest = guest.inspect_err(|refused| self.count(refused, visitor.address))?;
        Ok(Visitor { guest, is_entered: true, ..visitor })
    }

    /// Whether a client may try to authenticate.
    ///
    /// # Errors
    /// It failed to too often.
    pub(crate) fn check_failures(&self, visitor: &Visitor) -> Result<(), Refused> {
        let Some(wait) = self.addresses.refused_for(visitor.address, self.watch.elapsed()) else {
            return Ok(());
        };
        let refused = Refused::Failures(wait);
        self.count(&refused, visitor.address);
        Err(refused)
    }

    /// Notes that a client failed to authenticate: with a token or a key that is none of ours, not with one that has expired.
    pub(crate) fn failed(&self, visitor: &Visitor) {
        self.addresses.failed(visitor.address, self.watch.elapsed());
    }

    fn enter(&self, address: IpAddr) -> Result<Option<Arc<Guest>>, Refused> {
        match self.addresses.enter(address, self.watch.elapsed()) {
            Ok(guest) => Ok(guest.map(Arc::new)),
            Err(TooMany::Unauthenticated) => Err(Refused::Unauthenticated),
            Err(TooMany::Arrivals(wait)) => Err(Refused::Arrivals(wait)),
        }
    }

    fn check_lists(&self, address: IpAddr) -> Result<(), Refused> {
        let has = |list: &[Network]| list.iter().any(|network| network.contains(address));
        let EdgeConfig { allow, deny, .. } = &self.config;
        match (allow.is_empty() || has(allow)) && !has(deny) {
            true => Ok(()),
            false => Err(Refused::Address),
        }
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.config.trusted_proxies.iter().any(|network| network.contains(address))
    }

    /// Says once that a proxy is not believed: its clients share one address until it is.
    fn warn_of_stranger(&self, peer: IpAddr, headers: &HeaderMap) {
        let header = forwarded::name_of(self.config.proxy_header);
        if headers.contains_key(&header) && !self.has_warned.swap(true, Relaxed) {
            tracing::warn!(%peer, %header, "header is ignored: the peer is not in edge.trusted_proxies");
        }
    }

    fn count(&self, refused: &Refused, client: IpAddr) {
        let reason = refused.reason();
        self.metrics.refusals.get_or_create(&RefusalLabel { reason }).inc();
        // There may be very many, which must not fill the log.
        tracing::debug!(%client, reason, "refused at the edge");
    }
}

impl Peer {
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }
}

impl Visitor {
    /// It has authenticated, and is no longer counted among those that have not.
    pub(crate) fn proved(&self) {
        if let Some(guest) = &self.guest {
            guest.leave();
        }
    }
}

impl Default for Visitor {
    /// Somebody of whom nothing is known.
    fn default() -> Self {
        let address = Ipv4Addr::UNSPECIFIED.into();
        Self { address, host: None, is_secure: false, guest: None, is_entered: true }
    }
}

impl Refused {
    /// As metrics name it.
    fn reason(&self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Unauthenticated => "unauthenticated",
            Self::Arrivals(_) => "arrivals",
            Self::Failures(_) => "failures",
            Self::Malformed(_) => "malformed",
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Address => StatusCode::FORBIDDEN,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// What the client is told.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Address => "this address is not allowed".into(),
            Self::Unauthenticated => "too many connections of this address have not authenticated".into(),
            Self::Arrivals(_) => "too many connections of this address".into(),
            Self::Failures(_) => "this address failed to authenticate too often".into(),
            Self::Malformed(header) => format!("a proxy sent a malformed {header}"),
        }
    }

    /// In how many seconds it is worth to come again.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        let wait = match self {
            Self::Address | Self::Malformed(_) => return None,
            Self::Unauthenticated => CROWDED_WAIT,
            Self::Arrivals(wait) | Self::Failures(wait) => *wait,
        };
        Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status(), format!("{}\n", self.message())).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Gives every request its [`Visitor`], or refuses it.
pub(crate) async fn visit(State(node): State<Arc<Node>>, mut request: Request, next: Next) -> Response {
    // Each connection that was accepted has one.
    let Some(peer) = request.extensions_mut().remove::<Peer>() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    match node.edge.visitor(&peer, request.headers()) {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Err(refused) => {
            node.edge.count(&refused, peer.address);
            refused.into_response()
        }
    }
}

#[cfg(test)]
mod tests;
