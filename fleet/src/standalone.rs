//! One server.

use std::path::Path;

use anyhow::Result;

use crate::server::Server;

/// What a server has when it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing.
    Nothing,
    /// All that it had confirmed: an append-only file, synced for every write.
    AppendOnlyFile,
}

impl Persistence {
    pub(crate) fn lines(self) -> Vec<String> {
        let lines: &[&str] = match self {
            Self::Nothing => &["save \"\"", "appendonly no"],
            Self::AppendOnlyFile => &["save \"\"", "appendonly yes", "appendfsync always"],
        };
        lines.iter().map(|&line| line.to_owned()).collect()
    }
}

/// One server without a password.
pub struct Standalone {
    /// The server.
    pub server: Server,
}

impl Standalone {
    /// Starts it.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start(program: &Path, persistence: Persistence) -> Result<Self> {
        Ok(Self { server: Server::start(program, &[], None, |_| Ok(persistence.lines()))? })
    }

    /// `redis://IP:PORT`.
    pub fn url(&self) -> String {
        self.server.admin.url()
    }
}
