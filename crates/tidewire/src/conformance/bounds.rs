//! Guarantee 13: everything has a bound, and what is over it is refused with the bound's name.

use futures_util::future::join_all;

use super::scene::{Scene, append_numbered, next_event, numbered};
use crate::error::ErrorKind;
use crate::event::Event;
use crate::limits;

pub(super) async fn what_is_over_a_limit_is_refused_with_its_name(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let tenant = scene.tenant(&node);
    let large = Event::new("large", vec![b' '; 1024 * 1024 + 1]);
    for outcome in [channel.publish(large.clone()).await, channel.append(large).await.map(drop)] {
        let error = outcome.expect_err("over the limit");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(
            error.to_string(),
            "event data is 1048577 bytes, limit is 1048576 (limits.event_bytes_max)"
        );
    }
    let wordy = Event::new("wordy", "").with_subject(&"s".repeat(limits::METADATA_BYTES_MAX));
    assert_eq!(channel.publish(wordy).await.expect_err("over the limit").kind(), ErrorKind::TooLarge);
    let id = "i".repeat(limits::DEDUP_ID_BYTES_MAX + 1);
    let error = channel.append(Event::new("e", "")).dedup(&id).await.expect_err("over the limit");
    assert!(error.to_string().contains("DEDUP_ID_BYTES_MAX"), "{error}");
    let error = tenant.channel(&"c".repeat(256)).expect_err("over the limit");
    assert!(error.to_string().contains("CHANNEL_NAME_BYTES_MAX"), "{error}");
    assert!(tenant.subscribe("a*b*c*d*e*f").is_err());
    assert_eq!(channel.read().await.expect("read").last, 0, "nothing was appended");
}

pub(super) async fn a_page_is_bounded(scene: Scene) {
    let (_node, channel) = scene.channel().await;
    let batcher = channel.batcher().events_max(1_000).start();
    let mut confirmations = Vec::new();
    for n in 0..1_500 {
        confirmations.push(batcher.push(numbered(n)).await.expect("taken"));
    }
    let confirmed = scene.pass_until("the batches", join_all(confirmations)).await;
    assert!(confirmed.iter().all(Result::is_ok));
    let page = channel.read().limit(usize::MAX).await.expect("read");
    assert_eq!((page.events.len(), page.last), (limits::BATCH_EVENTS_MAX, 1_500));
    for _ in 0..9 {
        channel.append(Event::new("mebi", vec![b' '; 1024 * 1024])).await.expect("confirmed");
    }
    let page = channel.read().backwards().await.expect("read");
    let bytes: usize = page.events.iter().map(|received| received.event.data().len()).sum();
    assert!(bytes <= limits::BATCH_BYTES_MAX && !page.events.is_empty(), "{bytes} bytes in a page");
}

pub(super) async fn what_is_at_a_limit_passes_unchanged(scene: Scene) {
    let node = scene.open().await;
    let channel = scene.tenant(&node).channel(&"c".repeat(limits::CHANNEL_NAME_BYTES_MAX)).expect("valid");
    let mut subscription = channel.subscribe().open().await.expect("listening");
    // Every byte value, so that nothing on the way treats data as text.
    let data: Vec<u8> = (0..=255).cycle().take(1024 * 1024).collect();
    let id = "i".repeat(limits::DEDUP_ID_BYTES_MAX);
    channel.append(Event::new("e", data.clone())).dedup(&id).await.expect("confirmed");
    channel.publish(Event::new("e", data.clone())).await.expect("sent");
    for _ in 0..2 {
        assert!(next_event(&mut subscription).await.event.data() == data.as_slice());
    }
    append_numbered(&channel, [1]).await;
}
