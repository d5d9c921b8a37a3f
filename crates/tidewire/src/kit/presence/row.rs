//! How members, sessions and what a session has are named and kept. Drawn in `docs/presence.md`.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Present;
use crate::engine::Member;
use crate::error::Result;
use crate::event::NodeId;
use crate::name::{ChannelPath, EntryPath};

/// Bytes of a session in front of a name.
const SESSION_BYTES: usize = 12;
/// The first byte of what is kept of a member.
const VERSION: u8 = 1;

/// One unbroken presence of a node: a node that was taken for dead comes back under another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionId {
    pub(super) node: NodeId,
    pub(super) number: u32,
}

/// What is kept of a member beside its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) user: Bytes,
    pub(super) info: Bytes,
}

/// What the set of sessions says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It renews its lease.
    Holding,
    /// It was found dead, and its members are being removed.
    Claimed,
}

/// Where sessions are kept: with the environment, because a node has one lease for all tenants.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    environment: Box<str>,
    /// A tenant's own, so that its nodes know no others.
    tenant: Option<Box<str>>,
}

impl Home {
    pub(crate) fn of_environment(environment: &str) -> Self {
        Self { environment: environment.into(), tenant: None }
    }

    /// With a tenant: for cases that would reap each other's nodes otherwise.
    pub(crate) fn of_tenant(environment: &str, tenant: &str) -> Self {
        Self { environment: environment.into(), tenant: Some(tenant.into()) }
    }

    pub(super) fn environment(&self) -> &str {
        &self.environment
    }

    /// The set of all sessions.
    pub(super) fn sessions(&self) -> Result<EntryPath> {
        self.entry("presence:nodes")
    }

    /// The set of the channels that a session has members in.
    pub(super) fn index(&self, session: SessionId) -> Result<EntryPath> {
        self.entry(&format!("presence:node:{session}"))
    }

    fn entry(&self, key: &str) -> Result<EntryPath> {
        match &self.tenant {
            Some(tenant) => EntryPath::new(&self.environment, tenant, key),
            None => EntryPath::of_environment(&self.environment, key),
        }
    }
}

/// The set of the members of a channel.
pub(super) fn members_of(channel: &ChannelPath) -> Result<EntryPath> {
    let key = format!("present:{}", channel.channel());
    EntryPath::new(channel.environment(), channel.tenant(), &key)
}

/// A channel in the index of a session.
pub(super) fn index_name(channel: &ChannelPath) -> Bytes {
    format!("{}:{}", channel.tenant(), channel.channel()).into()
}

/// The channel that an index names.
pub(super) fn channel_of(environment: &str, name: &[u8]) -> Option<ChannelPath> {
    // A tenant's name has no colon.
    let (tenant, channel) = std::str::from_utf8(name).ok()?.split_once(':')?;
    ChannelPath::new(environment, tenant, channel).ok()
}

impl SessionId {
    /// What the names of its members begin with.
    pub(super) fn prefix(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(SESSION_BYTES);
        self.put(&mut bytes);
        bytes.freeze()
    }

    /// A name after those of all its members, and before those of any other's.
    pub(super) fn end(self) -> Bytes {
        // No id is UTF-8 and begins with this byte.
        self.name_of(&[0xff])
    }

    /// The name of a member.
    pub(super) fn name_of(self, id: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(SESSION_BYTES + id.len());
        self.put(&mut bytes);
        bytes.put_slice(id);
        bytes.freeze()
    }

    /// Its name in the set of sessions.
    pub(super) fn marked(self, mark: Mark) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1 + SESSION_BYTES);
        bytes.put_u8(mark.letter());
        self.put(&mut bytes);
        bytes.freeze()
    }

    fn put(self, bytes: &mut BytesMut) {
        bytes.put_u64(self.node.as_u64());
        bytes.put_u32(self.number);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let node = NodeId::from_u64(bytes.try_get_u64().ok()?);
        Some(Self { node, number: bytes.try_get_u32().ok()? })
    }
}

impl Mark {
    fn letter(self) -> u8 {
        match self {
            Self::Holding => b'n',
            Self::Claimed => b'x',
        }
    }
}

impl Row {
    pub(super) fn member(&self, session: SessionId, id: &[u8]) -> Member {
        let mut value = BytesMut::with_capacity(1 + self.info.len());
        value.put_u8(VERSION);
        value.put_slice(&self.info);
        Member { name: session.name_of(id), owner: self.user.clone(), value: value.freeze() }
    }

    /// What it is to those who list it; none if an id is not text.
    pub(super) fn present(&self, node: NodeId, id: &[u8]) -> Option<Present> {
        let (id, user) = (std::str::from_utf8(id).ok()?, std::str::from_utf8(&self.user).ok()?);
        Some(Present { id: id.into(), user: user.into(), node, info: self.info.clone() })
    }
}

/// Whose a member is.
pub(super) fn session_of(mut name: &[u8]) -> Option<SessionId> {
    SessionId::read(&mut name)
}

/// What a member is, unless it was written by something that is not known.
pub(super) fn present_of(member: &Member) -> Option<(SessionId, Present)> {
    let mut id = &member.name[..];
    let session = SessionId::read(&mut id)?;
    let (version, _) = member.value.split_first()?;
    if *version != VERSION {
        return None;
    }
    let row = Row { user: member.owner.clone(), info: member.value.slice(1..) };
    Some((session, row.present(session.node, id)?))
}

/// A session and what is said of it.
pub(super) fn marked_of(name: &[u8]) -> Option<(Mark, SessionId)> {
    let (letter, mut session) = name.split_first()?;
    let mark = [Mark::Holding, Mark::Claimed].into_iter().find(|mark| mark.letter() == *letter)?;
    Some((mark, SessionId::read(&mut session)?))
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.node, self.number)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u32) -> SessionId {
        SessionId { node: NodeId::from_u64(0xab), number }
    }

    /// Nodes of all releases share these while they are replaced one by one. Append-only.
    #[test]
    fn names_and_rows_never_change() {
        let row = Row { user: "ann".into(), info: "{}".into() };
        let member = row.member(session(2), b"tab-7");
        assert_eq!(member.name, &b"\0\0\0\0\0\0\0\xab\0\0\0\x02tab-7"[..]);
        assert_eq!((member.owner.clone(), member.value.clone()), ("ann".into(), "\u{1}{}".into()));
        let present =
            Present { id: "tab-7".into(), user: "ann".into(), node: session(2).node, info: "{}".into() };
        assert_eq!(present_of(&member), Some((session(2), present)));
        assert_eq!(session(2).marked(Mark::Holding), &b"n\0\0\0\0\0\0\0\xab\0\0\0\x02"[..]);
        assert_eq!(session(2).marked(Mark::Claimed)[0], b'x');
        assert_eq!(marked_of(&session(2).marked(Mark::Claimed)), Some((Mark::Claimed, session(2))));
        let home = Home::of_environment("dev");
        assert_eq!(home.sessions().unwrap().as_str(), "dev:tenant::presence:nodes");
        let index = home.index(session(2)).unwrap();
        assert_eq!(index.as_str(), "dev:tenant::presence:node:00000000000000ab-00000002");
        let channel = ChannelPath::new("dev", "shop", "a:b").unwrap();
        assert_eq!(members_of(&channel).unwrap().as_str(), "dev:tenant:shop:present:a:b");
        assert_eq!(channel_of("dev", &index_name(&channel)), Some(channel));
    }

    #[test]
    fn the_members_of_a_session_are_side_by_side() {
        let last = session(1).name_of("\u{10ffff}".as_bytes());
        assert!(session(1).prefix() < session(1).name_of(b"\0") && last < session(1).end());
        assert!(session(1).end() < session(2).prefix());
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let member = Member { name: session(1).name_of(b"a"), owner: Bytes::new(), value: "\u{2}".into() };
        assert_eq!(present_of(&member), None);
        assert_eq!((session_of(b"short"), marked_of(b"n"), marked_of(b"")), (None, None, None));
    }
}
