//! Reading what a channel keeps, as the wire asks for it.

use tidewire::{Channel, Epoch, History, Position};
use tidewire_protocol::StreamPosition;
use tidewire_protocol::codes::ErrorCode;

use crate::config::ChannelRule;
use crate::failure::Failure;

/// Which kept events to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Most events; 0 for the position only, negative for as many as the server gives.
    pub(crate) limit: i32,
    /// What follows this position, or precedes it if newest first.
    pub(crate) since: Option<&'a StreamPosition<'a>>,
    /// Newest first.
    pub(crate) is_reverse: bool,
}

/// Reads a page of a kept channel, at most `events_max` events.
pub(crate) async fn read(
    channel: &Channel,
    rule: &ChannelRule,
    wanted: Wanted<'_>,
    events_max: usize,
) -> Result<History, Failure> {
    if rule.keep.is_none() {
        return Err(Failure::new(ErrorCode::NOT_AVAILABLE, "not available: channel is not kept"));
    }
    let limit = usize::try_from(wanted.limit).map_or(events_max, |limit| limit.min(events_max));
    let reading = channel.read().limit(limit);
    let reading = match wanted.since {
        None => reading,
        Some(since) => {
            let epoch = match epoch_of(&since.epoch) {
                Some(epoch) => epoch,
                None => channel.read().limit(0).await?.epoch,
            };
            let position = Position { epoch, offset: since.offset };
            if wanted.is_reverse { reading.before(position) } else { reading.after(position) }
        }
    };
    let reading = if wanted.is_reverse { reading.backwards() } else { reading };
    reading.await.map_err(Failure::from)
}

/// The epoch that a client names: `None` for "whatever it is", and for what is no epoch of ours the one that equals no
/// stream's.
pub(crate) fn epoch_of(text: &str) -> Option<Epoch> {
    (!text.is_empty()).then(|| text.parse().unwrap_or_default())
}
