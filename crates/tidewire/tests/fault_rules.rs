//! The rules by which the fault runner judges: each finds what it is there for, and nothing in a history that is fine.

#![expect(clippy::indexing_slicing, reason = "an index that is out of range fails the test, as it should")]

#[path = "faults/history.rs"]
mod history;
#[path = "faults/schedule.rs"]
#[expect(dead_code, reason = "the rules need to know of losses only")]
mod schedule;

use tidewire::{Durability, Epoch, Gap, GapReason, Position};

use self::history::{Ear, Entry, Event, Heard, History, Written};
use self::schedule::Loss;

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch: Epoch::from_u64(epoch), offset }
}

fn event(number: u64) -> Event {
    Event { writer: 0, number }
}

fn written(number: u64, position: Position) -> Written {
    Written { event: event(number), position: Some(position), durability: Durability::Fast }
}

fn heard(number: u64, position: Position) -> Heard {
    Heard::Kept(position, event(number))
}

fn lost(from: Position) -> Heard {
    let (channel, to) = (None, None);
    Heard::Gap(Gap { channel, from: Some(from), to, reason: GapReason::HistoryLost })
}

/// Three events, confirmed, kept and heard.
fn fine() -> History {
    let heard = (1..=3).map(|n| heard(n, at(7, n))).collect();
    History {
        loss: Loss::Nothing,
        written: (1..=3).map(|n| written(n, at(7, n))).collect(),
        ears: vec![Ear { name: "ear".into(), is_late: false, heard }],
        epoch: Epoch::from_u64(7),
        kept: (1..=3).map(|n| (n, event(n))).collect(),
    }
}

/// The third event was lost after it was heard, and another one has its place in a new epoch.
fn fine_with_a_loss() -> History {
    let mut history = fine();
    history.loss = Loss::Unreplicated;
    history.epoch = Epoch::from_u64(8);
    history.kept[2] = (3, event(4));
    history.written.push(written(4, at(8, 3)));
    history.ears[0].heard.extend([lost(at(7, 4)), heard(4, at(8, 3))]);
    history
}

#[track_caller]
fn assert_found(history: &History, rule: &str) {
    let found = history.violations();
    assert!(found.iter().any(|found| found.contains(rule)), "{rule:?} is not among {found:?}");
}

#[test]
fn nothing_is_found_where_all_is_well() {
    assert_eq!(fine().violations(), Vec::<String>::new());
    assert_eq!(fine_with_a_loss().violations(), Vec::<String>::new());
}

#[test]
fn finds_an_event_that_is_kept_twice_or_out_of_order() {
    let mut history = fine();
    history.kept.push((4, event(1)));
    assert_found(&history, "is kept twice");
    assert_found(&history, "is kept after a later one");
    history = fine();
    history.kept[1].0 = 5;
    assert_found(&history, "offset 5 is the 2.");
}

#[test]
fn finds_a_confirmed_event_that_is_not_where_it_was_confirmed() {
    let mut history = fine();
    history.written[1].position = Some(at(7, 3));
    assert_found(&history, "was confirmed at");
    history = fine();
    history.kept.pop();
    assert_found(&history, "was confirmed at");
}

#[test]
fn finds_a_loss_past_what_the_faults_may_lose() {
    let mut history = fine_with_a_loss();
    history.written[2].durability = Durability::Replicated(1);
    assert_found(&history, "(Replicated(1)), is lost");
    history.loss = Loss::Everything;
    assert_eq!(history.violations(), Vec::<String>::new());
    history.loss = Loss::Nothing;
    assert_found(&history, "is lost");
    assert_found(&history, "told of a loss that was none");
}

#[test]
fn finds_what_was_heard_twice_or_not_in_order_or_not_at_all() {
    let mut history = fine();
    history.ears[0].heard.push(heard(3, at(7, 4)));
    assert_found(&history, "heard twice");
    history = fine();
    history.ears[0].heard.swap(1, 2);
    assert_found(&history, "after");
    for missing in 1..3 {
        history = fine();
        history.ears[0].is_late = true;
        history.ears[0].heard.remove(missing);
        assert_found(&history, "1 kept events were not heard");
    }
}

#[test]
fn finds_a_loss_that_was_not_told() {
    let mut history = fine_with_a_loss();
    history.ears[0].heard.remove(3);
    assert_found(&history, "after 0000000000000007:3");
    // Neither heard nor told.
    let mut history = fine_with_a_loss();
    history.ears[0].heard = vec![heard(1, at(7, 1)), heard(2, at(7, 2)), heard(4, at(8, 3))];
    assert_found(&history, "is lost, not heard, not told");
}

#[test]
fn finds_a_reply_that_is_another_callers() {
    let mut entry = Entry::default();
    let value = entry.next();
    entry.confirmed(value);
    let later = entry.next();
    entry.unknown(later);
    let refutes = |loss, value| entry.refutes(loss, "caller 1: ", value).is_some();
    for value in [Some("caller 1: 1"), Some("caller 1: 2")] {
        assert!(!refutes(Loss::Nothing, value));
    }
    assert!(refutes(Loss::Everything, Some("caller 2: 1")), "somebody else's");
    assert!(refutes(Loss::Everything, Some("caller 1: 3")), "never put");
    assert!(refutes(Loss::Nothing, None) && !refutes(Loss::Everything, None), "gone");
}
