//! The guarantees of Tidewire as cases that every engine passes.
//!
//! [`CASES`] lists each case once. `tests/engines.rs` runs the list for every engine and topology and prints the
//! table. A case that needs something an engine does not have is printed as skipped, with what it needs.

mod announce;
mod append;
mod bounds;
mod dead_letter;
mod delivery;
mod diary;
mod effect;
mod floor;
mod fold;
mod group;
mod level;
mod lifecycle;
mod members;
mod order;
mod presence;
mod read;
mod retention;
mod scene;
mod seam;
mod session;
mod store;
mod subscription;
mod tenant;
mod trap;
mod typed;

use std::pin::Pin;

pub use scene::{Hook, Scene, Subject};
pub use trap::{TRAPS, Trap};

/// One case of a guarantee (DESIGN.md section 4).
pub struct Case {
    /// The guarantee's number.
    pub guarantee: u8,
    /// The rule, as a sentence.
    pub name: &'static str,
    /// What the engine must have for it.
    pub needs: &'static [Need],
    /// Runs it; panics where the rule is broken.
    pub run: fn(Scene) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What a case needs of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Confirmed appends survive a restart.
    Durable,
    /// Several nodes on one engine.
    Shared,
    /// Links that the test can cut. Such a case runs alone.
    CutLinks,
    /// History that the test can destroy behind the engine's back.
    DestroyHistory,
    /// At least one replica of every server.
    Replicas,
    /// A device that it syncs, or that it asks when it has synced.
    Syncs,
}

impl Need {
    /// Why a case is skipped where this is missing.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Durable => "keeps nothing over a restart",
            Self::Shared => "one process only",
            Self::CutLinks => "has no link to cut",
            Self::DestroyHistory => "history cannot be destroyed from outside",
            Self::Replicas => "keeps one copy",
            Self::Syncs => "cannot say what its device has",
        }
    }
}

macro_rules! cases {
    ($($guarantee:literal $noun:ident::$name:ident $([$($need:ident),*])?;)*) => {
        /// Every case, once.
        pub const CASES: &[Case] = &[$(Case {
            guarantee: $guarantee,
            name: stringify!($name),
            needs: &[$($(Need::$need),*)?],
            run: |scene| Box::pin($noun::$name(scene)),
        }),*];
    };
}

cases! {
    1 append::a_confirmed_append_is_in_the_stream_once_at_its_position;
    1 append::offsets_of_concurrent_appends_are_contiguous;
    1 append::a_batch_is_appended_in_its_order;
    1 append::a_batch_is_sent_when_its_time_is_up;
    1 append::a_dedup_id_takes_effect_once;
    1 append::a_dedup_id_is_free_again_after_its_window;
    1 append::a_dedup_id_holds_over_a_restart [Durable];
    1 append::a_version_takes_effect_if_it_is_above_the_last;
    1 append::versions_of_racing_publishers_rise_in_the_stream;
    1 append::versions_of_racing_nodes_rise_in_the_stream [Shared];
    1 append::a_batch_takes_each_version_in_its_turn;
    1 append::a_version_holds_over_a_restart [Durable];
    1 append::confirmed_appends_survive_a_restart_in_the_same_epoch [Durable];
    1 append::a_scheduled_event_is_appended_at_its_time_and_not_before;
    1 append::a_scheduled_event_survives_a_restart [Durable];
    1 floor::a_scheduled_append_is_taken_back_before_its_time;
    1 append::nodes_share_one_stream [Shared];
    1 append::an_append_is_confirmed_when_a_replica_has_it [Replicas];
    1 append::an_append_is_confirmed_when_the_device_has_it [Syncs];
    1 append::an_append_is_not_confirmed_as_more_durable_than_it_is;
    1 typed::typed_events_of_a_batch_keep_their_keys_and_their_order;
    1 read::reads_a_range_forwards_and_backwards;
    1 read::reads_by_time;
    1 read::refuses_a_position_of_another_epoch;
    2 announce::an_announced_event_can_be_read;
    2 announce::announcement_order_is_stream_order;
    2 announce::a_quiet_event_is_not_announced_and_not_lost;
    2 announce::an_event_is_announced_on_another_channel_too;
    2 announce::a_duplicate_is_not_announced;
    2 typed::a_signature_holds_on_another_channel_of_its_tenant;
    3 subscription::gets_each_kept_event_once_and_in_order_while_appends_go_on;
    3 subscription::resumes_after_a_position;
    3 subscription::starts_at_a_time;
    3 subscription::a_slow_one_gets_every_kept_event;
    3 subscription::a_slow_one_is_told_of_dropped_live_events;
    3 subscription::is_told_what_was_trimmed_before_it_was_read;
    3 subscription::is_told_that_history_was_lost [DestroyHistory];
    3 subscription::a_lost_link_is_told_and_repaired_from_the_stream [CutLinks];
    3 subscription::several_subscriptions_of_a_channel_each_get_all;
    3 subscription::a_pattern_hears_every_channel_that_matches;
    3 subscription::skips_what_its_own_node_sent;
    3 subscription::one_node_hears_what_another_appends [Shared];
    3 subscription::a_handler_is_counted;
    3 fold::folds_every_event_once_and_goes_on_from_its_snapshot;
    3 fold::a_fold_needs_only_what_is_in_no_snapshot;
    3 fold::a_fold_begins_again_when_history_was_lost;
    3 fold::an_event_that_cannot_be_folded_is_told;
    4 session::each_event_is_claimed_once_by_concurrent_sessions;
    4 session::a_last_turn_frees_records_without_a_loss;
    4 session::a_record_goes_with_a_commit_without_a_state;
    4 floor::a_group_begins_where_it_is_told;
    4 floor::a_group_is_there_before_the_first_append;
    4 floor::a_group_is_moved_both_ways;
    4 floor::a_deleted_group_is_not_there;
    4 floor::an_append_wakes_who_claimed_fewer_than_it_asked_for;
    4 floor::a_free_record_wakes;
    4 floor::a_group_survives_a_restart [Durable];
    5 session::a_session_over_its_lease_loses_its_records_when_another_looks;
    5 session::a_session_over_its_lease_renews_until_another_looks;
    6 session::a_turn_sent_again_has_no_second_effect;
    6 session::a_turn_that_commits_what_it_does_not_hold_changes_nothing;
    6 session::items_change_with_a_commit_and_are_listed_in_order;
    6 session::a_mark_is_found_until_its_window_ends;
    8 floor::what_a_group_has_not_settled_is_kept;
    8 floor::moving_back_keeps_the_events_of_partitions;
    8 floor::an_append_is_refused_at_a_bound_of_unsettled_events;
    8 floor::the_oldest_is_dropped_and_told_where_the_policy_says_so;
    4 group::each_event_is_handled_by_one_of_two_processes;
    4 group::what_is_acknowledged_does_not_come_again;
    4 group::a_failed_delivery_comes_again_after_its_wait;
    4 group::an_open_breaker_holds_deliveries_back_without_an_attempt;
    6 group::what_fails_too_often_is_a_dead_letter_and_others_go_on;
    9 group::events_of_a_key_are_handled_one_at_a_time_in_order;
    9 group::a_key_that_waits_holds_up_no_other;
    6 dead_letter::a_rejected_event_is_one_letter_with_its_bytes_and_reason;
    6 dead_letter::a_replay_is_handled_by_its_group_alone;
    6 dead_letter::a_replay_that_was_cut_short_appends_no_second_copy;
    6 dead_letter::a_purge_removes_what_its_filter_picks;
    6 dead_letter::letters_and_the_trail_survive_a_restart [Durable];
    4 dead_letter::a_move_says_what_it_does;
    4 dead_letter::an_event_is_found_wherever_it_is;
    4 delivery::a_dropped_delivery_comes_back_without_an_attempt;
    4 delivery::a_stopped_consumer_hands_back_without_an_attempt;
    4 delivery::a_panic_and_a_timeout_are_retries;
    4 delivery::a_delayed_retry_outlives_its_process;
    4 delivery::a_delayed_retry_survives_a_restart [Durable];
    4 delivery::a_closed_node_hands_over_to_another [Shared];
    5 delivery::a_crashed_process_loses_its_deliveries_and_they_count;
    5 delivery::a_slow_handler_keeps_its_delivery;
    5 delivery::a_process_that_stood_still_is_told_what_it_has_lost;
    4 delivery::a_consumer_goes_on_after_its_links_were_cut [CutLinks];
    5 delivery::a_handler_is_told_that_its_delivery_is_lost;
    6 delivery::what_ends_each_process_is_a_dead_letter_alone;
    6 delivery::what_ends_each_process_takes_its_key_not_with_it;
    6 delivery::a_dead_letter_is_there_once_and_is_replayed_once;
    6 typed::a_signed_dead_letter_is_replayed_and_handled;
    7 delivery::bytes_that_are_no_event_go_to_the_dead_letters;
    7 typed::events_of_older_versions_are_read_by_a_newer_handler_in_order;
    7 typed::an_event_of_an_unknown_version_is_a_dead_letter_with_its_bytes;
    7 typed::an_event_of_an_unknown_version_is_passed_over_where_that_is_said;
    7 typed::an_event_of_an_unknown_version_waits_where_that_is_said;
    7 typed::what_cannot_be_trusted_is_a_dead_letter_with_its_reason;
    7 typed::a_key_that_is_not_known_yet_is_waited_for;
    7 typed::a_marked_value_is_in_no_reason;
    4 effect::a_group_begins_where_its_consumer_says;
    4 effect::a_group_that_is_lost_is_made_again_and_told;
    4 effect::a_group_goes_on_after_all_history_is_lost [DestroyHistory];
    4 effect::a_loss_is_told_whoever_makes_the_group_again [DestroyHistory];
    4 effect::what_was_settled_is_followed_up_after_a_crash;
    5 effect::prefetched_deliveries_are_renewed_with_the_others;
    6 effect::what_is_emitted_is_appended_once_with_the_ack;
    6 effect::a_muted_group_emits_nothing;
    8 effect::a_slow_group_is_waited_for_at_the_bound;
    8 effect::a_slow_group_is_told_what_was_dropped;
    9 order::partitions_are_shared_out_after_a_join_and_a_leave;
    9 order::nodes_share_out_the_partitions [Shared];
    9 order::the_share_of_a_dead_process_goes_on_in_order;
    9 order::order_survives_a_restart [Durable];
    9 order::a_stop_begins_nothing_more_of_a_key;
    9 order::a_parked_key_holds_up_no_other_and_burns_no_attempt;
    9 order::a_move_back_gives_events_again_in_order;
    9 order::a_move_back_while_a_key_waits_keeps_its_order;
    4 order::a_move_back_lets_be_what_is_in_flight;
    10 effect::each_group_of_each_tenant_gets_its_own;
    13 effect::a_consumer_takes_what_it_has_room_for;
    14 effect::an_event_is_handled_once_within_its_window;
    14 delivery::a_crash_after_the_effect_gives_it_twice;
    4 trap::a_wait_that_is_dropped_takes_nothing;
    4 trap::what_is_said_to_be_kept_is_kept;
    5 trap::a_session_is_one_process;
    5 trap::a_dead_session_behind_many_is_found;
    8 trap::what_is_trimmed_while_nobody_has_it_is_told;
    8 retention::keeps_the_newest_and_counts_the_rest;
    8 retention::keeps_what_is_young_enough;
    8 retention::a_trim_is_counted_and_told;
    8 retention::a_stream_trimmed_empty_goes_on_counting;
    9 session::each_partition_is_held_by_one_session;
    9 floor::fences_rise_over_a_restart [Durable];
    10 group::consumers_of_two_tenants_share_a_pool;
    10 tenant::equal_names_in_two_tenants_are_apart;
    10 tenant::a_pattern_stays_in_its_tenant;
    10 tenant::environments_are_apart;
    10 tenant::a_name_cannot_spell_another_tenants;
    10 typed::what_is_sealed_is_read_by_its_tenant_alone;
    13 bounds::what_is_over_a_limit_is_refused_with_its_name;
    13 bounds::a_page_is_bounded;
    13 session::a_page_of_a_turn_is_bounded;
    13 session::a_page_of_items_is_bounded;
    13 bounds::what_is_at_a_limit_passes_unchanged;
    14 level::a_live_event_is_not_kept;
    14 level::live_events_arrive_once_and_in_order;
    14 level::many_channels_take_one_call;
    14 store::a_condition_decides_a_put;
    14 store::one_of_many_concurrent_puts_finds_the_key_absent;
    14 store::an_entry_expires;
    14 store::entries_survive_a_restart [Durable];
    13 members::a_page_of_members_is_bounded;
    14 members::a_change_of_members_says_what_was_there;
    14 members::a_member_past_its_time_is_listed_as_such;
    14 members::one_of_many_concurrent_changes_finds_the_set_empty;
    10 presence::presence_in_two_tenants_is_apart;
    14 presence::presence_lists_who_has_joined_until_it_leaves;
    14 presence::presence_is_listed_page_by_page_while_others_come_and_go;
    14 presence::presence_tells_the_first_and_the_last_once;
    14 presence::presence_of_a_dead_node_ends_with_its_lease_and_is_told_once;
    14 presence::presence_of_a_dead_node_is_seen_off_before_it_is_removed;
    14 presence::presence_of_a_node_that_stood_still_comes_back;
    14 presence::presence_that_a_takeover_has_lost_is_written_again;
    14 presence::presence_goes_on_while_links_are_cut [CutLinks];
    14 presence::presence_is_shared_by_nodes [Shared];
    13 lifecycle::a_closed_node_refuses_and_has_finished;
    11 lifecycle::every_link_answers_a_probe;
}
