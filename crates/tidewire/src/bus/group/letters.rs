//! The dead letters of a group: listed, grouped by reason, replayed, purged.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::dead_letter::{DeadKind, DeadLetter};
use super::sweep::{Purge, Replay};
use crate::bus::Bus;
use crate::clock::Timestamp;
use crate::engine::{Change, Listing, Log, Shelf, ShelfItem};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::GroupPath;

/// Dead letters that one listing looks at; past it the page ends where it is, and says so by its `next`.
pub(super) const LOOKED_AT_MAX: usize = 10_000;
/// Reasons that are counted apart.
const REASONS_MAX: usize = 1_000;

/// Dead letters of a group, all or those that a filter picks.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidewire::Result<()> {
/// use tidewire::{Start, Tidewire};
///
/// let tidewire = Tidewire::open("memory:").await?;
/// let billing = tidewire.tenant("shop")?.channel("orders")?.group("billing", Start::Earliest)?;
/// billing.declare().await?;
///
/// for reason in billing.dead_letters().reasons().await?.reasons {
///     println!("{} times: {}", reason.count, reason.fingerprint);
/// }
/// let expired = billing.dead_letters().reason("card # expired");
/// println!("{} would go", expired.clone().replay().dry_run().await?.count);
/// expired.replay().rate(50).by("ann").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct DeadLetters {
    pub(super) bus: Arc<Bus>,
    pub(super) path: GroupPath,
    filter: Filter,
}

/// What picks letters; what is not set picks all.
#[derive(Debug, Clone, Default)]
struct Filter {
    ids: Vec<Box<str>>,
    fingerprint: Option<Box<str>>,
    kind: Option<DeadKind>,
    event_type: Option<Box<str>>,
    since: Option<Timestamp>,
    before: Option<Timestamp>,
}

/// A page of dead letters, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterPage {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// What the next page goes on after; `None` on the last one.
    pub next: Option<Box<str>>,
}

/// Dead letters by their reasons.
#[derive(Debug, Clone, Default)]
pub struct DeadReasons {
    /// The reasons, the most frequent first; at most 1,000.
    pub reasons: Vec<DeadReason>,
    /// Dead letters of further reasons.
    pub others: u64,
}

/// Dead letters of one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadReason {
    /// Why they were given up on.
    pub kind: DeadKind,
    /// What their reasons have in common.
    pub fingerprint: Box<str>,
    /// How many there are.
    pub count: u64,
    /// When the oldest of them died.
    pub first: Timestamp,
    /// When the newest of them died.
    pub last: Timestamp,
    /// The id of the newest.
    pub example: Box<str>,
}

impl DeadLetters {
    pub(super) fn new(bus: Arc<Bus>, path: GroupPath) -> Self {
        Self { bus, path, filter: Filter::default() }
    }

    /// Only this one; said again, these.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.filter.ids.push(id.into());
        self
    }

    /// Only those whose reason has this [fingerprint](crate::fingerprint).
    #[must_use]
    pub fn reason(mut self, fingerprint: &str) -> Self {
        self.filter.fingerprint = Some(fingerprint.into());
        self
    }

    /// Only those given up on for this.
    #[must_use]
    pub fn kind(mut self, kind: DeadKind) -> Self {
        self.filter.kind = Some(kind);
        self
    }

    /// Only those whose event has this type.
    #[must_use]
    pub fn event_type(mut self, event_type: &str) -> Self {
        self.filter.event_type = Some(event_type.into());
        self
    }

    /// Only those that died at or after `time`.
    #[must_use]
    pub fn since(mut self, time: impl Into<Timestamp>) -> Self {
        self.filter.since = Some(time.into());
        self
    }

    /// Only those that died before `time`.
    #[must_use]
    pub fn before(mut self, time: impl Into<Timestamp>) -> Self {
        let time = time.into();
        self.filter.before = Some(self.filter.before.map_or(time, |before| before.min(time)));
        self
    }

    /// Up to `limit` letters, at most 1,000, after the one of this id; the empty id comes before all. A page may hold fewer
    /// and still not be the last.
    ///
    /// # Errors
    /// `NotFound` if there is no such group; errors of the engine.
    pub async fn list(&self, after: &str, limit: usize) -> Result<DeadLetterPage> {
        let _in_flight = self.bus.enter()?;
        let limit = limit.clamp(1, limits::BATCH_EVENTS_MAX);
        let mut walk = Walk::after(after);
        let mut page = DeadLetterPage::default();
        let (mut looked_at, mut bytes) = (0, 0);
        // One more than asked for tells whether there is another page.
        while let Some(items) = walk.next(self, limit + 1).await? {
            looked_at += items.len();
            for item in items {
                let id = item.key.clone();
                let Some(letter) = self.picked(item) else { continue };
                bytes += letter.envelope.len();
                if page.letters.len() == limit
                    || (bytes > limits::BATCH_BYTES_MAX && !page.letters.is_empty())
                {
                    page.next = page.letters.last().map(DeadLetter::id);
                    return Ok(page);
                }
                page.next = Some(id);
                page.letters.push(letter);
            }
            if looked_at >= LOOKED_AT_MAX {
                page.next = walk.place();
                return Ok(page);
            }
        }
        page.next = None;
        Ok(page)
    }

    /// The letter of this id.
    ///
    /// # Errors
    /// `NotFound` if there is no such group or letter; errors of the engine.
    pub async fn get(&self, id: &str) -> Result<DeadLetter> {
        let _in_flight = self.bus.enter()?;
        let listing = Listing::Keys(vec![id.into()]);
        let items = self.bus.engine.log.group_items(&self.path, Shelf::Dead, listing).await?;
        let item = items.into_iter().next().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("group {:?} has no dead letter {id:?}", self.path.group()),
            )
        })?;
        DeadLetter::decode(&self.path, item.bytes)
    }

    /// How many letters there are of each reason.
    ///
    /// # Errors
    /// `NotFound` if there is no such group; errors of the engine.
    pub async fn reasons(&self) -> Result<DeadReasons> {
        let _in_flight = self.bus.enter()?;
        let mut found: FxHashMap<(DeadKind, Box<str>), DeadReason> = FxHashMap::default();
        let mut others = 0;
        let mut walk = Walk::after("");
        while let Some(items) = walk.next(self, limits::BATCH_EVENTS_MAX).await? {
            for letter in items.into_iter().filter_map(|item| self.picked(item)) {
                let (kind, fingerprint) = (letter.kind, letter.fingerprint());
                let is_full = found.len() >= REASONS_MAX;
                match found.get_mut(&(kind, fingerprint.clone())) {
                    Some(reason) => {
                        reason.count += 1;
                        reason.last = letter.died;
                        reason.example = letter.id();
                    }
                    None if is_full => others += 1,
                    None => {
                        let (first, last, example) = (letter.died, letter.died, letter.id());
                        let key = (kind, fingerprint.clone());
                        let reason = DeadReason { kind, fingerprint, count: 1, first, last, example };
                        found.insert(key, reason);
                    }
                }
            }
        }
        let mut reasons: Vec<DeadReason> = found.into_values().collect();
        reasons.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| b.last.cmp(&a.last)));
        Ok(DeadReasons { reasons, others })
    }

    /// Appends the events of these letters again and removes the letters; await the result.
    pub fn replay(self) -> Replay {
        Replay::new(self)
    }

    /// Removes these letters for good; await the result.
    pub fn purge(self) -> Purge {
        Purge::new(self)
    }

    /// The letter, if the filter picks it.
    pub(super) fn picked(&self, item: ShelfItem) -> Option<DeadLetter> {
        match DeadLetter::decode(&self.path, item.bytes) {
            Ok(letter) => self.filter.picks(&letter).then_some(letter),
            Err(error) => {
                tracing::warn!(%error, group = %self.path, key = %item.key, "a dead letter that cannot be read");
                None
            }
        }
    }

    /// Whether the filter picks an item, and the letter in it. Without a filter even what cannot be read is picked.
    pub(super) fn picks(&self, item: ShelfItem) -> bool {
        self.filter.is_by_key_alone() || self.picked(item).is_some()
    }

    /// In words, for the audit trail.
    pub(super) fn in_words(&self) -> String {
        self.filter.to_string()
    }
}

impl Filter {
    fn picks(&self, letter: &DeadLetter) -> bool {
        let has_type = |wanted: &str| letter.event().is_ok_and(|event| event.event_type() == wanted);
        self.kind.is_none_or(|kind| letter.kind == kind)
            && self.fingerprint.as_ref().is_none_or(|wanted| *wanted == letter.fingerprint())
            && self.event_type.as_deref().is_none_or(has_type)
    }

    fn is_by_key_alone(&self) -> bool {
        self.fingerprint.is_none() && self.kind.is_none() && self.event_type.is_none()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = String::new();
        for id in &self.ids {
            write!(words, " id {id}")?;
        }
        for (name, value) in [("reason", &self.fingerprint), ("type", &self.event_type)] {
            if let Some(value) = value {
                write!(words, " {name} {value:?}")?;
            }
        }
        if let Some(kind) = self.kind {
            write!(words, " kind {kind}")?;
        }
        for (name, time) in [("since", self.since), ("before", self.before)] {
            if let Some(time) = time {
                write!(words, " {name} {time}")?;
            }
        }
        f.write_str(if words.is_empty() { "all" } else { words.trim_start() })
    }
}

/// A way through the letters of a group, in the order of their ids.
pub(super) struct Walk {
    after: Box<str>,
    is_over: bool,
}

impl Walk {
    pub(super) fn after(id: &str) -> Self {
        Self { after: id.into(), is_over: false }
    }

    /// Where the next page begins; `None` after the last one.
    pub(super) fn place(&self) -> Option<Box<str>> {
        (!self.is_over).then(|| self.after.clone())
    }

    /// Goes back to right after this id.
    pub(super) fn rewind(&mut self, id: Box<str>) {
        (self.after, self.is_over) = (id, false);
    }

    /// The next letters, up to `count`, that the filter's ids and times allow; `None` after the last ones.
    pub(super) async fn next(
        &mut self,
        letters: &DeadLetters,
        count: usize,
    ) -> Result<Option<Vec<ShelfItem>>> {
        if self.is_over {
            return Ok(None);
        }
        let Filter { ids, since, before, .. } = &letters.filter;
        let since = since.map(key_of).unwrap_or_default();
        let count = count.min(limits::BATCH_EVENTS_MAX);
        let listing = if ids.is_empty() {
            Listing::After(self.after.clone().max(since.clone()), count)
        } else {
            let mut ids: Vec<Box<str>> = ids.iter().filter(|id| **id > self.after).cloned().collect();
            ids.sort_unstable();
            ids.dedup();
            ids.truncate(count);
            Listing::Keys(ids)
        };
        let asked = match &listing {
            Listing::Keys(keys) => keys.last().cloned(),
            Listing::After(..) => None,
        };
        let mut items = letters.bus.engine.log.group_items(&letters.path, Shelf::Dead, listing).await?;
        // A page of the engine has its bounds; of the keys that it did not reach the next one tells.
        match items.last().map(|item| item.key.clone()).or(asked) {
            Some(last) => self.after = last,
            None => self.is_over = true,
        }
        let end = before.map(key_of);
        let is_within =
            |item: &ShelfItem| *item.key >= *since && end.as_ref().is_none_or(|end| *item.key < **end);
        let are_all_past = end.as_ref().is_some_and(|end| self.after >= *end);
        self.is_over |= are_all_past;
        items.retain(is_within);
        Ok((!self.is_over || !items.is_empty()).then_some(items))
    }
}

/// What stands before the id of every letter that died at this time or later, and after all others.
fn key_of(time: Timestamp) -> Box<str> {
    format!("{:013}", time.as_millis()).into()
}

impl super::Group {
    /// Puts letters back as they were, for cases that end a replay between its two steps.
    pub(crate) async fn put_back(&self, letters: &[DeadLetter]) {
        let puts = letters.iter().map(DeadLetter::to_item).collect();
        let change = Change::Items { removes: Vec::new(), puts };
        self.bus.engine.log.group_change(&self.path, change).await.expect("the group is there");
    }
}

/// Drops the oldest letters past [`DEAD_LETTERS_MAX`](limits::DEAD_LETTERS_MAX); says how many.
pub(super) async fn bound_dead_letters(log: &dyn Log, path: &GroupPath) -> Result<u64> {
    let [_, count, ..] = log.group_stats(path).await?.items;
    let mut excess = usize::try_from(count.saturating_sub(limits::DEAD_LETTERS_MAX)).unwrap_or(usize::MAX);
    let mut dropped = 0;
    while excess > 0 {
        let listing = Listing::After(Box::default(), excess.min(limits::BATCH_EVENTS_MAX));
        let items = log.group_items(path, Shelf::Dead, listing).await?;
        if items.is_empty() {
            break;
        }
        excess -= items.len();
        let removes = items.into_iter().map(|item| (Shelf::Dead, item.key)).collect();
        dropped += log.group_change(path, Change::Items { removes, puts: Vec::new() }).await?;
    }
    if dropped > 0 {
        tracing::warn!(group = %path, dropped, "dropped the oldest dead letters (limits.DEAD_LETTERS_MAX)");
    }
    Ok(dropped)
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeadLetters({} of {})", self.filter, self.path)
    }
}

#[cfg(test)]
mod tests;
