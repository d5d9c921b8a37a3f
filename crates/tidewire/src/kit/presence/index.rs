//! In which channels a session has members, so that whoever finds it dead knows where. Notes that come at the same time are
//! written together.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::row::{Home, SessionId};
use super::session::empty;
use crate::engine::{MembersChange, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;

pub(super) struct Index {
    store: Arc<dyn Store>,
    home: Home,
    waiting: Mutex<Vec<Note>>,
    writing: tokio::sync::Mutex<()>,
}

/// That a channel is to be in the index of a session, or is not to be.
struct Note {
    session: SessionId,
    name: Bytes,
    is_there: bool,
    sender: oneshot::Sender<Result<()>>,
}

impl Index {
    pub(super) fn new(store: Arc<dyn Store>, home: Home) -> Self {
        Self { store, home, waiting: Mutex::default(), writing: tokio::sync::Mutex::default() }
    }

    /// Notes a channel, and answers when that is written. It is called by tasks that run to their end: others wait for what
    /// one of them writes.
    pub(super) async fn note(&self, session: SessionId, name: Bytes, is_there: bool) -> Result<()> {
        let (sender, mut answer) = oneshot::channel();
        self.waiting.lock().push(Note { session, name, is_there, sender });
        let _writing = self.writing.lock().await;
        loop {
            match answer.try_recv() {
                Ok(outcome) => return outcome,
                Err(TryRecvError::Closed) => return Err(Error::closed("this node")),
                Err(TryRecvError::Empty) => self.write_some().await,
            }
        }
    }

    async fn write_some(&self) {
        let notes = self.take();
        let Some(session) = notes.first().map(|note| note.session) else { return };
        let mut change = MembersChange::default();
        for Note { name, is_there, .. } in &notes {
            match is_there {
                true => change.puts.push(empty(name.clone())),
                false => change.removes.push(name.clone()),
            }
        }
        let outcome = match self.home.index(session) {
            Ok(index) => self.store.members_change(&index, change).await,
            Err(error) => Err(error),
        };
        for note in notes {
            let outcome = outcome.as_ref().map(|_| ()).map_err(again);
            drop(note.sender.send(outcome));
        }
    }

    /// Notes about the session of the oldest one.
    fn take(&self) -> Vec<Note> {
        let mut waiting = self.waiting.lock();
        let Some(session) = waiting.first().map(|note| note.session) else { return Vec::new() };
        let is_same = |note: &&Note| note.session == session;
        let count = waiting.iter().take(limits::BATCH_EVENTS_MAX).take_while(is_same).count();
        waiting.drain(..count).collect()
    }
}

/// The same error for one more who waits.
fn again(error: &Error) -> Error {
    let kind: ErrorKind = error.kind();
    Error::new(kind, error.to_string())
}
