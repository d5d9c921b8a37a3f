//! Files at positions: reading, writing, syncing, and a bounded number of them open.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Segment files open at once; half of the usual limit of a process (1,024 descriptors).
const FILES_OPEN_MAX: usize = 512;

/// Which segment a file is: its stream's id and its first offset.
pub(super) type FileKey = (u64, u64);

/// The open segment files of an engine, the most recently used ones.
#[derive(Default)]
pub(super) struct Files {
    pool: Mutex<Pool>,
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

#[derive(Default)]
struct Pool {
    open: FxHashMap<FileKey, (Arc<File>, u64)>,
    uses: u64,
}

impl Files {
    /// The file at `path`, opened for reading and writing if it is not open.
    pub(super) fn open(&self, key: FileKey, path: &Path) -> io::Result<Arc<File>> {
        if let Some(file) = self.pool.lock().get(key) {
            return Ok(file);
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(path)?);
        Ok(self.pool.lock().insert(key, file))
    }

    /// Creates the file at `path`, which must not exist.
    pub(super) fn create(&self, key: FileKey, path: &Path) -> io::Result<Arc<File>> {
        let file = Arc::new(OpenOptions::new().read(true).write(true).create_new(true).open(path)?);
        Ok(self.pool.lock().insert(key, file))
    }

    /// Closes and removes the file at `path`. Whoever reads it at the moment still can.
    pub(super) fn remove(&self, key: FileKey, path: &Path) -> io::Result<()> {
        self.pool.lock().open.remove(&key);
        std::fs::remove_file(path)
    }

    /// Writes all of `bytes` at `position`.
    pub(super) fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        #[cfg(test)]
        let bytes = self.faults.take(file, bytes, position)?;
        write_all_at(file, bytes, position)
    }

    /// Waits until the device has the file's bytes and its length.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.faults.sync()?;
        file.sync_data()
    }
}

impl Pool {
    fn get(&mut self, key: FileKey) -> Option<Arc<File>> {
        self.uses += 1;
        let (file, used) = self.open.get_mut(&key)?;
        *used = self.uses;
        Some(Arc::clone(file))
    }

    fn insert(&mut self, key: FileKey, file: Arc<File>) -> Arc<File> {
        if self.open.len() >= FILES_OPEN_MAX {
            self.close_oldest();
        }
        self.uses += 1;
        self.open.insert(key, (Arc::clone(&file), self.uses));
        file
    }

    /// Closes the eighth that was not used for longest: one pass makes room for many files.
    fn close_oldest(&mut self) {
        let mut uses: Vec<u64> = self.open.values().map(|(_, used)| *used).collect();
        let (_, &mut limit, _) = uses.select_nth_unstable(FILES_OPEN_MAX / 8);
        self.open.retain(|_, (_, used)| *used > limit);
    }
}

/// Fills `buffer` from `position` on.
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, buffer, position);
    #[cfg(windows)]
    return windows::read_exact_at(file, buffer, position);
}

fn write_all_at(file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, position);
    #[cfg(windows)]
    return windows::write_all_at(file, bytes, position);
}

/// Makes the names in a directory durable: those of files created or removed in it.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    // Windows has no such call; NTFS journals its directories.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

#[cfg(windows)]
mod windows {
    use std::fs::File;
    use std::io;
    use std::os::windows::fs::FileExt;

    pub(super) fn read_exact_at(file: &File, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let read = file.seek_read(buffer, position)?;
            position += read as u64;
            buffer = buffer.get_mut(read..).filter(|_| read > 0).ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        Ok(())
    }

    pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = file.seek_write(bytes, position)?;
            position += written as u64;
            bytes = bytes.get(written..).filter(|_| written > 0).ok_or(io::ErrorKind::WriteZero)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod faults {
    //! What a disk can do to an engine, for tests.

    use std::fs::File;
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    pub(in super::super) struct Faults {
        bytes_left: AtomicUsize,
        fails_sync: AtomicBool,
    }

    impl Default for Faults {
        fn default() -> Self {
            Self { bytes_left: AtomicUsize::new(usize::MAX), fails_sync: AtomicBool::new(false) }
        }
    }

    impl Faults {
        /// From now on the disk has room for so many bytes.
        pub(in super::super) fn leave_room(&self, bytes: usize) {
            self.bytes_left.store(bytes, Ordering::SeqCst);
        }

        /// From now on every sync fails, or none.
        pub(in super::super) fn fail_syncs(&self, fails: bool) {
            self.fails_sync.store(fails, Ordering::SeqCst);
        }

        /// Takes room for `bytes`; when there is not enough, writes what fits and fails, as a disk does.
        pub(super) fn take<'a>(&self, file: &File, bytes: &'a [u8], position: u64) -> io::Result<&'a [u8]> {
            let left = self.bytes_left.load(Ordering::SeqCst);
            if left == usize::MAX {
                return Ok(bytes);
            }
            if let Some(rest) = left.checked_sub(bytes.len()) {
                self.bytes_left.store(rest, Ordering::SeqCst);
                return Ok(bytes);
            }
            super::write_all_at(file, &bytes[..left], position)?;
            Err(io::ErrorKind::StorageFull.into())
        }

        pub(super) fn sync(&self) -> io::Result<()> {
            if self.fails_sync.load(Ordering::SeqCst) {
                return Err(io::Error::other("injected sync fault"));
            }
            Ok(())
        }
    }
}
