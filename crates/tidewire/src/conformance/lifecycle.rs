//! Opening, health and closing.

use std::time::Duration;

use super::scene::{Scene, append_numbered, next_numbers, numbered, patiently};
use crate::error::ErrorKind;

pub(super) async fn a_closed_node_refuses_and_has_finished(scene: Scene) {
    let (node, channel) = scene.channel().await;
    let mut subscription = channel.subscribe().open().await.expect("listening");
    append_numbered(&channel, 0..3).await;
    // What a batcher holds is sent before the node is gone.
    let batcher = channel.batcher().wait_max(Duration::from_secs(3_600)).start();
    let confirmation = batcher.push(numbered(3)).await.expect("taken");
    node.close(Duration::from_secs(10)).await.expect("closed");
    patiently("the batch", confirmation).await.expect("confirmed");
    assert_eq!(channel.publish(numbered(9)).await.expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(channel.append(numbered(9)).await.expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(next_numbers(&mut subscription, 3).await, [0, 1, 2]);
    let rest = patiently("the end", async {
        let mut count = 0;
        while subscription.next().await.is_some() {
            count += 1;
        }
        count
    });
    assert!(rest.await <= 1, "at most the batched event, then the end");
}

pub(super) async fn every_link_answers_a_probe(scene: Scene) {
    let node = scene.open().await;
    let health = node.health().await;
    assert!(health.is_healthy() && !health.links.is_empty(), "{health:?}");
}
