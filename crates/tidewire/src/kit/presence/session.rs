//! The session of a node: a lease in the set of all sessions, renewed while the node runs. One that is taken away, because the
//! node stood still for longer than it, is followed by another one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Standing;
use super::roster::Roster;
use super::row::{Mark, SessionId};
use crate::engine::{Member, MembersChange, MembersCondition};
use crate::error::Result;
use crate::event::NodeId;

pub(super) struct Lease {
    state: Mutex<State>,
    /// Held by who begins a session, so that it is begun once.
    beginning: tokio::sync::Mutex<()>,
}

struct State {
    session: SessionId,
    /// Since when it is held without a break, and when it was renewed last; none before it has begun.
    held: Option<(Duration, Duration)>,
    is_renewed_by_a_task: bool,
    /// The session before, while members move from it to this one.
    previous: Option<SessionId>,
}

impl Lease {
    pub(super) fn new(node: NodeId) -> Self {
        let session = SessionId { node, number: 1 };
        let state = State { session, held: None, is_renewed_by_a_task: false, previous: None };
        Self { state: Mutex::new(state), beginning: tokio::sync::Mutex::default() }
    }

    /// The session that members are written under.
    pub(super) fn session(&self) -> SessionId {
        self.state.lock().session
    }

    /// Whether the session has begun; none if another one is on.
    fn has_begun(&self, session: SessionId) -> Option<bool> {
        let state = self.state.lock();
        (state.session == session).then_some(state.held.is_some())
    }

    /// Notes that a session was renewed by a call that began at `now`.
    fn renewed(&self, session: SessionId, now: Duration, lease: Duration) {
        let mut state = self.state.lock();
        if state.session == session {
            let unbroken = state.held.filter(|(_, last)| now.saturating_sub(*last) <= lease);
            state.held = Some((unbroken.map_or(now, |(since, _)| since), now));
        }
    }

    /// Whether the session was renewed since, and no members are on their way from another one.
    fn is_renewed_since(&self, time: Duration) -> bool {
        let state = self.state.lock();
        state.previous.is_none() && state.held.is_some_and(|(_, last)| last >= time)
    }

    /// Goes on under another session, if that one is on.
    fn lost(&self, session: SessionId) {
        let mut state = self.state.lock();
        if state.session == session {
            state.session.number += 1;
            state.held = None;
        }
    }

    /// Whether the session was held without a break for as long as a lease. Only then may others be judged: after a time
    /// when the engine could not be reached, all who live come first.
    pub(super) fn is_settled(&self, now: Duration, lease: Duration) -> bool {
        let held = self.state.lock().held;
        held.is_some_and(|(since, last)| {
            last.saturating_sub(since) >= lease && now.saturating_sub(last) <= lease
        })
    }
}

impl Roster {
    /// Has a session begun before members are written under it. False if it is over.
    pub(super) async fn hold(self: &Arc<Self>, session: SessionId) -> Result<bool> {
        match self.lease.has_begun(session) {
            Some(true) => return Ok(true),
            Some(false) => {}
            None => return Ok(false),
        }
        let _beginning = self.lease.beginning.lock().await;
        match self.lease.has_begun(session) {
            Some(false) => {}
            begun => return Ok(begun.is_some()),
        }
        let now = self.clock.monotonic();
        self.write_session(session, MembersCondition::Always, self.lease_time).await?;
        self.lease.renewed(session, now, self.lease_time);
        self.start_renewing();
        Ok(true)
    }

    fn start_renewing(self: &Arc<Self>) {
        if std::mem::replace(&mut self.lease.state.lock().is_renewed_by_a_task, true) {
            return;
        }
        let (roster, clock, every) = (Arc::downgrade(self), self.clock.clone(), self.lease_time / 3);
        let stop = self.tasks.stopping().clone();
        let renewing = async move {
            loop {
                clock.sleep(every).await;
                let Some(roster) = Weak::upgrade(&roster).filter(|roster| !roster.is_closed()) else {
                    return;
                };
                let (session, now) = (roster.lease.session(), roster.clock.monotonic());
                // An answer that takes longer is not worth waiting for: the next try asks anew.
                if tokio::time::timeout(every, roster.renew(session)).await.is_err() {
                    tracing::debug!("the lease of this node was not renewed in time");
                }
                roster.renew_previous().await;
                let may_follow = roster.lease.is_renewed_since(now);
                if may_follow && roster.was_relinked.swap(false, Ordering::AcqRel) {
                    // The server that has taken over may lack who has joined, or have who has left. All are written again
                    // under another session, and what is left of this one is removed like a dead node's.
                    tracing::info!(%session, "a link was lost: the members of this node are written again");
                    roster.follow(session, Standing::Rewritten);
                    roster.lease.state.lock().previous = Some(session);
                }
            }
        };
        self.tasks.spawn(async move { stop.run_until_cancelled(renewing).await });
    }

    /// Keeps the session before alive until no member is left under it; then whoever finds it over removes the rest.
    async fn renew_previous(&self) {
        let Some(previous) = self.lease.state.lock().previous else { return };
        let is_left = !self.has_trace(previous);
        let lease = if is_left { Duration::ZERO } else { self.lease_time };
        let condition = MembersCondition::There(previous.marked(Mark::Holding));
        let renewing = self.write_session(previous, condition, lease);
        let renewed = tokio::time::timeout(self.lease_time / 3, renewing).await;
        let is_over = matches!(renewed, Ok(Ok(false)));
        if is_over && !is_left {
            self.standing.note(Standing::TakenForDead);
        }
        if is_left || is_over {
            self.lease.state.lock().previous = None;
        }
    }

    /// Goes on under another session.
    fn follow(self: &Arc<Self>, session: SessionId, standing: Standing) {
        if self.lease.has_begun(session) == Some(true) {
            self.lease.lost(session);
            self.standing.note(standing);
            self.come_back();
        }
    }

    async fn renew(self: &Arc<Self>, session: SessionId) {
        let now = self.clock.monotonic();
        if self.lease.has_begun(session) != Some(true) {
            return;
        }
        let condition = MembersCondition::There(session.marked(Mark::Holding));
        match self.write_session(session, condition, self.lease_time).await {
            Ok(true) => self.lease.renewed(session, now, self.lease_time),
            Ok(false) => {
                tracing::warn!(%session, "this node was taken for dead: its members join again");
                self.follow(session, Standing::TakenForDead);
                // What was written meanwhile is looked for once more.
                let member = empty(session.marked(Mark::Claimed));
                let change =
                    MembersChange { puts: vec![member], ttl: Some(Duration::ZERO), ..Default::default() };
                if let Err(error) = self.change_sessions(change).await {
                    tracing::debug!(%error, "what this node has written too late may stay");
                }
            }
            Err(error) => tracing::debug!(%error, "the lease of this node was not renewed"),
        }
    }

    /// Ends the session's lease now.
    pub(super) async fn give_up(&self) -> Result<()> {
        let session = self.lease.session();
        if self.lease.has_begun(session) == Some(true) {
            let condition = MembersCondition::There(session.marked(Mark::Holding));
            self.write_session(session, condition, Duration::ZERO).await?;
        }
        Ok(())
    }

    async fn write_session(
        &self,
        session: SessionId,
        condition: MembersCondition,
        lease: Duration,
    ) -> Result<bool> {
        let (removes, puts) = (Vec::new(), vec![empty(session.marked(Mark::Holding))]);
        self.change_sessions(MembersChange { condition, removes, puts, ttl: Some(lease) }).await
    }
}

/// A member that is only there.
pub(super) fn empty(name: Bytes) -> Member {
    Member { name, owner: Bytes::new(), value: Bytes::new() }
}
