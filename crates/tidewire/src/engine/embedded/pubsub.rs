//! Live events and announcements within one process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use rustc_hash::FxHashSet;

use crate::engine::{Announce, Answer, Append, Heard, Interest, Kept, Probe, PubSub, Sink};
use crate::name::{ChannelPath, PatternPath};

/// Hands what is published or announced straight to the sink of this process. Clones share the interests.
#[derive(Clone)]
pub(super) struct LocalPubSub {
    interests: Arc<RwLock<Interests>>,
    sink: Arc<dyn Sink>,
}

#[derive(Default)]
struct Interests {
    channels: FxHashSet<ChannelPath>,
    patterns: FxHashSet<PatternPath>,
    work: FxHashSet<ChannelPath>,
}

impl LocalPubSub {
    pub(super) fn new(sink: Arc<dyn Sink>) -> Self {
        Self { interests: Arc::default(), sink }
    }

    /// Announces an append that is readable at `kept`. The caller holds whatever keeps the stream's order.
    pub(super) fn announce(&self, append: &Append, kept: &Kept) {
        match &append.announce {
            Announce::Quiet => {}
            Announce::Here => self.tell(&append.channel, Some(kept), &append.envelope),
            Announce::AlsoOn(other) => {
                self.tell(&append.channel, Some(kept), &append.envelope);
                let elsewhere = Kept { stream: Some(append.channel.clone()), ..kept.clone() };
                self.tell(other, Some(&elsewhere), &append.envelope);
            }
        }
    }

    /// Tells that the groups of a stream may have something to do.
    pub(super) fn tell_work(&self, channel: &ChannelPath) {
        if self.interests.read().work.contains(channel) {
            self.sink.hear(Heard::Work(channel.clone()));
        }
    }

    fn tell(&self, channel: &ChannelPath, kept: Option<&Kept>, envelope: &Bytes) {
        let interests = self.interests.read();
        let hear = |interest| {
            let (channel, kept, envelope) = (channel.clone(), kept.cloned(), envelope.clone());
            self.sink.hear(Heard::Event { interest, channel, kept, envelope });
        };
        if interests.channels.contains(channel) {
            hear(Interest::Channel(channel.clone()));
        }
        for pattern in interests.patterns.iter().filter(|pattern| pattern.matches(channel)) {
            hear(Interest::Pattern(pattern.clone()));
        }
    }
}

impl PubSub for LocalPubSub {
    fn publish<'a>(&'a self, channel: &'a ChannelPath, envelope: Bytes) -> Answer<'a, ()> {
        self.tell(channel, None, &envelope);
        Box::pin(std::future::ready(Ok(())))
    }

    fn subscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        let mut held = self.interests.write();
        for interest in interests {
            match interest {
                Interest::Channel(channel) => held.channels.insert(channel),
                Interest::Pattern(pattern) => held.patterns.insert(pattern),
                Interest::Work(channel) => held.work.insert(channel),
            };
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn unsubscribe(&self, interests: Vec<Interest>) -> Answer<'_, ()> {
        let mut held = self.interests.write();
        for interest in &interests {
            match interest {
                Interest::Channel(channel) => held.channels.remove(channel),
                Interest::Pattern(pattern) => held.patterns.remove(pattern),
                Interest::Work(channel) => held.work.remove(channel),
            };
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn subscribers(&self, channel: &ChannelPath) -> Answer<'_, u64> {
        let count = u64::from(self.interests.read().channels.contains(channel));
        Box::pin(std::future::ready(Ok(count)))
    }

    fn probe(&self) -> Answer<'_, Vec<Probe>> {
        let probe = Probe {
            link: "pub/sub in process".into(),
            outcome: Ok(Duration::ZERO),
            is_needed: true,
            opened: 0,
            open_for: None,
        };
        Box::pin(std::future::ready(Ok(vec![probe])))
    }
}
