//! What goes wrong on a disk, as errors that say what to do.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// A fault of the disk. Many callers are told of one, so it can be cloned.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    kind: ErrorKind,
    text: Arc<str>,
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl Fault {
    /// `what` was attempted on `path`.
    pub(super) fn io(what: &str, path: &Path, error: io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "the disk is full, nothing was kept; free some space, then try again: "
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "the directory must be writable for the user that runs Tidewire: "
            }
            _ => "",
        };
        let text = format!("{advice}cannot {what} {}", path.display());
        Self { kind: ErrorKind::Engine, text: text.into(), source: Arc::new(error) }
    }

    /// `what` was attempted on the database at `path`.
    pub(super) fn state(what: &str, path: &Path, error: redb::Error) -> Self {
        let kind = match error {
            redb::Error::Io(error) => return Self::io(what, path, error),
            redb::Error::DatabaseClosed => ErrorKind::Closed,
            _ => ErrorKind::Engine,
        };
        Self { kind, text: format!("cannot {what} {}", path.display()).into(), source: Arc::new(error) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.text, self.source)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::new(fault.kind, fault.text.to_string()).caused_by(SharedSource(fault.source))
    }
}

/// A source that several errors share.
#[derive(Debug)]
struct SharedSource(Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Display for SharedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedSource {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
