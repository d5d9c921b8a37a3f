//! A session of a consumer: the one task that takes turns at the engine for it.
//!
//! It owns what its records hold. Handlers get deliveries from the [`Queue`] and leave there what became of them; each
//! turn commits that, renews the lease, and takes as much as there is room for. An entry that was not claimed by the
//! engine itself is handed out only once it is committed, so that a process that dies with it is counted against it.

mod holding;
mod settle;
mod share;
mod turn;
mod twins;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub(super) use self::holding::partition_of;
use self::holding::{Holding, shelf_key};
pub(super) use self::share::chain_of;
use self::twins::Twins;
use super::Group;
use super::counters::{Counters, add};
use super::delivery::{Shared, States};
use super::ledger::Ledger;
use super::outbox::{self, Following};
use super::queue::{Job, Queue};
use super::settings::Settings;
use crate::bus::lane::Lane;
use crate::bus::{Bus, Gap, GapReason};
use crate::clock::Timestamp;
use crate::engine::{
    Adopted, Change, Dedup, Fork, Listing, Opening, Range, Shelf, ShelfItem, Start, Stored, Turn, Turned,
};
use crate::error::ErrorKind;
use crate::name::GroupPath;
use crate::position::{Epoch, Position};

/// Entries that a session may have beside those that wait without order; past it nothing new is taken.
const ENTRIES_MAX: usize = 10_000;
/// Entries that may wait without order. Each takes some 200 bytes of memory.
const WAITING_MAX: usize = 100_000;
/// Entries that wait in one record, which is written as a whole.
const WAITING_PER_RECORD: usize = 256;
/// Deliveries taken ahead of the handlers, at most.
const AHEAD_MAX: usize = 4_096;
/// Events that are read again at once.
const READS_MAX: usize = 256;
/// Events kept in memory for entries that wait; the others are read again when their time comes.
const BODIES_MAX: usize = 4_096;
/// Deliveries that wait for longer go to the shelf.
const SHELVE_AFTER: Duration = Duration::from_secs(1);
/// The lease of a session that holds nothing: nobody waits for it.
const IDLE_LEASE: Duration = Duration::from_secs(60);
/// How long outcomes may wait for a turn while the handlers have enough to do.
const LINGER: Duration = Duration::from_millis(1);
/// How often a session looks without having been told: for appends that others, who are gone, have left in the outbox, and
/// for events of whose append it has not heard.
const OUTBOX_EVERY: Duration = Duration::from_secs(10);
/// Wait before a turn is sent again after the engine did not take it.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Crashes after which a delivery is handed out only while nothing else is: it may take others down with it.
const SUSPECT_CRASHES: u32 = 2;

/// The record of a group without partitions, as tokens name it.
const OWN: u16 = 0;

pub(super) struct Session {
    bus: Arc<Bus>,
    path: GroupPath,
    opening: Opening,
    settings: Settings,
    states: States,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    lane: Arc<Lane>,
    /// Which session of the consumer this is; its name is made of it.
    serial: u64,
    name: Box<str>,
    /// Larger than that of every session before.
    fence: u64,
    /// Turns taken.
    number: u64,
    shared: Arc<Shared>,
    epoch: Epoch,
    /// Epochs before this one, and up to where they are the same; read when a record of another epoch is adopted.
    forks: Vec<Fork>,
    /// The stream has gone on under another epoch: what is held is to be looked at again.
    is_astray: bool,
    /// No session of the group needed an event before this offset at the last turn.
    floor: u64,
    /// What the turn under way reads ahead.
    ahead: Option<(u64, u64)>,
    generation: (u64, u64),
    holdings: BTreeMap<u16, Holding>,
    /// Without order: the record that takes those that are to wait, while it has room.
    waiting_in: u16,
    /// Records that were merged into ours, to be removed with the commit that has their entries.
    absorbed: Vec<Box<str>>,
    /// Entries to hand out once they are committed.
    fresh: Vec<(u16, u64)>,
    /// With order: offsets by the hash of their key.
    chains: FxHashMap<u64, BTreeSet<u64>>,
    /// What waits, by when.
    waiting: BTreeSet<(Timestamp, u16, u64)>,
    bodies: FxHashMap<(u16, u64), Stored>,
    /// Entries whose events have to be read first.
    wanted: BTreeMap<u64, u16>,
    /// Entries handed out alone.
    suspects: VecDeque<(u16, u64)>,
    /// Entries that wait until no suspect is left.
    deferred: Vec<(u16, u64)>,
    /// Deliveries whose ids are to be looked up.
    unchecked: Vec<Job>,
    twins: Twins,
    out_count: usize,
    /// Deliveries that went to the dead letters.
    deaths: u64,
    pending: Pending,
    /// What follows when the turn under way is taken.
    committing: Committing,
    /// Outcomes since deliveries were taken last.
    settled_count: usize,
    /// How many deliveries are to be ready.
    target: usize,
    may_have_more: bool,
    /// There are records to adopt, or too many are held.
    is_unbalanced: bool,
    sessions: u64,
    /// The engine's clock at the last turn, ours then, and when another session's lease ends.
    engine_time: Timestamp,
    turned_at: Timestamp,
    look_at: Option<Timestamp>,
    lease: Duration,
    /// The consumer is stopped: nothing new is begun.
    is_ending: bool,
    /// Where the group goes on if it is lost, while that is not made.
    kept: Option<Position>,
    /// When to look at the outbox next.
    outbox_at: Timestamp,
    /// What follows from committed settlements, to be appended.
    to_make: Vec<Following>,
    /// Keys of what was appended, to be removed from the outbox.
    made: Arc<Mutex<Vec<Box<str>>>>,
}

/// What the next turn is to do.
#[derive(Default)]
struct Pending {
    puts: Vec<ShelfItem>,
    removes: Vec<(Shelf, Box<str>)>,
    marks: Vec<Dedup>,
    following: Vec<Following>,
    /// Who wants to know that it is kept.
    kept: Vec<oneshot::Sender<()>>,
    /// Something was settled since the last turn.
    is_due: bool,
}

/// What follows from what a turn commits.
#[derive(Default)]
struct Committing {
    following: Vec<Following>,
    kept: Vec<oneshot::Sender<()>>,
}

/// Why a session does not go on.
enum Over {
    /// What it held is or will be another's.
    Lost,
    /// The group is not there.
    NoGroup,
}

impl Session {
    pub(super) fn new(
        group: &Group,
        settings: Settings,
        states: States,
        queue: Arc<Queue>,
        counters: Arc<Counters>,
        lane: Arc<Lane>,
    ) -> Self {
        let Group { bus, path, opening } = group.clone();
        let shared = share(&bus, &path, &states, &settings);
        let now = bus.clock.now();
        let target = settings.concurrency;
        let mut session = Self {
            shared,
            serial: 0,
            name: Box::default(),
            fence: 0,
            number: 0,
            epoch: Epoch::default(),
            forks: Vec::new(),
            is_astray: false,
            floor: 0,
            ahead: None,
            generation: (0, 0),
            holdings: BTreeMap::new(),
            waiting_in: OWN,
            absorbed: Vec::new(),
            fresh: Vec::new(),
            chains: FxHashMap::default(),
            waiting: BTreeSet::new(),
            bodies: FxHashMap::default(),
            wanted: BTreeMap::new(),
            suspects: VecDeque::new(),
            deferred: Vec::new(),
            unchecked: Vec::new(),
            twins: Twins::default(),
            out_count: 0,
            deaths: 0,
            pending: Pending::default(),
            committing: Committing::default(),
            settled_count: 0,
            target,
            may_have_more: true,
            is_unbalanced: true,
            sessions: 1,
            engine_time: now,
            turned_at: now,
            look_at: None,
            lease: settings.lease,
            is_ending: false,
            kept: None,
            outbox_at: now,
            to_make: Vec::new(),
            made: Arc::default(),
            bus,
            path,
            opening,
            settings,
            states,
            queue,
            counters,
            lane,
        };
        session.begin();
        session
    }

    /// Begins as a session that nobody knows yet.
    fn begin(&mut self) {
        self.serial += 1;
        self.name = format!("{}-{:08x}-{}", self.bus.node, fastrand::u32(..), self.serial).into();
        self.number = 0;
        self.holdings.clear();
        if self.opening.partitions == 0 {
            self.holdings.insert(OWN, Holding::own(self.name.clone()));
        }
        self.waiting_in = OWN;
        self.absorbed.clear();
        self.fresh.clear();
        self.chains.clear();
        self.waiting.clear();
        self.bodies.clear();
        self.wanted.clear();
        self.suspects.clear();
        self.deferred.clear();
        self.unchecked.clear();
        self.twins = Twins::default();
        self.out_count = 0;
        self.is_astray = false;
        self.ahead = None;
        self.epoch = Epoch::default();
        self.pending = Pending::default();
        self.committing = Committing::default();
        self.may_have_more = true;
        self.is_unbalanced = true;
        self.turned_at = self.bus.clock.now();
    }

    /// Works until `stop` fires, then finishes what handlers have begun and hands the rest back.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            if self.outbox_at <= self.bus.clock.now() {
                self.make_left_over().await;
            }
            self.settle_done();
            self.hand_out();
            self.make();
            if stop.is_cancelled() {
                return self.leave().await;
            }
            if self.is_astray {
                self.start_over(&Over::Lost).await;
            }
            self.read_shelved().await;
            if self.is_turn_due() {
                let turn = self.build(false);
                if !self.take(turn, &stop).await {
                    return self.shared.lost.cancel();
                }
                // An engine that answers at once must not keep the others from running.
                tokio::task::yield_now().await;
                continue;
            }
            self.wait(&stop).await;
        }
    }

    /// Waits for something to do.
    async fn wait(&mut self, stop: &CancellationToken) {
        let until = self.next_look().since(self.bus.clock.now());
        tokio::select! {
            () = self.queue.finished.notified() => {}
            _ = self.lane.take() => {
                self.may_have_more = true;
                self.is_unbalanced = true;
            }
            () = self.bus.clock.sleep(until) => {}
            () = stop.cancelled() => {}
        }
    }

    /// When to look again though nothing was heard.
    fn next_look(&self) -> Timestamp {
        let due = self.waiting.first().map(|(due, ..)| self.ours(*due));
        let renew = self.turned_at.saturating_add(self.lease / 3);
        let settle = self.pending.is_due.then(|| self.turned_at.saturating_add(LINGER));
        [due, settle, self.look_at, Some(self.outbox_at)].into_iter().flatten().fold(renew, Timestamp::min)
    }

    /// Sends a turn until the engine has taken it, and does what follows from the answer. False if a stop has no time left
    /// for that: the turn may be taken or not, so that nothing can be committed after it.
    async fn take(&mut self, turn: Turn, stop: &CancellationToken) -> bool {
        let sent = self.bus.clock.now();
        loop {
            match self.bus.engine.log.group_turn(&self.path, turn.clone()).await {
                Ok(turned) => {
                    self.turned_at = sent;
                    self.read_forks(&turned).await;
                    self.absorb(&turn, &turned);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::LockLost => {
                    self.start_over(&Over::Lost).await;
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.start_over(&Over::NoGroup).await;
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, group = %self.path, "a turn of a group is taken again");
                }
            }
            if self.bus.clock.now().since(sent) > turn.lease && !self.shared.lost.is_cancelled() {
                // Others may have it by now: who works on it should stop. If nobody has, it is still settled here.
                self.shared.lost.cancel();
                self.shared = share(&self.bus, &self.path, &self.states, &self.settings);
                self.queue.take_back(|_| true).into_iter().for_each(|token| self.put_back(token));
            }
            self.bus.clock.sleep(TRY_AGAIN_AFTER).await;
            if stop.is_cancelled() && self.bus.clock.now().since(sent) > self.settings.stop_within {
                return false;
            }
        }
    }

    /// Reads where epochs parted, if a record of another one was adopted, or this consumer knew another one.
    async fn read_forks(&mut self, turned: &Turned) {
        let is_of_another = |adopted: &Adopted| {
            let ledger = Ledger::decode(&adopted.state).unwrap_or_default();
            ledger.epoch != turned.epoch && ledger.epoch != Epoch::default()
        };
        let has_parted = self.kept.is_some_and(|kept| kept.epoch != turned.epoch);
        if has_parted || turned.adopted.iter().any(is_of_another) {
            match self.bus.engine.log.read(self.path.channel(), Range::BOUNDS).await {
                Ok(page) => self.forks = page.forks,
                Err(error) => {
                    tracing::warn!(%error, group = %self.path, "where the stream's epochs parted is not known")
                }
            }
        }
    }

    /// Reads events of entries whose time has come from the shelf.
    async fn read_shelved(&mut self) {
        // What is to be put there is not there yet: the turn comes first.
        if !self.pending.puts.is_empty() {
            return;
        }
        let shelved = self.wanted.iter().filter_map(|(offset, record)| {
            let entry = self.holdings.get(record)?.ledger.entries.get(offset)?;
            Some((*offset, *record, shelf_key(entry.shelved?, *offset)))
        });
        let shelved: Vec<_> = shelved.take(READS_MAX).collect();
        if shelved.is_empty() {
            return;
        }
        let keys = shelved.iter().map(|(.., key)| key.clone()).collect();
        match self.bus.engine.log.group_items(&self.path, Shelf::Waiting, Listing::Keys(keys)).await {
            Ok(items) => self.unshelve(shelved, &items),
            Err(error) => {
                tracing::warn!(%error, group = %self.path, "events that waited could not be read; trying again");
                self.bus.clock.sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }

    /// Goes on as another session, after this one has lost what it held.
    async fn start_over(&mut self, why: &Over) {
        let held = self.entry_count();
        if held > 0 || self.opening.partitions > 0 {
            add(&self.counters.sessions_lost, 1);
            tracing::warn!(group = %self.path, session = %self.name, held,
                "a session of a group is over: what it held is delivered again");
        }
        self.kept = self.checkpoint().or(self.kept);
        self.outbox_at = self.bus.clock.now();
        self.shared.lost.cancel();
        self.shared = share(&self.bus, &self.path, &self.states, &self.settings);
        self.queue.take_back(|_| true);
        self.begin();
        if matches!(why, Over::NoGroup) {
            self.rebuild().await;
        }
    }

    /// No event before it was needed by any session of the group when this one took its last turn. What this one held on the
    /// shelf is lost with the group, too.
    fn checkpoint(&self) -> Option<Position> {
        let held = self.holdings.values().filter_map(|holding| holding.ledger.entries.keys().next());
        let offset = held.copied().fold(self.floor, u64::min);
        (self.epoch != Epoch::default()).then(|| self.stored(offset))
    }

    /// Tells of what is gone with an epoch that this consumer knew. Whoever made the group again does not know what was lost,
    /// and what nobody had claimed is in no record.
    fn tell_of_history(&mut self) {
        let Some(kept) = self.kept.take().filter(|kept| kept.epoch != self.epoch) else { return };
        let fork = self.forks.iter().find(|fork| fork.epoch == kept.epoch);
        let offset = fork.map_or(kept.offset, |fork| kept.offset.max(fork.last + 1));
        self.tell(Some(Position { offset, ..kept }), None, GapReason::HistoryLost);
    }

    /// Makes the group again that was lost, from what this session knows of it.
    async fn rebuild(&mut self) {
        let checkpoint = self.kept;
        let start = checkpoint.map_or(self.opening.start, Start::At);
        match self.bus.engine.log.group_open(&self.path, Opening { start, ..self.opening }).await {
            Ok(opened) if opened.is_new => {
                add(&self.counters.rebuilt, 1);
                tracing::warn!(group = %self.path, next = %opened.next,
                    "the group was lost and is made again: events may be delivered again");
                // Of a stream that was lost with it the first turn tells.
                if checkpoint.is_none_or(|checkpoint| checkpoint.epoch == opened.next.epoch) {
                    self.tell(checkpoint, None, GapReason::HistoryLost);
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, group = %self.path, "the group is not there and cannot be made");
                self.bus.clock.sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }

    /// Tells of events that the group does not get.
    fn tell(&self, from: Option<Position>, to: Option<Position>, reason: GapReason) {
        let gap = Gap { channel: Some(self.path.channel().clone()), from, to, reason };
        tracing::warn!(group = %self.path, ?gap, "events are missing");
        if let Some(on_gap) = &self.settings.on_gap {
            on_gap(&gap);
        }
    }

    /// Appends what those left who died between a settlement and what follows from it.
    async fn make_left_over(&mut self) {
        self.outbox_at = self.bus.clock.now().saturating_add(OUTBOX_EVERY);
        // A wake may have been lost as well.
        self.may_have_more = true;
        match outbox::left_over(&self.bus, &self.path).await {
            Ok(following) => self.to_make.extend(following),
            // Nobody is woken by a stream that was lost with its groups.
            Err(error) if error.kind() == ErrorKind::NotFound => self.start_over(&Over::NoGroup).await,
            Err(error) => {
                tracing::warn!(%error, group = %self.path, "the outbox of the group was not looked at")
            }
        }
    }

    /// Appends what follows from what was committed, beside the turns; a later turn removes it from the outbox.
    fn make(&mut self) {
        let following = std::mem::take(&mut self.to_make);
        if following.is_empty() {
            return;
        }
        let (bus, made, queue) = (self.bus.clone(), self.made.clone(), self.queue.clone());
        self.bus.tasks.spawn(async move {
            let keys = outbox::make(&bus, following).await;
            made.lock().extend(keys);
            queue.finished.notify_one();
        });
    }

    /// Waits for the handlers that have begun, hands the rest back, and ends the session.
    async fn leave(mut self) {
        let deadline = self.bus.clock.now().saturating_add(self.settings.stop_within);
        let stop = CancellationToken::new();
        stop.cancel();
        self.is_ending = true;
        let unchecked = std::mem::take(&mut self.unchecked).into_iter().map(|job| job.token);
        unchecked.chain(self.queue.take_back(|_| true)).for_each(|token| self.put_back(token));
        loop {
            self.settle_done();
            let now = self.bus.clock.now();
            if self.out_count == 0 || now >= deadline {
                break;
            }
            if now >= self.turned_at.saturating_add(self.lease / 3) {
                let turn = self.build(false);
                if !self.take(turn, &stop).await {
                    return self.shared.lost.cancel();
                }
                continue;
            }
            let renew = self.turned_at.saturating_add(self.lease / 3).min(deadline);
            tokio::select! {
                () = self.queue.finished.notified() => {}
                () = self.bus.clock.sleep(renew.since(now)) => {}
            }
        }
        // Those that go on all the same have lost their delivery: another attempt may begin at any time.
        self.shared.lost.cancel();
        self.queue.close();
        let turn = self.build(true);
        self.take(turn, &stop).await;
        self.make_last().await;
    }

    /// Appends what follows from the last turn; there is no later one to remove it from the outbox.
    async fn make_last(&mut self) {
        let mut keys = outbox::make(&self.bus, std::mem::take(&mut self.to_make)).await;
        keys.append(&mut self.made.lock());
        if keys.is_empty() {
            return;
        }
        let removes = keys.into_iter().map(|key| (Shelf::Outbox, key)).collect();
        let change = Change::Items { removes, puts: Vec::new() };
        if let Err(error) = self.bus.engine.log.group_change(&self.path, change).await {
            // The next session finds them; the ids that they were appended under are remembered.
            tracing::debug!(%error, group = %self.path, "appended events stay in the outbox");
        }
    }

    /// The engine's clock now, as far as ours tells.
    fn engine_now(&self) -> Timestamp {
        self.engine_time.saturating_add(self.bus.clock.now().since(self.turned_at))
    }

    /// A time of the engine's clock on ours.
    fn ours(&self, time: Timestamp) -> Timestamp {
        let ahead = time.since(self.engine_time);
        self.turned_at.saturating_add(ahead)
    }

    fn stored(&self, offset: u64) -> Position {
        Position { epoch: self.epoch, offset }
    }
}

fn share(bus: &Bus, path: &GroupPath, states: &States, settings: &Settings) -> Arc<Shared> {
    Arc::new(Shared {
        path: path.clone(),
        states: states.clone(),
        limits: bus.limits.clone(),
        lost: CancellationToken::new(),
        is_muted: settings.is_muted,
        unknown: settings.unknown,
        keys: bus.keys.clone(),
        clock: bus.clock.clone(),
    })
}
