//! An engine in a directory that can be closed and opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::super::directory::Directory;
use super::super::{FileOptions, start};
use crate::engine::{
    Announce, Append, Appended, Dedup, Durability, Engine, Heard, Page, Range, Retention, Setup, Sink,
};
use crate::name::ChannelPath;
use crate::tasks::Tasks;
use crate::{Clock, Limits, Timestamp};

pub(super) struct Rig {
    pub(super) directory: TempDir,
    pub(super) clock: Clock,
    pub(super) heard: Arc<Heards>,
    pub(super) options: FileOptions,
    pub(super) engine: Engine,
    /// What is under the engine.
    pub(super) disk: Arc<Directory>,
}

/// What a sink has heard.
#[derive(Default)]
pub(super) struct Heards(pub(super) Mutex<Vec<Heard>>);

impl Sink for Heards {
    fn hear(&self, heard: Heard) {
        self.0.lock().push(heard);
    }
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(FileOptions::default())
    }

    pub(super) fn with(options: FileOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::virtual_at(Timestamp::from_millis(1_700_000_000_000));
        let heard = Arc::new(Heards::default());
        let (engine, disk) = open(directory.path(), &options, &clock, &heard);
        Self { directory, clock, heard, options, engine, disk }
    }

    /// Closes the engine in order.
    pub(super) async fn close(&self) {
        assert!(self.engine.tasks.close(Duration::from_secs(20)).await);
    }

    /// Opens the directory again, after it was closed.
    pub(super) fn open(self) -> Self {
        let (engine, disk) = open(self.directory.path(), &self.options, &self.clock, &self.heard);
        Self { engine, disk, ..self }
    }

    pub(super) async fn reopen(self) -> Self {
        self.close().await;
        self.open()
    }

    pub(super) async fn append(&self, append: Append) -> crate::Result<Appended> {
        self.engine.log.append(vec![append]).await?.pop().unwrap()
    }

    /// Appends events with these data, in one batch.
    pub(super) async fn append_all(&self, channel: &str, data: impl IntoIterator<Item = String>) {
        let batch = data.into_iter().map(|data| append(channel, data)).collect();
        for outcome in self.engine.log.append(batch).await.unwrap() {
            outcome.unwrap();
        }
    }

    pub(super) async fn read(&self, channel: &str, range: Range) -> Page {
        self.engine.log.read(&path(channel), range).await.unwrap()
    }

    /// Offsets and data of everything that is kept.
    pub(super) async fn read_all(&self, channel: &str) -> Vec<(u64, String)> {
        let mut events = Vec::new();
        let mut next = 0;
        loop {
            let page = self.read(channel, Range::from(next, 1000)).await;
            let Some(last) = page.events.last() else { return events };
            next = last.offset + 1;
            let text = |envelope: &Bytes| String::from_utf8(envelope.to_vec()).unwrap();
            events.extend(page.events.iter().map(|event| (event.offset, text(&event.envelope))));
        }
    }

    /// The files of the first stream, by name, once the writer has given back what it can.
    pub(super) async fn files(&self) -> Vec<PathBuf> {
        // The writer comes to this only after all that it does for earlier appends.
        self.engine.log.trim(&path("no-such-stream"), 0).await.unwrap();
        let stream = self.directory.path().join("streams/0000000000000001");
        let mut files: Vec<_> =
            std::fs::read_dir(stream).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn open(path: &Path, options: &FileOptions, clock: &Clock, heard: &Arc<Heards>) -> (Engine, Arc<Directory>) {
    let directory = Arc::new(Directory::open(path, options.segment_bytes).unwrap());
    (start(Arc::clone(&directory), options, &setup(clock, heard)), directory)
}

pub(super) fn setup(clock: &Clock, heard: &Arc<Heards>) -> Setup {
    Setup { sink: heard.clone(), clock: clock.clone(), limits: Limits::default(), tasks: Tasks::new() }
}

pub(super) fn path(channel: &str) -> ChannelPath {
    ChannelPath::new("dev", "default", channel).unwrap()
}

pub(super) fn append(channel: &str, data: impl Into<String>) -> Append {
    Append {
        channel: path(channel),
        envelope: data.into().into(),
        announce: Announce::Here,
        dedup: None,
        retention: Retention::default(),
        durability: Durability::Fast,
        version: None,
        deliver_at: None,
    }
}

pub(super) fn dedup(id: &str, window: Duration) -> Option<Dedup> {
    Some(Dedup { id: id.into(), window })
}
