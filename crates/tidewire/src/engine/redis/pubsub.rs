//! Live events and announcements over Redis pub/sub.

use std::sync::Arc;

use bytes::Bytes;

use super::announcement::{self, PublishLive};
use super::command::Encode;
use super::connection::Repeat;
use super::keys::{self, Tag};
use super::scripts::Publish;
use super::topology::{Topology, listeners};
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
    let (tag, deadline) = (Tag::of_channel(channel), topology.deadline());
    let patterns = || keys::patterns(channel.environment(), channel.tenant(), tag);
    if topology.publish(tag, command, patterns, deadline).await? > 0 {
        let (publish, patterns, payload) = (topology.scripts.publish.command(), patterns(), for_patterns());
        let command: [&[u8]; 3] = [publish.as_bytes(), patterns.as_bytes(), &payload];
        Box::pin(topology.request(tag, &command, Repeat::Never, deadline)).await?;
    }
    Ok(())
}

impl PubSub for RedisPubSub {
    fn publish<'a>(&'a self, channel: &'a ChannelPath, envelope: Bytes) -> Answer<'a, ()> {
        Box::pin(async move {
            let publish = self.topology.scripts.publish;
            let command = PublishLive::new(publish, channel, Tag::of_channel(channel), &envelope);
            // Without the steps that a cluster needs, the future has a third of the size.
            if let Some(server) = self.topology.only() {
                server.request(&command, Repeat::Never, self.topology.deadline()).await?;
                return Ok(());
            }
            let for_patterns = || announcement::live_for_patterns(&keys::channel(channel), &envelope);
            Box::pin(publish_on(&self.topology, channel, &command, for_patterns)).await
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
        Box::pin(async move {
            let count: &[u8] = match self.topology.scripts.publish {
                Publish::Classic => b"NUMSUB",
                Publish::Sharded => b"SHARDNUMSUB",
            };
            let command: [&[u8]; 3] = [b"PUBSUB", count, key.as_bytes()];
            let deadline = self.topology.deadline();
            listeners(self.topology.request(tag, &command, Repeat::Safe, deadline).await?)
        })
    }

    fn probe(&self) -> Answer<'_, Vec<Probe>> {
        Box::pin(async move { Ok(self.topology.probe().await) })
    }
}

/// A reply of another shape than the command's documentation or our script says.
pub(super) fn malformed(command: &str) -> Error {
    Error::new(ErrorKind::Engine, format!("redis answered {command} with something else"))
}
