//! What a node has joined, in all channels, and the lease that it holds for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Semaphore;

use super::attendance::{Attendance, Batch, Outcome, Told};
use super::index::Index;
use super::news::{News, Sighting};
use super::row::{self, Home, Row, SessionId};
use super::session::Lease;
use super::view::View;
use super::{PresenceChange, PresenceNews};
use crate::clock::Clock;
use crate::engine::{MembersChanged, Store};
use crate::error::{Error, Result};
use crate::event::NodeId;
use crate::name::ChannelPath;
use crate::tasks::Tasks;

/// The longest wait before something is written again that could not be.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Channels that are written at the same time. More wait: after a takeover it may be all.
const WRITES_MAX: usize = 4_096;

/// Who of one node is in which channel. Dropping it is like the death of the node.
pub(crate) struct Roster {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(super) home: Home,
    pub(super) node: NodeId,
    pub(super) lease_time: Duration,
    pub(super) was_relinked: Arc<AtomicBool>,
    /// How long a join or a leave is tried again before it fails.
    patience: Duration,
    pub(super) lease: Lease,
    pub(super) index: Index,
    pub(super) view: tokio::sync::Mutex<View>,
    pub(super) news: News,
    /// What has become of its members since somebody asked last.
    pub(super) standing: Sighting,
    /// Sessions whose members this node removes.
    pub(super) claims: Mutex<FxHashSet<SessionId>>,
    channels: Mutex<FxHashMap<ChannelPath, Attendance>>,
    writes: Semaphore,
    is_closed: AtomicBool,
}

/// What a roster works with.
pub(crate) struct Equipment {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) node: NodeId,
    pub(crate) lease: Duration,
    pub(crate) patience: Duration,
    /// Set by others when another server may have taken over.
    pub(crate) was_relinked: Arc<AtomicBool>,
}

/// How far the writing of a channel has come.
enum Written {
    All,
    Some,
    Failed,
}

impl Roster {
    pub(crate) fn new(home: Home, equipment: Equipment) -> Arc<Self> {
        let Equipment { store, clock, tasks, node, lease, patience, was_relinked } = equipment;
        Arc::new(Self {
            index: Index::new(store.clone(), home.clone()),
            store,
            clock,
            tasks,
            home,
            node,
            lease_time: lease,
            was_relinked,
            patience,
            lease: Lease::new(node),
            view: tokio::sync::Mutex::default(),
            news: News::default(),
            standing: Sighting::default(),
            claims: Mutex::default(),
            channels: Mutex::default(),
            writes: Semaphore::new(WRITES_MAX),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Refuses new members, and gives up the lease: others remove and tell those that are left.
    pub(crate) async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        if let Err(error) = self.give_up().await {
            tracing::debug!(%error, "the lease of this node ends by itself");
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Has a channel's attendance changed, and waits until that is written. `None`: the member is not to be there.
    pub(super) async fn change(
        self: &Arc<Self>,
        channel: &ChannelPath,
        id: Bytes,
        row: Option<Row>,
    ) -> Result<Outcome> {
        let closed = || Error::closed("this node");
        if self.is_closed() {
            return Err(closed());
        }
        let now = self.clock.monotonic();
        let waiting = {
            let mut channels = self.channels.lock();
            let attendance = channels.entry(channel.clone()).or_default();
            let waiting = attendance.want(id, row, now);
            self.start_writing(channel, attendance);
            waiting
        };
        // What was not written when the tasks stop never is.
        let stopping = self.tasks.stopping();
        match stopping.run_until_cancelled(waiting).await {
            Some(Ok(outcome)) => outcome,
            _ => Err(closed()),
        }
    }

    /// All members are to be written under the session that has begun.
    pub(super) fn come_back(self: &Arc<Self>) {
        for (channel, attendance) in self.channels.lock().iter_mut() {
            attendance.come_back();
            self.start_writing(channel, attendance);
        }
    }

    /// Whether a member may be there under a session.
    pub(super) fn has_trace(&self, session: SessionId) -> bool {
        self.channels.lock().values().any(|attendance| attendance.has_trace(session))
    }

    /// Whether it knows of no member.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.channels.lock().is_empty()
    }

    fn start_writing(self: &Arc<Self>, channel: &ChannelPath, attendance: &mut Attendance) {
        if !std::mem::replace(&mut attendance.is_writing, true) {
            let (roster, channel) = (self.clone(), channel.clone());
            let stop = self.tasks.stopping().clone();
            self.tasks.spawn(async move { stop.run_until_cancelled(roster.write(channel)).await });
        }
    }

    /// Writes what is due in a channel until nothing is.
    async fn write(self: Arc<Self>, channel: ChannelPath) {
        let mut pause = self.lease_time / 6;
        loop {
            let place = self.writes.acquire().await;
            // Boxed, so that those who wait for a place are small.
            let written = Box::pin(self.write_some(&channel)).await;
            drop(place);
            match written {
                Written::All => return,
                Written::Some => pause = self.lease_time / 6,
                Written::Failed => {
                    self.clock.sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX.max(self.lease_time));
                }
            }
        }
    }

    async fn write_some(self: &Arc<Self>, channel: &ChannelPath) -> Written {
        let session = self.lease.session();
        let Some(batch) = self.take(channel, session) else {
            return if self.rest(channel).await { Written::All } else { Written::Some };
        };
        let outcome = self.put(channel, session, &batch).await;
        let written = if outcome.is_ok() { Written::Some } else { Written::Failed };
        self.settle(channel, batch, outcome);
        written
    }

    fn take(&self, channel: &ChannelPath, session: SessionId) -> Option<Batch> {
        let mut channels = self.channels.lock();
        let attendance = channels.get_mut(channel).filter(|attendance| attendance.is_due())?;
        Some(attendance.take(session))
    }

    /// Writes a batch. `None`: its session is over, and nothing was done.
    async fn put(
        self: &Arc<Self>,
        channel: &ChannelPath,
        session: SessionId,
        batch: &Batch,
    ) -> Result<Option<MembersChanged>> {
        let change = &batch.change;
        if !change.puts.is_empty() {
            if !self.hold(session).await? {
                return Ok(None);
            }
            if batch.needs_index {
                self.index.note(session, row::index_name(channel), true).await?;
            }
        } else if change.removes.is_empty() {
            return Ok(Some(MembersChanged { is_done: true, ..MembersChanged::default() }));
        }
        self.store.members_change(&row::members_of(channel)?, change.clone()).await.map(Some)
    }

    fn settle(&self, channel: &ChannelPath, batch: Batch, outcome: Result<Option<MembersChanged>>) {
        let mut channels = self.channels.lock();
        let Some(attendance) = channels.get_mut(channel) else { return };
        match outcome {
            Ok(Some(changed)) => {
                let told = attendance.settle(batch, &changed);
                let news = told.into_iter().filter_map(|told| self.news_of(told));
                self.news.add(news.map(|news| PresenceChange::new(channel, news)));
            }
            Ok(None) => attendance.put_back(batch),
            Err(error) => {
                tracing::warn!(%error, %channel, "members could not be written; trying again");
                attendance.fail(batch, &error, self.clock.monotonic(), self.patience);
            }
        }
    }

    fn news_of(&self, told: Told) -> Option<PresenceNews> {
        let present = |id: Bytes, row: Row| row.present(self.node, &id);
        Some(match told {
            Told::Left(id, row) => PresenceNews::Left(present(id, row)?),
            Told::Returned(id, row) => PresenceNews::Returned(present(id, row)?),
            Told::Occupied => PresenceNews::Occupied,
            Told::Vacated => PresenceNews::Vacated,
        })
    }

    /// Ends the writing of a channel, unless something has become due; takes one without members out of the index before.
    async fn rest(&self, channel: &ChannelPath) -> bool {
        let indexed = {
            let mut channels = self.channels.lock();
            let Some(attendance) = channels.get_mut(channel) else { return true };
            if attendance.is_due() {
                return false;
            }
            if !attendance.is_empty() {
                attendance.is_writing = false;
                return true;
            }
            let Some(session) = attendance.indexed.take() else {
                channels.remove(channel);
                return true;
            };
            session
        };
        // One that stays is found empty by whoever reaps the session.
        if let Err(error) = self.index.note(indexed, row::index_name(channel), false).await {
            tracing::debug!(%error, %channel, "a channel stays in the index of this node");
        }
        false
    }
}
