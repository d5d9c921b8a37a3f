//! Who is in a channel, over all nodes.
//!
//! A node writes its members under its session, a lease that it renews: one call per lease third, however many members it
//! has. Members of a session that is over are not listed from then on, and are removed by a node that finds it, which
//! learns whom it has removed. `docs/presence.md` has the whole of it.

mod attendance;
mod index;
mod list;
mod news;
mod reap;
mod roster;
mod row;
mod session;
mod view;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use self::attendance::Outcome;
pub(crate) use self::roster::{Equipment, Roster};
pub(crate) use self::row::Home;
use self::row::Row;
use crate::error::{Error, ErrorKind, Result};
use crate::event::NodeId;
use crate::limits;
use crate::name::ChannelPath;

/// Who is in one channel, over all nodes. Cheap to clone.
///
/// A member is a node's own: the same id on two nodes is two members. It is there until it leaves, or its node is gone for
/// longer than [`Limits::presence_lease`](crate::Limits::presence_lease).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidewire::Result<()> {
/// use tidewire::Tidewire;
///
/// let tidewire = Tidewire::open("memory:").await?;
/// let lobby = tidewire.tenant("game")?.presence("lobby")?;
///
/// assert!(lobby.join("tab-1", "ann", r#"{"name":"Ann"}"#).await?.is_occupied);
/// lobby.join("tab-2", "ann", "{}").await?;
///
/// let page = lobby.list(None, 100).await?;
/// assert_eq!(page.members[0].info, r#"{"name":"Ann"}"#);
/// let stats = lobby.stats().await?;
/// assert_eq!((stats.members, stats.users), (2, 1));
/// assert!(!lobby.leave("tab-1").await?.is_vacated);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Presence {
    roster: Arc<Roster>,
    channel: ChannelPath,
}

/// A member of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Present {
    /// Its id, such as that of a connection.
    pub id: Box<str>,
    /// Its user; empty if it has none.
    pub user: Box<str>,
    /// The node that it is on.
    pub node: NodeId,
    /// What was said of it when it joined.
    pub info: Bytes,
}

/// What a join has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Joined {
    /// The member was not there before. Else what was kept of it is replaced.
    pub is_new: bool,
    /// The channel had no members on any node. Of those who join at the same time one alone is told.
    pub is_occupied: bool,
}

/// What a leave has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Departed {
    /// The member was there.
    pub was_there: bool,
    /// The channel has no members left on any node. Of those who leave at the same time one alone is told.
    pub is_vacated: bool,
}

/// Some members of a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberPage {
    /// The members.
    pub members: Vec<Present>,
    /// Where the next page begins; none if this was the last. Opaque.
    pub next: Option<Bytes>,
}

/// How many are in a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceStats {
    /// Members.
    pub members: u64,
    /// Users that they have; those without one count as one.
    pub users: u64,
}

/// A change that no join or leave of this node has told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceChange {
    /// The tenant.
    pub tenant: Box<str>,
    /// The channel in it.
    pub channel: Box<str>,
    /// What has changed there.
    pub news: PresenceNews,
}

/// Members of a channel whose node is dead, and who are about to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Departing {
    /// The tenant.
    pub tenant: Box<str>,
    /// The channel in it.
    pub channel: Box<str>,
    /// The members, in order of their ids.
    pub members: Vec<Present>,
}

/// What a look for dead nodes has brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaped {
    /// What has changed in who is present.
    pub changes: Vec<PresenceChange>,
    /// What has become of this node's own members since the last look.
    pub standing: Standing,
}

/// What has become of a node's own members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// They have been there without a break.
    #[default]
    Unbroken,
    /// They are written again, because a server that took over may lack what was written last.
    Rewritten,
    /// The node was taken for dead: others may have been told that they are gone.
    TakenForDead,
}

/// What has changed in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceNews {
    /// A member is gone: its node is dead, or a leave that had failed was done after all.
    Left(Present),
    /// A member of this node is there again. It was told as gone, because the node had stood still; or a server had lost it.
    Returned(Present),
    /// The channel had no members, and has some.
    Occupied,
    /// The channel has no members left.
    Vacated,
}

impl Presence {
    pub(crate) fn new(roster: Arc<Roster>, channel: ChannelPath) -> Self {
        Self { roster, channel }
    }

    /// A member is there from now on, or what is kept of it is replaced. Joins and leaves of a channel that come at the
    /// same time are written in one step.
    ///
    /// Dropping the future may leave the member there.
    ///
    /// # Errors
    /// `InvalidName` for an empty id, `TooLarge` for what is over its limit. Errors of the engine, when trying again for
    /// [`Limits::call_time_max`](crate::Limits::call_time_max) did not help: a member that was not there is not there then, or
    /// soon is not any more. `Closed`.
    pub async fn join(&self, id: &str, user: &str, info: impl Into<Bytes>) -> Result<Joined> {
        check("member", id)?;
        check("user", user)?;
        let info = info.into();
        if info.len() > limits::MEMBER_INFO_BYTES_MAX {
            let max = limits::MEMBER_INFO_BYTES_MAX;
            return Err(Error::too_large("info of a member", info.len(), max, "MEMBER_INFO_BYTES_MAX"));
        }
        let (id, row) = (named(id)?, Row { user: Bytes::copy_from_slice(user.as_bytes()), info });
        let Outcome { was_there, is_flip } = self.roster.change(&self.channel, id, Some(row)).await?;
        Ok(Joined { is_new: !was_there, is_occupied: is_flip })
    }

    /// A member of this node is not there any more. One that joined and left before anything was written is told as not
    /// having been there.
    ///
    /// Dropping the future does not keep the member there.
    ///
    /// # Errors
    /// `InvalidName` for an empty id. Errors of the engine as for a join; it is tried on until it is done, and then told by
    /// [`Tidewire::reap_members`](crate::Tidewire::reap_members). `Closed`.
    pub async fn leave(&self, id: &str) -> Result<Departed> {
        let Outcome { was_there, is_flip } = self.roster.change(&self.channel, named(id)?, None).await?;
        Ok(Departed { was_there, is_vacated: is_flip })
    }

    /// A page of up to `limit` members, at most 1,000, or of fewer if they are large: after the page whose
    /// [`next`](MemberPage::next) is given, or the first. Members are in order of their nodes, and of their ids on each. Who is there
    /// from the first page to the last is on one of them, once; who was taken for dead meanwhile, at most twice.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn list(&self, after: Option<Bytes>, limit: usize) -> Result<MemberPage> {
        self.roster.list(&self.channel, after, limit).await
    }

    /// How many are there. Does not list them, unless a node has died and its members are not removed yet.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn stats(&self) -> Result<PresenceStats> {
        self.roster.stats(&self.channel).await
    }

    /// Whether any member is kept, be its node alive, or dead and not reaped yet. Unlike [`stats`](Self::stats) it says the
    /// same on every node at the same time: a change of the set alone changes it.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn is_kept(&self) -> Result<bool> {
        self.roster.is_kept(&self.channel).await
    }
}

impl Departing {
    fn new(channel: &ChannelPath, members: Vec<Present>) -> Self {
        Self { tenant: channel.tenant().into(), channel: channel.channel().into(), members }
    }
}

impl PresenceChange {
    fn new(channel: &ChannelPath, news: PresenceNews) -> Self {
        Self { tenant: channel.tenant().into(), channel: channel.channel().into(), news }
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presence({})", self.channel)
    }
}

fn check(what: &str, id: &str) -> Result<()> {
    match id.len() {
        0..=limits::MEMBER_ID_BYTES_MAX => Ok(()),
        bytes => Err(Error::too_large(
            &format!("id of a {what}"),
            bytes,
            limits::MEMBER_ID_BYTES_MAX,
            "MEMBER_ID_BYTES_MAX",
        )),
    }
}

fn named(id: &str) -> Result<Bytes> {
    if id.is_empty() {
        return Err(Error::new(ErrorKind::InvalidName, "id of a member is empty"));
    }
    Ok(Bytes::copy_from_slice(id.as_bytes()))
}

#[cfg(test)]
mod tests;
