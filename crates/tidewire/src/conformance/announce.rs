//! Guarantee 2: announcements follow what can be read, in stream order.

use futures_util::future::join_all;

use super::scene::{Scene, append_numbered, next_event, next_numbers, number, numbered};

pub(super) async fn an_announced_event_can_be_read(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    let appends = async {
        for n in 0..50 {
            append_numbered(&channel, [n]).await;
        }
    };
    let reads = async {
        for n in 0..50 {
            let position = next_event(&mut subscription).await.position.expect("a kept event");
            let found = channel.read().backwards().before(position).await.expect("read").last;
            assert!(found >= position.offset, "announced {position} but the stream ends at {found}");
            assert_eq!(position.offset, n + 1);
        }
    };
    tokio::join!(appends, reads);
}

pub(super) async fn announcement_order_is_stream_order(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    let appends = join_all((0..300).map(|n| channel.append(numbered(n)).into_future()));
    let heard = async {
        let mut heard = Vec::new();
        for _ in 0..300 {
            heard.push(next_event(&mut subscription).await);
        }
        heard
    };
    let (_receipts, heard) = tokio::join!(appends, heard);
    let stream = channel.read().await.expect("read").events;
    assert!(heard.iter().map(|event| event.position).eq(stream.iter().map(|event| event.position)));
    assert!(heard.iter().map(number).eq(stream.iter().map(number)));
}

pub(super) async fn a_quiet_event_is_not_announced_and_not_lost(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    channel.append(numbered(1)).quiet().await.expect("confirmed");
    // A live event overtakes the quiet one, which shows with the next announcement.
    channel.publish(numbered(100)).await.expect("sent");
    append_numbered(&channel, [2]).await;
    assert_eq!(next_numbers(&mut subscription, 3).await, [100, 1, 2]);
}

pub(super) async fn an_event_is_announced_on_another_channel_too(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let other = scene.tenant(&node).channel("notifications").expect("a valid name");
    let mut here = channel.subscribe().open().await.expect("listening");
    let mut there = other.subscribe().open().await.expect("listening");
    let receipt = channel.append(numbered(1)).announce_on("notifications").await.expect("confirmed");
    let (heard_here, heard_there) = (next_event(&mut here).await, next_event(&mut there).await);
    assert_eq!((heard_here.position, heard_there.position), (receipt.position, receipt.position));
    assert_eq!(heard_there.channel.channel(), "notifications");
    assert_eq!(other.stats().await.expect("stats").stream.length, 0, "it is kept once, in its own stream");
}

pub(super) async fn a_duplicate_is_not_announced(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    channel.append(numbered(1)).dedup("id").await.expect("confirmed");
    channel.append(numbered(2)).dedup("id").await.expect("confirmed");
    append_numbered(&channel, [3]).await;
    assert_eq!(next_numbers(&mut subscription, 2).await, [1, 3]);
}
