//! Groups as hashes beside their stream: what is done to one as a whole. `group.lua` says what is where.

mod events;
mod stats;
mod turn;

use std::collections::BTreeSet;

use super::{RedisLog, numbers, to_int};
use crate::engine::redis::command::Command;
use crate::engine::redis::connection::Repeat;
use crate::engine::redis::keys::{self, Tag};
use crate::engine::redis::pubsub::malformed;
use crate::engine::redis::resp::Value;
use crate::engine::redis::scripts::Script;
use crate::engine::{Change, GroupStats, Listing, Opened, Opening, Shelf, ShelfItem, Start, Turn, Turned};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::name::{ChannelPath, GroupPath};
use crate::position::{Epoch, Position};

/// Bytes of a call that has no more than names and numbers.
const CALL_BYTES: usize = 1_536;

impl RedisLog {
    pub(super) async fn open_group(&self, group: &GroupPath, opening: Opening) -> Result<Opened> {
        let call = self.group_call(Script::GroupOpen, group, &[], CALL_BYTES);
        let mut call = call.int(opening.partitions.into());
        push_start(&mut call, opening.start);
        let reply = self.run_on_group(Script::GroupOpen, group, &call, Repeat::Safe).await?;
        let reply = reply.map_err(|word| refused(&word, group, &Refused::Opening(opening)))?;
        opened(&reply).ok_or_else(|| malformed("group_open.lua"))
    }

    /// Every group has a floor, one that was lost too: it is there to be made again.
    pub(super) async fn group_names(&self, channel: &ChannelPath) -> Result<Vec<Box<str>>> {
        let (tag, deadline) = (Tag::of_channel(channel), self.topology.deadline());
        let call = Command::new("ZRANGE").arg(keys::floors(channel)).int(0).int(-1);
        let floors = self.topology.request(tag, &call, Repeat::Safe, deadline).await?;
        let floors = floors.into_array().ok_or_else(|| malformed("ZRANGE"))?;
        let names = floors.iter().filter_map(|floor| std::str::from_utf8(floor.as_bytes()?).ok());
        let names: BTreeSet<&str> = names.filter_map(|floor| floor.split('/').next()).collect();
        Ok(names.into_iter().take(limits::BATCH_EVENTS_MAX).map(Box::from).collect())
    }

    /// A turn has a number, so it may be sent again; what it claimed is read after it, for the stream keeps that.
    pub(super) async fn turn(&self, group: &GroupPath, turn: Turn) -> Result<Turned> {
        let marks: Vec<&str> =
            turn.marks.iter().map(|mark| &*mark.id).chain(turn.lookups.iter().map(|id| &**id)).collect();
        let mut call = self.group_call(Script::GroupTurn, group, &marks, CALL_BYTES + turn::bytes(&turn));
        turn::push(&mut call, &turn);
        let reply = self.run_on_group(Script::GroupTurn, group, &call, Repeat::Safe).await?;
        let reply = reply.map_err(|word| refused(&word, group, &Refused::Turn(&turn.session)))?;
        let mut taken = turn::read(reply).ok_or_else(|| malformed("group_turn.lua"))?;
        if !taken.is_read {
            let ranges = taken.ranges(&turn.reads);
            Box::pin(self.read_events(group.channel(), ranges, taken.largest, &mut taken.answer)).await?;
        }
        Ok(taken.answer)
    }

    pub(super) async fn stats_of_group(&self, group: &GroupPath) -> Result<GroupStats> {
        let call = self.group_call(Script::GroupStats, group, &[], CALL_BYTES);
        let reply = self.run_on_group(Script::GroupStats, group, &call, Repeat::Safe).await?;
        let reply = reply.map_err(|word| refused(&word, group, &Refused::Other))?;
        stats::read(reply).ok_or_else(|| malformed("group_stats.lua"))
    }

    pub(super) async fn list_items(
        &self,
        group: &GroupPath,
        shelf: Shelf,
        listing: Listing,
    ) -> Result<Vec<ShelfItem>> {
        let call = self.group_call(Script::GroupItems, group, &[], CALL_BYTES);
        let mut call = call.int(to_int(limits::BATCH_BYTES_MAX as u64));
        match listing {
            Listing::After(after, count) => {
                call.push(b"after");
                call.push(letter(shelf).as_bytes());
                call.push(after.as_bytes());
                call.push_int(to_int(count.min(limits::BATCH_EVENTS_MAX) as u64));
            }
            Listing::Keys(keys) => {
                call.push(b"keys");
                keys.iter().for_each(|key| push_item_name(&mut call, shelf, key));
            }
        }
        let reply = self.run_on_group(Script::GroupItems, group, &call, Repeat::Safe).await?;
        let reply = reply.map_err(|word| refused(&word, group, &Refused::Other))?;
        items(shelf, reply).ok_or_else(|| malformed("group_items.lua"))
    }

    /// What it answers is what it found, so it is not sent again where it may have been done.
    pub(super) async fn change_group(&self, group: &GroupPath, change: Change) -> Result<u64> {
        let mut call = self.group_call(Script::GroupChange, group, &[], CALL_BYTES);
        match &change {
            Change::Seek(start) => {
                call.push(b"seek");
                push_start(&mut call, *start);
            }
            Change::Items { removes, puts } => {
                call.push(b"items");
                call.push_int(to_int(removes.len() as u64));
                removes.iter().for_each(|(shelf, key)| push_item_name(&mut call, *shelf, key));
                puts.iter().for_each(|item| push_item(&mut call, item));
            }
            Change::Delete => call.push(b"delete"),
        }
        let reply = self.run_on_group(Script::GroupChange, group, &call, Repeat::Never).await?;
        let reply = reply.map_err(|word| match &change {
            Change::Seek(start) => refused(&word, group, &Refused::Seek(*start)),
            _ => refused(&word, group, &Refused::Other),
        })?;
        numbers(&reply).map(|[count]| count).ok_or_else(|| malformed("group_change.lua"))
    }

    /// A call of a script with the keys and the arguments that all of them have.
    fn group_call(&self, script: Script, group: &GroupPath, marks: &[&str], bytes: usize) -> Command {
        let keys = keys::group(group);
        let mut call = self.topology.scripts.call(script, keys.len() + marks.len(), bytes);
        keys.iter().for_each(|key| call.push(key.as_bytes()));
        marks.iter().for_each(|id| call.push(keys::mark(group, id).as_bytes()));
        call.arg(Epoch::random().to_string()).arg(group.group()).arg(keys::work(group.channel()))
    }

    /// Runs a script; what it refuses is a word.
    async fn run_on_group(
        &self,
        script: Script,
        group: &GroupPath,
        call: &Command,
        repeat: Repeat,
    ) -> Result<std::result::Result<Vec<Value>, String>> {
        let (tag, deadline) = (Tag::of_channel(group.channel()), self.topology.deadline());
        match self.topology.run(tag, script, call, repeat, deadline).await? {
            Value::Array(reply) => Ok(Ok(reply)),
            word => {
                let word = word.as_bytes().ok_or_else(|| malformed("a group script"))?;
                Ok(Err(String::from_utf8_lossy(word).into_owned()))
            }
        }
    }
}

/// What was asked for when a script refused it.
enum Refused<'a> {
    Opening(Opening),
    Seek(Start),
    Turn(&'a str),
    Other,
}

/// The error for a word that a script answered with.
fn refused(word: &str, group: &GroupPath, asked: &Refused<'_>) -> Error {
    let (word, number) = word.split_once(' ').unwrap_or((word, ""));
    let (kind, text) = match (word, asked) {
        ("none", _) => {
            let channel = group.channel().channel();
            (ErrorKind::NotFound, format!("channel {channel} has no group {:?}", group.group()))
        }
        ("lost", Refused::Turn(session)) => {
            (ErrorKind::LockLost, format!("session {session} of the group is over: its lease ran out"))
        }
        ("crowded", _) => (
            ErrorKind::Backpressure,
            format!(
                "group has {} sessions, the most there may be (limits.SESSIONS_MAX)",
                limits::SESSIONS_MAX
            ),
        ),
        ("partitions", Refused::Opening(opening)) => (
            ErrorKind::Conflict,
            format!("group {:?} has {number} partitions, not {}", group.group(), opening.partitions),
        ),
        (
            "past",
            Refused::Opening(Opening { start: Start::At(position), .. }) | Refused::Seek(Start::At(position)),
        ) => (
            ErrorKind::PositionLost,
            format!("position {position} is past the end of the stream, which is at {number}"),
        ),
        _ => return malformed("a group script"),
    };
    Error::new(kind, text)
}

fn push_start(call: &mut Command, start: Start) {
    let (kind, one, other) = match start {
        Start::Earliest => ("earliest", String::new(), 0),
        Start::Latest => ("latest", String::new(), 0),
        Start::Since(time) => ("since", time.as_millis().to_string(), 0),
        Start::At(Position { epoch, offset }) => ("at", epoch.to_string(), offset),
    };
    call.push(kind.as_bytes());
    call.push(one.as_bytes());
    call.push_int(to_int(offset_of(other)));
}

/// Past the end of any stream, where scripts still count exactly.
fn offset_of(offset: u64) -> u64 {
    offset.min(99_999_999_999_999)
}

fn opened(reply: &[Value]) -> Option<Opened> {
    let [is_new, is_rebuilt] = numbers(reply.get(..2)?)?;
    let [offset] = numbers(reply.get(3..)?)?;
    let next = Position { epoch: super::epoch(reply.get(2)?)?, offset };
    Some(Opened { is_new: is_new == 1, is_rebuilt: is_rebuilt == 1, next })
}

fn letter(shelf: Shelf) -> &'static str {
    match shelf {
        Shelf::Waiting => "w",
        Shelf::Dead => "d",
        Shelf::Outbox => "o",
        Shelf::Audit => "a",
    }
}

fn push_item_name(call: &mut Command, shelf: Shelf, key: &str) {
    call.push_parts(&[letter(shelf).as_bytes(), b":"].concat(), key.as_bytes());
}

fn push_item(call: &mut Command, item: &ShelfItem) {
    push_item_name(call, item.shelf, &item.key);
    call.push(&item.bytes);
}

fn items(shelf: Shelf, reply: Vec<Value>) -> Option<Vec<ShelfItem>> {
    let mut reply = reply.into_iter();
    let mut items = Vec::with_capacity(reply.len() / 2);
    while let Some(name) = reply.next() {
        let (_, key) = std::str::from_utf8(name.as_bytes()?).ok()?.split_once(':')?;
        items.push(ShelfItem { shelf, key: key.into(), bytes: reply.next()?.into_bytes()? });
    }
    Some(items)
}
