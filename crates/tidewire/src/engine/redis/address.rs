//! Where servers are and who we are to them. `address/url.rs` reads it from an engine URL.

mod url;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::url::is_scheme;
use super::tls::Tls;

/// What an engine URL names.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// One server.
    One(Address),
    /// A cluster, by some of its nodes.
    Cluster(Vec<Address>),
    /// The primary that sentinels name.
    Sentinel(Group),
}

/// One server, and how to greet it.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) endpoint: Endpoint,
    pub(super) access: Arc<Access>,
}

/// A primary and its replicas, as sentinels know them.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The name that the sentinels watch it under.
    pub(super) name: String,
    pub(super) sentinels: Vec<Address>,
    /// How to greet the primary, wherever it is.
    pub(super) access: Arc<Access>,
}

/// How to greet a server; it holds for every one that the URL leads to.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) credentials: Option<Credentials>,
    pub(super) database: u32,
    /// Resolving, connecting, encrypting and greeting together.
    pub(super) connect_time_max: Duration,
    pub(super) tls: Option<Tls>,
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

#[cfg(test)]
mod tests;
