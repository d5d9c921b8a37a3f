//! The directory of an engine: who has it, its format, and what all its streams share.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::fault::Fault;
use super::files::{self, Files};
use super::record::Salt;
use super::state::State;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::position::Epoch;

const FORMAT: &str = "tidewire file engine, format 3\n";
/// What had no versions, and before that no groups.
const EARLIER_FORMATS: [&str; 2] = ["tidewire file engine, format 2\n", "tidewire file engine, format 1\n"];

/// An open directory.
pub(super) struct Directory {
    root: PathBuf,
    /// Holds the lock for as long as it is open.
    lock: File,
    pub(super) files: Files,
    pub(super) state: State,
    /// Of streams without one of their own.
    pub(super) epoch: Epoch,
    pub(super) salt: Salt,
    /// When it was opened, by the clock of the file system.
    pub(super) opened: Timestamp,
    /// The device may not have what earlier sessions confirmed from then on, by the same clock.
    pub(super) unsynced_since: Option<Timestamp>,
    /// A segment that has reached this is followed by a new one.
    pub(super) segment_bytes: u64,
    /// The last id that was given to a group.
    last_group: AtomicU64,
}

impl Directory {
    /// Opens the directory `root`, creates it if it is not there, and locks it.
    pub(super) fn open(root: &Path, segment_bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(root).map_err(|error| Fault::io("create directory", root, error))?;
        let (lock, opened) = lock(root)?;
        let state_path = root.join("state.redb");
        let mut is_old = false;
        match std::fs::read_to_string(root.join("FORMAT")) {
            Ok(format) if format == FORMAT => {}
            Ok(format) if EARLIER_FORMATS.contains(&&*format) => is_old = true,
            Ok(format) => return Err(unknown_format(root, &format)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(root, &state_path)?,
            Err(error) => return Err(Fault::io("read FORMAT in", root, error).into()),
        }
        let state = State::open(state_path)?;
        if is_old {
            state.upgrade()?;
            // From here on a program of that time must not open it: it would take versions for damage, and remove what groups
            // need.
            write_format(root).map_err(|error| Fault::io("write FORMAT in", root, error))?;
        }
        let session = state.begin_session(boot())?;
        let last_group = AtomicU64::new(state.last_group()?);
        Ok(Self {
            root: root.to_owned(),
            lock,
            files: Files::default(),
            state,
            epoch: session.epoch,
            salt: session.salt,
            opened,
            unsynced_since: session.unsynced_since,
            segment_bytes,
            last_group,
        })
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of all streams.
    pub(super) fn streams(&self) -> PathBuf {
        streams(&self.root)
    }

    /// The directory of a stream.
    pub(super) fn stream(&self, id: u64) -> PathBuf {
        self.streams().join(format!("{id:016x}"))
    }

    /// An id for a new group.
    pub(super) fn next_group(&self) -> u64 {
        self.last_group.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lets others open it. Every later call fails.
    pub(super) fn close(&self) {
        self.state.close();
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(directory = %self.root.display(), %error, "lock was not released");
        }
    }
}

fn streams(root: &Path) -> PathBuf {
    root.join("streams")
}

/// Locks the directory; the lock, and when that was.
fn lock(root: &Path) -> Result<(File, Timestamp)> {
    let path = root.join("LOCK");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| Fault::io("write to", &path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(Fault::io("lock", &path, error).into()),
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // Who it is only helps: some systems do not let others read a locked file.
            let who = match file.read_to_string(&mut owner) {
                Ok(_) if !owner.trim().is_empty() => format!("process {}", owner.trim()),
                _ => "another process".into(),
            };
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "directory {} is in use: {who} has it open; stop that one, or give this one a directory of its own",
                    root.display()
                ),
            ));
        }
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .and_then(|()| file.metadata()?.modified());
    let opened = written.map_err(|error| Fault::io("write to", &path, error))?;
    Ok((file, opened.into()))
}

/// Makes an empty directory one of this format. `FORMAT` comes last: without it nothing was kept yet, and the
/// next open starts over.
fn create(root: &Path, state_path: &Path) -> Result<()> {
    let fault = |error| Fault::io("create an engine in", root, error);
    for entry in std::fs::read_dir(root).map_err(fault)? {
        let name = entry.map_err(fault)?.file_name();
        // What a creation leaves that did not come to its end.
        let is_ours = name == "LOCK" || name == "state.redb" || name == "FORMAT.new" || name == "streams";
        if !is_ours {
            return Err(Error::new(
                ErrorKind::Engine,
                format!(
                    "directory {} is not empty and has no FORMAT file: it is not an engine's; name another one",
                    root.display()
                ),
            ));
        }
    }
    let streams = streams(root);
    std::fs::create_dir_all(&streams).map_err(fault)?;
    if std::fs::read_dir(&streams).map_err(fault)?.next().is_some() {
        return Err(Error::new(
            ErrorKind::Engine,
            format!(
                "directory {} has streams but no FORMAT file: put back {FORMAT:?}, or name another directory",
                root.display()
            ),
        ));
    }
    match std::fs::remove_file(state_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error).into()),
        _ => State::create(state_path.to_owned())?,
    }
    write_format(root).map_err(fault)?;
    Ok(())
}

fn write_format(root: &Path) -> io::Result<()> {
    let new = root.join("FORMAT.new");
    std::fs::write(&new, FORMAT)?;
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, root.join("FORMAT"))?;
    files::sync_directory(root)
}

fn unknown_format(root: &Path, format: &str) -> Error {
    Error::new(
        ErrorKind::Engine,
        format!(
            "directory {} has the format {:?}, this program knows {:?}: open it with the program that wrote it",
            root.display(),
            format.trim_end().chars().take(80).collect::<String>(),
            FORMAT.trim_end()
        ),
    )
}

/// A number of the running system. It changes when the system starts again, with which its memory - and what
/// was not on the device - is lost.
fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    // Where the system does not say: never the same, so that no lost history goes unnoticed.
    u64::from_str_radix(&digits, 16).unwrap_or_else(|_| fastrand::u64(..))
}
