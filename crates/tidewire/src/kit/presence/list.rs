//! Reading who is there: the members of a channel whose sessions are alive.

use bytes::Bytes;
use rustc_hash::FxHashSet;

use super::roster::Roster;
use super::row::{self, SessionId};
use super::view::{Dead, View};
use super::{MemberPage, PresenceStats};
use crate::engine::MembersPage;
use crate::error::Result;
use crate::limits;
use crate::name::ChannelPath;

/// What is read at a time where all of it is wanted.
const ALL: usize = limits::BATCH_EVENTS_MAX;

impl Roster {
    pub(super) async fn list(
        &self,
        channel: &ChannelPath,
        mut after: Option<Bytes>,
        limit: usize,
    ) -> Result<MemberPage> {
        let set = row::members_of(channel)?;
        loop {
            let page = self.store.members_page(&set, after, limit.max(1)).await?;
            let live = self.live_of(&page).await?;
            let next = next_of(&page, &live);
            let present = page.members.iter().filter_map(|(member, _)| row::present_of(member));
            let present = present.filter(|(session, _)| live.contains(session));
            let members: Vec<_> = present.map(|(_, present)| present).collect();
            if !members.is_empty() || next.is_none() {
                return Ok(MemberPage { members, next });
            }
            after = next;
        }
    }

    pub(super) async fn stats(&self, channel: &ChannelPath) -> Result<PresenceStats> {
        let set = row::members_of(channel)?;
        let has_dead = {
            let mut view = self.view.lock().await;
            self.freshen(&mut view).await?;
            view.dead().iter().any(|dead| dead.session != self.lease.session())
        };
        if has_dead {
            return self.count(channel).await;
        }
        let MembersPage { count, owners, .. } = self.store.members_page(&set, None, 0).await?;
        Ok(PresenceStats { members: count, users: owners })
    }

    /// Counts those who are alive one by one.
    async fn count(&self, channel: &ChannelPath) -> Result<PresenceStats> {
        let (mut members, mut users, mut after) = (0, FxHashSet::default(), None);
        loop {
            let page = self.list(channel, after, ALL).await?;
            members += page.members.len() as u64;
            users.extend(page.members.into_iter().map(|present| present.user));
            after = page.next;
            if after.is_none() {
                return Ok(PresenceStats { members, users: users.len() as u64 });
            }
        }
    }

    pub(super) async fn is_kept(&self, channel: &ChannelPath) -> Result<bool> {
        let (set, mut after) = (row::members_of(channel)?, None);
        loop {
            let page = self.store.members_page(&set, after, ALL).await?;
            // What a session that is gone has written too late stays until its node comes back, or for ever.
            if !self.sessions_of(&page, View::is_kept).await?.is_empty() {
                return Ok(true);
            }
            after = page.next;
            if after.is_none() {
                return Ok(false);
            }
        }
    }

    /// The sessions of a page that are alive.
    async fn live_of(&self, page: &MembersPage) -> Result<FxHashSet<SessionId>> {
        self.sessions_of(page, View::is_live).await
    }

    /// The sessions of a page of which `is_meant` holds.
    async fn sessions_of(
        &self,
        page: &MembersPage,
        is_meant: impl Fn(&View, SessionId) -> bool,
    ) -> Result<FxHashSet<SessionId>> {
        let own = self.lease.session();
        let sessions = page.members.iter().filter_map(|(member, _)| row::session_of(&member.name));
        let mut sessions: FxHashSet<SessionId> = sessions.collect();
        // What this node has joined it knows best.
        if sessions.iter().all(|session| *session == own) {
            return Ok(sessions);
        }
        let mut view = self.view.lock().await;
        self.freshen(&mut view).await?;
        if sessions.iter().any(|session| !view.knows(*session)) {
            // It may have begun after the view was read; one read now is later than the page.
            self.read_view(&mut view).await?;
            let unknown: Vec<_> = sessions.iter().filter(|session| !view.knows(**session)).copied().collect();
            unknown.into_iter().for_each(|session| view.note_gone(session));
        }
        sessions.retain(|session| *session == own || is_meant(&view, *session));
        Ok(sessions)
    }

    /// Reads the view again if it is older than a sixth of a lease.
    async fn freshen(&self, view: &mut View) -> Result<()> {
        if view.is_fresh(self.clock.monotonic(), self.lease_time / 6) {
            return Ok(());
        }
        self.read_view(view).await
    }

    async fn read_view(&self, view: &mut View) -> Result<()> {
        let (set, now) = (self.home.sessions()?, self.clock.monotonic());
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.members_page(&set, after, ALL).await?;
            after = page.next.clone();
            pages.push(page);
            if after.is_none() {
                *view = View::read(now, &pages, std::mem::take(view));
                return Ok(());
            }
        }
    }

    /// The sessions that are over, as of now.
    pub(super) async fn dead(&self) -> Result<Vec<Dead>> {
        let mut view = self.view.lock().await;
        self.read_view(&mut view).await?;
        Ok(view.dead().to_vec())
    }
}

/// Where to go on after a page: behind all members of a session that is over, if the page ends with one of them.
fn next_of(page: &MembersPage, live: &FxHashSet<SessionId>) -> Option<Bytes> {
    let next = page.next.as_ref()?;
    let last = row::session_of(next).filter(|session| !live.contains(session));
    Some(last.map_or_else(|| next.clone(), SessionId::end))
}
