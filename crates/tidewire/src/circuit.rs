//! The state of a circuit breaker, without time and waiting of its own: for what a group's consumers do not cover.

use std::collections::VecDeque;

use crate::bus::{BreakerState, Breaking};
use crate::clock::Timestamp;

/// A breaker that is told the time and what became of what it let go.
///
/// ```
/// use tidewire::circuit::{Admission, Circuit, Sign};
/// use tidewire::{BreakerState, Breaking, Timestamp};
///
/// let breaking = Breaking { window_count: 1, failures_min: 1, ..Breaking::default() };
/// let (mut circuit, now) = (Circuit::new(breaking), Timestamp::from_millis(0));
/// if let Admission::Go(period) = circuit.admit(now) {
///     circuit.record(period, Sign::Failure, now);
/// }
/// assert_eq!(circuit.state(), BreakerState::Open);
/// assert_eq!(circuit.admit(now), Admission::WaitUntil(now.saturating_add(breaking.open_for)));
/// ```
pub struct Circuit {
    breaking: Breaking,
    phase: Phase,
    /// Counts changes of state, so that what was begun in an earlier one is not counted in a later.
    period: Period,
}

/// The time between two changes of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(u64);

/// What an outcome says of what is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// Nothing.
    Neither,
}

/// The answer to who wants to begin something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may; its outcome is recorded under this period.
    Go(Period),
    /// Not before then.
    WaitUntil(Timestamp),
    /// Not before an outcome is recorded: others are being tried.
    Wait,
}

enum Phase {
    Closed {
        /// Whether each of the newest outcomes was a failure, oldest first.
        window: VecDeque<bool>,
        failures: usize,
    },
    Open {
        until: Timestamp,
    },
    HalfOpen {
        probes: usize,
        successes: usize,
    },
}

impl Phase {
    const CLOSED: Self = Self::Closed { window: VecDeque::new(), failures: 0 };
}

impl Circuit {
    /// A closed one. Numbers out of their bounds are taken for the nearest within.
    pub fn new(mut breaking: Breaking) -> Self {
        breaking.window_count = breaking.window_count.clamp(1, Breaking::WINDOW_MAX);
        breaking.failures_min = breaking.failures_min.clamp(1, breaking.window_count);
        breaking.probes_max = breaking.probes_max.max(1);
        breaking.successes_to_close = breaking.successes_to_close.max(1);
        Self { breaking, phase: Phase::CLOSED, period: Period(0) }
    }

    /// What it does now; an open one may let the next through all the same, if its time is over.
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether something may begin at `now`. What was let go is recorded, whatever became of it.
    pub fn admit(&mut self, now: Timestamp) -> Admission {
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Admission::WaitUntil(until);
            }
            self.enter(Phase::HalfOpen { probes: 0, successes: 0 });
        }
        if let Phase::HalfOpen { probes, .. } = &mut self.phase {
            if *probes == self.breaking.probes_max {
                return Admission::Wait;
            }
            *probes += 1;
        }
        Admission::Go(self.period)
    }

    /// Whether nothing has changed since `period` began.
    pub fn is_current(&self, period: Period) -> bool {
        period == self.period
    }

    /// Takes in what became of something that was let go in `period`. Each is recorded once.
    pub fn record(&mut self, period: Period, sign: Sign, now: Timestamp) {
        if !self.is_current(period) {
            return;
        }
        let breaking = self.breaking;
        match &mut self.phase {
            Phase::Closed { window, failures } => {
                if sign == Sign::Neither {
                    return;
                }
                if window.len() == breaking.window_count {
                    *failures -= usize::from(window.pop_front() == Some(true));
                }
                window.push_back(sign == Sign::Failure);
                *failures += usize::from(sign == Sign::Failure);
                if breaking.is_too_many(*failures, window.len()) {
                    self.open(now);
                }
            }
            Phase::HalfOpen { probes, successes } => {
                *probes -= 1;
                match sign {
                    Sign::Neither => {}
                    Sign::Failure => self.open(now),
                    Sign::Success => {
                        *successes += 1;
                        if *successes >= breaking.successes_to_close {
                            self.enter(Phase::CLOSED);
                        }
                    }
                }
            }
            // Nothing is let go while it is open, so nothing of this period can come back.
            Phase::Open { .. } => {}
        }
    }

    fn open(&mut self, now: Timestamp) {
        self.enter(Phase::Open { until: now.saturating_add(self.breaking.open_for) });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.period.0 += 1;
    }
}

impl Breaking {
    fn is_too_many(&self, failures: usize, outcomes: usize) -> bool {
        failures >= self.failures_min && failures as f64 >= self.failure_ratio * outcomes as f64
    }
}
