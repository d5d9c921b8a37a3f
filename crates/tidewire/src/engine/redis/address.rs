//! Where a server is and who we are to it: `redis://[user:pass@]host[:port][/db]`, `unix://PATH[?db=N]`, and for a
//! cluster `redis-cluster://[user:pass@]host[:port],host[:port]`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// What the URL of a cluster starts with.
pub(super) const CLUSTER: &str = "redis-cluster://";

const PORT: u16 = 6379;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
const OPTIONS: &str = "connect_timeout_ms, and for unix: db, user, password";

/// One server, and how to greet it.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) endpoint: Endpoint,
    pub(super) credentials: Option<Credentials>,
    pub(super) database: u32,
    /// Resolving, connecting and greeting together.
    pub(super) connect_time_max: Duration,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An ACL user and its password.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials {{ user: {:?}, password: *** }}", self.user)
    }
}

impl Address {
    /// Reads an engine URL.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] says which part is wrong; it never repeats the password.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let url = Url::parse(text).map_err(|error| invalid(format!("redis URL: {error}")))?;
        let mut address = Self {
            endpoint: endpoint(&url)?,
            credentials: None,
            database: 0,
            connect_time_max: CONNECT_TIME_MAX,
        };
        let mut user = decode("user", url.username())?;
        let mut password = url.password().map(|text| decode("password", text)).transpose()?;
        if url.scheme() == "redis" {
            address.database = match url.path().trim_start_matches('/') {
                "" => 0,
                number => database(number)?,
            };
        }
        for (option, value) in url.query_pairs() {
            match (option.as_ref(), url.scheme()) {
                ("connect_timeout_ms", _) => address.connect_time_max = connect_time(&value)?,
                ("db", "unix") => address.database = database(&value)?,
                ("user", "unix") => user = value.into_owned(),
                ("password", "unix") => password = Some(value.into_owned()),
                (other, _) => {
                    return Err(invalid(format!(
                        "redis URL has the unknown option {other:?}; known are {OPTIONS}"
                    )));
                }
            }
        }
        address.credentials = match password {
            // Before ACLs there was a password and no user; the server calls that user `default`.
            Some(password) if user.is_empty() => Some(Credentials { user: "default".to_owned(), password }),
            Some(password) => Some(Credentials { user, password }),
            None if user.is_empty() => None,
            None => return Err(invalid(format!("redis URL names the user {user:?} without a password"))),
        };
        Ok(address)
    }
}

impl Address {
    /// Reads the URL of a cluster: one address per seed. What is said beside the hosts holds for every node.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub(super) fn parse_cluster(text: &str) -> Result<Vec<Self>> {
        let rest = text.strip_prefix(CLUSTER).unwrap_or(text);
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, options) = rest.split_at(authority_end);
        if !matches!(options.trim_start_matches('/').chars().next(), None | Some('?')) {
            return Err(invalid("a redis cluster has one database only; its URL names no other".to_owned()));
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), authority),
        };
        let address = |host: &str| Self::parse(&format!("redis://{credentials}{host}{options}"));
        hosts.split(',').map(address).collect()
    }
}

fn endpoint(url: &Url) -> Result<Endpoint> {
    match url.scheme() {
        "redis" => {
            let host = match url.host() {
                Some(url::Host::Ipv6(ip)) => ip.to_string(),
                // The scheme is not special to the parser, so IPv4 addresses arrive as domains.
                Some(host) => host.to_string(),
                None => return Err(invalid("redis URL has no host".to_owned())),
            };
            Ok(Endpoint::Tcp { host, port: url.port().unwrap_or(PORT) })
        }
        "unix" if url.has_host() => {
            Err(invalid("a unix URL has three slashes: unix:///path/to/redis.sock".to_owned()))
        }
        "unix" if url.path().len() < 2 => Err(invalid("unix URL has no path".to_owned())),
        "unix" => Ok(Endpoint::Unix(PathBuf::from(decode("path", url.path())?))),
        other => Err(invalid(format!("{other:?} is not a Redis URL scheme; known are redis and unix"))),
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

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidName, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn reads_the_documented_forms() {
        let plain = Address::parse("redis://127.0.0.1").unwrap();
        assert_eq!((plain.endpoint, plain.database), (tcp("127.0.0.1", 6379), 0));
        assert!(plain.credentials.is_none());

        let full = Address::parse("redis://app:p%40ss@cache.internal:7000/3?connect_timeout_ms=250").unwrap();
        assert_eq!((full.endpoint, full.database), (tcp("cache.internal", 7000), 3));
        assert_eq!(full.connect_time_max, Duration::from_millis(250));
        let credentials = full.credentials.unwrap();
        assert_eq!((&*credentials.user, &*credentials.password), ("app", "p@ss"));

        let bare_password = Address::parse("redis://:secret@[::1]:7001").unwrap();
        assert_eq!(bare_password.endpoint, tcp("::1", 7001));
        assert_eq!(bare_password.endpoint.to_string(), "[::1]:7001");
        assert_eq!(bare_password.credentials.unwrap().user, "default");

        let unix = Address::parse("unix:///run/redis%20a.sock?db=2&password=x").unwrap();
        assert_eq!((unix.endpoint, unix.database), (Endpoint::Unix("/run/redis a.sock".into()), 2));
    }

    #[test]
    fn reads_the_seeds_of_a_cluster() {
        let url = "redis-cluster://app:p%40ss@one.internal:7000,10.0.0.2,[::1]:7002?connect_timeout_ms=250";
        let seeds = Address::parse_cluster(url).unwrap();
        let endpoints: Vec<_> = seeds.iter().map(|seed| seed.endpoint.clone()).collect();
        assert_eq!(endpoints, [tcp("one.internal", 7000), tcp("10.0.0.2", 6379), tcp("::1", 7002)]);
        for seed in seeds {
            assert_eq!(seed.connect_time_max, Duration::from_millis(250));
            assert_eq!(seed.credentials.unwrap().password, "p@ss");
        }
        for url in
            ["redis-cluster://", "redis-cluster://h,,g", "redis-cluster://h/1", "redis-cluster://h?nope=1"]
        {
            assert_eq!(Address::parse_cluster(url).unwrap_err().kind(), ErrorKind::InvalidName, "{url}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_url() {
        for (url, part) in [
            ("redis://", "host"),
            ("redis://h/x", "database"),
            ("redis://h?nope=1", "nope"),
            ("redis://h?connect_timeout_ms=0", "connect_timeout_ms"),
            ("redis://user@h", "without a password"),
            ("unix://run/redis.sock", "three slashes"),
            ("http://h", "scheme"),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName);
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let address = Address::parse("redis://app:hunter2@h").unwrap();
        assert!(!format!("{address:?}").contains("hunter2"));
        let error = Address::parse("redis://app:hunter2@h:99999").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
