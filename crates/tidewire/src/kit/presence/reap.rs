//! Removing the members of sessions that are over. Whoever removes one knows that it was there, so that it is told once; of
//! those who find a session over, one claims it, so that the others need not read the same.

use std::sync::Arc;

use super::attendance::STEP_NAMES_MAX;
use super::roster::Roster;
use super::row::{self, Mark, SessionId};
use super::session::empty;
use super::view::Dead;
use super::{PresenceChange, PresenceNews};
use crate::engine::{Member, MembersChange, MembersCondition, MembersPage};
use crate::error::Result;
use crate::limits;
use crate::name::ChannelPath;

/// Leases for which a claim holds: who claims a session and dies is followed by another.
const CLAIM_LEASES: u32 = 4;

impl Roster {
    /// Removes members of sessions that are over, and gives what has changed beside joins and leaves of this node.
    pub(crate) async fn reap(self: &Arc<Self>) -> Result<Vec<PresenceChange>> {
        let mut changes = Vec::new();
        let outcome = self.reap_dead(&mut changes).await;
        changes.extend(self.news.take());
        match outcome {
            // What was removed has to be told; the next call meets the error again.
            Err(error) if !changes.is_empty() => {
                tracing::debug!(%error, "members of a dead node stay for now")
            }
            outcome => outcome?,
        }
        Ok(changes)
    }

    async fn reap_dead(self: &Arc<Self>, changes: &mut Vec<PresenceChange>) -> Result<()> {
        if !self.hold(self.lease.session()).await? {
            return Ok(());
        }
        if !self.lease.is_settled(self.clock.monotonic(), self.lease_time) {
            return Ok(());
        }
        let (own, dead) = (self.lease.session(), self.dead().await?);
        self.claims.lock().retain(|claim| dead.iter().any(|dead| dead.session == *claim));
        for dead in dead.into_iter().filter(|dead| dead.session != own) {
            if changes.len() >= limits::REAPED_MEMBERS_MAX {
                return Ok(());
            }
            if self.claim(dead).await? {
                self.remove_session(dead.session, changes).await?;
            }
        }
        Ok(())
    }

    /// Makes a session that is over this node's to remove. From then on the session cannot be renewed.
    async fn claim(&self, dead: Dead) -> Result<bool> {
        let Dead { session, mark, is_over } = dead;
        if !is_over {
            return Ok(self.claims.lock().contains(&session));
        }
        let (found, claimed) = (session.marked(mark), session.marked(Mark::Claimed));
        let change = MembersChange {
            condition: MembersCondition::Expired(found.clone()),
            removes: vec![found],
            puts: vec![empty(claimed)],
            ttl: Some(self.lease_time * CLAIM_LEASES),
        };
        let is_ours = self.change_sessions(change).await?;
        if is_ours {
            tracing::info!(%session, "removing the members of a node that is gone");
            self.claims.lock().insert(session);
        }
        Ok(is_ours)
    }

    /// Removes the members of a session from all channels, and then the session; stops at the bound of a call.
    async fn remove_session(&self, session: SessionId, changes: &mut Vec<PresenceChange>) -> Result<()> {
        let index = self.home.index(session)?;
        loop {
            let page = self.store.members_page(&index, None, limits::BATCH_EVENTS_MAX).await?;
            let mut removes = Vec::new();
            for (Member { name, .. }, _) in page.members {
                if changes.len() >= limits::REAPED_MEMBERS_MAX {
                    break;
                }
                match row::channel_of(self.home.environment(), &name) {
                    Some(channel) if !self.remove_members(session, &channel, changes).await? => {}
                    _ => removes.push(name),
                }
            }
            let has_more = changes.len() >= limits::REAPED_MEMBERS_MAX || page.next.is_some();
            if !removes.is_empty() {
                let change = MembersChange { removes, ..MembersChange::default() };
                self.store.members_change(&index, change).await?;
            }
            if changes.len() >= limits::REAPED_MEMBERS_MAX {
                return Ok(());
            }
            if !has_more {
                break;
            }
        }
        let removes = vec![session.marked(Mark::Claimed)];
        self.change_sessions(MembersChange { removes, ..MembersChange::default() }).await?;
        self.claims.lock().remove(&session);
        Ok(())
    }

    /// Removes the members of a session from a channel. False if there may be more.
    async fn remove_members(
        &self,
        session: SessionId,
        channel: &ChannelPath,
        changes: &mut Vec<PresenceChange>,
    ) -> Result<bool> {
        let set = row::members_of(channel)?;
        let mut after = session.prefix();
        while changes.len() < limits::REAPED_MEMBERS_MAX {
            let page = self.store.members_page(&set, Some(after), STEP_NAMES_MAX).await?;
            let MembersPage { members, next, .. } = page;
            let count = members.len();
            let ours = members.into_iter().map(|(member, _)| member);
            let ours: Vec<Member> =
                ours.take_while(|member| row::session_of(&member.name) == Some(session)).collect();
            let is_last = ours.len() < count || next.is_none();
            if !ours.is_empty() {
                let removes = ours.iter().map(|member| member.name.clone()).collect();
                let change = MembersChange { removes, ..MembersChange::default() };
                let changed = self.store.members_change(&set, change).await?;
                let were_there = ours.iter().zip(changed.were_there).filter(|(_, was_there)| *was_there);
                let left = were_there.filter_map(|(member, _)| row::present_of(member));
                let left = left.map(|(_, present)| PresenceNews::Left(present));
                let vacated = changed.before > 0 && changed.after == 0;
                let news = left.chain(vacated.then_some(PresenceNews::Vacated));
                changes.extend(news.map(|news| PresenceChange::new(channel, news)));
            }
            match next {
                Some(next) if !is_last => after = next,
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    pub(super) async fn change_sessions(&self, change: MembersChange) -> Result<bool> {
        Ok(self.store.members_change(&self.home.sessions()?, change).await?.is_done)
    }
}
