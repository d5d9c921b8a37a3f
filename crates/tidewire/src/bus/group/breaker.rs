//! The circuit breaker: while what handlers depend on is down, deliveries wait and burn no attempt.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::outcome::Outcome;
use crate::circuit::{Admission, Circuit, Period, Sign};
use crate::clock::Clock;
use crate::name::GroupPath;

/// When a group stops handing out deliveries because handlers fail, and when it goes on. Each process judges by its own
/// handlers.
///
/// A failure is a retry: of an error, a panic, or a handler that took too long. An ack is a success. Everything else says
/// nothing of what handlers depend on, and is not counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaking {
    /// Outcomes that are looked at, the newest; 20, at most 1,000.
    pub window_count: usize,
    /// With fewer failures among them it stays closed; 10, at most [`window_count`](Self::window_count).
    pub failures_min: usize,
    /// With a lower share of failures among them it stays closed, 0.0 to 1.0; 0.5.
    pub failure_ratio: f64,
    /// How long it is open before deliveries are tried again; 10 s.
    pub open_for: Duration,
    /// Deliveries that are tried at the same time then; 1.
    pub probes_max: usize,
    /// Successes in a row after which it is closed again; 3. The first failure opens it again.
    pub successes_to_close: usize,
}

impl Default for Breaking {
    fn default() -> Self {
        Self {
            window_count: 20,
            failures_min: 10,
            failure_ratio: 0.5,
            open_for: Duration::from_secs(10),
            probes_max: 1,
            successes_to_close: 3,
        }
    }
}

impl Breaking {
    /// The longest window: past it a group that begins to fail would be noticed late.
    pub const WINDOW_MAX: usize = 1_000;
}

/// What a breaker does with deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// They are handed out.
    Closed,
    /// They wait.
    Open,
    /// A few are tried, the others wait.
    HalfOpen,
}

/// The breaker of a group on one process. Clones share it.
#[derive(Clone)]
pub(super) struct Breaker(Arc<Shared>);

struct Shared {
    group: GroupPath,
    clock: Clock,
    circuit: Mutex<Circuit>,
    /// Who waits may look again.
    changed: Notify,
}

/// Leave to hand out one delivery. Dropped without an outcome, it says nothing of the handlers.
#[must_use = "a pass that is dropped gives the leave back"]
pub(super) struct Pass {
    breaker: Breaker,
    period: Period,
    sign: Sign,
}

impl Breaker {
    pub(super) fn new(breaking: Breaking, group: GroupPath, clock: Clock) -> Self {
        let (circuit, changed) = (Mutex::new(Circuit::new(breaking)), Notify::new());
        Self(Arc::new(Shared { group, clock, circuit, changed }))
    }

    /// Waits until a delivery may be handed out. To be asked when there is one, for leave that lies about outlives its
    /// time. Dropping the future takes nothing.
    pub(super) async fn pass(&self) -> Pass {
        let Shared { clock, circuit, changed, .. } = &*self.0;
        loop {
            let now = clock.now();
            // Made before the look, so that no change after it is missed.
            let change = changed.notified();
            let admission = circuit.lock().admit(now);
            match admission {
                Admission::Go(period) => {
                    return Pass { breaker: self.clone(), period, sign: Sign::Neither };
                }
                Admission::WaitUntil(time) => tokio::select! {
                    () = clock.sleep(time.since(now)) => {}
                    () = change => {}
                },
                Admission::Wait => change.await,
            }
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.0.circuit.lock().state()
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Breaker({}, {:?})", self.0.group, self.state())
    }
}

impl Pass {
    /// Whether the breaker is as it was when the pass was given.
    pub(super) fn is_current(&self) -> bool {
        self.breaker.0.circuit.lock().is_current(self.period)
    }

    /// Tells what became of the delivery.
    pub(super) fn end(mut self, outcome: &Outcome) {
        self.sign = match outcome {
            Outcome::Ack => Sign::Success,
            Outcome::Retry { .. } => Sign::Failure,
            Outcome::Reject { .. } | Outcome::Park { .. } | Outcome::HandBack => Sign::Neither,
        };
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Shared { group, clock, circuit, changed } = &*self.breaker.0;
        let mut circuit = circuit.lock();
        let before = circuit.state();
        circuit.record(self.period, self.sign, clock.now());
        let after = circuit.state();
        drop(circuit);
        if before != after {
            tracing::warn!(%group, ?before, ?after, "the breaker of a group has changed");
        }
        if before != BreakerState::Closed {
            changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
