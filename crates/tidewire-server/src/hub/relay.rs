//! One channel on one node: the library's subscription, and the connections that it feeds.

use std::cmp::Ordering;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tidewire::tasks::Tasks;
use tidewire::{Channel, Epoch, GapReason, Item, Position, Received, Subscription};
use tidewire_protocol::codes::{DisconnectCode, UnsubscribeCode};
use tidewire_protocol::{Filter, Push, PushBody};
use tokio_util::sync::CancellationToken;

use super::broadcast::{Bases, Broadcast};
use super::filled::Filled;
use super::outbox::{Frame, Outbox};
use super::recovery::Recovery;
use crate::metrics::{Loss, StreamRead, TenantMetrics};
use crate::publication::{self, Form, Prepared};

/// A connection, unique on this node.
pub(crate) type ConnectionKey = u64;

/// Whether a channel's events are kept, by its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Subscribers have a position and may recover.
    Kept,
    /// Subscribers get what comes.
    Live,
}

/// Feeds the subscribers of one channel on this node.
///
/// All that subscribers see passes under one lock, in stream order: a subscriber joins at a known position, and gets
/// what follows it, without a hole and without a repetition.
pub(crate) struct Relay {
    channel: Channel,
    /// Epoch of the stream; `None` in live mode. A new one ends the relay.
    epoch: Option<Epoch>,
    state: Mutex<State>,
    recovery: Recovery,
    tasks: Tasks,
    stop: CancellationToken,
    metrics: Arc<TenantMetrics>,
}

#[derive(Default)]
struct State {
    /// Offset of the last kept event that subscribers got.
    top: u64,
    subscribers: FxHashMap<ConnectionKey, Subscriber>,
    /// The data of the last event, for those who get deltas.
    bases: Bases,
    has_ended: bool,
}

struct Subscriber {
    outbox: Arc<Outbox>,
    terms: Terms,
    /// The last offset that it needs no more.
    floor: u64,
    /// Until the subscriber has been given what it missed: what came in the meantime.
    held: Option<Box<Held>>,
    /// Whether it got the event before the next one, so that a delta is enough.
    has_base: bool,
}

impl Subscriber {
    /// Gives it a frame, or holds it for it; `offset` is that of its event, 0 for what is not kept. False if that is more than
    /// can be held.
    fn hand(&mut self, offset: u64, frame: Frame, filled: &mut Filled) -> bool {
        let Some(held) = &mut self.held else {
            if self.outbox.add(frame) {
                filled.add(&self.outbox);
            }
            return true;
        };
        held.bytes += frame.len();
        held.frames.push((offset, frame));
        // With it, an outbox that is half full is not more than full.
        held.bytes <= self.outbox.bytes_max() / 2
    }
}

/// What a subscriber gets, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) form: Form,
    /// Which events; all without one.
    pub(crate) filter: Option<Arc<Filter>>,
    /// Whether it is told who comes and goes.
    pub(crate) takes_movements: bool,
    pub(crate) side: Side,
}

impl Terms {
    /// Whether its filter lets an event through.
    pub(crate) fn admit(&self, received: &Received) -> bool {
        let filter = self.filter.as_ref();
        filter.is_none_or(|filter| publication::is_admitted(filter, &publication::tags_of(&received.event)))
    }
}

/// Who made a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client, which makes it again where it was ended for missed events.
    #[default]
    Client,
    /// The server, with the connection: where events were missed the client has to connect again.
    Server,
}

#[derive(Default)]
struct Held {
    /// With the offsets of their events; 0 for what is not kept.
    frames: Vec<(u64, Frame)>,
    bytes: usize,
}

impl Held {
    /// Forgets events up to `offset`.
    fn forget(&mut self, offset: u64) {
        self.frames.retain(|(at, _)| *at == 0 || *at > offset);
        self.bytes = self.frames.iter().map(|(_, frame)| frame.len()).sum();
    }
}

/// Where a subscriber wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since {
    /// `None` where any epoch will do.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) offset: u64,
    /// The end of the stream, where it had to be read: see [`Standing::Ahead`].
    pub(crate) end: Option<Position>,
}

/// How a subscriber stands when it joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Live from here on; the top of the stream, if it is kept.
    Fresh(Option<Position>),
    /// It has all up to this position; live from here on.
    Current(Position),
    /// Its position is of another epoch or beyond the end of the stream; live from the top on, if it wants that.
    Lost(Position),
    /// It is not added: its position is beyond what the relay has delivered. On another node it may have seen more than
    /// has arrived here yet; the end of the stream, in [`Since::end`], tells.
    Ahead,
    /// It lacks what lies between its position and the top.
    Behind(Position),
}

/// The relay has ended; another one has taken, or will take, its place.
#[derive(Debug)]
pub(crate) struct Ended;

impl Relay {
    /// Starts to listen. When this returns, all that is published from then on reaches who joins.
    pub(crate) async fn open(
        channel: Channel,
        mode: Mode,
        tasks: &Tasks,
        metrics: Arc<TenantMetrics>,
    ) -> tidewire::Result<Arc<Self>> {
        let (subscription, top) = match mode {
            Mode::Live => (channel.subscribe().open().await?, None),
            Mode::Kept => {
                metrics.stream_reads.add(StreamRead::Open, 1);
                let top = channel.read().limit(0).await?.end();
                (channel.subscribe().after(top).open().await?, Some(top))
            }
        };
        let offset = top.map_or(0, |top| top.offset);
        let state = State { top: offset, ..State::default() };
        let relay = Arc::new(Self {
            epoch: top.map(|top| top.epoch),
            state: Mutex::new(state),
            recovery: Recovery::new(channel.clone(), metrics.clone()),
            channel,
            tasks: tasks.clone(),
            stop: tasks.stopping().child_token(),
            metrics,
        });
        tasks.spawn(relay.clone().run(subscription));
        Ok(relay)
    }

    /// An event of the stream, ready for a subscriber; `None` if its filter does not let it through.
    pub(crate) fn prepare<'e>(&self, received: &'e Received, terms: &Terms) -> Option<Prepared<'e>> {
        terms.admit(received).then(|| Prepared::kept(&self.channel, received, terms.form))
    }

    /// The channel's name.
    pub(crate) fn name(&self) -> &str {
        self.channel.name()
    }

    /// Reads what subscribers missed.
    pub(crate) fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The end of the stream, which the relay may not have reached yet.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn end_of_stream(&self) -> tidewire::Result<Position> {
        self.metrics.stream_reads.add(StreamRead::End, 1);
        Ok(self.channel.read().limit(0).await?.end())
    }

    /// Adds a subscriber, unless it is [`Standing::Ahead`]. What comes is held for it until [`Relay::catch_up`], so that it is
    /// told of its subscription and given what it missed before.
    pub(crate) fn join(
        &self,
        connection: ConnectionKey,
        outbox: &Arc<Outbox>,
        terms: Terms,
        since: Option<Since>,
    ) -> Result<Standing, Ended> {
        let mut state = self.state.lock();
        if state.has_ended {
            return Err(Ended);
        }
        let standing = standing(self.position(state.top), since);
        let floor = match standing {
            Standing::Ahead => return Ok(standing),
            Standing::Current(position) => position.offset,
            Standing::Fresh(_) | Standing::Lost(_) | Standing::Behind(_) => 0,
        };
        let (outbox, held) = (outbox.clone(), Some(Box::default()));
        state.subscribers.insert(connection, Subscriber { outbox, terms, floor, held, has_base: false });
        Ok(standing)
    }

    /// Sends a subscriber the reply to its subscribe command. False if it is gone: it fell back further than can be held,
    /// and no client takes the end of a subscription that it was not told of.
    pub(crate) fn answer(&self, connection: ConnectionKey, reply: Frame) -> bool {
        let state = self.state.lock();
        let subscriber = state.subscribers.get(&connection);
        subscriber.inspect(|subscriber| subscriber.outbox.push(reply)).is_some()
    }

    /// Gives a subscriber what was held for it; from then on it is live.
    pub(crate) fn catch_up(&self, connection: ConnectionKey) {
        let mut state = self.state.lock();
        let Some(subscriber) = state.subscribers.get_mut(&connection) else { return };
        let held = subscriber.held.take().unwrap_or_default();
        held.frames.into_iter().for_each(|(_, frame)| subscriber.outbox.push(frame));
    }

    /// Lets a subscriber whose missed events are lost go on from the top, which is returned. `None` if it is gone.
    pub(crate) fn skip_to_top(&self, connection: ConnectionKey) -> Option<Position> {
        let mut state = self.state.lock();
        let top = self.position(state.top)?;
        let subscriber = state.subscribers.get_mut(&connection)?;
        subscriber.held = Some(Box::default());
        subscriber.has_base = false;
        Some(top)
    }

    /// Lets a subscriber that is given what is at `offset` go on from there. False if it is gone.
    pub(crate) fn skip_to(&self, connection: ConnectionKey, offset: u64) -> bool {
        let mut state = self.state.lock();
        let Some(subscriber) = state.subscribers.get_mut(&connection) else { return false };
        subscriber.floor = offset;
        subscriber.held.iter_mut().for_each(|held| held.forget(offset));
        true
    }

    /// Whether it gives what follows a position.
    pub(crate) fn follows(&self, position: Position) -> bool {
        self.epoch == Some(position.epoch)
    }

    /// Removes a subscriber.
    pub(crate) fn leave(&self, connection: ConnectionKey) {
        self.state.lock().subscribers.remove(&connection);
    }

    /// Whether the connection still listens here; not so once the server ended its subscription.
    pub(crate) fn has(&self, connection: ConnectionKey) -> bool {
        self.state.lock().subscribers.contains_key(&connection)
    }

    /// Ends one subscription and tells its client why: one that missed events subscribes again from the position that it
    /// holds.
    pub(crate) fn expel(&self, connection: ConnectionKey, code: UnsubscribeCode) {
        let mut state = self.state.lock();
        if let Some(subscriber) = state.subscribers.remove(&connection) {
            self.tell_end(&subscriber, code);
        }
    }

    /// Subscribers on this node.
    pub(crate) fn subscriber_count(&self) -> usize {
        self.state.lock().subscribers.len()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().has_ended
    }

    /// Stops listening; for the registry, when the last subscriber is gone.
    pub(crate) fn close(&self) {
        self.stop.cancel();
    }

    async fn run(self: Arc<Self>, mut subscription: Subscription) {
        let mut filled = Filled::new(self.tasks.clone(), self.metrics.clone());
        loop {
            let Some(item) = self.next(&mut subscription, &mut filled).await else {
                // Nobody is left to tell, or the node closes and connections learn that.
                self.state.lock().has_ended = true;
                return;
            };
            match item {
                Some(Item::Event(received)) => self.deliver(&received, &mut filled),
                Some(Item::Gap(gap)) => {
                    self.metrics.missed(gap.reason);
                    // Live events may be missed by definition; kept ones may not, without a word.
                    let misses_kept = !matches!(gap.reason, GapReason::Overflow(_) | GapReason::LinkLost);
                    if misses_kept && self.epoch.is_some() {
                        tracing::warn!(channel = %self.channel.path(), reason = %gap.reason, "subscribers missed events");
                        break;
                    }
                }
                None => break,
            }
        }
        filled.flush().await;
        self.end();
    }

    /// The next item; `None` when it stops. What has come together is written together, before it waits for more.
    async fn next(&self, subscription: &mut Subscription, filled: &mut Filled) -> Option<Option<Item>> {
        let mut next = pin!(subscription.next());
        let known = next.as_mut().now_or_never();
        if known.is_none() || filled.is_enough() {
            filled.flush().await;
        }
        match known {
            // A channel that is never quiet stops too.
            Some(_) if self.stop.is_cancelled() => None,
            Some(item) => Some(item),
            None => tokio::select! {
                () = self.stop.cancelled() => None,
                item = next => Some(item),
            },
        }
    }

    fn position(&self, offset: u64) -> Option<Position> {
        self.epoch.map(|epoch| Position { epoch, offset })
    }

    fn deliver(&self, received: &Received, filled: &mut Filled) {
        filled.count(received.event.data().len());
        if let Some(body) = publication::movement_of(&received.event) {
            return self.deliver_movement(&body, filled);
        }
        // An event of another epoch is kept in another channel's stream and announced here: live, to us.
        let kept = received.position.filter(|position| self.epoch == Some(position.epoch));
        let offset = kept.map_or(0, |position| position.offset);
        let mut state = self.state.lock();
        let State { top, subscribers, bases, .. } = &mut *state;
        if kept.is_some() {
            if offset <= *top {
                return;
            }
            *top = offset;
        }
        let mut event = Broadcast::new(&self.channel, &received.event, offset, bases);
        let (mut overflown, mut delivered) = (Vec::new(), 0);
        for (connection, subscriber) in subscribers {
            if offset != 0 && offset <= subscriber.floor {
                continue;
            }
            if subscriber.terms.filter.as_ref().is_some_and(|filter| !event.is_admitted(filter)) {
                continue;
            }
            let frame = event.frame(subscriber.terms.form, subscriber.has_base);
            subscriber.has_base = true;
            delivered += 1;
            if !subscriber.hand(offset, frame, filled) {
                overflown.push(*connection);
            }
        }
        let bases = event.into_bases();
        state.bases = bases;
        self.expel_slow(&mut state, overflown);
        drop(state);
        self.metrics.delivered(delivered, received.time);
    }

    /// Ends subscriptions whose subscribers read the stream more slowly than it grows; each comes back from where it is then.
    fn expel_slow(&self, state: &mut State, overflown: Vec<ConnectionKey>) {
        for connection in overflown {
            if let Some(subscriber) = state.subscribers.remove(&connection) {
                self.tell_end(&subscriber, UnsubscribeCode::INSUFFICIENT_STATE);
            }
        }
    }

    /// Tells those who want it who came or went.
    fn deliver_movement(&self, body: &PushBody<'_>, filled: &mut Filled) {
        let mut frames: Vec<(Form, Frame)> = Vec::new();
        let mut state = self.state.lock();
        let mut overflown = Vec::new();
        for (connection, subscriber) in &mut state.subscribers {
            let Terms { form, takes_movements, .. } = subscriber.terms;
            if !takes_movements {
                continue;
            }
            let known = frames.iter().find(|(other, _)| *other == form).map(|(_, frame)| frame.clone());
            let frame = known.unwrap_or_else(|| {
                let push = Push { channel: self.name().into(), body: body.clone() };
                let frame = form.push(push).shared();
                frames.push((form, frame.clone()));
                frame
            });
            if !subscriber.hand(0, frame, filled) {
                overflown.push(*connection);
            }
        }
        self.expel_slow(&mut state, overflown);
    }

    /// Ends all subscriptions: what follows cannot be given without a hole.
    fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        for (_, subscriber) in state.subscribers.drain() {
            self.tell_end(&subscriber, UnsubscribeCode::INSUFFICIENT_STATE);
        }
    }

    fn tell_end(&self, subscriber: &Subscriber, code: UnsubscribeCode) {
        let Subscriber { outbox, terms, .. } = subscriber;
        if code == UnsubscribeCode::INSUFFICIENT_STATE {
            self.metrics.losses.add(Loss::Expelled, 1);
        }
        match terms.side {
            // Nobody makes it again but the server, when the connection is made again.
            Side::Server if code.may_resubscribe() => outbox.end(DisconnectCode::INSUFFICIENT_STATE.into()),
            Side::Client | Side::Server => outbox.push(terms.form.push(Push::unsubscribe(self.name(), code))),
        }
    }
}

fn standing(top: Option<Position>, since: Option<Since>) -> Standing {
    let (Some(top), Some(since)) = (top, since) else { return Standing::Fresh(top) };
    if since.epoch.is_some_and(|epoch| epoch != top.epoch) {
        return Standing::Lost(top);
    }
    let position = Position { offset: since.offset, ..top };
    match since.offset.cmp(&top.offset) {
        Ordering::Less => Standing::Behind(top),
        Ordering::Equal => Standing::Current(position),
        Ordering::Greater => match since.end {
            None => Standing::Ahead,
            Some(end) if end.epoch == top.epoch && since.offset <= end.offset => Standing::Current(position),
            Some(_) => Standing::Lost(top),
        },
    }
}

#[cfg(test)]
mod tests;
