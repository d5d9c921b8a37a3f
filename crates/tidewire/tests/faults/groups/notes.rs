//! What happens in a schedule of groups, line by line: one file that every process appends to, so that what a killed one
//! has done is known, and the order of the lines is that of the events.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tidewire::Position;

/// The epoch and offset of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Place(pub(crate) u64, pub(crate) u64);

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self(position.epoch.as_u64(), position.offset)
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    Ack,
    Retry,
    Reject,
    Park,
}

/// An attempt of a handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) process: u32,
    pub(crate) group: String,
    pub(crate) place: Place,
    pub(crate) number: u64,
    pub(crate) attempt: u32,
    pub(crate) fence: u64,
}

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sort {
    Event,
    /// The same event once more.
    Copy,
    /// Bytes that are no event.
    Garbage,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// An append was confirmed.
    Published { sort: Sort, number: u64, place: Place },
    /// A handler has begun.
    Begin(Attempt),
    /// It is about to say so.
    End(Attempt, Said),
    /// A group was told that it does not get events: from, to, and whether history was lost.
    Gap { group: String, from: Option<Place>, to: Option<Place>, is_loss: bool },
    /// Something is about to be done to a process, or to servers and links.
    Fault { what: String, process: Option<u32> },
    /// It is over.
    Healed,
    /// A process has ended, and nothing after this is its.
    Ended { process: u32 },
    /// A process was not run by the machine for a while.
    Stalled { process: u32 },
    /// A process had the lease of a session run out.
    SessionLost { process: u32, group: String },
}

/// The file.
pub(crate) struct Notes(File);

impl Notes {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(file.with_context(|| format!("{}", path.display()))?))
    }

    /// Adds a line, in one write, so that no two are mixed.
    pub(crate) fn add(&self, note: &Note) {
        let mut line = serde_json::to_vec(note).expect("a note has a text");
        line.push(b'\n');
        (&self.0).write_all(&line).expect("the note is kept");
    }

    /// All lines of a file.
    pub(crate) fn read(path: &Path) -> Result<Vec<Note>> {
        let text = std::fs::read_to_string(path)?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}
