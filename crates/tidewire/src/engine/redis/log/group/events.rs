//! The events of a turn, read after it.

use crate::engine::redis::command::Command;
use crate::engine::redis::connection::RequestError;
use crate::engine::redis::keys::{self, Tag};
use crate::engine::redis::log::{RedisLog, to_int};
use crate::engine::redis::resp::Value;
use crate::engine::redis::topology::Line;
use crate::engine::{Log as _, Range, Stored, Turned};
use crate::error::Result;
use crate::limits;
use crate::name::ChannelPath;
use crate::position::Epoch;

use super::turn::stored;

/// First and last offset of each.
type Ranges = Vec<(u64, u64)>;

impl RedisLog {
    /// Reads events into an answer, as many as a page holds; `ranges` are in order.
    pub(super) async fn read_events(
        &self,
        channel: &ChannelPath,
        ranges: Ranges,
        largest: Option<u64>,
        answer: &mut Turned,
    ) -> Result<()> {
        let (ranges, rest) = split(ranges, limits::BATCH_EVENTS_MAX as u64);
        let count: u64 = ranges.iter().map(|(first, last)| last + 1 - first).sum();
        let is_small = |largest: u64| largest.saturating_mul(count) <= limits::BATCH_BYTES_MAX as u64;
        // Without Lua it takes half of the server's time, but no bound in bytes.
        let found = match largest {
            Some(largest) if is_small(largest) => self.read_at_once(channel, &ranges).await,
            _ => None,
        };
        match found {
            Some((epoch, events)) if epoch == answer.epoch => answer.events = events,
            // History that is not the turn's: what is to be read there, the next turn knows.
            Some(_) => answer.unread = ranges,
            None => self.read_page(channel, ranges, answer).await?,
        }
        answer.unread.extend(rest);
        Ok(())
    }

    /// Reads all of the ranges on one link, and the epoch after them; none if anything comes between.
    async fn read_at_once(
        &self,
        channel: &ChannelPath,
        ranges: &[(u64, u64)],
    ) -> Option<(Epoch, Vec<Stored>)> {
        let (tag, deadline) = (Tag::of_channel(channel), self.topology.deadline());
        let (connection, link) = self.topology.link(tag, Line::Data, deadline).await.ok()?;
        let stream = keys::stream(channel);
        let mut pending = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            let call = Command::new("XRANGE").arg(&stream).int(to_int(*first)).int(to_int(*last));
            pending.push(connection.submit(&call, Some(link), deadline).await.ok()?);
        }
        let epoch: [&[u8]; 3] = [b"HGET", &keys::meta(channel).into_bytes(), b"e"];
        let epoch = connection.submit(&epoch, Some(link), deadline).await.ok()?;
        let mut events = Vec::new();
        for reply in pending {
            push_entries(reply.reply().await, &mut events)?;
        }
        let epoch = super::super::epoch(&epoch.reply().await.ok()?)?;
        Some((epoch, events))
    }

    /// Reads the ranges one after the other, up to what a page holds in bytes.
    async fn read_page(&self, channel: &ChannelPath, ranges: Ranges, answer: &mut Turned) -> Result<()> {
        let mut bytes = 0;
        for (mut next, last) in ranges {
            while next <= last && answer.unread.is_empty() {
                let wanted = Range { last, ..Range::from(next, limits::BATCH_EVENTS_MAX) };
                let page = self.read(channel, wanted).await?;
                let is_same = page.epoch == answer.epoch;
                let page_bytes: usize = page.events.iter().map(|event| event.envelope.len()).sum();
                let has_room = answer.events.is_empty() || bytes + page_bytes <= limits::BATCH_BYTES_MAX;
                if !is_same || !has_room {
                    break;
                }
                bytes += page_bytes;
                next = page.events.last().map_or(last, |event| event.offset) + 1;
                answer.events.extend(page.events);
            }
            if next <= last {
                answer.unread.push((next, last));
            }
        }
        Ok(())
    }
}

/// The first `count` offsets of ranges, and the others.
fn split(ranges: Ranges, mut count: u64) -> (Ranges, Ranges) {
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    for (first, last) in ranges {
        let middle = last.min((first + count).saturating_sub(1));
        count -= (middle + 1).saturating_sub(first);
        if first <= middle {
            head.push((first, middle));
        }
        let next = first.max(middle + 1);
        if next <= last {
            tail.push((next, last));
        }
    }
    (head, tail)
}

fn push_entries(reply: std::result::Result<Value, RequestError>, events: &mut Vec<Stored>) -> Option<()> {
    for entry in reply.ok()?.into_array()? {
        let mut entry = entry.into_array()?.into_iter();
        let (id, fields) = (entry.next()?, entry.next()?);
        events.push(stored(&id, fields.into_array()?.into_iter().nth(1)?)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_takes_the_first_offsets_of_ranges() {
        let ranges = vec![(1, 4), (7, 7), (10, 20)];
        assert_eq!(split(ranges.clone(), 0), (vec![], ranges.clone()));
        assert_eq!(split(ranges.clone(), 4), (vec![(1, 4)], vec![(7, 7), (10, 20)]));
        assert_eq!(split(ranges.clone(), 7), (vec![(1, 4), (7, 7), (10, 11)], vec![(12, 20)]));
        assert_eq!(split(ranges.clone(), 99), (ranges, vec![]));
    }
}
