//! Deliveries that were fetched over HTTP and are not settled: which lease holds them, and until when.
//!
//! A group that is fetched from has one consumer on this node. It lives while somebody waits for deliveries or holds some;
//! a while after that it stops and hands back what it has taken ahead, so that other nodes get it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tidewire::name::GroupPath;
use tidewire::tasks::Tasks;
use tidewire::{Clock, Deliveries, Group, Outcome, Position, Pulled, Settling, Timestamp};
use tokio::sync::Notify;
use uuid::Uuid;

/// How long a consumer that nobody fetches from goes on.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Deliveries that a consumer takes ahead of those who fetch, at first.
const TAKEN_AHEAD: usize = 32;
/// Groups that are fetched from at a time on a node.
const GROUPS_MAX: usize = 10_000;
/// Bytes of data in one answer.
const BYTES_MAX: usize = 4 * 1024 * 1024;

type ByGroup = FxHashMap<GroupPath, Arc<Pull>>;

/// The consumers of a node that are fetched from.
pub(crate) struct Pulls {
    by_group: Arc<Mutex<ByGroup>>,
    tasks: Tasks,
    clock: Clock,
}

/// One consumer and the leases of those who fetched from it.
struct Pull {
    deliveries: Deliveries,
    held: Mutex<Held>,
    changed: Notify,
}

struct Held {
    leases: BTreeMap<Uuid, Lease>,
    /// Requests that wait for deliveries.
    waiting: usize,
    /// When the last of those ended.
    used: Timestamp,
}

struct Lease {
    deadline: Timestamp,
    deliveries: BTreeMap<(u64, u64), Pulled>,
}

/// A request that waits for deliveries; its consumer does not stop meanwhile.
struct Waiting<'c> {
    pull: Arc<Pull>,
    clock: &'c Clock,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut held = self.pull.held.lock();
        held.waiting -= 1;
        held.used = self.clock.now();
        drop(held);
        self.pull.changed.notify_one();
    }
}

/// Deliveries of a fetch.
pub(crate) struct Fetch {
    pub(crate) lease: Uuid,
    pub(crate) deliveries: Vec<tidewire::Delivery>,
}

/// What a settlement found under its lease, and what it did not.
pub(crate) struct Answered {
    /// Those on their way to be kept.
    pub(crate) settling: Vec<(Position, Settling)>,
    pub(crate) lost: Vec<Position>,
}

/// What is held under a lease and what is not.
pub(crate) struct Kept {
    pub(crate) held: Vec<Position>,
    pub(crate) lost: Vec<Position>,
}

impl Pulls {
    pub(crate) fn new(tasks: Tasks, clock: Clock) -> Self {
        Self { by_group: Arc::default(), tasks, clock }
    }

    /// Takes up to `limit` deliveries for `lease`, waiting up to `wait` for the first one; `None` if there was none.
    pub(crate) async fn fetch(
        &self,
        group: &Group,
        limit: usize,
        wait: Duration,
        lease: Duration,
    ) -> tidewire::Result<Option<Fetch>> {
        let waiting = self.open(group).await?;
        let pull = &waiting.pull;
        let first = tokio::select! {
            biased;
            first = pull.deliveries.next() => first,
            () = self.clock.sleep(wait) => None,
        };
        let Some(first) = first else { return Ok(None) };
        let mut bytes = first.delivery().event().data().len();
        let mut pulled = vec![first];
        while pulled.len() < limit
            && bytes < BYTES_MAX
            && let Some(next) = pull.deliveries.try_next()
        {
            bytes += next.delivery().event().data().len();
            pulled.push(next);
        }
        let deliveries = pulled.iter().map(|pulled| pulled.delivery().clone()).collect();
        let held = pulled.into_iter().map(|pulled| (key(pulled.delivery().position()), pulled));
        let deadline = self.clock.now().saturating_add(lease);
        let id = Uuid::now_v7();
        pull.held.lock().leases.insert(id, Lease { deadline, deliveries: held.collect() });
        Ok(Some(Fetch { lease: id, deliveries }))
    }

    /// Settles deliveries of a lease; gives those that are on their way to be kept, and those that are not held under it.
    /// `None` if there is no such lease.
    pub(crate) fn settle(
        &self,
        group: &GroupPath,
        lease: Uuid,
        outcomes: Vec<(Position, Outcome)>,
    ) -> Option<Answered> {
        let pull = self.by_group.lock().get(group).cloned()?;
        let mut held = pull.held.lock();
        let entry = held.leases.get_mut(&lease)?;
        let (mut settling, mut lost) = (Vec::new(), Vec::new());
        for (position, outcome) in outcomes {
            match entry.deliveries.remove(&key(position)) {
                Some(pulled) if !pulled.delivery().lost().is_cancelled() => {
                    settling.push((position, pulled.settled(outcome)));
                }
                _ => lost.push(position),
            }
        }
        if entry.deliveries.is_empty() {
            held.leases.remove(&lease);
            held.used = self.clock.now();
        }
        drop(held);
        pull.changed.notify_one();
        Some(Answered { settling, lost })
    }

    /// Holds what a lease has for `time` from now. `None` if there is no such lease.
    pub(crate) fn extend(&self, group: &GroupPath, lease: Uuid, time: Duration) -> Option<Kept> {
        let pull = self.by_group.lock().get(group).cloned()?;
        let mut held = pull.held.lock();
        let entry = held.leases.get_mut(&lease)?;
        entry.deadline = self.clock.now().saturating_add(time);
        let is_lost = |_: &(u64, u64), pulled: &mut Pulled| pulled.delivery().lost().is_cancelled();
        let lost = entry.deliveries.extract_if(.., is_lost);
        let lost = lost.map(|(_, pulled)| pulled.delivery().position()).collect();
        let kept = entry.deliveries.values().map(|pulled| pulled.delivery().position()).collect();
        drop(held);
        pull.changed.notify_one();
        Some(Kept { held: kept, lost })
    }

    /// Ends the consumer of a group that is to be deleted, which would make it again.
    pub(crate) async fn stop(&self, group: &GroupPath) {
        let pull = self.by_group.lock().remove(group);
        if let Some(pull) = pull {
            pull.held.lock().leases.clear();
            pull.deliveries.consumer().stop().await;
        }
    }

    /// The consumer of a group, begun if there is none.
    async fn open(&self, group: &Group) -> tidewire::Result<Waiting<'_>> {
        if let Some(waiting) = self.enter(group.path(), None)? {
            return Ok(waiting);
        }
        // Tells how many partitions it has, and that it is there at all: a fetch makes no group.
        let partitions = group.status().await?.partitions;
        let group = if partitions == 0 { group.clone() } else { group.clone().ordered(partitions) };
        let deliveries = group.consume().concurrency(TAKEN_AHEAD).verified().deliveries().await?;
        let held = Held { leases: BTreeMap::new(), waiting: 0, used: self.clock.now() };
        let pull = Arc::new(Pull { deliveries, held: Mutex::new(held), changed: Notify::new() });
        let waiting = self.enter(group.path(), Some(&pull))?;
        let waiting = waiting.ok_or_else(|| {
            let text = format!("node has {GROUPS_MAX} groups that are fetched from, the most there may be");
            tidewire::Error::new(tidewire::ErrorKind::Backpressure, text)
        })?;
        if Arc::ptr_eq(&waiting.pull, &pull) {
            let (by_group, clock, path) = (self.by_group.clone(), self.clock.clone(), group.path().clone());
            let stop = self.tasks.stopping().clone();
            self.tasks.spawn(async move {
                stop.run_until_cancelled(pull.watch(&clock, &by_group, &path)).await;
                // What is held is handed back: whoever has it is told so when it settles.
                pull.leave(&mut by_group.lock(), &path);
                pull.held.lock().leases.clear();
            });
        }
        Ok(waiting)
    }

    /// Marks a request as waiting at the consumer that is there, else at `new`, which is put there if there is room.
    fn enter(&self, path: &GroupPath, new: Option<&Arc<Pull>>) -> tidewire::Result<Option<Waiting<'_>>> {
        let mut by_group = self.by_group.lock();
        let pull = match (by_group.get(path), new) {
            (Some(pull), _) => pull.clone(),
            (None, Some(new)) if by_group.len() < GROUPS_MAX => {
                by_group.insert(path.clone(), new.clone());
                new.clone()
            }
            _ => return Ok(None),
        };
        pull.held.lock().waiting += 1;
        drop(by_group);
        Ok(Some(Waiting { pull, clock: &self.clock }))
    }
}

impl Pull {
    /// Goes off the list, if it is not another one that is there by now.
    fn leave(&self, by_group: &mut ByGroup, path: &GroupPath) {
        if by_group.get(path).is_some_and(|there| std::ptr::eq(&**there, self)) {
            by_group.remove(path);
        }
    }

    /// Abandons what leases hold over their time, until nobody uses the consumer any more; then takes it off the list.
    async fn watch(&self, clock: &Clock, by_group: &Mutex<ByGroup>, path: &GroupPath) {
        loop {
            let wake = {
                let mut by_group = by_group.lock();
                let mut held = self.held.lock();
                let now = clock.now();
                held.end_leases(now);
                if held.is_idle() && now >= held.used.saturating_add(IDLE_MAX) {
                    self.leave(&mut by_group, path);
                    return;
                }
                let idle = held.is_idle().then(|| held.used.saturating_add(IDLE_MAX));
                let next = held.leases.values().map(|lease| lease.deadline).chain(idle).min();
                next.map(|at| at.since(now))
            };
            match wake {
                None => self.changed.notified().await,
                Some(wake) => tokio::select! {
                    () = clock.sleep(wake) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }
}

impl Held {
    fn is_idle(&self) -> bool {
        self.waiting == 0 && self.leases.is_empty()
    }

    fn end_leases(&mut self, now: Timestamp) {
        let over = self.leases.extract_if(.., |_, lease| lease.deadline <= now);
        let abandoned = over.flat_map(|(_, lease)| lease.deliveries.into_values());
        let count = abandoned.map(Pulled::abandon).count();
        if count > 0 {
            self.used = now;
        }
    }
}

fn key(position: Position) -> (u64, u64) {
    (position.epoch.as_u64(), position.offset)
}
