use std::collections::VecDeque;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::name::ChannelPath;

const BREAKING: Breaking = Breaking {
    window_count: 8,
    failures_min: 3,
    failure_ratio: 0.5,
    open_for: Duration::from_secs(10),
    probes_max: 2,
    successes_to_close: 3,
};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn breaker(breaking: Breaking) -> (Breaker, Clock) {
    let clock = Clock::virtual_at(at(0));
    let channel = ChannelPath::new("test", "shop", "orders").unwrap();
    (Breaker::new(breaking, GroupPath::new(channel, "shipping").unwrap(), clock.clone()), clock)
}

/// Hands out a delivery that ends so; none may have to wait.
fn hand_out(breaker: &Breaker, outcome: &Outcome) {
    breaker.pass().now_or_never().expect("leave at once").end(outcome);
}

#[tokio::test]
async fn opens_when_handlers_fail_and_closes_when_they_work_again() {
    let (breaker, clock) = breaker(Breaking::default());
    let failed = Outcome::retry("down");
    for _ in 0..9 {
        hand_out(&breaker, &failed);
    }
    assert_eq!(breaker.state(), BreakerState::Closed, "one failure is missing");
    hand_out(&breaker, &failed);
    assert_eq!(breaker.state(), BreakerState::Open);

    let first = tokio::join!(breaker.pass(), async { clock.advance(Duration::from_secs(10)) }).0;
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.pass().now_or_never().is_none(), "one is tried at a time");
    let second = tokio::join!(breaker.pass(), async { first.end(&Outcome::Ack) }).0;
    second.end(&Outcome::Ack);
    hand_out(&breaker, &Outcome::Ack);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn a_failure_while_half_open_opens_it_again_for_the_whole_time() {
    let (breaker, clock) = breaker(BREAKING);
    (0..3).for_each(|_| hand_out(&breaker, &Outcome::retry("down")));
    clock.advance(BREAKING.open_for);
    hand_out(&breaker, &Outcome::Ack);
    hand_out(&breaker, &Outcome::retry("down"));
    clock.advance(BREAKING.open_for - Duration::from_millis(1));
    assert!(breaker.pass().now_or_never().is_none());
    clock.advance(Duration::from_millis(1));
    (0..3).for_each(|_| hand_out(&breaker, &Outcome::Ack));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn what_says_nothing_of_the_handlers_is_not_counted() {
    let (breaker, clock) = breaker(BREAKING);
    for _ in 0..100 {
        hand_out(&breaker, &Outcome::reject("not an order"));
        hand_out(&breaker, &Outcome::park("unpaid"));
        hand_out(&breaker, &Outcome::HandBack);
        drop(breaker.pass().now_or_never());
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    (0..3).for_each(|_| hand_out(&breaker, &Outcome::retry("down")));
    clock.advance(BREAKING.open_for);
    for _ in 0..100 {
        drop(breaker.pass().now_or_never().expect("one that was dropped makes room"));
    }
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
}

#[test]
fn what_began_before_a_change_does_not_count_after_it() {
    let (breaker, clock) = breaker(BREAKING);
    let late: Vec<Pass> = (0..9).map(|_| breaker.pass().now_or_never().expect("leave at once")).collect();
    (0..3).for_each(|_| hand_out(&breaker, &Outcome::retry("down")));
    clock.advance(BREAKING.open_for);
    hand_out(&breaker, &Outcome::Ack);
    let mut late = late.into_iter();
    late.by_ref().take(3).for_each(|pass| pass.end(&Outcome::Ack));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    late.by_ref().take(3).for_each(|pass| pass.end(&Outcome::retry("down")));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    (0..2).for_each(|_| hand_out(&breaker, &Outcome::Ack));
    late.for_each(|pass| pass.end(&Outcome::retry("down")));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn settings_that_would_hold_up_all_for_ever_are_raised() {
    let none =
        Breaking { window_count: 0, failures_min: 0, probes_max: 0, successes_to_close: 0, ..BREAKING };
    let (breaker, clock) = breaker(none);
    hand_out(&breaker, &Outcome::Ack);
    hand_out(&breaker, &Outcome::retry("down"));
    assert_eq!(breaker.state(), BreakerState::Open);
    clock.advance(none.open_for);
    hand_out(&breaker, &Outcome::Ack);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[derive(Debug, Clone)]
enum Step {
    Admit,
    /// Ends one of those that were let go, counted from the oldest.
    End(usize, Sign),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sign =
        prop_oneof![Just(Sign::Success), Just(Sign::Failure), Just(Sign::Failure), Just(Sign::Neither)];
    let step = prop_oneof![
        4 => Just(Step::Admit),
        4 => (0_usize..8, sign).prop_map(|(index, sign)| Step::End(index, sign)),
        1 => (0_u64..12_000).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..400)
}

/// What is true of a circuit, told by another way of counting.
#[derive(Default)]
struct Model {
    now: u64,
    out: VecDeque<Period>,
    /// All outcomes since it was closed.
    outcomes: Vec<bool>,
    opened: Option<u64>,
    probes: Vec<Period>,
}

impl Model {
    fn admit(&mut self, circuit: &mut Circuit) {
        let admission = circuit.admit(at(self.now));
        let open_until = self.opened.map(|opened| opened + 10_000).filter(|until| self.now < *until);
        if let Some(until) = open_until {
            assert_eq!(admission, Admission::WaitUntil(at(until)), "it is open");
            return;
        }
        if self.opened.take().is_some() {
            self.probes.clear();
        }
        match admission {
            Admission::Go(period) => {
                self.out.push_back(period);
                if circuit.state() == BreakerState::HalfOpen {
                    self.probes.push(period);
                    assert!(self.probes.len() <= BREAKING.probes_max, "too many are tried");
                }
            }
            Admission::Wait => {
                assert_eq!(circuit.state(), BreakerState::HalfOpen);
                assert_eq!(self.probes.len(), BREAKING.probes_max, "there was room for one");
            }
            Admission::WaitUntil(_) => panic!("it is not open"),
        }
    }

    fn end(&mut self, circuit: &mut Circuit, index: usize, sign: Sign) {
        let Some(period) = self.out.remove(index) else { return };
        let before = circuit.state();
        let is_current = circuit.is_current(period);
        circuit.record(period, sign, at(self.now));
        let after = circuit.state();
        if !is_current || sign == Sign::Neither {
            assert_eq!(before, after, "it says nothing of now");
        }
        if is_current && before == BreakerState::HalfOpen {
            self.probes.pop();
            assert_eq!(after == BreakerState::Open, sign == Sign::Failure);
        }
        if is_current && before == BreakerState::Closed && sign != Sign::Neither {
            self.outcomes.push(sign == Sign::Failure);
            let newest = self.outcomes.iter().rev().take(BREAKING.window_count);
            let (count, failures) =
                newest.fold((0, 0), |(n, failures), is| (n + 1, failures + usize::from(*is)));
            let is_bad = failures >= BREAKING.failures_min && failures * 2 >= count;
            assert_eq!(after == BreakerState::Open, is_bad, "{failures} of {count} failed");
        }
        if before != after {
            self.outcomes.clear();
            self.opened = (after == BreakerState::Open).then_some(self.now);
        }
    }
}

proptest! {
    #[test]
    fn holds_back_exactly_while_handlers_fail(steps in steps()) {
        let (mut circuit, mut model) = (Circuit::new(BREAKING), Model::default());
        for step in steps {
            match step {
                Step::Admit => model.admit(&mut circuit),
                Step::End(index, sign) => model.end(&mut circuit, index, sign),
                Step::Pass(millis) => model.now += millis,
            }
        }
        while !model.out.is_empty() {
            model.end(&mut circuit, 0, Sign::Neither);
        }
        model.now += 10_000;
        let admission = circuit.admit(at(model.now));
        prop_assert!(matches!(admission, Admission::Go(_)), "nobody is held up for ever: {admission:?}");
    }
}
