//! What a connection that listens is to hear, and what of it the server has been told.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::Confirm;
use crate::engine::Interest;
use crate::engine::redis::command::Command;
use crate::engine::redis::keys;
use crate::name::{ChannelPath, PatternPath};

/// Names in one command. The server handles a command at a time and others wait for it: about a millisecond for so many,
/// and 350 KiB of the longest names. 100,000 channels are then one command for each of the 128 slots of a cluster.
const NAMES_MAX: usize = 1_024;

/// A name to hear, and whom it is for.
#[derive(Clone, Debug)]
pub(in crate::engine::redis) struct Name {
    pub(in crate::engine::redis) text: Bytes,
    pub(in crate::engine::redis) hears: Hears,
}

/// Whom what is heard under a name is for.
#[derive(Clone, Debug)]
pub(in crate::engine::redis) enum Hears {
    Channel(ChannelPath),
    /// That groups of this channel's stream may have something to do.
    Work(ChannelPath),
    /// A glob that the server matches.
    Pattern(PatternPath),
    /// What happens on any channel of one tenant in one slot; its patterns are matched here.
    Patterns(TenantPatterns),
}

/// The patterns that this node holds of one tenant.
pub(in crate::engine::redis) type TenantPatterns = Arc<Mutex<Vec<PatternPath>>>;

impl Name {
    /// The name of an interest where one server matches patterns.
    pub(in crate::engine::redis) fn of(interest: &Interest) -> Self {
        match interest {
            Interest::Channel(path) => {
                Self { text: keys::channel(path).into(), hears: Hears::Channel(path.clone()) }
            }
            Interest::Work(path) => Self { text: keys::work(path).into(), hears: Hears::Work(path.clone()) },
            Interest::Pattern(path) => {
                Self { text: keys::pattern(path).into(), hears: Hears::Pattern(path.clone()) }
            }
        }
    }
}

/// How a server is told of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Classic,
    /// On a cluster: each command has names of one slot, and the server may stop to tell us at any time.
    Sharded,
}

/// The names of one connection.
pub(super) struct Interests {
    mode: Mode,
    held: FxHashMap<Bytes, Held>,
    /// Changes that wait to be sent, each with who waits for it.
    waiting: Vec<(Vec<Change>, Option<Confirm>)>,
    fault: Option<Arc<str>>,
    is_closed: bool,
}

struct Held {
    hears: Hears,
    is_confirmed: bool,
    /// The last that the server said of it on this link; sharded only.
    is_heard: bool,
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
    Ssubscribe,
    Sunsubscribe,
}

impl Verb {
    fn text(self) -> &'static str {
        match self {
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Psubscribe => "PSUBSCRIBE",
            Self::Punsubscribe => "PUNSUBSCRIBE",
            Self::Ssubscribe => "SSUBSCRIBE",
            Self::Sunsubscribe => "SUNSUBSCRIBE",
        }
    }

    fn is_start(self) -> bool {
        matches!(self, Self::Subscribe | Self::Psubscribe | Self::Ssubscribe)
    }

    fn is_sharded(self) -> bool {
        matches!(self, Self::Ssubscribe | Self::Sunsubscribe)
    }
}

impl Interests {
    pub(super) fn new(mode: Mode) -> Self {
        let (held, waiting) = (FxHashMap::default(), Vec::new());
        Self { mode, held, waiting, fault: None, is_closed: false }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    fn start(&self, hears: &Hears) -> Verb {
        match (self.mode, hears) {
            (Mode::Sharded, _) => Verb::Ssubscribe,
            (Mode::Classic, Hears::Pattern(_)) => Verb::Psubscribe,
            (Mode::Classic, _) => Verb::Subscribe,
        }
    }

    fn stop(&self, hears: &Hears) -> Verb {
        match (self.mode, hears) {
            (Mode::Sharded, _) => Verb::Sunsubscribe,
            (Mode::Classic, Hears::Pattern(_)) => Verb::Punsubscribe,
            (Mode::Classic, _) => Verb::Unsubscribe,
        }
    }

    /// Holds `names` from now on; gives what the server has not confirmed of them.
    pub(super) fn add(&mut self, names: &[Name]) -> Vec<Change> {
        let mut changes = Vec::new();
        for Name { text, hears } in names {
            let verb = self.start(hears);
            let new = || Held { hears: hears.clone(), is_confirmed: false, is_heard: false };
            if !self.held.entry(text.clone()).or_insert_with(new).is_confirmed {
                changes.push(Change { verb, name: text.clone() });
            }
        }
        changes
    }

    /// Lets go of those of `names` that the server never confirmed.
    pub(super) fn give_up(&mut self, names: &[Name]) {
        for name in names {
            if self.held.get(&name.text).is_some_and(|held| !held.is_confirmed) {
                self.held.remove(&name.text);
            }
        }
    }

    /// Lets go of `names`; gives what to tell the server.
    pub(super) fn remove(&mut self, names: &[Name]) -> Vec<Change> {
        let mut changes = Vec::new();
        for Name { text, hears } in names {
            if self.held.remove(text).is_some() {
                changes.push(Change { verb: self.stop(hears), name: text.clone() });
            }
        }
        changes
    }

    /// Everything held, as for a server that knows nothing.
    pub(super) fn all(&mut self) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.held.len());
        for held in self.held.values_mut() {
            held.is_confirmed = false;
            held.is_heard = false;
        }
        for (name, held) in &self.held {
            changes.push(Change { verb: self.start(&held.hears), name: name.clone() });
        }
        // What shares a command lies together.
        changes.sort_unstable_by(|one, other| run(one).cmp(&run(other)));
        changes
    }

    /// Everything held, as those who hold it know it.
    pub(super) fn interests(&self) -> Vec<Interest> {
        interests(self.held.values().map(|held| &held.hears))
    }

    /// The server has taken `changes`; gives the names among them that it does not hear for us after all.
    pub(super) fn confirm(&mut self, changes: &[Change]) -> Vec<Bytes> {
        let mut unheard = Vec::new();
        for change in changes.iter().filter(|change| change.verb.is_start()) {
            if let Some(held) = self.held.get_mut(&change.name) {
                held.is_confirmed = held.is_heard || self.mode == Mode::Classic;
                if !held.is_confirmed {
                    unheard.push(change.name.clone());
                }
            }
        }
        unheard
    }

    /// The server hears for us under `name`, from now on.
    pub(super) fn begin_hearing(&mut self, name: &[u8]) {
        if let Some(held) = self.held.get_mut(name) {
            held.is_heard = true;
        }
    }

    /// The server has stopped to hear for us under `name`. True if we want it to and had not known.
    pub(super) fn end_hearing(&mut self, name: &[u8]) -> bool {
        let Some(held) = self.held.get_mut(name) else { return false };
        held.is_confirmed = false;
        std::mem::take(&mut held.is_heard)
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

    /// Whom what comes under `name` is for.
    pub(super) fn hears(&self, name: &[u8]) -> Option<&Hears> {
        self.held.get(name).map(|held| &held.hears)
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

/// For whom all of this is heard, each named once.
pub(super) fn interests<'a>(all: impl Iterator<Item = &'a Hears>) -> Vec<Interest> {
    let mut interests = Vec::new();
    let mut patterns: Vec<TenantPatterns> = Vec::new();
    for hears in all {
        match hears {
            Hears::Channel(path) => interests.push(Interest::Channel(path.clone())),
            Hears::Work(path) => interests.push(Interest::Work(path.clone())),
            Hears::Pattern(path) => interests.push(Interest::Pattern(path.clone())),
            // One list under many names.
            Hears::Patterns(of_tenant) if patterns.iter().any(|seen| Arc::ptr_eq(seen, of_tenant)) => {}
            Hears::Patterns(of_tenant) => {
                interests.extend(of_tenant.lock().iter().cloned().map(Interest::Pattern));
                patterns.push(of_tenant.clone());
            }
        }
    }
    interests
}

/// What changes have in common that go into one command.
fn run(change: &Change) -> (&'static str, Option<&[u8]>) {
    (change.verb.text(), change.verb.is_sharded().then(|| keys::tag_text(&change.name)).flatten())
}

/// The fewest commands that make `changes` in their order.
pub(super) fn commands(changes: &[Change]) -> Vec<Command> {
    let mut commands = Vec::new();
    for run in changes.chunk_by(|one, next| run(one) == run(next)) {
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
