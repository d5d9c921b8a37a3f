//! A group as a whole, as `group_stats.lua` reports it.

use std::collections::BTreeMap;

use super::turn::read_ranges;
use crate::clock::Timestamp;
use crate::engine::redis::log::{epoch, numbers};
use crate::engine::redis::resp::{Value, parse_int};
use crate::engine::{GroupStats, RecordStats};

/// What the fields of a group say.
#[derive(Default)]
struct Fields {
    next: u64,
    partitions: u16,
    generation: (u64, u64),
    records: BTreeMap<Box<str>, RecordStats>,
    /// The lowest of the records' floors; none if no record needs anything.
    floor: Option<u64>,
    /// Sessions that have ended.
    left: Vec<Box<str>>,
}

pub(super) fn read(reply: Vec<Value>) -> Option<GroupStats> {
    let epoch = epoch(reply.first()?)?;
    let [first, last, now] = numbers(reply.get(1..4)?)?;
    let items = numbers(reply.get(4..8)?)?;
    let mut lists = reply.into_iter().skip(8);
    let (sessions, fields) = (lists.next()?.into_array()?, lists.next()?.into_array()?);
    let fields = read_fields(fields)?;
    let now = Timestamp::from_millis(now);
    let mut stats = GroupStats {
        epoch,
        first,
        last,
        next: fields.next,
        floor: fields.floor.unwrap_or(u64::MAX),
        partitions: fields.partitions,
        generation: fields.generation,
        sessions: Vec::new(),
        records: fields.records.into_values().collect(),
        items,
        now,
    };
    if stats.partitions == 0 {
        stats.floor = stats.floor.min(stats.next);
    }
    for session in sessions.chunks_exact(2) {
        let [name, deadline] = session else { return None };
        let name = text(name)?;
        let deadline = Timestamp::from_millis(u64::try_from(deadline.as_int()?).ok()?);
        if deadline > now && !fields.left.iter().any(|left| **left == *name) {
            stats.sessions.push((name.into(), deadline.since(now)));
        }
    }
    stats.sessions.sort();
    Some(stats)
}

fn read_fields(fields: Vec<Value>) -> Option<Fields> {
    let mut read = Fields::default();
    let mut states = BTreeMap::new();
    let mut fields = fields.into_iter();
    while let Some(field) = fields.next() {
        let value = fields.next()?;
        let field = text(&field)?;
        match field.split_once(':') {
            None if field == "x" => read.next = number(&value)?,
            None if field == "p" => read.partitions = u16::try_from(number(&value)?).ok()?,
            None if field == "g" => {
                let (count, to) = text(&value)?.split_once(' ')?;
                read.generation = (count.parse().ok()?, to.parse().ok()?);
            }
            Some(("r", name)) => {
                let (record, floor) = read_record(name, text(&value)?)?;
                read.floor = read.floor.into_iter().chain(floor).min();
                read.records.insert(name.into(), record);
            }
            Some(("b", name)) => drop(states.insert(Box::<str>::from(name), value.into_bytes()?)),
            Some(("s", name)) if text(&value)?.split(' ').nth(1)? == "1" => read.left.push(name.into()),
            _ => {}
        }
    }
    for (name, state) in states {
        if let Some(record) = read.records.get_mut(&name) {
            record.state = state;
        }
    }
    Some(read)
}

/// Reads `SESSION FLOOR LOST CLAIMS`, and gives the floor too, if there is one.
fn read_record(name: &str, text: &str) -> Option<(RecordStats, Option<u64>)> {
    let mut words = text.splitn(4, ' ');
    let (owner, floor, _, claims) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let record = RecordStats {
        name: name.into(),
        owner: (!owner.is_empty()).then(|| owner.into()),
        state: bytes::Bytes::new(),
        claims: read_ranges(claims)?,
    };
    Some((record, floor.parse().ok()))
}

fn text(value: &Value) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()?).ok()
}

fn number(value: &Value) -> Option<u64> {
    u64::try_from(parse_int(value.as_bytes()?)?).ok()
}
