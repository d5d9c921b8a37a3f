//! The rules by which groups under faults are judged: each finds what it is there for, and nothing in a history that is
//! fine.

#![expect(clippy::indexing_slicing, reason = "an index that is out of range fails the test, as it should")]

#[path = "faults/groups/history.rs"]
#[expect(dead_code, reason = "the runner counts, too")]
mod history;
#[path = "faults/groups/notes.rs"]
#[expect(dead_code, reason = "nothing is written down here")]
mod notes;
#[path = "faults/groups/plan.rs"]
#[expect(dead_code, reason = "nothing runs here")]
mod plan;
#[path = "faults/schedule.rs"]
#[expect(dead_code, reason = "the rules need to know of losses only")]
mod schedule;

use tidewire::DeadKind;

use self::history::{Dead, History};
use self::notes::{Attempt, Note, Place, Said, Sort};
use self::plan::{Plan, Way};
use self::schedule::Loss;

/// A schedule whose only group has the name, with or without events that end processes.
fn plan(group: &str, has_poison: bool) -> Plan {
    let plans = (1..).map(Plan::of);
    let mut fitting = plans.filter(|plan| plan.has_poison == has_poison && plan.kind(group).is_some());
    fitting.next().expect("some seed has it")
}

/// What happened in one group.
struct Tale {
    plan: Plan,
    group: &'static str,
    loss: Loss,
    is_trimmed: bool,
    notes: Vec<Note>,
    dead: Vec<Dead>,
    made: Vec<Place>,
}

impl Tale {
    fn of(group: &'static str, has_poison: bool) -> Self {
        let plan = plan(group, has_poison);
        let (notes, dead, made) = (Vec::new(), Vec::new(), Vec::new());
        Self { plan, group, loss: Loss::Nothing, is_trimmed: false, notes, dead, made }
    }

    /// The first numbers of events that are handled like this; with a key, of events that have it.
    fn numbers<const COUNT: usize>(&self, way: Way, key: Option<u64>) -> [u64; COUNT] {
        let fits = |number: &u64| {
            self.plan.way(self.group, *number) == way && key.is_none_or(|key| self.plan.key(*number) == key)
        };
        let mut numbers = (1..).filter(fits);
        std::array::from_fn(|_| numbers.next().expect("there are more"))
    }

    fn publish(&mut self, sort: Sort, number: u64, offset: u64) {
        self.notes.push(Note::Published { sort, number, place: Place(7, offset) });
    }

    fn attempt(&self, process: u32, number: u64, offset: u64, attempt: u32, fence: u64) -> Attempt {
        Attempt { process, group: self.group.into(), place: Place(7, offset), number, attempt, fence }
    }

    /// A whole attempt.
    fn handle(&mut self, attempt: &Attempt, said: Said) {
        self.notes.extend([Note::Begin(attempt.clone()), Note::End(attempt.clone(), said)]);
    }

    fn die(&mut self, offset: u64, kind: DeadKind) {
        self.dead.push(Dead { place: Place(7, offset), kind });
    }

    fn kill(&mut self, process: u32) {
        self.notes
            .extend([Note::Fault { what: "kill".into(), process: Some(process) }, Note::Ended { process }]);
    }

    fn violations(&self) -> Vec<String> {
        let history = History {
            plan: &self.plan,
            kind: self.plan.kind(self.group).expect("its group"),
            loss: self.loss,
            is_trimmed: self.is_trimmed,
            notes: &self.notes,
            dead: self.dead.clone(),
            made: self.made.clone(),
        };
        history.violations()
    }

    #[track_caller]
    fn assert_fine(&self) {
        assert_eq!(self.violations(), Vec::<String>::new());
    }

    #[track_caller]
    fn assert_found(&self, rule: &str) {
        let found = self.violations();
        assert!(found.iter().any(|found| found.contains(rule)), "{rule:?} is not among {found:?}");
    }
}

/// Two events of one key, handled in their order by process 1.
fn fine() -> (Tale, [u64; 2]) {
    let mut tale = Tale::of("once", false);
    let key = tale.plan.key(tale.numbers::<1>(Way::Ack, None)[0]);
    let numbers = tale.numbers(Way::Ack, Some(key));
    for (offset, number) in (1..).zip(numbers) {
        tale.publish(Sort::Event, number, offset);
    }
    for (offset, number) in (1..).zip(numbers) {
        tale.handle(&tale.attempt(1, number, offset, 1, 5), Said::Ack);
    }
    (tale, numbers)
}

#[test]
fn nothing_is_found_where_all_is_well() {
    fine().0.assert_fine();
}

#[test]
fn finds_an_event_that_was_neither_handled_nor_told_of() {
    let (mut tale, [_, second]) = fine();
    tale.notes.truncate(4);
    tale.assert_found("neither handled nor told of");
    let gap =
        |is_loss| Note::Gap { group: "once".into(), from: Some(Place(7, 2)), to: Some(Place(7, 2)), is_loss };
    tale.notes.push(gap(false));
    tale.assert_found("told of a gap that was none");
    tale.is_trimmed = true;
    tale.assert_fine();
    tale.notes.pop();
    tale.notes.push(Note::Begin(tale.attempt(1, second, 2, 1, 5)));
    tale.assert_found("neither handled nor told of");
    tale.notes.push(gap(true));
    tale.assert_found("told of a gap that was none");
    tale.loss = Loss::Everything;
    tale.assert_fine();
}

#[test]
fn finds_an_event_that_is_handled_twice_for_no_reason() {
    let (mut tale, [_, second]) = fine();
    let again = tale.attempt(2, second, 2, 2, 6);
    tale.handle(&again, Said::Ack);
    tale.assert_found("is handled twice");
    // That the process which handled it dies is a reason for what comes after it; that another one does is none.
    tale.kill(1);
    tale.assert_found("is handled twice");
    for (killed, is_reason) in [(3, false), (1, true)] {
        let (mut tale, _) = fine();
        tale.kill(killed);
        tale.handle(&again, Said::Ack);
        assert_eq!(tale.violations().is_empty(), is_reason);
    }
}

#[test]
fn who_was_held_up_may_begin_with_what_it_has_if_it_is_told_later() {
    let (mut tale, [_, second]) = fine();
    let again = tale.attempt(2, second, 2, 2, 6);
    tale.notes.insert(0, Note::Fault { what: "stop".into(), process: Some(1) });
    tale.handle(&again, Said::Ack);
    tale.assert_found("is handled twice");
    tale.notes.push(Note::SessionLost { process: 1, group: "once".into() });
    tale.assert_fine();
    tale.notes.remove(0);
    tale.assert_found("is handled twice");
}

#[test]
fn finds_a_copy_that_is_handled_though_the_first_was() {
    let (mut tale, [_, second]) = fine();
    tale.publish(Sort::Copy, second, 3);
    tale.assert_fine();
    tale.handle(&tale.attempt(1, second, 3, 1, 5), Said::Ack);
    tale.assert_found("though it was at");
}

#[test]
fn finds_events_of_a_key_out_of_their_order_or_side_by_side() {
    let (tale, [first, second]) = fine();
    let attempt =
        |process, number, offset, number_of, fence| tale.attempt(process, number, offset, number_of, fence);
    let (one, two) = (attempt(1, first, 1, 1, 5), attempt(1, second, 2, 1, 5));
    let tell = |notes: &[Note]| {
        let (mut tale, _) = fine();
        tale.notes.truncate(2);
        tale.notes.extend_from_slice(notes);
        tale
    };
    let begin = |attempt: &Attempt| Note::Begin(attempt.clone());
    let end = |attempt: &Attempt, said| Note::End(attempt.clone(), said);
    let ack = Said::Ack;
    tell(&[begin(&two), end(&two, ack), begin(&one), end(&one, ack)]).assert_found("is done");
    tell(&[begin(&one), begin(&two), end(&one, ack), end(&two, ack)]).assert_found("begins beside");
    let later = attempt(1, first, 1, 2, 5);
    for said in [Said::Retry, Said::Park] {
        let notes =
            [begin(&one), end(&one, said), begin(&two), end(&two, ack), begin(&later), end(&later, ack)];
        tell(&notes).assert_found("is done");
        let notes =
            [begin(&one), end(&one, said), begin(&later), end(&later, ack), begin(&two), end(&two, ack)];
        tell(&notes).assert_fine();
    }
}

#[test]
fn who_was_held_up_may_go_on_behind_a_higher_fence_only() {
    let (tale, [first, second]) = fine();
    let held_up = tale.attempt(1, first, 1, 1, 5);
    let tell = |is_told: bool, fence: u64| {
        let (mut tale, _) = fine();
        tale.notes.truncate(2);
        tale.notes.push(Note::Begin(held_up.clone()));
        if is_told {
            tale.notes.push(Note::Fault { what: "stop".into(), process: Some(1) });
        }
        tale.handle(&tale.attempt(2, first, 1, 2, fence), Said::Ack);
        tale.handle(&tale.attempt(2, second, 2, 1, fence), Said::Ack);
        tale.notes.push(Note::End(held_up.clone(), Said::Ack));
        tale
    };
    tell(true, 6).assert_fine();
    tell(true, 5).assert_found("begins beside");
    tell(false, 6).assert_found("begins beside");
}

#[test]
fn finds_dead_letters_that_should_not_be_and_those_that_are_not() {
    let mut tale = Tale::of("mixed", false);
    let [[good], [bad], [failing]] =
        [Way::Ack, Way::Reject, Way::Fail].map(|way| tale.numbers::<1>(way, None));
    for (offset, number) in (1..).zip([good, bad, failing]) {
        tale.publish(Sort::Event, number, offset);
    }
    tale.publish(Sort::Garbage, 1, 4);
    tale.handle(&tale.attempt(1, good, 1, 1, 0), Said::Ack);
    tale.handle(&tale.attempt(1, bad, 2, 1, 0), Said::Reject);
    for attempt in 1..=5 {
        tale.handle(&tale.attempt(1, failing, 3, attempt, 0), Said::Retry);
    }
    tale.assert_found("is not in the dead letters");
    tale.die(2, DeadKind::Rejected);
    tale.die(3, DeadKind::AttemptsUsedUp);
    tale.assert_found("Garbage 1 at Place(7, 4)");
    tale.die(4, DeadKind::Undecodable);
    tale.assert_fine();
    tale.die(2, DeadKind::Rejected);
    tale.assert_found("twice in the dead letters");
    tale.dead.pop();
    tale.die(1, DeadKind::AttemptsUsedUp);
    tale.assert_found("is both handled and dead");
    tale.assert_found("(Ack) is dead as attempts_used_up");
}

#[test]
fn finds_an_innocent_that_is_given_up_on_beside_one_that_ends_processes() {
    let mut tale = Tale::of("mixed", true);
    let ([poison], [good]) = (tale.numbers(Way::Crash, None), tale.numbers(Way::Ack, None));
    tale.publish(Sort::Event, poison, 1);
    tale.publish(Sort::Event, good, 2);
    for attempt in 1..=5 {
        tale.notes.push(Note::Begin(tale.attempt(attempt, poison, 1, attempt, 0)));
        tale.notes.push(Note::Ended { process: attempt });
    }
    tale.die(1, DeadKind::CrashedProcess);
    tale.notes.push(Note::Begin(tale.attempt(1, good, 2, 1, 0)));
    tale.die(2, DeadKind::CrashedProcess);
    tale.assert_found("(Ack) is dead as crashed_process");
    tale.dead.pop();
    tale.handle(&tale.attempt(6, good, 2, 3, 0), Said::Ack);
    tale.assert_fine();
    tale.dead.clear();
    tale.assert_found("(Crash) is not in the dead letters");
}

#[test]
fn finds_what_was_emitted_too_often_or_not_at_all() {
    let mut tale = Tale::of("plain", false);
    let [number, other] = tale.numbers(Way::Ack, None);
    tale.publish(Sort::Event, number, 1);
    tale.handle(&tale.attempt(1, number, 1, 1, 0), Said::Ack);
    tale.assert_found("what was emitted is not there");
    tale.made.push(Place(7, 1));
    tale.assert_fine();
    tale.made.push(Place(7, 1));
    tale.assert_found("emitted 2 times");
    tale.made[1] = Place(7, 2);
    tale.publish(Sort::Event, other, 2);
    tale.assert_found("which was not handled");
}
