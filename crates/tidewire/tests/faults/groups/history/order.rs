//! Events of one key are handled one at a time and in their order.

use std::collections::BTreeMap;

use super::super::notes::{Place, Said, Sort};
use super::super::plan::ATTEMPTS_MAX;
use super::{Effect, Facts, History};
use crate::schedule::Loss;

/// How far a key is.
#[derive(Default)]
struct Key<'f, 'a> {
    fence: u64,
    /// The newest attempt at each of its events, but for those of processes that had lost them.
    newest: BTreeMap<Place, &'f Effect<'a>>,
}

impl History<'_> {
    pub(super) fn check_order(&self, facts: &Facts<'_>, found: &mut Vec<String>) {
        let mut keys: BTreeMap<u64, Key<'_, '_>> = BTreeMap::new();
        let mut of_key: BTreeMap<u64, Vec<Place>> = BTreeMap::new();
        for (place, (sort, number)) in &facts.published {
            if *sort != Sort::Garbage {
                of_key.entry(self.plan.key(*number)).or_default().push(*place);
            }
        }
        for effect in &facts.effects {
            let number = self.plan.key(effect.attempt.number);
            let key = keys.entry(number).or_default();
            if effect.attempt.fence < key.fence {
                // It goes on with what it had: its fence says so to whoever it writes to.
                if !facts.is_troubled(effect.attempt.process, 0, effect.begin) {
                    found.push(format!(
                        "{:?} begins behind fence {} for no reason",
                        effect.attempt, key.fence
                    ));
                }
                continue;
            }
            self.check_alone(facts, key, effect, found);
            if self.loss == Loss::Nothing {
                let places = of_key.get(&number).map(Vec::as_slice).unwrap_or_default();
                self.check_those_before(facts, key, places, effect, found);
            }
            key.fence = effect.attempt.fence;
            key.newest.insert(effect.attempt.place, effect);
        }
    }

    /// No other attempt of the key goes on.
    fn check_alone(
        &self,
        facts: &Facts<'_>,
        key: &Key<'_, '_>,
        effect: &Effect<'_>,
        found: &mut Vec<String>,
    ) {
        for other in key.newest.values() {
            let (process, line) = (other.attempt.process, effect.begin);
            let is_over = other.end.is_some_and(|(end, _)| end < line)
                || facts.ended.get(&process).is_some_and(|ended| *ended < line);
            let is_fenced =
                other.attempt.fence < effect.attempt.fence && facts.is_troubled(process, other.begin, line);
            if !is_over && !is_fenced {
                found.push(format!("{:?} begins beside {:?}", effect.attempt, other.attempt));
            }
        }
    }

    /// Those before it are done with.
    fn check_those_before(
        &self,
        facts: &Facts<'_>,
        key: &Key<'_, '_>,
        places: &[Place],
        effect: &Effect<'_>,
        found: &mut Vec<String>,
    ) {
        for place in places.iter().take_while(|place| **place < effect.attempt.place) {
            let newest = key.newest.get(place);
            let is_last = facts.of_place(*place).all(|other| other.begin < effect.begin);
            let is_done = match newest
                .and_then(|newest| newest.end.map(|(_, said)| (said, newest.attempt.attempt)))
            {
                Some((Said::Ack | Said::Reject, _)) => true,
                Some((Said::Retry, attempt)) if attempt >= ATTEMPTS_MAX => true,
                // Its process ended with it, or it was never handed out.
                Some(_) | None => {
                    is_last
                        && (self.is_dead(*place) || facts.is_told(*place) || self.was_dropped(facts, *place))
                }
            };
            if !is_done {
                let before = newest.map(|newest| (newest.attempt, newest.end));
                found.push(format!("{:?} begins before {place:?} is done: {before:?}", effect.attempt));
            }
        }
    }

    /// Whether it was handled at another place before, and is not to be handled again.
    fn was_dropped(&self, facts: &Facts<'_>, place: Place) -> bool {
        let number = facts.published.get(&place).map(|(_, number)| *number);
        self.kind.is_dedup
            && facts.effects.iter().any(|effect| {
                Some(effect.attempt.number) == number
                    && effect.attempt.place < place
                    && matches!(effect.end, Some((_, Said::Ack)))
            })
    }
}
