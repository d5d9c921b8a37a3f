//! Sets of members as `members.lua` keeps them.

use bytes::Bytes;

use super::command::Command;
use super::connection::Repeat;
use super::keys::{self, Tag};
use super::log::to_int;
use super::pubsub::malformed;
use super::resp::Value;
use super::scripts::Script;
use super::store::ttl_millis;
use super::topology::Topology;
use crate::engine::{Member, MembersChange, MembersChanged, MembersCondition, MembersPage};
use crate::error::Result;
use crate::limits;
use crate::name::EntryPath;

/// Bytes of a call that has no more than keys and numbers.
const CALL_BYTES: usize = 2_048;
/// Bytes that one argument takes beside what it holds, about.
const ARGUMENT_BYTES: usize = 12;

/// What it answers is what it found, so it is not sent again where it may have been done.
pub(super) async fn change(
    topology: &Topology,
    set: &EntryPath,
    change: MembersChange,
) -> Result<MembersChanged> {
    change.check()?;
    let MembersChange { condition, removes, puts, ttl } = &change;
    let arguments = removes.len() + 3 * puts.len();
    let mut call = call(topology, Script::MembersChange, set, change.bytes() + arguments * ARGUMENT_BYTES);
    let (when, name) = match condition {
        MembersCondition::Always => ("always", &[][..]),
        MembersCondition::There(name) => ("there", &name[..]),
        MembersCondition::Expired(name) => ("expired", &name[..]),
    };
    call.push(when.as_bytes());
    call.push(name);
    match ttl {
        Some(ttl) => call.push_int(ttl_millis(*ttl)),
        None => call.push(b""),
    }
    call.push_int(to_int(removes.len() as u64));
    removes.iter().for_each(|name| call.push(name));
    for Member { name, owner, value } in puts {
        [name, owner, value].iter().for_each(|part| call.push(part));
    }
    let (tag, deadline) = (Tag::of_entry(set), topology.deadline());
    let reply = topology.run(tag, Script::MembersChange, &call, Repeat::Never, deadline).await?;
    changed(&reply).ok_or_else(|| malformed("members_change.lua"))
}

pub(super) async fn page(
    topology: &Topology,
    set: &EntryPath,
    after: Option<Bytes>,
    limit: usize,
) -> Result<MembersPage> {
    let call = call(topology, Script::MembersPage, set, 0)
        .int(to_int(limits::BATCH_BYTES_MAX as u64))
        .int(to_int(limit.min(limits::BATCH_EVENTS_MAX) as u64))
        .arg(after.as_deref().unwrap_or_default());
    let (tag, deadline) = (Tag::of_entry(set), topology.deadline());
    let reply = topology.run(tag, Script::MembersPage, &call, Repeat::Safe, deadline).await?;
    listed(reply).ok_or_else(|| malformed("members_page.lua"))
}

fn call(topology: &Topology, script: Script, set: &EntryPath, bytes: usize) -> Command {
    let keys = keys::members(set);
    let call = topology.scripts.call(script, keys.len(), CALL_BYTES + bytes);
    keys.iter().fold(call, |call, key| call.arg(key))
}

fn changed(reply: &Value) -> Option<MembersChanged> {
    let Value::Array(parts) = reply else { return None };
    let [is_done, before, after, were_there, are_new] = parts.as_slice() else { return None };
    let flags = |value: &Value| Some(value.as_bytes()?.iter().map(|flag| *flag == b'1').collect());
    Some(MembersChanged {
        is_done: is_done.as_int()? == 1,
        before: number(before)?,
        after: number(after)?,
        were_there: flags(were_there)?,
        are_new: flags(are_new)?,
    })
}

fn listed(reply: Value) -> Option<MembersPage> {
    let mut parts = reply.into_array()?.into_iter();
    let (count, owners) = (number(&parts.next()?)?, number(&parts.next()?)?);
    let next = parts.next()?.into_bytes().filter(|name| !name.is_empty());
    let mut fields = parts.next()?.into_array()?.into_iter();
    let mut members = Vec::with_capacity(fields.len() / 4);
    while let Some(name) = fields.next() {
        let (name, owner) = (name.into_bytes()?, fields.next()?.into_bytes()?);
        let (value, is_over) = (fields.next()?.into_bytes()?, fields.next()?.as_int()? == 1);
        members.push((Member { name, owner, value }, is_over));
    }
    Some(MembersPage { members, count, owners, next })
}

fn number(value: &Value) -> Option<u64> {
    u64::try_from(value.as_int()?).ok()
}
