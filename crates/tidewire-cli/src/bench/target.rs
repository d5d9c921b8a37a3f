//! The server under load: where it is, and how connections introduce themselves.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use tidewire_protocol::Encoding;
use url::Url;

/// Where clients connect, on every server that speaks the client protocol.
const CLIENT_PATH: &str = "/connection/websocket";

/// Which server, and as whom.
#[derive(clap::Args)]
pub(super) struct TargetArguments {
    /// Where clients connect: ws://HOST:PORT/PATH, or http://HOST:PORT for the usual path
    #[arg(long, env = "TIDEWIRE_URL", value_name = "URL", default_value = "http://127.0.0.1:8000")]
    url: BenchUrl,
    /// Connection token of every connection; without it they are anonymous
    #[arg(long, env = "TIDEWIRE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How frames are written
    #[arg(long, value_enum, default_value_t = Wording::Json)]
    encoding: Wording,
}

/// The encodings by their names on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Wording {
    Json,
    Protobuf,
}

/// Where clients connect: `ws://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq)]
struct BenchUrl(Url);

/// A server whose address is known.
pub(super) struct Target {
    url: BenchUrl,
    pub(super) address: SocketAddr,
    pub(super) token: Option<String>,
    pub(super) encoding: Encoding,
}

impl TargetArguments {
    /// Looks the host up, once for all connections.
    pub(super) async fn resolve(self) -> Result<Target> {
        let found = tokio::net::lookup_host((self.url.host(), self.url.port())).await;
        let address = found.with_context(|| format!("no host of that name: {}", self.url))?.next();
        let address = address.ok_or_else(|| anyhow!("no address of {}", self.url))?;
        let encoding = match self.encoding {
            Wording::Json => Encoding::Json,
            Wording::Protobuf => Encoding::Protobuf,
        };
        Ok(Target { url: self.url, address, token: self.token, encoding })
    }
}

impl Target {
    /// What an HTTP request names as `Host`.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.url.0.host_str().unwrap_or_default(), self.url.port())
    }

    /// The path that clients connect at, with its query.
    pub(super) fn client_path(&self) -> String {
        match self.url.0.query() {
            Some(query) => format!("{}?{query}", self.url.0.path()),
            None => self.url.0.path().to_owned(),
        }
    }

    /// A path of the server's HTTP side, which begins where the path of clients does.
    pub(super) fn http_path(&self, path: &str) -> String {
        let prefix = self.url.0.path().strip_suffix(CLIENT_PATH).unwrap_or_default();
        format!("{prefix}{path}")
    }

    /// What it means that no connection came to be.
    pub(super) fn unreachable(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => format!(
                "no server at {self}: start one with `tidewire serve --dev`, or name yours with --url"
            ),
            _ => format!("cannot reach {self}: {error}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl BenchUrl {
    /// Without the brackets that stand around an IPv6 address in a URL.
    fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_matches(['[', ']'])
    }

    fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(80)
    }
}

impl FromStr for BenchUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as ws://HOST:PORT/connection/websocket or http://HOST:PORT";
        let mut url = Url::parse(text).map_err(|error| format!("{error}; {FORM}"))?;
        match url.scheme() {
            "ws" => {}
            "http" => {
                let path = format!("{}{CLIENT_PATH}", url.path().trim_end_matches('/'));
                url.set_path(&path);
                url.set_scheme("ws").map_err(|()| FORM.to_owned())?;
            }
            "wss" | "https" => {
                return Err("TLS is not spoken here: it would be measured too; go behind the proxy, or to a server without [tls]".into());
            }
            // `localhost:8000` is a URL too, of the scheme `localhost`.
            _ => return Err(FORM.into()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a server takes no user and password in its URL; give --api-key or --token".into());
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("no host in it; {FORM}"));
        }
        url.set_fragment(None);
        Ok(Self(url))
    }
}

impl fmt::Display for BenchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_url_of_a_server_and_that_of_its_clients() {
        for (text, url) in [
            ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/connection/websocket"),
            ("http://host/live/", "ws://host/live/connection/websocket"),
            ("ws://host:9000/connection/websocket", "ws://host:9000/connection/websocket"),
            ("ws://[::1]:1/ws?a=b", "ws://[::1]:1/ws?a=b"),
        ] {
            assert_eq!(text.parse::<BenchUrl>().unwrap().to_string(), url);
        }
        assert_eq!("ws://[::1]:1/".parse::<BenchUrl>().unwrap().host(), "::1");
    }

    #[test]
    fn says_what_to_write_instead() {
        for (text, hint) in [
            ("localhost:8000", "ws://HOST:PORT"),
            ("127.0.0.1:8000", "ws://HOST:PORT"),
            ("wss://host", "behind the proxy"),
            ("ws://me:secret@host", "--api-key"),
        ] {
            let error = text.parse::<BenchUrl>().unwrap_err();
            assert!(error.contains(hint) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
