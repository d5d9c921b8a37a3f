//! Accepting TCP connections, and HTTP/1.1 on them, with TLS or without.
//!
//! Our own loop and not `axum::serve`, which sets no bound on a connection that sends no request.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::edge::tls::Tls;
use crate::edge::{Peer, Transport};
use crate::node::Node;

/// TCP connections that speak HTTP at a time; past it the next ones wait in the kernel. A WebSocket stops to count with
/// its upgrade, and `limits.connections_max` bounds those.
const HTTP_CONNECTIONS_MAX: usize = 10_000;

/// How long to wait after the system refused a connection for want of file descriptors or memory.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// Connections that wait in the kernel to be accepted, within its own bound (net.core.somaxconn). When a node restarts all of
/// its clients come at once, and one that finds no room tries again only after a second or more.
const BACKLOG: u32 = 4_096;

/// Listens on the first address of `listen` that can be listened on.
pub(crate) async fn listen(listen: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(ErrorKind::InvalidInput, "no address");
    for address in lookup_host(listen).await? {
        let listening = (|| {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        })();
        match listening {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Serves `router` until the node's tasks stop; requests in flight are finished then. A connection that sends no request, or
/// not all of its head, is closed after `timing.request_within`.
pub(crate) async fn serve(listener: TcpListener, router: Router, node: Arc<Node>, tls: Option<Arc<Tls>>) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let transport = if tls.is_some() { Transport::Tls } else { Transport::Plain };
    loop {
        let accept = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await.ok()?;
            Some((accept(&listener).await, place))
        };
        let accepted = tokio::select! {
            () = node.tasks.stopping().cancelled() => return,
            accepted = accept => accepted,
        };
        let Some(((stream, address), place)) = accepted else { return };
        // Who is refused costs no more than this.
        let Ok(peer) = node.edge.meet(address.ip(), transport) else { continue };
        let service = Service { router: TowerToHyperService::new(router.clone()), peer };
        let acceptor = tls.as_ref().map(|tls| tls.acceptor());
        let (tasks, node) = (&node.tasks, node.clone());
        tasks.spawn(async move {
            match acceptor {
                None => converse(stream, service, &node).await,
                // Boxed, so that a connection without TLS needs no room for it.
                Some(acceptor) => Box::pin(encrypted(stream, acceptor, service, &node)).await,
            }
            drop(place);
        });
    }
}

/// Speaks HTTP over TLS.
async fn encrypted(stream: TcpStream, acceptor: TlsAcceptor, service: Service, node: &Node) {
    let handshake = timeout(node.config.timing.handshake_within, acceptor.accept(stream));
    let client = service.peer.address();
    match node.tasks.stopping().run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => converse(stream, service, node).await,
        Some(Ok(Err(error))) => tracing::debug!(%client, %error, "TLS handshake failed"),
        Some(Err(_)) => tracing::debug!(%client, "TLS handshake took too long (timing.handshake_within)"),
        None => {}
    }
}

/// Speaks HTTP until the connection ends or becomes something else.
async fn converse<S>(stream: S, service: Service, node: &Node)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = service.peer.address();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(node.config.timing.request_within)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = node.tasks.stopping().cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%client, %error, "HTTP connection ended");
    }
}

/// The routes, told with each request whose connection it came over.
struct Service {
    router: TowerToHyperService<Router>,
    peer: Peer,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as hyper::service::Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.router.call(request)
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Replies are small and waited for; batching them in the kernel only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY");
                }
                return (stream, address);
            }
            Err(error) if is_of_peer(error.kind()) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                sleep(REFUSED_WAIT).await;
            }
        }
    }
}

/// Whether the peer was gone before it was accepted, which is no trouble of ours.
fn is_of_peer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}
