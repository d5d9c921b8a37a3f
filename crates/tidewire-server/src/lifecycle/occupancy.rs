//! Which channels have subscribers, over all nodes.
//!
//! A node with subscribers in a channel is a member of a set that all nodes see; the set alone says whether the channel is
//! occupied. From before that until what follows of it has been told, it holds the channel among its own rows: whoever finds
//! the node dead removes it from the set, looks at the channels that it held, and lets go of them.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tidewire::{Condition, Presence};

use super::notice::{Account, Kind, Notice};
use super::record::{Progress, Record};
use super::{Done, Lifecycle, witness};

/// The channels that this node has subscribers in, or had until now.
pub(super) type Rooms = Mutex<FxHashMap<Box<str>, Room>>;

#[derive(Default)]
pub(super) struct Room {
    subscriber_count: usize,
    /// This node is in the set, as far as it knows.
    is_attended: bool,
    /// Others may have removed it meanwhile.
    is_doubtful: bool,
    is_running: bool,
}

/// A subscriber of a channel; dropping it takes it out.
pub(crate) struct Occupant {
    lifecycle: Arc<Lifecycle>,
    channel: Box<str>,
}

impl Lifecycle {
    /// A subscriber of a channel. What follows of it is told in the background: one that is gone before is not told.
    pub(crate) fn occupy(self: &Arc<Self>, channel: &str) -> Occupant {
        let mut rooms = self.rooms.lock();
        let room = rooms.entry(channel.into()).or_default();
        room.subscriber_count += 1;
        self.start(channel, room);
        Occupant { lifecycle: self.clone(), channel: channel.into() }
    }

    /// Has all channels of this node looked at again.
    pub(super) fn look_at_all(self: &Arc<Self>) {
        for (channel, room) in self.rooms.lock().iter_mut() {
            room.is_doubtful = true;
            self.start(channel, room);
        }
    }

    fn vacate(self: &Arc<Self>, channel: &str) {
        let mut rooms = self.rooms.lock();
        if let Some(room) = rooms.get_mut(channel) {
            room.subscriber_count = room.subscriber_count.saturating_sub(1);
            self.start(channel, room);
        }
    }

    fn start(self: &Arc<Self>, channel: &str, room: &mut Room) {
        if !std::mem::replace(&mut room.is_running, true) {
            let (lifecycle, channel) = (self.clone(), Box::from(channel));
            self.tasks.spawn(async move { lifecycle.follow(channel).await });
        }
    }

    /// Goes on until what is told of a channel is what is so on this node.
    async fn follow(self: Arc<Self>, channel: Box<str>) {
        while let Some(is_wanted) = self.wanted(&channel) {
            let attempt = || self.attend(&channel, is_wanted);
            if self.persist("who is in a channel", attempt).await == Done::No {
                return;
            }
            if let Some(room) = self.rooms.lock().get_mut(&channel) {
                room.is_attended = is_wanted == Attended::Yes;
            }
        }
    }

    /// What is to be done for a channel, if anything is.
    fn wanted(&self, channel: &str) -> Option<Attended> {
        let mut rooms = self.rooms.lock();
        let room = rooms.get_mut(channel)?;
        let is_wanted = room.subscriber_count > 0;
        if is_wanted != room.is_attended || std::mem::take(&mut room.is_doubtful) {
            return Some(if is_wanted { Attended::Yes } else { Attended::No });
        }
        room.is_running = false;
        if !is_wanted {
            rooms.remove(channel);
        }
        None
    }

    async fn attend(&self, channel: &str, attended: Attended) -> tidewire::Result<()> {
        let set = self.attendance(channel)?;
        if attended == Attended::Yes {
            self.held.join(channel, "", Bytes::new()).await?;
            set.join(&self.node, "", Bytes::new()).await?;
            return self.reconcile(channel).await;
        }
        set.leave(&self.node).await?;
        self.reconcile(channel).await?;
        self.held.leave(channel).await.map(|_| ())
    }

    /// Tells whether a channel is occupied until what was told last is what is so. Whoever changes the set calls it after.
    pub(super) async fn reconcile(&self, channel: &str) -> tidewire::Result<()> {
        while let Some((next, condition)) = self.look(channel).await? {
            self.note_record(channel, next, condition).await?;
        }
        Ok(())
    }

    /// What is to be noted of a channel next, unless somebody else was first; nothing if what was told is what is so.
    pub(super) async fn look(&self, channel: &str) -> tidewire::Result<Option<(Record, Condition)>> {
        let kept = self.tenant.get(&key_of(channel)).await?;
        let record = kept.as_deref().and_then(Record::read).unwrap_or_default();
        let next = match record.progress {
            Progress::Begun => {
                self.tell(self.notice_of(channel, record)).await?;
                record.told()
            }
            Progress::Told if self.attendance(channel)?.is_kept().await? != record.is_occupied() => {
                record.next()
            }
            Progress::Told => return Ok(None),
        };
        Ok(Some((next, kept.map_or(Condition::Absent, Condition::Equals))))
    }

    /// Notes what was found. Where somebody else was first nothing is noted, and the next look finds what it has done.
    pub(super) async fn note_record(
        &self,
        channel: &str,
        next: Record,
        condition: Condition,
    ) -> tidewire::Result<bool> {
        self.tenant.put(&key_of(channel), next.kept(), next.ttl(), condition).await
    }

    pub(super) fn notice_of(&self, channel: &str, record: Record) -> Notice {
        let kind = if record.is_occupied() { Kind::Occupied } else { Kind::Vacated };
        let at = self.clock.now().to_string();
        let account = Account { channel: Some(channel.into()), at, ..Account::default() };
        Notice { kind, account, mark: format!("{}:{}", digest_of(channel), record.generation) }
    }

    /// The nodes that have subscribers in a channel.
    pub(super) fn attendance(&self, channel: &str) -> tidewire::Result<Presence> {
        let name = format!("{}:{}", self.tenant.name(), channel);
        self.home.presence(&format!("{}:{}", witness::ATTENDED, digest_of(&name)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attended {
    Yes,
    No,
}

impl Drop for Occupant {
    fn drop(&mut self) {
        self.lifecycle.vacate(&self.channel);
    }
}

/// Under which the record of a channel is kept.
fn key_of(channel: &str) -> String {
    format!("occupancy:{channel}")
}

/// A name of fixed length in place of one that is too long to be a part of another.
fn digest_of(name: &str) -> String {
    digest(&SHA256, name.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
