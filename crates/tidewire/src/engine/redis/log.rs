//! Streams as Redis streams.

mod batch;
mod elsewhere;
mod group;
mod lane;
mod lanes;
mod queue;
mod schedule;

use std::sync::Arc;

use tokio_util::sync::DropGuard;

use self::batch::push_seen;
use self::lanes::Lanes;
use self::schedule::Schedule;
use super::announcement::{FRAME_HEAD_BYTES, read_term, take_frame};
use super::command::Command;
use super::connection::Repeat;
use super::keys::{self, Tag};
use super::pubsub::malformed;
use super::resp::{Value, parse_int};
use super::scripts::Script;
use super::topology::Topology;
use crate::clock::{Clock, Timestamp};
use crate::engine::{
    Answer, Append, Appended, Direction, Fork, Log, Page, Range, Setup, Stored, StreamStats, Trimmed,
};
use crate::engine::{Change, GroupStats, Listing, Opened, Opening, Shelf, ShelfItem, Turn, Turned};
use crate::error::Result;
use crate::limits;
use crate::name::{ChannelPath, GroupPath};
use crate::position::{Epoch, Position};

pub(super) struct RedisLog {
    topology: Arc<Topology>,
    lanes: Arc<Lanes>,
    schedule: Schedule,
    clock: Clock,
    /// Ends the tasks of lanes and schedule when nobody holds the log any more.
    _stop: DropGuard,
}

impl RedisLog {
    /// Begins to append; `node` is a name that no other node has.
    pub(super) fn new(topology: Arc<Topology>, node: &str, setup: &Setup) -> Self {
        let stop = setup.tasks.stopping().child_token();
        let lanes = Arc::new(Lanes::new(topology.clone(), node, setup.tasks.clone(), stop.clone()));
        let schedule = Schedule::begin(topology.clone(), lanes.clone(), node, &setup.tasks, &stop);
        Self { topology, lanes, schedule, clock: setup.clock.clone(), _stop: stop.drop_guard() }
    }

    async fn append_or_schedule(&self, mut batch: Vec<Append>) -> Result<Vec<Result<Appended>>> {
        let now = self.clock.now();
        let is_due = |append: &Append| append.deliver_at.is_none_or(|time| time <= now);
        if batch.iter().all(is_due) {
            return self.lanes.append(batch).await;
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for append in batch.drain(..) {
            outcomes.push(match append.deliver_at {
                Some(due) if due > now => self.schedule.add(due, &append).await,
                _ => {
                    self.lanes.append(vec![append]).await.and_then(|mut outcomes| {
                        outcomes.pop().unwrap_or_else(|| Err(malformed("an append")))
                    })
                }
            });
        }
        Ok(outcomes)
    }

    /// Runs a script on the stream of a channel; `arguments` come after the candidate for its epoch.
    async fn on_stream(
        &self,
        script: Script,
        channel: &ChannelPath,
        arguments: &[i64],
    ) -> Result<Vec<Value>> {
        let call = self.stream_call(script, channel);
        let call = arguments.iter().fold(call, |call, argument| call.int(*argument));
        self.run(script, channel, &call).await
    }

    fn stream_call(&self, script: Script, channel: &ChannelPath) -> Command {
        let call = self.topology.scripts.call(script, 2, 512);
        call.arg(keys::stream(channel)).arg(keys::meta(channel)).arg(Epoch::random().to_string())
    }

    /// What these scripts change, they change to the same when they run again.
    async fn run(&self, script: Script, channel: &ChannelPath, call: &Command) -> Result<Vec<Value>> {
        let (tag, deadline) = (Tag::of_channel(channel), self.topology.deadline());
        let reply = self.topology.run(tag, script, call, Repeat::Safe, deadline).await?;
        reply.into_array().ok_or_else(|| malformed("a stream script"))
    }
}

impl Log for RedisLog {
    fn append(&self, batch: Vec<Append>) -> Answer<'_, Vec<Result<Appended>>> {
        // What most callers append needs neither a look at the clock nor to be taken apart: a tenth of the future.
        match Lanes::only_tag(&batch) {
            Some(tag) if batch.iter().all(|append| append.deliver_at.is_none()) => {
                Box::pin(self.lanes.append_to(tag, batch))
            }
            _ => Box::pin(self.append_or_schedule(batch)),
        }
    }

    fn read(&self, channel: &ChannelPath, range: Range) -> Answer<'_, Page> {
        let mut call = self.stream_call(Script::Read, channel);
        call.push_int(to_int(range.first));
        call.push_int(to_int(range.last));
        call.push_int(to_int(range.events_max.min(limits::BATCH_EVENTS_MAX) as u64));
        // The largest page must not end one event early because of what stands before each envelope.
        let heads = FRAME_HEAD_BYTES * limits::BATCH_EVENTS_MAX;
        call.push_int(to_int((limits::BATCH_BYTES_MAX + heads) as u64));
        call.push(match range.direction {
            Direction::Forwards => b"+",
            Direction::Backwards => b"-",
        });
        push_seen(&mut call, range.seen);
        call.push(keys::channel(channel).as_bytes());
        call.push(self.topology.scripts.publish.patterns(channel).as_bytes());
        let channel = channel.clone();
        Box::pin(async move {
            let reply = self.run(Script::Read, &channel, &call).await?;
            page(reply).ok_or_else(|| malformed("read.lua"))
        })
    }

    fn seek(&self, channel: &ChannelPath, time: Timestamp) -> Answer<'_, u64> {
        let channel = channel.clone();
        Box::pin(async move {
            let reply = self.on_stream(Script::Seek, &channel, &[to_int(time.as_millis())]).await?;
            numbers(&reply).map(|[offset]| offset).ok_or_else(|| malformed("seek.lua"))
        })
    }

    fn trim(&self, channel: &ChannelPath, before: u64) -> Answer<'_, Trimmed> {
        let channel = channel.clone();
        Box::pin(async move {
            let reply = self.on_stream(Script::Trim, &channel, &[to_int(before)]).await?;
            let [removed, first] = numbers(&reply).ok_or_else(|| malformed("trim.lua"))?;
            Ok(Trimmed { removed, first })
        })
    }

    fn stats(&self, channel: &ChannelPath) -> Answer<'_, StreamStats> {
        let channel = channel.clone();
        Box::pin(async move {
            let reply = self.on_stream(Script::Stats, &channel, &[]).await?;
            stream_stats(&reply).ok_or_else(|| malformed("stats.lua"))
        })
    }

    fn cancel(&self, channel: &ChannelPath, key: &str) -> Answer<'_, bool> {
        let (channel, key) = (channel.clone(), key.to_owned());
        Box::pin(async move { self.schedule.cancel(&channel, &key).await })
    }

    fn group_open(&self, group: &GroupPath, opening: Opening) -> Answer<'_, Opened> {
        let group = group.clone();
        Box::pin(async move { self.open_group(&group, opening).await })
    }

    fn groups(&self, channel: &ChannelPath) -> Answer<'_, Vec<Box<str>>> {
        let channel = channel.clone();
        Box::pin(async move { self.group_names(&channel).await })
    }

    fn group_turn(&self, group: &GroupPath, turn: Turn) -> Answer<'_, Turned> {
        let group = group.clone();
        Box::pin(async move { self.turn(&group, turn).await })
    }

    fn group_stats(&self, group: &GroupPath) -> Answer<'_, GroupStats> {
        let group = group.clone();
        Box::pin(async move { self.stats_of_group(&group).await })
    }

    fn group_items(&self, group: &GroupPath, shelf: Shelf, listing: Listing) -> Answer<'_, Vec<ShelfItem>> {
        let group = group.clone();
        Box::pin(async move { self.list_items(&group, shelf, listing).await })
    }

    fn group_change(&self, group: &GroupPath, change: Change) -> Answer<'_, u64> {
        let group = group.clone();
        Box::pin(async move { self.change_group(&group, change).await })
    }
}

/// Offsets and times stay far below the largest number that a script can count with.
pub(super) fn to_int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn page(reply: Vec<Value>) -> Option<Page> {
    let (epoch, [first, last]) = (epoch(reply.first()?)?, numbers(reply.get(1..3)?)?);
    let text = |at: usize| std::str::from_utf8(reply.get(at)?.as_bytes()?).ok();
    let (term, forks) = (read_term(text(3)?)?, text(4)?.split_whitespace().map(fork).collect::<Option<_>>()?);
    let mut rest = reply.into_iter().skip(5);
    let mut events = Vec::with_capacity(rest.len() / 2);
    while let Some(id) = rest.next() {
        let (offset, time) = split_id(id.as_bytes()?)?;
        let envelope = take_frame(&mut rest.next()?.into_bytes()?)?;
        events.push(Stored { offset, time, envelope });
    }
    Some(Page { epoch, first, last, term, forks, events })
}

/// `EPOCH:OFFSET`.
fn fork(text: &str) -> Option<Fork> {
    let Position { epoch, offset: last } = text.parse().ok()?;
    Some(Fork { epoch, last })
}

fn stream_stats(reply: &[Value]) -> Option<StreamStats> {
    let (epoch, [first, last, bytes]) = (epoch(reply.first()?)?, numbers(reply.get(1..)?)?);
    // Offsets are contiguous from 1: what is not there any more was removed.
    Some(StreamStats { epoch, first, last, length: last + 1 - first, bytes, removed: first - 1 })
}

fn epoch(value: &Value) -> Option<Epoch> {
    std::str::from_utf8(value.as_bytes()?).ok()?.parse().ok()
}

fn numbers<const N: usize>(values: &[Value]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    if values.len() != N {
        return None;
    }
    for (number, value) in numbers.iter_mut().zip(values) {
        *number = u64::try_from(value.as_int()?).ok()?;
    }
    Some(numbers)
}

/// An entry's id is its offset and its time.
fn split_id(id: &[u8]) -> Option<(u64, Timestamp)> {
    let dash = id.iter().position(|&byte| byte == b'-')?;
    let (offset, time) = (parse_int(id.get(..dash)?)?, parse_int(id.get(dash + 1..)?)?);
    Some((u64::try_from(offset).ok()?, Timestamp::from_millis(u64::try_from(time).ok()?)))
}
