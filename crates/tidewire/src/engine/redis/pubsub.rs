//! Live events and announcements over Redis pub/sub.

use std::sync::Arc;

use bytes::Bytes;

use super::announcement::{self, PublishLive};
use super::command::Encode;
use super::connection::Repeat;
use super::keys::{self, Tag};
use super::resp::Value;
use super::scripts::Publish;
use super::topology::Topology;
use crate::engine::{Answer, Interest, Probe, PubSub};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ChannelPath;

pub(super) struct RedisPubSub {
    pub(super) topology: Arc<Topology>,
}

/// Sends what `command` publishes on a channel, and on a cluster to those with patterns too, if there are any in the
/// channel's slot: `for_patterns` is what they hear.
pub(super) async fn publish_on<C: Encode>(
    topology: &Topology,
    channel: &ChannelPath,
    command: &C,
    for_patterns: impl FnOnce() -> Vec<u8>,
) -> Result<()> {
    let (tag, publish, deadline) = (Tag::of_channel(channel), topology.scripts.publish, topology.deadline());
    let sent = topology.request(tag, command, Repeat::Never, deadline);
    if publish == Publish::Classic {
        sent.await?;
        return Ok(());
    }
    let patterns = keys::patterns(channel.environment(), channel.tenant(), tag);
    let (sent, count) = tokio::join!(sent, listeners(topology, tag, &patterns));
    sent?;
    if count? > 0 {
        let payload = for_patterns();
        let command: [&[u8]; 3] = [publish.command().as_bytes(), patterns.as_bytes(), &payload];
        topology.request(tag, &command, Repeat::Never, deadline).await?;
    }
    Ok(())
}

/// Nodes that hear a Redis channel.
async fn listeners(topology: &Topology, tag: Tag, channel: &str) -> Result<u64> {
    let count: &[u8] = match topology.scripts.publish {
        Publish::Classic => b"NUMSUB",
        Publish::Sharded => b"SHARDNUMSUB",
    };
    let command: [&[u8]; 3] = [b"PUBSUB", count, channel.as_bytes()];
    let reply = topology.request(tag, &command, Repeat::Safe, topology.deadline()).await?;
    let count = reply.into_array().and_then(|counts| counts.get(1).and_then(Value::as_int));
    count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| malformed("PUBSUB NUMSUB"))
}

impl PubSub for RedisPubSub {
    fn publish(&self, channel: &ChannelPath, envelope: Bytes) -> Answer<'_, ()> {
        let channel = channel.clone();
        Box::pin(async move {
            let parts = keys::channel_parts(&channel, Tag::of_channel(&channel));
            let command =
                PublishLive { publish: self.topology.scripts.publish, channel: parts, envelope: &envelope };
            let for_patterns = || announcement::live_for_patterns(&keys::channel(&channel), &envelope);
            publish_on(&self.topology, &channel, &command, for_patterns).await
        })
    }

    fn subscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        Box::pin(async move { self.topology.subscribe(interests, self.topology.deadline()).await })
    }

    fn unsubscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        self.topology.unsubscribe(&interests);
        Box::pin(std::future::ready(Ok(())))
    }

    fn subscribers(&self, channel: &ChannelPath) -> Answer<'_, u64> {
        let (tag, key) = (Tag::of_channel(channel), keys::channel(channel));
        Box::pin(async move { listeners(&self.topology, tag, &key).await })
    }

    fn probe(&self) -> Answer<'_, Vec<Probe>> {
        Box::pin(async move { Ok(self.topology.probe().await) })
    }
}

/// A reply of another shape than the command's documentation or our script says.
pub(super) fn malformed(command: &str) -> Error {
    Error::new(ErrorKind::Engine, format!("redis answered {command} with something else"))
}
