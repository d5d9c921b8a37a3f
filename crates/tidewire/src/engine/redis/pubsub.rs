//! Live events and announcements over Redis pub/sub.

use std::sync::Arc;

use bytes::Bytes;

use super::announcement::PublishLive;
use super::connection::Repeat;
use super::keys::{self, Tag};
use super::resp::Value;
use super::topology::Topology;
use crate::engine::{Answer, Interest, Probe, PubSub};
use crate::error::{Error, ErrorKind};
use crate::name::ChannelPath;

pub(super) struct RedisPubSub {
    pub(super) topology: Arc<Topology>,
}

impl PubSub for RedisPubSub {
    fn publish(&self, channel: &ChannelPath, envelope: Bytes) -> Answer<'_, ()> {
        let (tag, channel) = (Tag::of_channel(channel), channel.clone());
        Box::pin(async move {
            let command = PublishLive { channel: keys::channel_parts(&channel, tag), envelope: &envelope };
            let deadline = self.topology.deadline();
            self.topology.data(tag).request(&command, Repeat::Never, deadline).await?;
            Ok(())
        })
    }

    fn subscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        Box::pin(
            async move { self.topology.subscriber().subscribe(interests, self.topology.deadline()).await },
        )
    }

    fn unsubscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        self.topology.subscriber().unsubscribe(&interests);
        Box::pin(std::future::ready(Ok(())))
    }

    fn subscribers(&self, channel: &ChannelPath) -> Answer<'_, u64> {
        let (tag, key) = (Tag::of_channel(channel), keys::channel(channel));
        Box::pin(async move {
            let command: [&[u8]; 3] = [b"PUBSUB", b"NUMSUB", key.as_bytes()];
            let deadline = self.topology.deadline();
            let reply = self.topology.data(tag).request(&command, Repeat::Safe, deadline).await?;
            let count = reply.into_array().and_then(|counts| counts.get(1).and_then(Value::as_int));
            count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| malformed("PUBSUB NUMSUB"))
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
