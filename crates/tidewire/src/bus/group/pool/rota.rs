//! Who is next: start-time fair queueing over the time that slots are used.
//!
//! Goyal, Vin, Cheng: *Start-time Fair Queueing* (SIGCOMM 1996), with one change: how long a slot will be used is not known
//! when it starts, so a member is charged what its slots usually take, and the difference when the slot comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::FxHashMap;

/// What a slot is expected to take before any was given back.
const TYPICAL: Duration = Duration::from_millis(1);

/// Members and their turns; `W` is what waits for a slot. Every call takes O(log n) of the members and what waits.
pub(super) struct Rota<W> {
    free: usize,
    members: FxHashMap<MemberId, Entrant<W>>,
    /// Members that have somebody waiting and room for one more.
    ready: BTreeSet<Place>,
    /// The same by the charge that they cannot come below, whatever the slots that they have will take.
    floors: BTreeSet<(Charge, MemberId)>,
    /// How far members are served: the largest charge that one had when it started.
    served: Charge,
    typical: Duration,
    /// Counts starts.
    starts: u64,
    /// Counts members and tickets.
    last_id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MemberId(u64);

/// A place in a member's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// A slot that was given out.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) member: MemberId,
    started: Duration,
    expected: Charge,
}

/// Time used, divided by the weight: thousandths of nanoseconds. 128 bits, so that it never comes to its end.
type Charge = u128;

/// The order in which members are next: the least charged, and among equals who has waited longest since it started one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    charged: Charge,
    last_start: u64,
    member: MemberId,
}

struct Entrant<W> {
    weight: u32,
    concurrency_max: usize,
    running: usize,
    charged: Charge,
    /// How much of that is for slots that have not come back.
    expected: Charge,
    last_start: u64,
    /// What its slots take, the newest counting most; `None` before the first.
    typical: Option<Duration>,
    waiting: BTreeMap<Ticket, W>,
}

impl<W> Entrant<W> {
    fn has_room(&self) -> bool {
        self.running < self.concurrency_max
    }

    fn place(&self, member: MemberId) -> Option<Place> {
        let is_ready = self.has_room() && !self.waiting.is_empty();
        is_ready.then_some(Place { charged: self.charged, last_start: self.last_start, member })
    }

    fn floor(&self, member: MemberId) -> (Charge, MemberId) {
        (self.charged.saturating_sub(self.expected), member)
    }

    fn charge(&self, used: Duration) -> Charge {
        used.as_nanos() * 1_000 / Charge::from(self.weight)
    }
}

impl<W> Rota<W> {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            free: slots,
            members: FxHashMap::default(),
            ready: BTreeSet::new(),
            floors: BTreeSet::new(),
            served: 0,
            typical: TYPICAL,
            starts: 0,
            last_id: 0,
        }
    }

    pub(super) fn free(&self) -> usize {
        self.free
    }

    pub(super) fn join(&mut self, weight: u32, concurrency_max: usize) -> MemberId {
        let entrant = Entrant {
            weight,
            concurrency_max,
            running: 0,
            charged: 0,
            expected: 0,
            last_start: 0,
            typical: None,
            waiting: BTreeMap::new(),
        };
        let id = MemberId(self.fresh_id());
        self.members.insert(id, entrant);
        id
    }

    /// Forgets a member that has nobody waiting and no slot.
    pub(super) fn leave(&mut self, member: MemberId) {
        self.members.remove(&member);
    }

    /// Starts one at once, if nobody is before it.
    pub(super) fn start(&mut self, member: MemberId, now: Duration) -> Option<Grant> {
        if self.free == 0 || !self.ready.is_empty() || !self.members.get(&member)?.has_room() {
            return None;
        }
        let served = self.served;
        self.change(member, |entrant| entrant.charged = entrant.charged.max(served));
        self.grant(member, now)
    }

    /// Puts one into the member's line.
    pub(super) fn ask(&mut self, member: MemberId, waiter: W) -> Ticket {
        let ticket = Ticket(self.fresh_id());
        self.change(member, |entrant| {
            entrant.waiting.insert(ticket, waiter);
        });
        ticket
    }

    /// Takes one out of the line again; false if it is not in it any more.
    pub(super) fn withdraw(&mut self, member: MemberId, ticket: Ticket) -> bool {
        self.change(member, |entrant| entrant.waiting.remove(&ticket)).flatten().is_some()
    }

    /// Starts who is next, if a slot is free and somebody may have it.
    pub(super) fn next(&mut self, now: Duration) -> Option<(W, Grant)> {
        if self.free == 0 {
            return None;
        }
        let Place { member, .. } = *self.ready.first()?;
        let (_, waiter) = self.change(member, |entrant| entrant.waiting.pop_first()).flatten()?;
        Some((waiter, self.grant(member, now)?))
    }

    /// A slot comes back.
    pub(super) fn finish(&mut self, grant: Grant, now: Duration) {
        let Grant { member, started, expected } = grant;
        let used = now.saturating_sub(started);
        self.free += 1;
        self.typical = (self.typical * 63 + used) / 64;
        self.change(member, |entrant| {
            entrant.running -= 1;
            entrant.typical = Some(entrant.typical.map_or(used, |typical| (typical * 7 + used) / 8));
            entrant.charged = (entrant.charged + entrant.charge(used)).saturating_sub(expected);
            entrant.expected -= expected;
        });
    }

    fn grant(&mut self, member: MemberId, now: Duration) -> Option<Grant> {
        self.starts += 1;
        let (starts, typical) = (self.starts, self.typical);
        let (before, expected) = self.change(member, |entrant| {
            let (before, expected) = (entrant.charged, entrant.charge(entrant.typical.unwrap_or(typical)));
            entrant.running += 1;
            entrant.charged += expected;
            entrant.expected += expected;
            entrant.last_start = starts;
            (before, expected)
        })?;
        self.served = self.served.max(before);
        self.free -= 1;
        Some(Grant { member, started: now, expected })
    }

    /// Changes a member and keeps its place up to date. One that becomes ready begins where the others are, at most.
    fn change<T>(&mut self, member: MemberId, change: impl FnOnce(&mut Entrant<W>) -> T) -> Option<T> {
        let entrant = self.members.get_mut(&member)?;
        let (before, floor) = (entrant.place(member), entrant.floor(member));
        let changed = change(entrant);
        if let Some(place) = &before {
            self.ready.remove(place);
            self.floors.remove(&floor);
        } else if entrant.place(member).is_some() {
            // Not where the others stand: they may come to stand lower when what they have used is known.
            let others = self.floors.first().map_or(self.served, |(floor, _)| self.served.min(*floor));
            entrant.charged = entrant.charged.max(others);
        }
        if let Some(place) = entrant.place(member) {
            self.ready.insert(place);
            self.floors.insert(entrant.floor(member));
        }
        Some(changed)
    }

    fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}
