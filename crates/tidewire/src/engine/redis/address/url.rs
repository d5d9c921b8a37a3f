//! Reads engine URLs:
//!
//! - `redis://[user:pass@]host[:port][/db]`, `unix://PATH`
//! - `redis-cluster://[user:pass@]host[:port],host[:port]`
//! - `redis-sentinel://[user:pass@]host[:port],host[:port]/primary-name`
//!
//! With `rediss` in place of `redis`, every link is encrypted: those to sentinels too.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url, form_urlencoded};

use super::{Access, Address, Credentials, Endpoint, Group, Target};
use crate::engine::redis::tls::{Tls, TlsFiles};
use crate::error::{Error, ErrorKind, Result};

const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// What stands before `://`, without its `s`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    One,
    Unix,
    Cluster,
    Sentinel,
}

impl Target {
    /// Reads an engine URL, and the files that it names.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] says which part or file is wrong; it never repeats a password.
    pub(in crate::engine::redis) fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
        let (scheme, is_encrypted) = read_scheme(scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = Options::read(query, scheme, is_encrypted)?;
        if scheme == Scheme::Unix {
            let endpoint = unix(rest)?;
            return Ok(Self::One(Address { endpoint, access: options.access(None)? }));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let port = if scheme == Scheme::Sentinel { SENTINEL_PORT } else { SERVER_PORT };
        let endpoints = hosts.split(',').map(|host| tcp(host, port)).collect::<Result<Vec<_>>>()?;
        if scheme == Scheme::One && !path.is_empty() {
            options.database = database(path)?;
        }
        let access = options.access(user)?;
        let address = |endpoint| Address { endpoint, access: access.clone() };
        match scheme {
            Scheme::Sentinel => {
                let greeting = options.sentinel_access(&access)?;
                let sentinel = |endpoint| Address { endpoint, access: greeting.clone() };
                let sentinels = endpoints.into_iter().map(sentinel).collect();
                Ok(Self::Sentinel(Group { name: primary_name(path)?, sentinels, access }))
            }
            Scheme::Cluster if !path.is_empty() => {
                Err(invalid("a redis cluster has one database only; its URL names no other"))
            }
            Scheme::Cluster => Ok(Self::Cluster(endpoints.into_iter().map(address).collect())),
            Scheme::One | Scheme::Unix => match <[Endpoint; 1]>::try_from(endpoints) {
                Ok([endpoint]) => Ok(Self::One(address(endpoint))),
                Err(_) => Err(invalid(
                    "a redis:// URL names one host; several are for redis-cluster:// and redis-sentinel://",
                )),
            },
        }
    }
}

/// Every scheme, and whether its links are encrypted.
const SCHEMES: [(&str, Scheme, bool); 7] = [
    ("redis", Scheme::One, false),
    ("rediss", Scheme::One, true),
    ("unix", Scheme::Unix, false),
    ("redis-cluster", Scheme::Cluster, false),
    ("rediss-cluster", Scheme::Cluster, true),
    ("redis-sentinel", Scheme::Sentinel, false),
    ("rediss-sentinel", Scheme::Sentinel, true),
];

/// Whether URLs of this scheme are for us.
pub(in crate::engine::redis) fn is_scheme(text: &str) -> bool {
    SCHEMES.iter().any(|(name, ..)| *name == text)
}

fn read_scheme(text: &str) -> Result<(Scheme, bool)> {
    match SCHEMES.iter().find(|(name, ..)| *name == text) {
        Some((_, scheme, is_encrypted)) => Ok((*scheme, *is_encrypted)),
        None => {
            let known: Vec<_> = SCHEMES.iter().map(|(name, ..)| *name).collect();
            Err(invalid(format!("{text:?} is not a Redis URL scheme; known are {}", known.join(", "))))
        }
    }
}

/// What stands behind the `?`.
struct Options {
    connect_time_max: Duration,
    database: u32,
    user: Option<String>,
    password: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
    tls: Option<TlsFiles>,
}

impl Options {
    fn read(query: &str, scheme: Scheme, is_encrypted: bool) -> Result<Self> {
        let mut options = Self {
            connect_time_max: CONNECT_TIME_MAX,
            database: 0,
            user: None,
            password: None,
            sentinel_user: None,
            sentinel_password: None,
            tls: is_encrypted.then(TlsFiles::default),
        };
        for (option, value) in form_urlencoded::parse(query.as_bytes()) {
            options.set(&option, value, scheme)?;
        }
        Ok(options)
    }

    fn set(&mut self, option: &str, value: Cow<'_, str>, scheme: Scheme) -> Result<()> {
        match (option, scheme, &mut self.tls) {
            ("connect_timeout_ms", ..) => self.connect_time_max = connect_time(&value)?,
            ("db", Scheme::Unix | Scheme::Sentinel, _) => self.database = database(&value)?,
            ("user", Scheme::Unix, _) => self.user = Some(value.into_owned()),
            ("password", Scheme::Unix, _) => self.password = Some(value.into_owned()),
            ("sentinel_user", Scheme::Sentinel, _) => self.sentinel_user = Some(value.into_owned()),
            ("sentinel_password", Scheme::Sentinel, _) => self.sentinel_password = Some(value.into_owned()),
            ("ca", _, Some(tls)) => tls.ca = Some(PathBuf::from(&*value)),
            ("cert", _, Some(tls)) => tls.cert = Some(PathBuf::from(&*value)),
            ("key", _, Some(tls)) => tls.key = Some(PathBuf::from(&*value)),
            ("server_name", _, Some(tls)) => tls.server_name = Some(value.into_owned()),
            ("ca" | "cert" | "key" | "server_name", _, None) => {
                return Err(invalid(format!(
                    "the option {option} is for TLS, and this URL asks for none: write rediss in place of redis"
                )));
            }
            (other, ..) => {
                let own = match scheme {
                    Scheme::One | Scheme::Cluster => "",
                    Scheme::Unix => ", db, user, password",
                    Scheme::Sentinel => ", db, sentinel_user, sentinel_password",
                };
                return Err(invalid(format!(
                    "redis URL has the unknown option {other:?}; known here are connect_timeout_ms{own}, and with TLS \
                     ca, cert, key, server_name"
                )));
            }
        }
        Ok(())
    }

    /// How to greet servers; `user` is what stands before the `@`.
    fn access(&self, user: Option<&str>) -> Result<Arc<Access>> {
        let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, password)) => {
                let password = decode("password", password)?;
                (decode("user", user)?, (!password.is_empty()).then_some(password))
            }
            None => (self.user.clone().unwrap_or_default(), self.password.clone()),
        };
        Ok(Arc::new(Access {
            credentials: credentials(user, password)?,
            database: self.database,
            connect_time_max: self.connect_time_max,
            tls: self.tls.as_ref().map(Tls::read).transpose()?,
        }))
    }

    /// How to greet sentinels: as servers, but for who we are to them.
    fn sentinel_access(&self, access: &Access) -> Result<Arc<Access>> {
        let user = self.sentinel_user.clone().unwrap_or_default();
        let credentials = credentials(user, self.sentinel_password.clone())?;
        Ok(Arc::new(Access { credentials, database: 0, ..access.clone() }))
    }
}

fn credentials(user: String, password: Option<String>) -> Result<Option<Credentials>> {
    match password {
        // Before ACLs there was a password and no user; the server calls that user `default`.
        Some(password) if user.is_empty() => Ok(Some(Credentials { user: "default".to_owned(), password })),
        Some(password) => Ok(Some(Credentials { user, password })),
        None if user.is_empty() => Ok(None),
        None => Err(invalid(format!("redis URL names the user {user:?} without a password"))),
    }
}

fn tcp(host: &str, port: u16) -> Result<Endpoint> {
    let url =
        Url::parse(&format!("redis://{host}")).map_err(|error| invalid(format!("redis URL: {error}")))?;
    let host = match url.host() {
        Some(Host::Ipv6(ip)) => ip.to_string(),
        // The scheme is not special to the parser, so IPv4 addresses arrive as domains.
        Some(host) => host.to_string(),
        None => return Err(invalid("redis URL has no host")),
    };
    Ok(Endpoint::Tcp { host, port: url.port().unwrap_or(port) })
}

fn unix(path: &str) -> Result<Endpoint> {
    match path.strip_prefix('/') {
        None => Err(invalid("a unix URL has three slashes: unix:///path/to/redis.sock")),
        Some("") => Err(invalid("unix URL has no path")),
        Some(_) => Ok(Endpoint::Unix(PathBuf::from(decode("path", path)?))),
    }
}

fn primary_name(path: &str) -> Result<String> {
    match decode("name of the primary", path)? {
        name if name.is_empty() || name.contains('/') => Err(invalid(
            "a sentinel URL ends with the name that the sentinels watch the primary under, as in \
             redis-sentinel://host:26379,host:26379/mymaster",
        )),
        name => Ok(name),
    }
}

fn decode(part: &str, text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| invalid(format!("the {part} in the redis URL is not UTF-8")))
}

fn database(text: &str) -> Result<u32> {
    text.parse().map_err(|_| invalid(format!("database {text:?} in the redis URL is not a number")))
}

fn connect_time(text: &str) -> Result<Duration> {
    match text.parse() {
        Ok(millis @ 1..=60_000) => Ok(Duration::from_millis(millis)),
        _ => Err(invalid(format!("connect_timeout_ms is {text:?}, a number from 1 to 60000 is expected"))),
    }
}

fn invalid(text: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidName, text)
}
