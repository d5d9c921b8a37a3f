//! The ways in which consumers of streams are known to fail, each with the cases that would fail with it; and the cases that
//! are about nothing else.

use super::delivery::{pull, stop, until_settled};
use super::diary::{Diary, consume, group, number_of};
use super::effect::Told;
use super::scene::{Scene, append_numbered};
use super::seam::Seam;
use crate::bus::{GapReason, Outcome};
use crate::engine::Turn;
use crate::error::ErrorKind;

/// A known way to fail, and what shows that this is not one of ours.
pub struct Trap {
    /// Its name, by which its cases are run together.
    pub name: &'static str,
    /// What others do.
    pub what: &'static str,
    /// The names of cases.
    pub cases: &'static [&'static str],
}

macro_rules! traps {
    ($($name:ident $what:literal [$($case:ident),*];)*) => {
        /// Every trap, once.
        pub const TRAPS: &[Trap] = &[$(Trap {
            name: stringify!($name),
            what: $what,
            cases: &[$(stringify!($case)),*],
        }),*];
    };
}

traps! {
    trap_2_1_1_idle "a slow handler is taken for a dead one, or a dead one found late"
        [a_slow_handler_keeps_its_delivery, a_crashed_process_loses_its_deliveries_and_they_count,
        a_process_that_stood_still_is_told_what_it_has_lost];
    trap_2_1_2_prefetch "what waits in memory for a handler is not renewed, and is taken away"
        [prefetched_deliveries_are_renewed_with_the_others, a_consumer_takes_what_it_has_room_for,
        a_stopped_consumer_hands_back_without_an_attempt];
    trap_2_1_3_counter "a restart burns attempts, and what crashes its process is delivered for ever"
        [what_ends_each_process_is_a_dead_letter_alone, what_ends_each_process_takes_its_key_not_with_it,
        a_stopped_consumer_hands_back_without_an_attempt, a_dropped_delivery_comes_back_without_an_attempt];
    trap_2_1_4_poison "bytes that cannot be decoded stop the consumer"
        [bytes_that_are_no_event_go_to_the_dead_letters];
    trap_2_1_5_dead_letter "a dead letter is there twice, or neither there nor in the group"
        [a_dead_letter_is_there_once_and_is_replayed_once, a_turn_sent_again_has_no_second_effect,
        items_change_with_a_commit_and_are_listed_in_order];
    trap_2_1_6_trim "retention removes what nobody has handled, and nobody is told"
        [what_a_group_has_not_settled_is_kept, a_slow_group_is_told_what_was_dropped,
        what_is_trimmed_while_nobody_has_it_is_told];
    trap_2_1_7_names "two processes of one name share deliveries, or removing a name loses them"
        [a_session_is_one_process, each_event_is_handled_by_one_of_two_processes,
        a_last_turn_frees_records_without_a_loss];
    trap_2_1_8_creation "a group begins after its first event, or a lost one is never noticed"
        [a_group_begins_where_its_consumer_says, a_group_is_there_before_the_first_append,
        a_group_that_is_lost_is_made_again_and_told, a_group_goes_on_after_all_history_is_lost];
    trap_2_1_9_blocking "a read that is given up takes an event along"
        [a_wait_that_is_dropped_takes_nothing, an_append_wakes_who_claimed_fewer_than_it_asked_for];
    trap_2_1_10_noack "a read without acknowledgement loses what its process had"
        [a_crashed_process_loses_its_deliveries_and_they_count, a_crash_after_the_effect_gives_it_twice];
    trap_2_1_11_failover "confirmed events are lost with a server, and consumers go on as if nothing had been"
        [an_append_is_not_confirmed_as_more_durable_than_it_is, a_group_goes_on_after_all_history_is_lost];
    trap_2_1_12_cluster "what one step changes is in several slots"
        [what_is_emitted_is_appended_once_with_the_ack, each_group_of_each_tenant_gets_its_own];
    trap_2_1_13_order "events of a key are handled side by side, or out of order after a retry or a rebalance"
        [events_of_a_key_are_handled_one_at_a_time_in_order, a_key_that_waits_holds_up_no_other,
        partitions_are_shared_out_after_a_join_and_a_leave, the_share_of_a_dead_process_goes_on_in_order];
    trap_2_1_14_delay "a delayed retry is a timer in memory, or comes twice"
        [a_delayed_retry_outlives_its_process, a_delayed_retry_survives_a_restart,
        a_failed_delivery_comes_again_after_its_wait];
    trap_2_1_15_once "exactly once is promised, or a dedup does not survive its process"
        [an_event_is_handled_once_within_its_window, a_mark_is_found_until_its_window_ends,
        a_dedup_id_holds_over_a_restart, a_crash_after_the_effect_gives_it_twice];
    trap_2_1_16_pressure "publishers do not feel that nobody keeps up"
        [a_slow_group_is_waited_for_at_the_bound, an_append_is_refused_at_a_bound_of_unsettled_events];
    trap_2_1_17_cursor "a search that begins at the front each time never finds the dead behind the living"
        [a_dead_session_behind_many_is_found];
    trap_2_1_18_ack_of_failures "a failure is acknowledged, or an outcome counts before it is kept"
        [what_is_said_to_be_kept_is_kept, a_panic_and_a_timeout_are_retries];
}

pub(super) async fn what_is_trimmed_while_nobody_has_it_is_told(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    for partitions in [0, 2] {
        let name = format!("group-{partitions}");
        let mut handled = channel.group(&name, crate::engine::Start::Latest).expect("a valid name");
        if partitions > 0 {
            handled = handled.ordered(partitions);
        }
        handled.declare().await.expect("there");
        append_numbered(&channel, 0..3).await;
        let deliveries = consume(&scene, &handled).concurrency(3).deliveries().await.expect("runs");
        let held = pull(&scene, &deliveries).await;
        deliveries.consumer().crash();
        drop(held);
        let end = channel.read().await.expect("read").end();
        let last = crate::position::Position { offset: end.offset + 1, ..end };
        channel.trim(last).await.expect("an operator may");
        append_numbered(&channel, [3]).await;
        let (diary, told) = (Diary::new(), Told::default());
        let consuming = consume(&scene, &handled).on_gap(told.listener());
        let consumer = consuming.run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
        scene.pass_until("what is left", diary.wait(1)).await;
        until_settled(&scene, &handled, 0).await;
        assert_eq!((diary.sorted(), consumer.stats().missed), (vec![3], 3));
        assert!(told.reasons().iter().all(|reason| *reason == GapReason::Trimmed), "{:?}", told.reasons());
        stop(&scene, &consumer).await;
    }
}

pub(super) async fn a_session_is_one_process(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=6).await;
    let mut first = seam.session(&scene, "name");
    let second = seam.session(&scene, "name");
    assert_eq!(first.claim(2).await.claimed, Some((1, 2)));
    assert_eq!(first.claim(2).await.claimed, Some((3, 4)));
    let error = second.numbered(1, Turn { claim: 2, ..Turn::default() }).await.expect_err("it is taken");
    assert_eq!(error.kind(), ErrorKind::LockLost);
    let stats = seam.stats().await;
    assert_eq!((stats.sessions.len(), stats.next), (1, 5), "who came second has taken nothing");
    assert_eq!(first.claim(2).await.claimed, Some((5, 6)));
}

pub(super) async fn a_wait_that_is_dropped_takes_nothing(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let handled = group(&channel);
    let deliveries = consume(&scene, &handled).deliveries().await.expect("runs");
    for number in 0..20 {
        let waiting = deliveries.next();
        // Dropped right when it may have been given something.
        tokio::select! {
            biased;
            () = append_numbered(&channel, [number]) => {}
            pulled = waiting => drop(pulled),
        }
    }
    let mut numbers = Vec::new();
    for _ in 0..20 {
        let pulled = pull(&scene, &deliveries).await;
        assert_eq!(pulled.delivery().attempt(), 1);
        numbers.push(number_of(pulled.delivery().event()));
        pulled.settle(Outcome::Ack);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    until_settled(&scene, &handled, 0).await;
    stop(&scene, deliveries.consumer()).await;
}

pub(super) async fn a_dead_session_behind_many_is_found(scene: Scene) {
    let seam = Seam::with_group(&scene, 0).await;
    seam.append_all(1..=101).await;
    for number in 0..100 {
        let mut living = seam.session(&scene, &format!("a-{number:03}"));
        assert!(living.claim(1).await.claimed.is_some());
    }
    let mut dead = seam.session(&scene, "z-dead");
    dead.lease = scene.ticks(2);
    assert_eq!(dead.claim(1).await.claimed, Some((101, 101)));
    scene.pass(scene.ticks(3)).await;
    let mut heir = seam.session(&scene, "heir");
    let turned = heir.adopt(1).await;
    let [adopted] = turned.adopted.as_slice() else { panic!("{:?}", turned.adopted) };
    assert_eq!((&*adopted.claims, adopted.was_lost), (&[(101, 101)][..], true));
}

pub(super) async fn what_is_said_to_be_kept_is_kept(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..4).await;
    let handled = group(&channel);
    let deliveries = consume(&scene, &handled).deliveries().await.expect("runs");
    for outcome in [Outcome::Ack, Outcome::reject("never"), Outcome::Ack] {
        let pulled = pull(&scene, &deliveries).await;
        scene.pass_until("the word that it is kept", pulled.settled(outcome)).await.expect("kept");
    }
    deliveries.consumer().crash();
    let diary = Diary::new();
    let consumer = consume(&scene, &handled).run(diary.handler(|_, _| Outcome::Ack)).await.expect("runs");
    until_settled(&scene, &handled, 1).await;
    assert_eq!(diary.numbers(), [3]);
    stop(&scene, &consumer).await;
}

#[cfg(test)]
mod tests {
    use super::super::CASES;
    use super::TRAPS;

    #[test]
    fn each_trap_has_cases_that_are_run() {
        assert_eq!(TRAPS.len(), 18);
        for (index, trap) in TRAPS.iter().enumerate() {
            assert!(trap.name.starts_with(&format!("trap_2_1_{}_", index + 1)), "{}", trap.name);
            assert!(!trap.cases.is_empty(), "{}", trap.name);
            for name in trap.cases {
                assert!(CASES.iter().any(|case| case.name == *name), "{}: {name}", trap.name);
            }
        }
    }
}
