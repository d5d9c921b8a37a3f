//! Event sourcing: a stream folded into a state, from the newest snapshot on.

mod snapshot;

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Bus;
use super::item::Received;
use crate::engine::{Condition, Page, Range, Seen};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::{self, ChannelPath, EntryPath};
use crate::position::Position;

/// Events after which a snapshot is taken unless said otherwise: as many as a page has.
const SNAPSHOT_EVERY: u64 = 1_000;

/// A stream to fold into a state; awaiting it reads and folds.
///
/// Dropping the future loses no more than what was folded since the last snapshot.
#[must_use = "a fold happens when it is awaited"]
pub struct Folding<S, F> {
    bus: Arc<Bus>,
    channel: ChannelPath,
    name: String,
    initial: S,
    fold: F,
    snapshot_every: u64,
}

/// What a stream was folded into.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folded<S> {
    /// The state after every event up to the position.
    pub state: S,
    /// The last event that is in the state; offset 0 if none is.
    pub position: Position,
    /// History up to here was in a snapshot and is there no more: the state was made anew from what the stream has now.
    /// Told until there is a newer snapshot.
    pub lost: Option<Position>,
}

impl<S, F> Folding<S, F> {
    pub(super) fn new(bus: Arc<Bus>, channel: ChannelPath, name: &str, initial: S, fold: F) -> Self {
        Self { bus, channel, name: name.to_owned(), initial, fold, snapshot_every: SNAPSHOT_EVERY }
    }

    /// Takes a snapshot after so many events, at the end of a page; 1,000. The state is written as a whole each time.
    pub fn snapshot_every(mut self, events: u64) -> Self {
        self.snapshot_every = events.max(1);
        self
    }
}

impl<S, F> Folding<S, F>
where
    S: Serialize + DeserializeOwned,
    F: FnMut(&mut S, &Received) -> Result<(), Box<dyn StdError + Send + Sync>>,
{
    async fn run(mut self) -> Result<Folded<S>> {
        let key = self.key()?;
        let (mut reached, mut state, mut initial) = match newest(&self.bus, &key).await? {
            Some((reached, state)) => (reached, state, Some(self.initial)),
            None => (Seen::default(), self.initial, None),
        };
        let (mut lost, mut until, mut unsaved) = (None, u64::MAX, 0);
        loop {
            let range = Range {
                seen: Some(reached),
                ..Range::from(reached.position.offset + 1, limits::BATCH_EVENTS_MAX)
            };
            let page = read(&self.bus, &self.channel, range).await?;
            if !goes_on_from(&page, reached.position) {
                state = initial.take().ok_or_else(|| lost_meanwhile(&self.channel, reached.position))?;
                lost = Some(reached.position);
                (reached, until, unsaved) = (Seen::default(), u64::MAX, 0);
                continue;
            }
            until = until.min(page.last);
            let before = reached.position.offset;
            reached = fold_page(&self.channel, page, before, &mut state, &mut self.fold)?;
            unsaved += reached.position.offset - before;
            if unsaved >= self.snapshot_every {
                save(&self.bus, &key, snapshot::encode(reached, &state)?).await?;
                unsaved = 0;
            }
            if reached.position.offset >= until {
                return Ok(Folded { state, position: reached.position, lost });
            }
        }
    }

    fn key(&self) -> Result<EntryPath> {
        name::check_fold(&self.name)?;
        let (channel, name) = (&self.channel, &self.name);
        EntryPath::new(channel.environment(), channel.tenant(), &format!("fold:{}:{name}", channel.channel()))
    }
}

/// The newest snapshot. One that cannot be read is as good as none: the stream has what it was made of, or says that it has
/// not.
async fn newest<S: DeserializeOwned>(bus: &Bus, key: &EntryPath) -> Result<Option<(Seen, S)>> {
    let _in_flight = bus.enter()?;
    let Some(bytes) = bus.engine.store.get(key).await? else { return Ok(None) };
    match snapshot::decode(&bytes) {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(error) => {
            tracing::warn!(%error, key = key.as_str(), "a snapshot that cannot be read");
            Ok(None)
        }
    }
}

/// Folds a page whose first wanted event is the one after `before`.
fn fold_page<S>(
    channel: &ChannelPath,
    page: Page,
    before: u64,
    state: &mut S,
    fold: &mut impl FnMut(&mut S, &Received) -> Result<(), Box<dyn StdError + Send + Sync>>,
) -> Result<Seen> {
    let at = |offset| Position { epoch: page.epoch, offset };
    let gone = |from: u64, to: u64, why| {
        let (from, to) = (at(from), at(to));
        let text = format!("events {from} to {to} of {:?} are {why} and in no snapshot", channel.channel());
        Error::new(ErrorKind::PositionLost, text)
    };
    let mut reached = before;
    if page.first > reached + 1 {
        return Err(gone(reached + 1, page.first - 1, "removed"));
    }
    if page.events.is_empty() && reached < page.last {
        return Err(gone(reached + 1, page.last, "damaged"));
    }
    for stored in page.events {
        let position = at(stored.offset);
        if stored.offset > reached + 1 {
            return Err(gone(reached + 1, stored.offset - 1, "damaged"));
        }
        let received = Received::stored(channel, position, stored)?;
        fold(state, &received).map_err(|error| {
            let text = format!("event {position} of {:?} cannot be folded", channel.channel());
            Error::new(ErrorKind::Codec, text).caused_by(error)
        })?;
        reached = position.offset;
    }
    Ok(Seen { position: at(reached), term: page.term })
}

/// Whether the stream still has all that is folded up to `reached`, or had before it was removed.
fn goes_on_from(page: &Page, reached: Position) -> bool {
    if reached.offset == 0 {
        return true;
    }
    let next = Position { offset: reached.offset + 1, ..reached };
    if page.epoch == reached.epoch {
        page.last >= reached.offset
    } else {
        page.parting(next) == Some(next.offset)
    }
}

fn lost_meanwhile(channel: &ChannelPath, reached: Position) -> Error {
    let text = format!("history of {:?} up to {reached} was lost while it was folded", channel.channel());
    Error::new(ErrorKind::PositionLost, text)
}

/// Keeps a snapshot. Where the engine does not take it, the next fold has more to read, and nothing else is wrong.
async fn save(bus: &Bus, key: &EntryPath, snapshot: Bytes) -> Result<()> {
    let _in_flight = bus.enter()?;
    let bytes = snapshot.len();
    if bytes > limits::BATCH_BYTES_MAX {
        return Err(Error::too_large("a snapshot", bytes, limits::BATCH_BYTES_MAX, "BATCH_BYTES_MAX"));
    }
    if let Err(error) = bus.engine.store.put(key, snapshot, None, Condition::Always).await {
        tracing::warn!(%error, key = key.as_str(), "a snapshot was not kept");
    }
    Ok(())
}

async fn read(bus: &Bus, channel: &ChannelPath, range: Range) -> Result<Page> {
    let _in_flight = bus.enter()?;
    bus.engine.log.read(channel, range).await
}

impl<S, F> IntoFuture for Folding<S, F>
where
    S: Serialize + DeserializeOwned + Send + 'static,
    F: FnMut(&mut S, &Received) -> Result<(), Box<dyn StdError + Send + Sync>> + Send + 'static,
{
    type Output = Result<Folded<S>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<S, F> fmt::Debug for Folding<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folding")
            .field("channel", &self.channel)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::engine::{Fork, Stored};
    use crate::event::Event;
    use crate::position::Epoch;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch: Epoch::from_u64(epoch), offset }
    }

    #[test]
    fn a_state_outlives_an_epoch_if_all_that_is_in_it_does() {
        let fork = Fork { epoch: Epoch::from_u64(1), last: 120 };
        let page = Page { epoch: Epoch::from_u64(2), last: 150, forks: vec![fork], ..Page::default() };
        assert!(goes_on_from(&page, at(1, 120)));
        assert!(!goes_on_from(&page, at(1, 121)), "121 was given twice");
        assert!(!goes_on_from(&page, at(3, 1)), "an epoch that nothing is known of");
        assert!(goes_on_from(&page, at(2, 150)));
        assert!(!goes_on_from(&page, at(2, 151)), "the stream has lost its end");
        assert!(goes_on_from(&page, at(0, 0)), "nothing is folded yet");
    }

    #[test]
    fn no_event_is_left_out_silently() {
        let channel = ChannelPath::new("test", "bank", "account").unwrap();
        let stored = |offset| {
            let envelope = Bytes::from(&Event::new("a", ""));
            Stored { offset, time: Timestamp::default(), envelope }
        };
        let why = |first, offsets: &[u64]| {
            let events = offsets.iter().map(|offset| stored(*offset)).collect();
            let page = Page { epoch: Epoch::from_u64(1), first, last: 9, events, ..Page::default() };
            fold_page(&channel, page, 2, &mut (), &mut |_, _| Ok(())).map_err(|error| error.to_string())
        };
        assert_eq!(why(1, &[3, 4]).unwrap().position, at(1, 4));
        for (first, offsets, expected) in [
            (5, [5, 6].as_slice(), "3 to 0000000000000001:4"),
            (1, &[3, 6], "4 to 0000000000000001:5"),
            (1, &[], "3 to 0000000000000001:9"),
        ] {
            let text = why(first, offsets).expect_err("some are missing");
            assert!(text.contains(expected), "{text}");
        }
    }
}
