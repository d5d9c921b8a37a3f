//! The address of a server.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// Which server a command talks to.
#[derive(clap::Args)]
pub(crate) struct ServerArguments {
    /// Address of the server
    #[arg(long, env = "TIDEWIRE_URL", value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub(crate) url: ServerUrl,
}

/// The address of a server: `http://HOST:PORT`, with a path in front of ours where a proxy adds one.
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

    /// What to do when nobody listens there.
    pub(crate) fn refused(&self) -> String {
        format!("no server at {self}: start one with `tidewire serve --dev`, or name yours with --url")
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as http://HOST:PORT";
        let url = Url::parse(text).map_err(|error| format!("{error}; {FORM}"))?;
        match url.scheme() {
            "http" => {}
            "https" => {
                return Err(
                    "https is not supported yet; use http:// over a trusted network or a tunnel".into()
                );
            }
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
    }

    #[test]
    fn says_what_to_write_instead() {
        for (text, hint) in [
            ("localhost:8000", "http://HOST:PORT"),
            ("127.0.0.1:8000", "http://HOST:PORT"),
            ("ws://host", "http://HOST:PORT"),
            ("https://host", "not supported yet"),
            ("http://me:secret@host", "--api-key"),
            ("http://host?x", "http://HOST:PORT"),
        ] {
            let error = text.parse::<ServerUrl>().unwrap_err();
            assert!(error.contains(hint) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
