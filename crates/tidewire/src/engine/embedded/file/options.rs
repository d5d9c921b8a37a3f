//! How `file:` writes, and how a URL says so.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The smallest segment that can be asked for: its header and some records.
const SEGMENT_BYTES_MIN: u64 = 4 * 1024;

/// How `file:` writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileOptions {
    /// When the device has to have what was appended.
    pub fsync: Fsync,
    /// A segment of this size is followed by a new one; 64 MiB. Retention gives back disk by whole segments.
    pub segment_bytes: u64,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { fsync: Fsync::default(), segment_bytes: 64 * 1024 * 1024 }
    }
}

/// When the device has to have what was appended, beside what an append asks for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// When an append asks for it, or the engine is closed. A power failure takes what the system had not written
    /// by itself, usually the last 30 seconds; the streams then go on under a new epoch.
    #[default]
    Asked,
    /// At this interval too: a power failure takes no more than it.
    Every(Duration),
    /// Before each append is confirmed.
    Always,
}

impl FileOptions {
    /// Reads `file:DIR[?fsync=asked|always][&fsync_every_ms=N][&segment_bytes=N]`.
    ///
    /// # Errors
    /// `InvalidName` says which part is not understood.
    pub fn from_url(url: &str) -> Result<(PathBuf, Self)> {
        let rest = url.strip_prefix("file:").ok_or_else(|| invalid(url, "does not begin with file:"))?;
        let (directory, query) = rest.split_once('?').unwrap_or((rest, ""));
        // `file:///DIR` is how other programs write it.
        let directory =
            directory.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(directory);
        if directory.is_empty() || directory.starts_with("//") {
            return Err(invalid(url, "names no directory; write file:DIR"));
        }
        let mut options = Self::default();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            options.set(name, value).ok_or_else(|| {
                invalid(
                    url,
                    &format!(
                        "has the option {option:?}; known are fsync=asked, fsync=always, fsync_every_ms=N, \
                         segment_bytes=N (at least {SEGMENT_BYTES_MIN})"
                    ),
                )
            })?;
        }
        Ok((directory.into(), options))
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match (name, value) {
            ("fsync", "asked") => self.fsync = Fsync::Asked,
            ("fsync", "always") => self.fsync = Fsync::Always,
            ("fsync_every_ms", _) => {
                let millis = value.parse().ok().filter(|millis| *millis > 0)?;
                self.fsync = Fsync::Every(Duration::from_millis(millis));
            }
            ("segment_bytes", _) => {
                self.segment_bytes = value.parse().ok().filter(|bytes| *bytes >= SEGMENT_BYTES_MIN)?;
            }
            _ => return None,
        }
        Some(())
    }
}

fn invalid(url: &str, problem: &str) -> Error {
    Error::new(ErrorKind::InvalidName, format!("engine URL {url:?} {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_directory_and_options() {
        let plain = FileOptions::default();
        for (url, directory, options) in [
            ("file:data", "data", plain.clone()),
            ("file:/var/lib/tidewire", "/var/lib/tidewire", plain.clone()),
            ("file:///var/lib/tidewire", "/var/lib/tidewire", plain.clone()),
            ("file:data?fsync=always", "data", FileOptions { fsync: Fsync::Always, ..plain.clone() }),
            (
                "file:data?fsync_every_ms=1000&segment_bytes=1048576",
                "data",
                FileOptions { fsync: Fsync::Every(Duration::from_secs(1)), segment_bytes: 1 << 20 },
            ),
        ] {
            assert_eq!(FileOptions::from_url(url).unwrap(), (PathBuf::from(directory), options), "{url}");
        }
    }

    #[test]
    fn a_url_that_is_not_understood_says_which_part() {
        for (url, part) in [
            ("file:", "names no directory"),
            ("file://host/data", "names no directory"),
            ("file:data?fsync=sometimes", "fsync=sometimes"),
            ("file:data?segment_bytes=1", "segment_bytes=1"),
            ("file:data?fsyncs=always", "known are fsync=asked"),
        ] {
            let error = FileOptions::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
