//! `tidewire serve`: runs a node until it is told to stop.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use tidewire_server::config::{DEFAULT_TENANT, DEV_API_KEY, DEV_TOKEN_SECRET, LogConfig, LogFormat};
use tidewire_server::{Config, EngineUrl, Server, StartError};
use tokio::signal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::failed::Failed;

/// How long a node may take to close in good order.
const CLOSE_WITHIN: Duration = Duration::from_secs(20);

/// How long the token that `--dev` prints is good, in seconds.
const DEV_TOKEN_SECONDS: u64 = 24 * 3600;

/// Run a node: WebSocket gateway, server API, metrics
#[derive(Args)]
pub(crate) struct Serve {
    /// Settings file; `tidewire config default` prints one with every setting
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Engine: memory:, file:DIR, redis://..., redis-sentinel://..., redis-cluster://...; rediss for TLS
    #[arg(long, value_name = "URL")]
    engine: Option<String>,
    /// Try it out: loopback only, public keys, every channel open, a demo page
    #[arg(long)]
    dev: bool,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let config = self.settings()?;
        start_log(&config.log);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(serve(config))
    }

    /// The settings file, or the defaults, with what the command line says on top.
    fn settings(self) -> Result<Config, Failed> {
        let mut config = match &self.config {
            Some(file) => Config::from_file(file).map_err(|error| Failed::Usage(error.to_string()))?,
            None => Config::default(),
        };
        if self.dev {
            config = config.into_dev();
        }
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(engine) = &self.engine {
            config.engine = EngineUrl::from(engine.as_str());
        }
        Ok(config)
    }
}

/// Sends the log to standard error, as the settings and `TIDEWIRE_LOG` say.
fn start_log(log: &LogConfig) {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let mut filter = filter.with_env_var("TIDEWIRE_LOG").from_env_lossy();
    if log.events {
        let lines = format!("{}=trace", tidewire::EVENT_LOG_TARGET).parse();
        // A target and a level are a directive.
        filter = lines.map_or(filter.clone(), |lines| filter.add_directive(lines));
    }
    let has_colours = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(has_colours).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

async fn serve(config: Config) -> Result<(), Failed> {
    let is_dev = config.is_dev();
    // From here on a signal closes the node in good order, also one that comes while it starts.
    let mut stop = std::pin::pin!(stop_signal()?);
    let server = tokio::select! {
        started = Server::start(config) => started.map_err(|error| match error {
            StartError::Usage(text) => Failed::Usage(text),
            other => Failed::from(other),
        })?,
        () = &mut stop => return Ok(()),
    };
    announce(&server.url(), is_dev)?;
    stop.await;
    tracing::info!("closing");
    Ok(server.close(CLOSE_WITHIN).await?)
}

/// Says where it listens, for people and for programs that wait for it.
fn announce(url: &str, is_dev: bool) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {url}")?;
    if is_dev {
        let claims = serde_json::json!({ "sub": "dev", "exp": get_current_timestamp() + DEV_TOKEN_SECONDS });
        let token =
            encode(&Header::default(), &claims, &EncodingKey::from_secret(DEV_TOKEN_SECRET.as_bytes()))?;
        writeln!(out)?;
        writeln!(out, "  page          {url}/?channel=demo")?;
        // http becomes ws, https becomes wss.
        writeln!(out, "  WebSocket     {}/connection/websocket", url.replacen("http", "ws", 1))?;
        writeln!(out, "  tenant        {DEFAULT_TENANT}")?;
        writeln!(out, "  API key       {DEV_API_KEY}")?;
        writeln!(out, "  token secret  {DEV_TOKEN_SECRET}")?;
        writeln!(out, "  token         {token}")?;
        writeln!(out)?;
        let data = r#"{"channel":"demo","data":{"hello":"world"}}"#;
        writeln!(out, "  curl -H 'X-API-Key: {DEV_API_KEY}' {url}/api/publish -d '{data}'")?;
        writeln!(out)?;
        writeln!(out, "  These keys are public: --dev is for trying things out on this machine only.")?;
    }
    out.flush()?;
    Ok(())
}

/// Completes at Ctrl-C, and where there is such a thing, at SIGTERM. The signals are taken over when this returns.
#[cfg(unix)]
fn stop_signal() -> Result<impl Future<Output = ()>, Failed> {
    use signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> Result<impl Future<Output = ()>, Failed> {
    Ok(async {
        // Without a handler Ctrl-C ends the process at once, which is all that is left to do.
        if signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
