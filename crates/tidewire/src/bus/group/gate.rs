//! What a delivery waits for before its handler begins: the breaker of the group, and a slot of a pool.

use super::breaker::{Breaker, BreakerState, Pass};
use super::outcome::Outcome;
use super::pool::{Member, Slot};

/// What holds back the handlers of a consumer.
#[derive(Default)]
pub(super) struct Gate {
    pub(super) breaker: Option<Breaker>,
    pub(super) member: Option<Member>,
}

/// Leave to handle one delivery; dropping it gives back what it took.
#[must_use = "leave that is dropped is given back"]
pub(super) struct Leave {
    pass: Option<Pass>,
    _slot: Option<Slot>,
}

impl Gate {
    /// Whether nothing ever waits here.
    pub(super) fn is_open(&self) -> bool {
        self.breaker.is_none() && self.member.is_none()
    }

    /// Waits until a handler may begin. Dropping the future takes nothing.
    pub(super) async fn leave(&self) -> Leave {
        loop {
            // Nobody holds a slot, which others could use, while the breaker is open.
            let pass = match &self.breaker {
                Some(breaker) => Some(breaker.pass().await),
                None => None,
            };
            let slot = match &self.member {
                Some(member) => Some(member.slot().await),
                None => None,
            };
            // It may have opened while the slot was waited for.
            if pass.as_ref().is_none_or(Pass::is_current) {
                return Leave { pass, _slot: slot };
            }
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.breaker.as_ref().map_or(BreakerState::Closed, Breaker::state)
    }
}

impl Leave {
    /// Tells what became of the delivery.
    pub(super) fn end(self, outcome: &Outcome) {
        if let Some(pass) = self.pass {
            pass.end(outcome);
        }
    }
}
