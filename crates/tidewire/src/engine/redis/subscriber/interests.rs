//! What a node wants to hear, and what of it the server has been told.

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::Confirm;
use crate::engine::Interest;
use crate::engine::redis::command::Command;
use crate::engine::redis::keys;
use crate::name::{ChannelPath, PatternPath};

/// Names in one command; the server handles a command at a time, and others wait for it.
const NAMES_MAX: usize = 512;

/// The interests of a node, by the names that the server knows them under.
#[derive(Default)]
pub(super) struct Interests {
    channels: FxHashMap<Bytes, Held<ChannelPath>>,
    patterns: FxHashMap<Bytes, Held<PatternPath>>,
    /// Changes that wait to be sent, each with who waits for it.
    waiting: Vec<(Vec<Change>, Option<Confirm>)>,
    fault: Option<Arc<str>>,
    is_closed: bool,
}

struct Held<T> {
    path: T,
    is_confirmed: bool,
}

/// One name to tell the server of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    verb: Verb,
    name: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Subscribe,
    Unsubscribe,
    Psubscribe,
    Punsubscribe,
}

impl Verb {
    fn text(self) -> &'static str {
        match self {
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Psubscribe => "PSUBSCRIBE",
            Self::Punsubscribe => "PUNSUBSCRIBE",
        }
    }
}

impl Interests {
    /// Holds `interests` from now on; gives what the server has not confirmed of them.
    pub(super) fn add(&mut self, interests: &[Interest]) -> Vec<Change> {
        let mut changes = Vec::new();
        for interest in interests {
            let (verb, name) = name_of(interest);
            let is_confirmed = match interest {
                Interest::Channel(path) => hold(&mut self.channels, &name, path),
                Interest::Pattern(path) => hold(&mut self.patterns, &name, path),
            };
            if !is_confirmed {
                changes.push(Change { verb, name });
            }
        }
        changes
    }

    /// Lets go of those of `interests` that the server never confirmed.
    pub(super) fn give_up(&mut self, interests: &[Interest]) {
        for interest in interests {
            let (_, name) = name_of(interest);
            match interest {
                Interest::Channel(_) => give_up(&mut self.channels, &name),
                Interest::Pattern(_) => give_up(&mut self.patterns, &name),
            }
        }
    }

    /// Lets go of `interests`; gives what to tell the server.
    pub(super) fn remove(&mut self, interests: &[Interest]) -> Vec<Change> {
        let mut changes = Vec::new();
        for interest in interests {
            let (verb, name) = name_of(interest);
            let (was_held, verb) = match verb {
                Verb::Psubscribe => (self.patterns.remove(&name).is_some(), Verb::Punsubscribe),
                _ => (self.channels.remove(&name).is_some(), Verb::Unsubscribe),
            };
            if was_held {
                changes.push(Change { verb, name });
            }
        }
        changes
    }

    /// Everything held, as for a server that knows nothing.
    pub(super) fn all(&mut self) -> Vec<Change> {
        self.channels.values_mut().for_each(|held| held.is_confirmed = false);
        self.patterns.values_mut().for_each(|held| held.is_confirmed = false);
        let channels = self.channels.keys().map(|name| Change { verb: Verb::Subscribe, name: name.clone() });
        let patterns = self.patterns.keys().map(|name| Change { verb: Verb::Psubscribe, name: name.clone() });
        channels.chain(patterns).collect()
    }

    /// The server has taken `changes`.
    pub(super) fn confirm(&mut self, changes: &[Change]) {
        for change in changes {
            match change.verb {
                Verb::Subscribe => confirm(&mut self.channels, &change.name),
                Verb::Psubscribe => confirm(&mut self.patterns, &change.name),
                Verb::Unsubscribe | Verb::Punsubscribe => {}
            }
        }
    }

    /// Lets changes wait for the connection. After the close their confirmation is dropped at once.
    pub(super) fn queue(&mut self, changes: Vec<Change>, confirm: Option<Confirm>) {
        if !self.is_closed && (confirm.is_some() || !changes.is_empty()) {
            self.waiting.push((changes, confirm));
        }
    }

    /// What waits to be sent.
    pub(super) fn take_waiting(&mut self) -> Vec<(Vec<Change>, Option<Confirm>)> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn channel(&self, name: &[u8]) -> Option<&ChannelPath> {
        self.channels.get(name).map(|held| &held.path)
    }

    pub(super) fn pattern(&self, name: &[u8]) -> Option<&PatternPath> {
        self.patterns.get(name).map(|held| &held.path)
    }

    /// Why there is no link; none when there is one.
    pub(super) fn set_fault(&mut self, fault: Option<Arc<str>>) {
        self.fault = fault;
    }

    pub(super) fn fault(&self) -> Arc<str> {
        self.fault.clone().unwrap_or_else(|| "the server is slow".into())
    }

    /// Drops who waits; nothing will be sent any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
    }
}

fn hold<T: Clone>(held: &mut FxHashMap<Bytes, Held<T>>, name: &Bytes, path: &T) -> bool {
    let new = || Held { path: path.clone(), is_confirmed: false };
    held.entry(name.clone()).or_insert_with(new).is_confirmed
}

fn give_up<T>(held: &mut FxHashMap<Bytes, Held<T>>, name: &Bytes) {
    if held.get(name).is_some_and(|held| !held.is_confirmed) {
        held.remove(name);
    }
}

fn confirm<T>(held: &mut FxHashMap<Bytes, Held<T>>, name: &Bytes) {
    if let Some(held) = held.get_mut(name) {
        held.is_confirmed = true;
    }
}

fn name_of(interest: &Interest) -> (Verb, Bytes) {
    match interest {
        Interest::Channel(path) => (Verb::Subscribe, keys::channel(path).into()),
        Interest::Pattern(path) => (Verb::Psubscribe, keys::pattern(path).into()),
    }
}

/// The fewest commands that make `changes` in their order.
pub(super) fn commands(changes: &[Change]) -> Vec<Command> {
    let mut commands = Vec::new();
    for run in changes.chunk_by(|one, next| one.verb == next.verb) {
        for names in run.chunks(NAMES_MAX) {
            let verb = names.first().map_or("", |change| change.verb.text());
            let add = |mut command: Command, change: &Change| {
                command.push(&change.name);
                command
            };
            commands.push(names.iter().fold(Command::with_capacity(verb, 64 * names.len()), add));
        }
    }
    commands
}
