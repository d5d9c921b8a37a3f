//! Guarantee 3: each kept event once and in order, or a gap that says what is missing.

use std::time::Duration;

use super::scene::{
    Scene, append_numbered, next, next_event, next_gap, next_numbers, number, numbered, patiently,
};
use crate::bus::{Gap, GapReason, Item};
use crate::limits::Limits;
use crate::position::Position;

pub(super) async fn gets_each_kept_event_once_and_in_order_while_appends_go_on(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let appends = append_numbered(&channel, 0..300);
    let subscribers = async {
        for round in 0..10 {
            // Each starts somewhere in the middle of the appends.
            let mut subscription = channel.subscribe().earliest().open().await.expect("listening");
            assert_eq!(
                next_numbers(&mut subscription, 300 - round).await,
                (0..300 - round).collect::<Vec<_>>()
            );
        }
    };
    tokio::join!(appends, subscribers);
    drop(node);
}

pub(super) async fn resumes_after_a_position(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    append_numbered(&channel, 0..5).await;
    let mut last_seen = None;
    for _ in 0..5 {
        last_seen = next_event(&mut subscription).await.position;
    }
    drop(subscription);
    append_numbered(&channel, 5..10).await;
    let last_seen = last_seen.expect("a kept event");
    let mut subscription = channel.subscribe().after(last_seen).open().await.expect("listening");
    append_numbered(&channel, 10..12).await;
    assert_eq!(next_numbers(&mut subscription, 7).await, (5..12).collect::<Vec<_>>());
    let ahead = Position { offset: 99, ..last_seen };
    assert!(channel.subscribe().after(ahead).open().await.is_err(), "a position past the end is refused");
}

pub(super) async fn starts_at_a_time(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..3).await;
    scene.pass(scene.ticks(1)).await;
    append_numbered(&channel, 3..5).await;
    let time = channel.read().await.expect("read").events.get(3).expect("the first one after the pause").time;
    let mut subscription = channel.subscribe().since(time).open().await.expect("listening");
    append_numbered(&channel, 5..6).await;
    assert_eq!(next_numbers(&mut subscription, 3).await, [3, 4, 5]);
}

fn few_waiting() -> Limits {
    Limits { subscription_events_max: 8, ..Limits::default() }
}

pub(super) async fn a_slow_one_gets_every_kept_event(scene: Scene) {
    let node = scene.builder().limits(few_waiting()).open().await.expect("the engine opens");
    let channel = scene.tenant(&node).channel("orders").expect("a valid name");
    let mut subscription = channel.subscribe().open().await.expect("listening");
    append_numbered(&channel, 0..500).await;
    assert_eq!(next_numbers(&mut subscription, 500).await, (0..500).collect::<Vec<_>>());
    append_numbered(&channel, 500..501).await;
    assert_eq!(next_numbers(&mut subscription, 1).await, [500]);
}

pub(super) async fn a_slow_one_is_told_of_dropped_live_events(scene: Scene) {
    let node = scene.builder().limits(few_waiting()).open().await.expect("the engine opens");
    let channel = scene.tenant(&node).channel("orders").expect("a valid name");
    let mut witness = channel.subscribe().open().await.expect("listening");
    let mut slow = channel.subscribe().open().await.expect("listening");
    for n in 0..20 {
        channel.publish(numbered(n)).await.expect("sent");
        // The witness has it, so the slow one's lane has it or has dropped it.
        assert_eq!(next_numbers(&mut witness, 1).await, [n]);
    }
    assert_eq!(next_numbers(&mut slow, 8).await, (0..8).collect::<Vec<_>>());
    assert_eq!(next_gap(&mut slow).await.reason, GapReason::Overflow(12));
}

pub(super) async fn is_told_what_was_trimmed_before_it_was_read(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let first = channel.append(numbered(1)).await.expect("confirmed").position.expect("a position");
    append_numbered(&channel, 2..=10).await;
    channel.trim(Position { offset: 6, ..first }).await.expect("trimmed");
    let mut subscription = channel.subscribe().after(first).open().await.expect("listening");
    let at = |offset| Some(Position { offset, ..first });
    let expected =
        Gap { channel: Some(channel.path().clone()), from: at(2), to: at(5), reason: GapReason::Trimmed };
    assert_eq!(next_gap(&mut subscription).await, expected);
    assert_eq!(next_numbers(&mut subscription, 5).await, (6..=10).collect::<Vec<_>>());
}

pub(super) async fn is_told_that_history_was_lost(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    append_numbered(&channel, 0..3).await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    append_numbered(&channel, 3..5).await;
    assert_eq!(next_numbers(&mut subscription, 2).await, [3, 4]);
    let lost = channel.read().await.expect("read").end();
    scene.destroy_history().await;
    append_numbered(&channel, 5..7).await;
    let gap = next_gap(&mut subscription).await;
    assert_eq!((gap.reason, gap.from.map(|from| from.epoch)), (GapReason::HistoryLost, Some(lost.epoch)));
    assert_eq!(next_numbers(&mut subscription, 2).await, [5, 6]);
    let mut resumed = channel.subscribe().after(lost).open().await.expect("listening");
    assert_eq!(next_gap(&mut resumed).await.reason, GapReason::HistoryLost);
    assert_eq!(next_numbers(&mut resumed, 2).await, [5, 6]);
}

pub(super) async fn a_lost_link_is_told_and_repaired_from_the_stream(scene: Scene) {
    let ((_one, here), (_other, there)) = (scene.channel().await, scene.channel().await);
    let mut subscription = here.subscribe().open().await.expect("listening");
    append_numbered(&there, 0..5).await;
    assert_eq!(next_numbers(&mut subscription, 5).await, (0..5).collect::<Vec<_>>());
    let appends = async {
        for n in 5..200 {
            if n % 50 == 0 {
                scene.cut_links().await;
            }
            append_numbered(&there, [n]).await;
        }
    };
    let reads = async {
        let (mut numbers, mut is_told) = (Vec::new(), false);
        while numbers.len() < 195 || !is_told {
            match next(&mut subscription).await {
                Item::Event(received) => numbers.push(number(&received)),
                Item::Gap(gap) => {
                    assert_eq!(gap.reason, GapReason::LinkLost, "a lost link loses no kept event");
                    is_told = true;
                }
            }
        }
        numbers
    };
    let ((), numbers) = tokio::join!(appends, reads);
    assert_eq!(numbers, (5..200).collect::<Vec<_>>());
}

pub(super) async fn several_subscriptions_of_a_channel_each_get_all(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut one = channel.subscribe().open().await.expect("listening");
    let mut other = channel.subscribe().open().await.expect("listening");
    append_numbered(&channel, [1]).await;
    channel.publish(numbered(2)).await.expect("sent");
    for subscription in [&mut one, &mut other] {
        assert_eq!(next_numbers(subscription, 2).await, [1, 2]);
    }
    drop(one);
    append_numbered(&channel, [3]).await;
    assert_eq!(next_numbers(&mut other, 1).await, [3]);
}

pub(super) async fn a_pattern_hears_every_channel_that_matches(scene: Scene) {
    let node = scene.open().await;
    let tenant = scene.tenant(&node);
    let channel = |name| tenant.channel(name).expect("a valid name");
    let (seven, eight, other) = (channel("match:7"), channel("match:8"), channel("other"));
    let mut subscription =
        tenant.subscribe("match:*").expect("a valid pattern").open().await.expect("listening");
    append_numbered(&other, [0]).await;
    append_numbered(&seven, [1]).await;
    eight.publish(numbered(2)).await.expect("sent");
    seven.append(numbered(3)).quiet().await.expect("confirmed");
    append_numbered(&seven, [4]).await;
    let mut heard = Vec::new();
    for _ in 0..4 {
        let received = next_event(&mut subscription).await;
        heard.push((received.channel.channel().to_owned(), number(&received)));
    }
    let expected = [("match:7", 1), ("match:8", 2), ("match:7", 3), ("match:7", 4)];
    assert_eq!(heard, expected.map(|(name, number)| (name.to_owned(), number)));
}

pub(super) async fn skips_what_its_own_node_sent(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut others = channel.subscribe().skip_own().open().await.expect("listening");
    let mut all = channel.subscribe().open().await.expect("listening");
    append_numbered(&channel, [1]).await;
    channel.publish(numbered(2)).await.expect("sent");
    assert_eq!(next_numbers(&mut all, 2).await, [1, 2]);
    let silence = futures_util::FutureExt::now_or_never(others.next());
    assert!(silence.is_none(), "own events are left out, and no gap is told for them: {silence:?}");
}

pub(super) async fn one_node_hears_what_another_appends(scene: Scene) {
    let ((one, here), (_other, there)) = (scene.channel().await, scene.channel().await);
    let mut subscription = here.subscribe().skip_own().open().await.expect("listening");
    append_numbered(&here, [1]).await;
    append_numbered(&there, [2]).await;
    there.publish(numbered(3)).await.expect("sent");
    let heard = [next_event(&mut subscription).await, next_event(&mut subscription).await];
    assert_eq!(heard.each_ref().map(number), [2, 3]);
    assert!(heard.iter().all(|received| received.event.node() != one.node()));
    assert_eq!(here.stats().await.expect("stats").subscribers, 1);
}

pub(super) async fn a_handler_is_counted(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let subscription = channel.subscribe().open().await.expect("listening");
    append_numbered(&channel, 0..10).await;
    let (done, mut all_done) = tokio::sync::mpsc::channel(10);
    let handler = subscription.handle(move |item| {
        let done = done.clone();
        async move {
            let number = item.into_event().map_or(0, |received| number(&received));
            done.send(number).await.map_err(|error| error.to_string())?;
            if number % 2 == 0 { Ok(()) } else { Err(format!("{number} is odd")) }
        }
    });
    let waits = async {
        for expected in 0..10 {
            assert_eq!(patiently("the handler", all_done.recv()).await, Some(expected));
        }
        node.close(Duration::from_secs(10)).await.expect("closed");
    };
    tokio::join!(handler, waits);
    let (published, received) = node.stats();
    assert_eq!((published.total, published.succeeded, published.failed), (10, 10, 0));
    assert_eq!((received.received, received.processed, received.failed), (10, 5, 5));
}
