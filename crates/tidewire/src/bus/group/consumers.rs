//! What the consumers of a node do, by group; kept though they have ended, so that no count goes down.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::breaker::{Breaker, BreakerState};
use super::counters::{ConsumerStats, Counters};
use crate::limits::STATS_GROUPS_MAX;
use crate::name::GroupPath;

/// What the consumers of one group on this node do and did.
#[derive(Debug, Clone)]
pub struct GroupActivity {
    /// The group; none for all those together that have no count of their own, past
    /// [`STATS_GROUPS_MAX`](crate::limits::STATS_GROUPS_MAX).
    pub group: Option<GroupPath>,
    /// How many consumers there are now.
    pub consumers: usize,
    /// Whether one of them holds deliveries back because handlers fail.
    pub breaker: BreakerState,
    /// What they and those before them did.
    pub stats: ConsumerStats,
}

/// The consumers of a node.
#[derive(Default)]
pub(crate) struct Consumers(Mutex<Known>);

#[derive(Default)]
struct Known {
    groups: FxHashMap<GroupPath, Counted>,
    rest: Counted,
}

#[derive(Default)]
struct Counted {
    /// What those did that have ended.
    past: ConsumerStats,
    live: Vec<Live>,
}

struct Live {
    counters: Arc<Counters>,
    breaker: Option<Breaker>,
}

impl Consumers {
    /// A consumer begins. At the bound a group that nobody consumes any more gives up its place.
    pub(super) fn begin(&self, group: &GroupPath, counters: &Arc<Counters>, breaker: Option<&Breaker>) {
        let mut known = self.0.lock();
        let Known { groups, rest } = &mut *known;
        if groups.len() >= STATS_GROUPS_MAX && !groups.contains_key(group) {
            let idle = groups.iter().find(|(_, counted)| counted.live.is_empty());
            let idle = idle.map(|(group, _)| group.clone());
            let left = idle.and_then(|group| groups.remove(&group));
            rest.past += left.map(|counted| counted.past).unwrap_or_default();
        }
        let counted = match groups.len() < STATS_GROUPS_MAX || groups.contains_key(group) {
            true => groups.entry(group.clone()).or_default(),
            false => rest,
        };
        counted.live.push(Live { counters: counters.clone(), breaker: breaker.cloned() });
    }

    /// A consumer has ended.
    pub(super) fn end(&self, group: &GroupPath, counters: &Arc<Counters>) {
        let mut known = self.0.lock();
        let Known { groups, rest } = &mut *known;
        for counted in groups.get_mut(group).into_iter().chain([rest]) {
            let before = counted.live.len();
            counted.live.retain(|live| !Arc::ptr_eq(&live.counters, counters));
            if counted.live.len() < before {
                counted.past += counters.stats();
            }
        }
    }

    /// What all of them do, group by group.
    pub(crate) fn activity(&self) -> Vec<GroupActivity> {
        let known = self.0.lock();
        let groups = known.groups.iter().map(|(group, counted)| counted.activity(Some(group.clone())));
        let rest = Some(known.rest.activity(None));
        let rest = rest.filter(|rest| rest.consumers > 0 || rest.stats != ConsumerStats::default());
        groups.chain(rest).collect()
    }
}

impl Counted {
    fn activity(&self, group: Option<GroupPath>) -> GroupActivity {
        let mut stats = self.past;
        self.live.iter().for_each(|live| stats += live.counters.stats());
        let states = self.live.iter().filter_map(|live| live.breaker.as_ref()).map(Breaker::state);
        let worst = states.max_by_key(|state| match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        });
        let breaker = worst.unwrap_or(BreakerState::Closed);
        GroupActivity { group, consumers: self.live.len(), breaker, stats }
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::add;
    use super::*;
    use crate::name::ChannelPath;

    fn group(number: usize) -> GroupPath {
        GroupPath::new(ChannelPath::new("test", "shop", "orders").unwrap(), &format!("g{number}")).unwrap()
    }

    fn busy() -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        add(&counters.acked, 1);
        counters
    }

    #[test]
    fn what_an_ended_consumer_did_stays_counted() {
        let consumers = Consumers::default();
        let (one, other) = (busy(), busy());
        consumers.begin(&group(1), &one, None);
        consumers.begin(&group(1), &other, None);
        consumers.end(&group(1), &one);
        add(&other.acked, 1);
        let activity = consumers.activity();
        assert_eq!(activity.len(), 1);
        assert_eq!((activity[0].consumers, activity[0].stats.acked), (1, 3));
    }

    #[test]
    fn groups_past_the_bound_are_counted_together() {
        let consumers = Consumers::default();
        let all: Vec<_> = (0..=STATS_GROUPS_MAX).map(|number| (group(number), busy())).collect();
        all.iter().for_each(|(group, counters)| consumers.begin(group, counters, None));
        let acked = |consumers: &Consumers| {
            let activity = consumers.activity();
            let rest = activity.iter().find(|activity| activity.group.is_none());
            let sum = activity.iter().map(|activity| activity.stats.acked).sum::<u64>();
            (activity.len(), rest.map(|rest| rest.stats.acked), sum)
        };
        let count = all.len() as u64;
        assert_eq!(acked(&consumers), (all.len(), Some(1), count));
        // Who has ended makes room, and nothing that it did is forgotten.
        all.iter().for_each(|(group, counters)| consumers.end(group, counters));
        consumers.begin(&group(usize::MAX), &busy(), None);
        assert_eq!(acked(&consumers), (all.len(), Some(2), count + 1));
    }
}
