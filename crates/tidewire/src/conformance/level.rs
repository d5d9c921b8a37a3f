//! Guarantee 14: levels are named. Live: at most once, no memory.

use super::scene::{Scene, append_numbered, next_event, next_numbers, number, numbered};

pub(super) async fn a_live_event_is_not_kept(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    channel.publish(numbered(1)).await.expect("sent to nobody");
    let mut subscription = channel.subscribe().earliest().open().await.expect("listening");
    append_numbered(&channel, [2]).await;
    let received = next_event(&mut subscription).await;
    assert_eq!((number(&received), received.position.map(|position| position.offset)), (2, Some(1)));
}

pub(super) async fn live_events_arrive_once_and_in_order(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    for n in 0..200 {
        channel.publish(numbered(n)).await.expect("sent");
    }
    assert_eq!(next_numbers(&mut subscription, 200).await, (0..200).collect::<Vec<_>>());
}

pub(super) async fn many_channels_take_one_call(scene: Scene) {
    let node = scene.open().await;
    let tenant = scene.tenant(&node);
    let mut subscription = tenant.subscribe("room:*").expect("valid").open().await.expect("listening");
    let names: Vec<_> = (0..50).map(|n| format!("room:{n}")).collect();
    let mut events: Vec<_> = names.iter().enumerate().map(|(n, name)| (name.as_str(), numbered(n))).collect();
    events.push(("no such{name}", numbered(50)));
    let outcomes = tenant.publish_many(events).await;
    assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), outcomes.len()), (50, 51));
    let mut heard = Vec::new();
    for _ in 0..50 {
        let received = next_event(&mut subscription).await;
        assert_eq!(received.channel.channel(), format!("room:{}", number(&received)));
        heard.push(number(&received));
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..50).collect::<Vec<_>>());
}
