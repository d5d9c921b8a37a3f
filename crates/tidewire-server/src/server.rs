//! A running server: it starts, it serves, it closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidewire::clock::Stopwatch;
use tidewire::{Clock, Tidewire};

use crate::config::Config;
use crate::edge::tls::Tls;
use crate::gateway::reaping;
use crate::node::Node;
use crate::peers::Peers;
use crate::{accept, api, keys, lifecycle};

/// How long a server that cannot start waits for its engine to end.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A gateway and HTTP API on one address and one engine.
///
/// Dropping it leaves it running until the runtime ends; [`Server::close`] ends it in good order.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tidewire_server::{Config, EngineUrl, Server};
///
/// let mut config = Config::dev();
/// config.listen = "127.0.0.1:0".into();
/// config.engine = EngineUrl::from("memory:");
/// let server = Server::start(config).await?;
/// println!("listening on {}", server.url());
/// server.close(Duration::from_secs(5)).await?;
/// # Ok(()) }
/// ```
#[must_use = "a server is closed with close()"]
pub struct Server {
    node: Arc<Node>,
    scheme: &'static str,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings cannot be used as they are: say it to who wrote them.
    #[error("{0}")]
    Usage(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address of the settings.
        listen: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The engine cannot be opened.
    #[error("cannot open engine {url}: {source}")]
    Engine {
        /// The URL of the settings, without its password.
        url: String,
        /// What the engine says.
        source: tidewire::Error,
    },
}

impl Server {
    /// Opens the engine and listens. When this returns, connections are accepted.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let listen = config.listen.clone();
        let failed = |source| StartError::Listen { listen: listen.clone(), source };
        let listener = accept::listen(&config.listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        if config.is_dev() && !addr.ip().is_loopback() {
            return Err(StartError::Usage(format!(
                "--dev listens on loopback only, because its keys are public: {addr} is not loopback"
            )));
        }
        let catalogs = config.catalogs().map_err(|error| StartError::Usage(error.to_string()))?;
        let tls = config.tls.as_ref().map(Tls::read).transpose().map_err(StartError::Usage)?;
        let clock = Clock::system();
        let url = config.engine.to_string();
        let tidewire = open_engine(&config, clock.clone()).await?;
        let node =
            Node::new(config, tidewire, clock, addr).map_err(|error| StartError::Usage(error.to_string()))?;
        for (tenant, catalog) in catalogs {
            if let Some(tenant) = node.tenants.named(&tenant) {
                tenant.handle.set_catalog(catalog);
            }
        }
        if node.tenants.is_empty() {
            tracing::warn!("no tenants are configured: every connection and API request will be refused");
        }
        if let Err(source) = Peers::listen(&node).await {
            let _closed = node.tidewire.close(CLOSE_WITHIN).await.is_ok();
            return Err(StartError::Engine { url, source });
        }
        if let Err(source) = node.webhooks.start().await {
            // It has not begun anything that takes long to end, and why it did not start is what is to be told.
            let _closed = node.tidewire.close(CLOSE_WITHIN).await.is_ok();
            return Err(match source.kind() {
                tidewire::ErrorKind::Conflict => StartError::Usage(format!("webhooks: {source}")),
                _ => StartError::Engine { url, source },
            });
        }
        if let Err(source) = lifecycle::recover(&node).await {
            let _closed = node.tidewire.close(CLOSE_WITHIN).await.is_ok();
            return Err(StartError::Engine { url, source });
        }
        if let Some(file) = &node.config.keys_file {
            keys::follow(node.tidewire.keys(), file, &node.tasks, &node.clock);
        }
        reaping::start(&node);
        if let Some(tls) = &tls {
            tls.follow(&node.tasks, &node.clock);
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        node.tasks.spawn(accept::serve(listener, api::router(node.clone()), node.clone(), tls));
        tracing::info!(%addr, scheme, engine = %node.config.engine, environment = node.config.environment, "listening");
        Ok(Self { node, scheme })
    }

    /// The address that it listens on, with the port that it got.
    pub fn addr(&self) -> SocketAddr {
        self.node.addr
    }

    /// Where it is reached on this machine: `http://ADDRESS:PORT`, or `https` with `[tls]`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.node.addr)
    }

    /// Closes in good order within `within`: stops accepting, finishes requests, writes what waits for connections and
    /// ends them with 3001 so that their clients reconnect elsewhere, then closes the engine.
    ///
    /// # Errors
    /// `TimedOut` if something was still running then; it is abandoned. What was confirmed stays confirmed.
    pub async fn close(self, within: Duration) -> tidewire::Result<()> {
        let watch = Stopwatch::start();
        // The engine needs a part of the time even where a connection takes all that it is given.
        let are_connections_done = self.node.tasks.close(within.mul_f32(0.8)).await;
        if !are_connections_done {
            tracing::warn!("some connections were cut off");
        }
        self.node.tidewire.close(within.saturating_sub(watch.elapsed())).await
    }
}

async fn open_engine(config: &Config, clock: Clock) -> Result<Tidewire, StartError> {
    let mut limits = tidewire::Limits::default();
    limits.event_bytes_max = config.limits.event_bytes_max;
    let keys = keys::of(config).map_err(|error| StartError::Usage(error.to_string()))?;
    let builder = Tidewire::builder(config.engine.expose())
        .keys(keys)
        .environment(&config.environment)
        .clock(clock)
        .limits(limits);
    builder.open().await.map_err(|source| match source.kind() {
        tidewire::ErrorKind::InvalidName => StartError::Usage(format!("engine {}: {source}", config.engine)),
        _ => StartError::Engine { url: config.engine.to_string(), source },
    })
}
