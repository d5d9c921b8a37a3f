//! Announcements on channels in other slots than their stream's: sent right after the append, before it is confirmed.

use std::sync::Arc;

use crate::engine::redis::announcement::{self, Place};
use crate::engine::redis::keys::{self, Tag};
use crate::engine::redis::pubsub::publish_on;
use crate::engine::redis::topology::Topology;
use crate::engine::{Announce, Append, Appended, Effect};
use crate::error::Result;
use crate::name::ChannelPath;
use crate::tasks::Tasks;

/// Announces events on channels that are apart from their streams.
pub(super) struct Elsewhere {
    pub(super) topology: Arc<Topology>,
    pub(super) tasks: Tasks,
}

/// One event, and where it is to be announced too.
pub(super) struct Notice {
    channel: ChannelPath,
    payload: Vec<u8>,
}

/// The other channel of an append, where that cannot be announced on in the same step.
pub(super) fn apart<'a>(append: &'a Append, topology: &Topology) -> Option<&'a ChannelPath> {
    let Announce::AlsoOn(other) = &append.announce else { return None };
    let is_together = topology.is_together(Tag::of_channel(&append.channel), Tag::of_channel(other));
    (!is_together).then_some(other)
}

impl Elsewhere {
    /// What is to be announced of an append elsewhere, once it is kept; `start` is where its stream's part of the batch is.
    pub(super) fn notice(
        &self,
        append: &Append,
        outcome: &Result<Appended>,
        start: Option<Place>,
    ) -> Option<Notice> {
        let channel = apart(append, &self.topology)?.clone();
        let Ok(Appended { position: Some(position), effect: Effect::New, .. }) = outcome else { return None };
        let place = Place { position: *position, ..start? };
        let payload = announcement::elsewhere(&append.channel, place, &append.envelope);
        Some(Notice { channel, payload })
    }

    /// Announces one after the other, then calls `tell`: who appends again after that stays in order.
    pub(super) fn announce(&self, notices: Vec<Notice>, tell: impl FnOnce() + Send + 'static) {
        if notices.is_empty() {
            tell();
            return;
        }
        let topology = self.topology.clone();
        self.tasks.spawn(async move {
            for Notice { channel, payload } in notices {
                let (publish, key) = (topology.scripts.publish, keys::channel(&channel));
                let command: [&[u8]; 3] = [publish.command().as_bytes(), key.as_bytes(), &payload];
                let for_patterns = || [key.as_bytes(), b"\n", &payload].concat();
                if let Err(error) = publish_on(&topology, &channel, &command, for_patterns).await {
                    tracing::warn!(%error, %channel, "an event could not be announced on a second channel");
                }
            }
            tell();
        });
    }
}
