//! Removing the members of sessions that are over. Whoever removes one knows that it was there, so that it is told once; of
//! those who find a session over, one claims it, so that the others need not read the same. Before members are removed they
//! are handed out: who dies in between leaves them to the next one, who hands them out again.

use std::sync::Arc;

use super::attendance::STEP_NAMES_MAX;
use super::roster::Roster;
use super::row::{self, Mark, SessionId};
use super::session::empty;
use super::view::Dead;
use super::{Departing, PresenceChange, PresenceNews, Reaped, Standing};
use crate::engine::{Member, MembersChange, MembersCondition, MembersPage};
use crate::error::Result;
use crate::limits;
use crate::name::ChannelPath;

/// Leases for which a claim holds: who claims a session and dies is followed by another.
const CLAIM_LEASES: u32 = 4;

impl Roster {
    /// Removes members of sessions that are over, after `see_off` has had them, and gives what has changed beside joins and
    /// leaves of this node.
    pub(crate) async fn reap<F, Fut>(self: &Arc<Self>, see_off: F) -> Result<Reaped>
    where
        F: Fn(Departing) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let mut changes = Vec::new();
        let outcome = self.reap_dead(&see_off, &mut changes).await;
        changes.extend(self.news.take());
        let standing = self.standing.take();
        match outcome {
            // What was removed has to be told; the next call meets the error again.
            Err(error) if !changes.is_empty() || standing != Standing::Unbroken => {
                tracing::debug!(%error, "members of a dead node stay for now")
            }
            outcome => outcome?,
        }
        Ok(Reaped { changes, standing })
    }

    async fn reap_dead<F, Fut>(self: &Arc<Self>, see_off: &F, changes: &mut Vec<PresenceChange>) -> Result<()>
    where
        F: Fn(Departing) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
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
                self.remove_session(dead.session, see_off, changes).await?;
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
    async fn remove_session<F, Fut>(
        &self,
        session: SessionId,
        see_off: &F,
        changes: &mut Vec<PresenceChange>,
    ) -> Result<()>
    where
        F: Fn(Departing) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let index = self.home.index(session)?;
        loop {
            let page = self.store.members_page(&index, None, limits::BATCH_EVENTS_MAX).await?;
            let mut removes = Vec::new();
            for (Member { name, .. }, _) in page.members {
                if changes.len() >= limits::REAPED_MEMBERS_MAX {
                    break;
                }
                match row::channel_of(self.home.environment(), &name) {
                    Some(channel) if !self.remove_members(session, &channel, see_off, changes).await? => {}
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
    async fn remove_members<F, Fut>(
        &self,
        session: SessionId,
        channel: &ChannelPath,
        see_off: &F,
        changes: &mut Vec<PresenceChange>,
    ) -> Result<bool>
    where
        F: Fn(Departing) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
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
                let members = ours.iter().filter_map(row::present_of).map(|(_, present)| present).collect();
                see_off(Departing::new(channel, members)).await?;
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
