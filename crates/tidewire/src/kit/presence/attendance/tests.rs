use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::engine::Member;
use crate::event::NodeId;

const PATIENCE: Duration = Duration::from_secs(5);

type Waiting = oneshot::Receiver<Result<Outcome>>;

/// The set of a channel, and the attendance of one node.
#[derive(Default)]
struct World {
    set: BTreeMap<Bytes, Member>,
    attendance: Attendance,
}

fn session(number: u32) -> SessionId {
    SessionId { node: NodeId::from_u64(1), number }
}

fn row(info: &'static str) -> Row {
    Row { user: "ann".into(), info: info.into() }
}

fn outcome(was_there: bool, is_flip: bool) -> Outcome {
    Outcome { was_there, is_flip }
}

impl World {
    fn join(&mut self, id: &'static str, info: &'static str) -> Waiting {
        self.attendance.want(id.into(), Some(row(info)), Duration::ZERO)
    }

    fn leave(&mut self, id: &'static str) -> Waiting {
        self.attendance.want(id.into(), None, Duration::ZERO)
    }

    fn apply(&mut self, change: &MembersChange) -> MembersChanged {
        let before = self.set.len() as u64;
        let were_there = change.removes.iter().map(|name| self.set.remove(name).is_some()).collect();
        let put = |member: &Member| self.set.insert(member.name.clone(), member.clone()).is_none();
        let are_new = change.puts.iter().map(put).collect();
        MembersChanged { is_done: true, before, after: self.set.len() as u64, were_there, are_new }
    }

    /// Writes what is due.
    fn write(&mut self, number: u32) -> Vec<Told> {
        let mut told = Vec::new();
        while self.attendance.is_due() {
            let batch = self.attendance.take(session(number));
            let changed = self.apply(&batch.change.clone());
            told.extend(self.attendance.settle(batch, &changed));
        }
        told
    }

    /// The same, but no answer comes, and whoever waits has waited for that long.
    fn write_in_vain(&mut self, number: u32, is_done: bool, waited: Duration) {
        let batch = self.attendance.take(session(number));
        if is_done {
            self.apply(&batch.change.clone());
        }
        self.attendance.fail(batch, &Error::new(ErrorKind::TimedOut, "no answer"), waited, PATIENCE);
    }

    /// Somebody else has removed all that a session had.
    fn reap(&mut self, number: u32) {
        self.set.retain(|name, _| !name.starts_with(&session(number).prefix()));
    }

    fn names(&self) -> Vec<Bytes> {
        self.set.keys().cloned().collect()
    }
}

fn now(waiting: Waiting) -> Option<Outcome> {
    waiting.now_or_never()?.ok()?.ok()
}

#[test]
fn what_waits_is_written_in_one_step() {
    let mut world = World::default();
    let (one, other) = (world.join("1", ""), world.join("2", ""));
    let again = world.join("1", "new");
    assert_eq!(world.write(1), []);
    assert_eq!(now(one), Some(outcome(false, true)));
    assert_eq!(now(again), Some(outcome(false, false)));
    assert_eq!(now(other), Some(outcome(false, false)));
    assert_eq!(world.names(), [session(1).name_of(b"1"), session(1).name_of(b"2")]);
    assert_eq!(world.set[&session(1).name_of(b"1")].value, "\u{1}new");
    let (one, other) = (world.leave("1"), world.leave("2"));
    assert_eq!(world.write(1), []);
    assert_eq!([now(one), now(other)], [Some(outcome(true, true)), Some(outcome(true, false))]);
    assert!(world.attendance.is_empty() && !world.attendance.is_due());
}

#[test]
fn a_join_that_is_left_before_it_is_written_is_as_if_it_had_not_been() {
    let mut world = World::default();
    let (join, leave) = (world.join("1", ""), world.leave("1"));
    assert_eq!(world.write(1), []);
    assert_eq!([now(join), now(leave)], [Some(outcome(false, false)); 2]);
    assert!(world.set.is_empty() && world.attendance.is_empty());
}

#[test]
fn who_could_not_join_is_removed_and_told_by_nobody() {
    for is_done in [false, true] {
        let mut world = World::default();
        let join = world.join("1", "");
        world.write_in_vain(1, is_done, PATIENCE);
        assert!(join.now_or_never().unwrap().unwrap().is_err());
        let told = world.write(1);
        assert!(!told.iter().any(|told| matches!(told, Told::Left(..))), "{told:?}");
        assert!(world.set.is_empty() && world.attendance.is_empty());
    }
}

#[test]
fn who_waits_is_answered_by_a_later_try_as_by_the_first() {
    for is_done in [false, true] {
        let mut world = World::default();
        let (join, other) = (world.join("1", ""), world.join("2", ""));
        world.write_in_vain(1, is_done, Duration::ZERO);
        assert_eq!(world.write(1), []);
        assert_eq!([now(join), now(other)], [Some(outcome(false, true)), Some(outcome(false, false))]);
        let (leave, other) = (world.leave("1"), world.leave("2"));
        world.write_in_vain(1, is_done, Duration::ZERO);
        assert_eq!(world.write(1), []);
        assert_eq!([now(leave), now(other)], [Some(outcome(true, true)), Some(outcome(true, false))]);
    }
}

#[test]
fn a_leave_without_an_answer_is_done_and_told_later() {
    for is_done in [false, true] {
        let mut world = World::default();
        let _join = world.join("1", "");
        world.write(1);
        let leave = world.leave("1");
        world.write_in_vain(1, is_done, PATIENCE);
        assert!(leave.now_or_never().unwrap().unwrap().is_err());
        assert_eq!(world.write(1), [Told::Left("1".into(), row("")), Told::Vacated]);
        assert!(world.set.is_empty() && world.attendance.is_empty());
    }
}

#[test]
fn another_session_takes_all_members_along_and_tells_those_that_were_told_as_gone() {
    let mut world = World::default();
    let _joins = [world.join("1", ""), world.join("2", "")];
    world.write(1);
    world.attendance.come_back();
    assert_eq!(world.write(2), [], "nobody has seen them go");
    assert_eq!(world.names(), [session(2).name_of(b"1"), session(2).name_of(b"2")]);
    world.reap(2);
    world.attendance.come_back();
    let leave = world.leave("2");
    assert_eq!(world.write(3), [Told::Returned("1".into(), row("")), Told::Occupied]);
    assert_eq!(now(leave), Some(outcome(false, false)));
    assert_eq!(world.names(), [session(3).name_of(b"1")]);
}

#[test]
fn what_a_lost_session_has_written_too_late_is_removed() {
    let mut world = World::default();
    let join = world.join("1", "");
    let batch = world.attendance.take(session(1));
    world.reap(1);
    let changed = world.apply(&batch.change.clone());
    world.attendance.come_back();
    world.attendance.settle(batch, &changed);
    assert!(now(join).is_some());
    world.write(2);
    assert_eq!(world.names(), [session(2).name_of(b"1")]);
}

#[test]
fn a_batch_of_a_session_that_is_over_is_written_under_the_next() {
    let mut world = World::default();
    let join = world.join("1", "");
    let batch = world.attendance.take(session(1));
    assert!(batch.needs_index);
    world.attendance.put_back(batch);
    world.write(2);
    assert_eq!((now(join), world.attendance.indexed), (Some(outcome(false, true)), Some(session(2))));
}

#[test]
fn a_batch_is_bounded() {
    let mut world = World::default();
    let info: &'static str = "x".repeat(limits::MEMBER_INFO_BYTES_MAX).leak();
    let count = 2 * limits::BATCH_EVENTS_MAX;
    let _joins: Vec<_> = (0..count)
        .map(|n| world.attendance.want(n.to_string().into(), Some(row(info)), Duration::ZERO))
        .collect();
    let mut steps = 0;
    while world.attendance.is_due() {
        let batch = world.attendance.take(session(1));
        batch.change.check().unwrap();
        steps += 1;
        let changed = world.apply(&batch.change.clone());
        world.attendance.settle(batch, &changed);
    }
    assert_eq!((world.set.len(), steps), (count, 8));
}

#[derive(Debug, Clone)]
enum Move {
    Join(usize),
    Leave(usize),
    Write,
    /// Whether it was done, and whether that ends the wait.
    WriteInVain(bool, bool),
    Reap,
    ComeBack,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        (0..4_usize).prop_map(Move::Join),
        (0..4_usize).prop_map(Move::Leave),
        Just(Move::Write),
        any::<(bool, bool)>().prop_map(|(is_done, waited)| Move::WriteInVain(is_done, waited)),
        Just(Move::Reap),
        Just(Move::ComeBack),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    /// Whatever fails: in the end the set has who has joined and not left, once, and nobody else. Whose join failed is either.
    #[test]
    fn the_set_has_in_the_end_who_is_there(moves in moves()) {
        const IDS: [&str; 4] = ["a", "b", "c", "d"];
        let (mut world, mut number) = (World::default(), 1);
        let mut last: BTreeMap<&str, (bool, Waiting)> = BTreeMap::new();
        for next in moves {
            match next {
                Move::Join(n) => drop(last.insert(IDS[n], (true, world.join(IDS[n], "")))),
                Move::Leave(n) => drop(last.insert(IDS[n], (false, world.leave(IDS[n])))),
                Move::Write => drop(world.write(number)),
                Move::WriteInVain(is_done, waited) => {
                    world.write_in_vain(number, is_done, if waited { PATIENCE } else { Duration::ZERO });
                }
                Move::Reap => world.reap(number),
                Move::ComeBack => {
                    number += 1;
                    world.attendance.come_back();
                }
            }
        }
        world.attendance.come_back();
        world.write(number + 1);
        let names: Vec<_> = world.names();
        prop_assert!(names.iter().all(|name| name.starts_with(&session(number + 1).prefix())));
        for (id, (is_join, waiting)) in last {
            let is_there = names.contains(&session(number + 1).name_of(id.as_bytes()));
            let is_answered = matches!(waiting.now_or_never(), Some(Ok(Ok(_))));
            prop_assert!(is_there == is_join || (is_join && !is_answered), "{}", id);
        }
        prop_assert_eq!(world.attendance.is_empty(), names.is_empty());
    }
}
