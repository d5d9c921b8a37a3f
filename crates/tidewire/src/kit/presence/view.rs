//! Which sessions are alive, as this node has read it last.

use std::time::Duration;

use rustc_hash::FxHashSet;

use super::row::{Mark, SessionId, marked_of};
use crate::engine::MembersPage;

/// Sessions that are known to be over; past it they are forgotten and looked up again.
const GONE_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct View {
    /// When it was read, before the read began.
    read_at: Option<Duration>,
    live: FxHashSet<SessionId>,
    /// Those whose lease is over, or who were found dead: their members are still there.
    dead: Vec<Dead>,
    /// Those of whom nothing is known any more. A session that is over never comes back.
    gone: FxHashSet<SessionId>,
}

/// A session whose members are to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) session: SessionId,
    pub(super) mark: Mark,
    /// Its lease is over, or that of who found it dead.
    pub(super) is_over: bool,
}

impl View {
    /// What the set of sessions says.
    pub(super) fn read(read_at: Duration, pages: &[MembersPage], before: Self) -> Self {
        let mut view = Self { read_at: Some(read_at), gone: before.gone, ..Self::default() };
        for (member, is_over) in pages.iter().flat_map(|page| &page.members) {
            match marked_of(&member.name) {
                Some((Mark::Holding, session)) if !is_over => drop(view.live.insert(session)),
                Some((mark, session)) => view.dead.push(Dead { session, mark, is_over: *is_over }),
                None => {}
            }
        }
        view
    }

    /// Whether it was read that short a time ago.
    pub(super) fn is_fresh(&self, now: Duration, age_max: Duration) -> bool {
        self.read_at.is_some_and(|read_at| now.saturating_sub(read_at) <= age_max)
    }

    /// Whether anything is known of a session: one that began later than the view is not.
    pub(super) fn knows(&self, session: SessionId) -> bool {
        let is_dead = || self.dead.iter().any(|dead| dead.session == session);
        self.live.contains(&session) || self.gone.contains(&session) || is_dead()
    }

    pub(super) fn is_live(&self, session: SessionId) -> bool {
        self.live.contains(&session)
    }

    /// Whether its members are to be counted until they are removed.
    pub(super) fn is_kept(&self, session: SessionId) -> bool {
        self.is_live(session) || self.dead.iter().any(|dead| dead.session == session)
    }

    pub(super) fn dead(&self) -> &[Dead] {
        &self.dead
    }

    /// A session that has members, and is not in a view that was read after those: it is over.
    pub(super) fn note_gone(&mut self, session: SessionId) {
        if self.gone.len() >= GONE_MAX {
            self.gone.clear();
        }
        self.gone.insert(session);
    }
}
