//! Accepting TCP connections, and HTTP/1.1 on them.
//!
//! Our own loop and not `axum::serve`, which sets no bound on a connection that sends no request.

use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidewire::tasks::Tasks;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::sleep;

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

/// Serves `router` until `tasks` stop; requests in flight are finished then. A connection that sends no request, or not
/// all of its head, is closed after `request_within`.
pub(crate) async fn serve(listener: TcpListener, router: Router, tasks: Tasks, request_within: Duration) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    loop {
        let accept = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await.ok()?;
            Some((accept(&listener).await, place))
        };
        let accepted = tokio::select! {
            () = tasks.stopping().cancelled() => return,
            accepted = accept => accepted,
        };
        let Some((stream, place)) = accepted else { return };
        let (router, stopping) = (router.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(request_within)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                .with_upgrades();
            let mut connection = pin!(connection);
            let outcome = tokio::select! {
                outcome = &mut connection => outcome,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "HTTP connection ended");
            }
            drop(place);
        });
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Replies are small and waited for; batching them in the kernel only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY");
                }
                return stream;
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
