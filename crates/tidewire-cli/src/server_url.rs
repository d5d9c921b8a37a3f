//! The address of a server.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::{Host, Url};

use crate::failed::Failed;
use crate::tls::Roots;

/// Which server a command talks to.
#[derive(Clone, clap::Args)]
pub(crate) struct ServerArguments {
    /// Address of the server
    #[arg(long, env = "TIDEWIRE_URL", value_name = "URL", default_value = "http://127.0.0.1:8000")]
    url: ServerUrl,
    /// Who may have signed the certificate of an https server, in PEM; without it the system's roots count
    #[arg(long, env = "TIDEWIRE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// A server, and whose word is taken for who it is.
#[derive(Debug)]
pub(crate) struct ServerPlace {
    pub(crate) url: ServerUrl,
    /// `None` where no TLS is spoken.
    pub(crate) roots: Option<Roots>,
}

impl ServerArguments {
    pub(crate) fn place(self) -> Result<ServerPlace, Failed> {
        let roots = self.url.is_encrypted().then(|| Roots::read(self.ca.as_deref())).transpose();
        Ok(ServerPlace { roots: roots.map_err(Failed::Usage)?, url: self.url })
    }
}

/// The address of a server: `http://HOST:PORT` or `https://HOST:PORT`, with a path in front of ours where a proxy adds one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerUrl(Url);

impl ServerUrl {
    /// The URL of one of the server's paths, such as `/ready`.
    pub(crate) fn http(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// Where clients connect.
    pub(crate) fn websocket(&self) -> String {
        let address = self.http("/connection/websocket");
        address.strip_prefix("http").map_or_else(|| address.clone(), |rest| format!("ws{rest}"))
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The host, without the brackets that stand around an IPv6 address in a URL.
    pub(crate) fn host(&self) -> String {
        match self.0.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(80)
    }

    /// What to do when nobody listens there.
    pub(crate) fn refused(&self) -> String {
        format!("no server at {self}: start one with `tidewire serve --dev`, or name yours with --url")
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as http://HOST:PORT or https://HOST:PORT";
        let url = Url::parse(text).map_err(|error| format!("{error}; {FORM}"))?;
        match url.scheme() {
            "http" | "https" => {}
            // `localhost:8000` is a URL too, of the scheme `localhost`.
            _ => return Err(FORM.into()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a server takes no user and password in its URL; give --api-key or --token".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("a server's URL ends before ? and #; {FORM}"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_addresses_below_it() {
        let url: ServerUrl = "http://127.0.0.1:8000".parse().unwrap();
        assert_eq!(url.http("/ready"), "http://127.0.0.1:8000/ready");
        assert_eq!(url.websocket(), "ws://127.0.0.1:8000/connection/websocket");
        let behind_proxy: ServerUrl = "http://host/live/".parse().unwrap();
        assert_eq!(behind_proxy.websocket(), "ws://host/live/connection/websocket");
        let encrypted: ServerUrl = "https://[::1]".parse().unwrap();
        assert_eq!(encrypted.websocket(), "wss://[::1]/connection/websocket");
        assert_eq!((encrypted.host(), encrypted.port()), ("::1".into(), 443));
    }

    #[test]
    fn says_what_to_write_instead() {
        for (text, hint) in [
            ("localhost:8000", "http://HOST:PORT"),
            ("127.0.0.1:8000", "http://HOST:PORT"),
            ("ws://host", "http://HOST:PORT"),
            ("http://me:secret@host", "--api-key"),
            ("http://host?x", "http://HOST:PORT"),
        ] {
            let error = text.parse::<ServerUrl>().unwrap_err();
            assert!(error.contains(hint) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
