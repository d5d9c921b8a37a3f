//! The rota as a simulation of its own time, and the pool on a virtual clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;

const MS: Duration = Duration::from_millis(1);

/// Members that always have somebody waiting, and slots that take a time of their member's.
struct Simulation {
    rota: Rota<()>,
    now: Duration,
    /// When a slot comes back, by number of its start.
    ends: BinaryHeap<Reverse<(Duration, u64)>>,
    running: BTreeMap<u64, Grant>,
    takes: BTreeMap<MemberId, Duration>,
    starts: BTreeMap<MemberId, u64>,
    used: BTreeMap<MemberId, Duration>,
    started: u64,
}

impl Simulation {
    fn new(slots: usize) -> Self {
        Self {
            rota: Rota::new(slots),
            now: Duration::ZERO,
            ends: BinaryHeap::new(),
            running: BTreeMap::new(),
            takes: BTreeMap::new(),
            starts: BTreeMap::new(),
            used: BTreeMap::new(),
            started: 0,
        }
    }

    fn member(&mut self, weight: u32, concurrency_max: usize, takes: Duration) -> MemberId {
        let member = self.rota.join(weight, concurrency_max);
        self.takes.insert(member, takes);
        member
    }

    /// Takes what is free, and so many wait for a slot from now on.
    fn ask(&mut self, member: MemberId, count: usize) {
        while let Some(grant) = self.rota.start(member, self.now) {
            self.begin(grant);
        }
        for _ in 0..count {
            self.rota.ask(member, ());
        }
    }

    fn begin(&mut self, grant: Grant) {
        let takes = self.takes[&grant.member];
        self.started += 1;
        *self.starts.entry(grant.member).or_default() += 1;
        *self.used.entry(grant.member).or_default() += takes;
        self.ends.push(Reverse((self.now + takes, self.started)));
        self.running.insert(self.started, grant);
    }

    /// Lets one slot come back and tells who started then; who started asks for another.
    fn step(&mut self) -> Vec<MemberId> {
        let Some(Reverse((end, number))) = self.ends.pop() else { return Vec::new() };
        self.now = end;
        self.rota.finish(self.running.remove(&number).unwrap(), self.now);
        let mut started = Vec::new();
        while let Some(((), grant)) = self.rota.next(self.now) {
            started.push(grant.member);
            self.rota.ask(grant.member, ());
            self.begin(grant);
        }
        started
    }

    fn run_until(&mut self, time: Duration) {
        while self.now < time && !self.ends.is_empty() {
            self.step();
        }
    }

    fn used(&self, member: MemberId) -> f64 {
        self.used.get(&member).copied().unwrap_or_default().as_secs_f64()
    }
}

#[test]
fn members_that_compete_share_the_time_by_weight_however_long_their_handlers_take() {
    for (heavy_takes, light_takes) in [(10, 10), (1, 50), (50, 1)] {
        let mut simulation = Simulation::new(8);
        let heavy = simulation.member(3, usize::MAX, heavy_takes * MS);
        let light = simulation.member(1, usize::MAX, light_takes * MS);
        simulation.ask(heavy, 20);
        simulation.ask(light, 20);
        simulation.run_until(Duration::from_secs(10));
        let ratio = simulation.used(heavy) / simulation.used(light);
        assert!((2.9..3.1).contains(&ratio), "{heavy_takes} ms and {light_takes} ms: {ratio}");
    }
}

#[test]
fn an_idle_member_leaves_everything_to_the_others_and_saves_nothing_up() {
    let mut simulation = Simulation::new(4);
    let busy = simulation.member(1, usize::MAX, 10 * MS);
    let idle = simulation.member(1, usize::MAX, 10 * MS);
    simulation.ask(busy, 10);
    simulation.run_until(Duration::from_secs(10));
    assert!(simulation.used(busy) >= 39.9, "all four slots were in use");
    let before = simulation.used(busy);
    simulation.ask(idle, 10);
    simulation.run_until(Duration::from_secs(20));
    let (busy, idle) = (simulation.used(busy) - before, simulation.used(idle));
    assert!((idle / busy - 1.0).abs() < 0.02, "from then on they are equal: {busy} and {idle}");
}

#[test]
fn a_member_at_its_cap_of_concurrency_holds_up_nobody() {
    let mut simulation = Simulation::new(8);
    let capped = simulation.member(1_000, 2, 10 * MS);
    let other = simulation.member(1, usize::MAX, 10 * MS);
    simulation.ask(capped, 50);
    simulation.ask(other, 50);
    simulation.run_until(Duration::from_secs(10));
    assert!((simulation.used(capped) - 20.0).abs() < 0.2, "it has two slots, and always those");
    assert!((simulation.used(other) - 60.0).abs() < 0.6);
}

#[test]
fn ten_thousand_members_have_equal_shares() {
    let mut simulation = Simulation::new(64);
    let members: Vec<MemberId> = (0..10_000).map(|_| simulation.member(1, usize::MAX, MS)).collect();
    members.iter().for_each(|member| simulation.ask(*member, 2));
    for _ in 0..50_000 {
        simulation.step();
    }
    let first = simulation.starts.remove(&members[0]);
    assert_eq!(first, Some(64), "it had all slots while it was alone, and then waits for the others");
    assert_eq!(simulation.starts.len(), members.len() - 1);
    let (least, most) = (simulation.starts.values().min(), simulation.starts.values().max());
    assert!(most.unwrap() - least.unwrap() <= 1, "{least:?} to {most:?}");
}

proptest! {
    #[test]
    fn who_was_idle_has_the_next_slot_that_is_free(
        slots in 1_usize..8,
        times in proptest::collection::vec((1_u32..200, 1_u32..200), 1..200),
        weights in (1_u32..1_000, 1_u32..1_000),
    ) {
        let mut simulation = Simulation::new(slots);
        let flooding = simulation.member(weights.0, usize::MAX, MS);
        let other = simulation.member(weights.1, usize::MAX, MS);
        simulation.ask(flooding, 100);
        for (first, then) in times {
            simulation.takes.insert(flooding, first * MS);
            (0..slots).for_each(|_| drop(simulation.step()));
            simulation.takes.insert(flooding, then * MS);
            simulation.step();
        }
        simulation.ask(other, 1);
        prop_assert_eq!(simulation.step(), [other]);
    }
}

fn pool(concurrency: usize) -> (Pool, Clock) {
    let clock = Clock::virtual_at(Timestamp::default());
    (Pool::new(concurrency, clock.clone()), clock)
}

/// Slots that a member has at once, which stay in use.
fn take_all(member: &Member) -> Vec<Slot> {
    std::iter::from_fn(|| member.slot().now_or_never()).take(1_000).collect()
}

#[test]
fn a_rate_is_kept_after_a_burst_and_holds_up_nobody() {
    let (pool, clock) = pool(1_000);
    let rate = Rate { per_second: 10.0, burst: 3 };
    let slow = pool.member(Share { rate_max: Some(rate), ..Share::default() });
    assert_eq!(take_all(&slow).len(), 3);
    for _ in 0..50 {
        clock.advance(99 * MS);
        assert_eq!(take_all(&slow).len(), 0);
        clock.advance(MS);
        assert_eq!(take_all(&slow).len(), 1);
    }
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(take_all(&slow).len(), 3, "a pause saves up no more than the burst");
    let other = pool.member(Share::default());
    assert_eq!(take_all(&other).len(), 1_000, "all slots are free again");
}

#[tokio::test]
async fn who_waits_for_its_rate_is_woken_by_the_clock() {
    let (pool, clock) = pool(1);
    let rate = Rate { per_second: 10_000.0, burst: 0 };
    let member = pool.member(Share { rate_max: Some(rate), ..Share::default() });
    assert_eq!(std::iter::from_fn(|| member.slot().now_or_never()).take(100).count(), 10, "a millisecond's");
    let (_slot, ()) = tokio::join!(member.slot(), async { clock.advance(MS) });
}

#[test]
fn a_wait_that_is_given_up_takes_no_slot_and_no_place() {
    let (pool, _clock) = pool(1);
    let (first, second) = (pool.member(Share::default()), pool.member(Share::default()));
    let slot = first.slot().now_or_never().expect("a free slot");
    let mut given_up = Box::pin(second.slot());
    assert!(given_up.as_mut().now_or_never().is_none());
    let mut given_to = Box::pin(second.slot());
    assert!(given_to.as_mut().now_or_never().is_none());
    drop(given_up);
    drop(slot);
    // The slot is on its way to a future that nobody polls any more.
    assert!(first.slot().now_or_never().is_none());
    drop(given_to);
    assert!(first.slot().now_or_never().is_some());
    assert_eq!(format!("{pool:?}"), "Pool(1 free)");
}

#[test]
fn slots_go_round_among_all_who_wait() {
    let (pool, clock) = pool(3);
    let capped = Share { concurrency_max: Some(1), weight: 9, ..Share::default() };
    let members: Vec<Member> =
        (0..10).map(|n| pool.member(if n % 2 == 0 { capped } else { Share::default() })).collect();
    let rounds = members.iter().flat_map(|member| std::iter::repeat_n(member, 5)).map(|member| {
        let clock = &clock;
        async move {
            for _ in 0..20 {
                let _slot = member.slot().await;
                clock.sleep(MS).await; // tidy: on the virtual clock
            }
        }
    });
    let mut all = std::pin::pin!(futures_util::future::join_all(rounds));
    let mut ticks = 0;
    while all.as_mut().now_or_never().is_none() {
        clock.advance(MS);
        ticks += 1;
        assert!(ticks < 2_000, "somebody is held up");
    }
    assert!(ticks >= 1_000 / 3, "three at a time");
}

#[test]
fn a_member_that_is_dropped_is_forgotten() {
    let (pool, _clock) = pool(2);
    let member = pool.member(Share::default());
    let slot = member.slot().now_or_never().expect("a free slot");
    drop(member);
    drop(slot);
    assert_eq!(take_all(&pool.member(Share::default())).len(), 2);
}
