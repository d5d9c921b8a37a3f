//! The pub/sub of `file:`: that of the process, and a probe of the writer beside it.

use std::sync::Arc;

use bytes::Bytes;

use super::queue::Queue;
use super::writer::Job;
use crate::clock::Stopwatch;
use crate::engine::embedded::pubsub::LocalPubSub;
use crate::engine::{Answer, Interest, Probe, PubSub};
use crate::name::ChannelPath;

pub(super) struct FilePubSub {
    pub(super) local: LocalPubSub,
    pub(super) queue: Arc<Queue<Job>>,
    /// Name of the log's link.
    pub(super) link: String,
}

impl PubSub for FilePubSub {
    fn publish<'a>(&'a self, channel: &'a ChannelPath, envelope: Bytes) -> Answer<'a, ()> {
        self.local.publish(channel, envelope)
    }

    fn subscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        self.local.subscribe(interests)
    }

    fn unsubscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        self.local.unsubscribe(interests)
    }

    fn subscribers(&self, channel: &ChannelPath) -> Answer<'_, u64> {
        self.local.subscribers(channel)
    }

    fn probe(&self) -> Answer<'_, Vec<Probe>> {
        Box::pin(async move {
            let mut probes = self.local.probe().await?;
            let watch = Stopwatch::start();
            let outcome = self.queue.ask(1, Job::Probe).await;
            let outcome = outcome.map(|()| watch.elapsed()).map_err(|error| error.to_string());
            probes.push(Probe {
                link: self.link.clone(),
                outcome,
                is_needed: true,
                opened: 0,
                open_for: None,
            });
            Ok(probes)
        })
    }
}
