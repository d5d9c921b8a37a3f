//! Dead letters: deliveries given up on, with their reason, kept until somebody replays or purges them.
//!
//! How one is kept is drawn in `docs/formats/dead-letter.md`.

mod fingerprint;

use std::fmt;
use std::str::FromStr;

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

pub use fingerprint::fingerprint;

use crate::clock::Timestamp;
use crate::engine::{Shelf, ShelfItem};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, NodeId};
use crate::limits;
use crate::name::GroupPath;
use crate::position::{Epoch, Position};

const VERSION: u8 = 1;
/// What stands before the session, the reason and the envelope.
const HEADER_BYTES: usize = 2 + 2 * 4 + 7 * 8 + 1 + 2;

/// The extension attribute of a replayed event that says of which dead letter it is.
const REPLAY_OF: &str = "replayof";
/// The extension attribute of an event that was replayed into its own channel: the one group that is to handle it.
const REPLAY_FOR: &str = "replayfor";

/// A delivery given up on: what it was, and why.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The group that gave up on it, and the channel whose stream it was in.
    pub group: GroupPath,
    /// Where the event was in the stream.
    pub position: Position,
    /// When the event was appended.
    pub appended: Timestamp,
    /// Why it was given up on, for programs.
    pub kind: DeadKind,
    /// Why, in words; at most [`REASON_BYTES_MAX`](limits::REASON_BYTES_MAX) bytes.
    pub reason: Box<str>,
    /// How often it was delivered.
    pub attempts: u32,
    /// How many of those ended with their process.
    pub crashes: u32,
    /// When it was delivered first.
    pub first_delivered: Timestamp,
    /// When it was delivered last.
    pub last_delivered: Timestamp,
    /// When it was given up on, by the engine's clock.
    pub died: Timestamp,
    /// The session that had it last.
    pub session: Box<str>,
    /// The node of that session.
    pub node: NodeId,
    /// The event as it was appended, byte for byte.
    pub envelope: Bytes,
}

/// Why a delivery was given up on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadKind {
    /// Its handler said that it will never succeed.
    Rejected,
    /// It failed as often as the group's [`Retries`](super::Retries) allow.
    AttemptsUsedUp,
    /// It could not be decoded.
    Undecodable,
    /// Its last attempt, too, ended with its process.
    CrashedProcess,
}

impl DeadKind {
    /// Every kind, and its number in what is kept, which never changes meaning.
    const ALL: [(Self, u8, &'static str); 4] = [
        (Self::Rejected, 1, "rejected"),
        (Self::AttemptsUsedUp, 2, "attempts_used_up"),
        (Self::Undecodable, 3, "undecodable"),
        (Self::CrashedProcess, 4, "crashed_process"),
    ];

    fn number(self) -> u8 {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, number, _)| *number)
    }

    /// Its name for programs: `rejected`, `attempts_used_up`, `undecodable` or `crashed_process`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., name)| name)
    }
}

impl FromStr for DeadKind {
    type Err = Error;

    /// Reads what [`as_str`](Self::as_str) writes.
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().find(|(.., name)| *name == text).map(|(kind, ..)| *kind).ok_or_else(|| {
            let known = Self::ALL.map(|(.., name)| name).join(", ");
            Error::new(
                ErrorKind::InvalidName,
                format!("dead letters have no kind {text:?}; known are {known}"),
            )
        })
    }
}

impl fmt::Display for DeadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl DeadLetter {
    /// Its name among the dead letters of its group: they are listed in the order of their ids, the oldest first.
    pub fn id(&self) -> Box<str> {
        format!("{:013}-{}", self.died.as_millis(), self.position).into()
    }

    /// The event, if its envelope can be decoded.
    ///
    /// # Errors
    /// `Codec` says why it cannot.
    pub fn event(&self) -> Result<Event> {
        Event::try_from(self.envelope.clone())
    }

    /// The event's id, if its envelope can be decoded.
    pub fn event_id(&self) -> Option<Uuid> {
        self.event().ok().map(|event| event.id())
    }

    /// The reason without what differs from one event to the next; see [`fingerprint`].
    pub fn fingerprint(&self) -> Box<str> {
        fingerprint(&self.reason)
    }

    /// As an item beside the records of its group.
    pub(super) fn to_item(&self) -> ShelfItem {
        ShelfItem { shelf: Shelf::Dead, key: self.id(), bytes: self.encode() }
    }

    /// As it is kept.
    pub(super) fn encode(&self) -> Bytes {
        let session = cut(&self.session, limits::SESSION_BYTES_MAX);
        let reason = cut(&self.reason, limits::REASON_BYTES_MAX);
        let mut out = Vec::with_capacity(HEADER_BYTES + session.len() + reason.len() + self.envelope.len());
        out.put_u8(VERSION);
        out.put_u8(self.kind.number());
        out.put_u32(self.attempts);
        out.put_u32(self.crashes);
        out.put_u64(self.position.epoch.as_u64());
        out.put_u64(self.position.offset);
        for time in [self.appended, self.first_delivered, self.last_delivered, self.died] {
            out.put_u64(time.as_millis());
        }
        out.put_u64(self.node.as_u64());
        // Both were cut to far below what their lengths can say.
        out.put_u8(u8::try_from(session.len()).unwrap_or(u8::MAX));
        out.put_slice(session.as_bytes());
        out.put_u16(u16::try_from(reason.len()).unwrap_or(u16::MAX));
        out.put_slice(reason.as_bytes());
        out.put_slice(&self.envelope);
        out.into()
    }

    /// Reads one as it is kept in `group`, without copying its envelope.
    ///
    /// # Errors
    /// `Codec` says what is wrong.
    pub(super) fn decode(group: &GroupPath, mut kept: Bytes) -> Result<Self> {
        if kept.len() < HEADER_BYTES {
            return Err(fault(format!("has {} bytes, its header alone has {HEADER_BYTES}", kept.len())));
        }
        let version = kept.get_u8();
        if version != VERSION {
            return Err(fault(format!("has version {version}, this node reads version {VERSION}")));
        }
        let number = kept.get_u8();
        let kind = DeadKind::ALL.iter().find(|(_, known, _)| *known == number);
        let kind = kind.ok_or_else(|| fault(format!("is of kind {number}, known are 1 to 4")))?.0;
        let (attempts, crashes) = (kept.get_u32(), kept.get_u32());
        let position = Position { epoch: Epoch::from_u64(kept.get_u64()), offset: kept.get_u64() };
        let [appended, first_delivered, last_delivered, died] =
            std::array::from_fn(|_| Timestamp::from_millis(kept.get_u64()));
        let node = NodeId::from_u64(kept.get_u64());
        let session_bytes = usize::from(kept.get_u8());
        let session = text(&mut kept, session_bytes)?;
        if kept.len() < 2 {
            return Err(fault("is cut before its reason"));
        }
        let reason_bytes = usize::from(kept.get_u16());
        let reason = text(&mut kept, reason_bytes)?;
        let group = group.clone();
        let envelope = kept;
        Ok(Self {
            group,
            position,
            appended,
            kind,
            reason,
            attempts,
            crashes,
            first_delivered,
            last_delivered,
            died,
            session,
            node,
            envelope,
        })
    }

    /// The event as it is appended again: `is_for_its_group` where it goes back into its own channel. What cannot be decoded,
    /// or has no room for another attribute, is as it was.
    pub(super) fn replayed(&self, is_for_its_group: bool) -> Bytes {
        let Ok(event) = self.event() else { return self.envelope.clone() };
        let event = event.with_extension(REPLAY_OF, &self.id());
        let event = match is_for_its_group {
            true => event.with_extension(REPLAY_FOR, self.group.group()),
            false => event,
        };
        if event.has_room() { Bytes::from(&event) } else { self.envelope.clone() }
    }
}

/// The id of the dead letter that the event is a replay of.
pub(super) fn replay_of(event: &Event) -> Option<&str> {
    event.extension(REPLAY_OF)
}

/// Whether the event was replayed into its channel for another group than this one, which has nothing to do with it.
pub(super) fn is_replay_for_another(event: &Event, group: &GroupPath) -> bool {
    event.extension(REPLAY_FOR).is_some_and(|wanted| wanted != group.group())
}

impl fmt::Debug for DeadLetter {
    /// Leaves the event out: it may be personal, and it may be large.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.id())
            .field("group", &self.group)
            .field("kind", &self.kind)
            .field("reason", &self.reason)
            .field("attempts", &self.attempts)
            .field("envelope_bytes", &self.envelope.len())
            .finish_non_exhaustive()
    }
}

/// The text up to so many bytes, whole characters only.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

fn text(kept: &mut Bytes, bytes: usize) -> Result<Box<str>> {
    if kept.len() < bytes {
        return Err(fault("is cut within a text"));
    }
    let bytes = kept.split_to(bytes);
    std::str::from_utf8(&bytes)
        .map(Box::from)
        .map_err(|error| fault("has a text that is not UTF-8").caused_by(error))
}

fn fault(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Codec, format!("dead letter {what}"))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::ChannelPath;

    /// Version 1, byte for byte. Append-only: a letter kept by any release is read by all later ones.
    const GOLDEN: &str = "0102000000050000000100000000000000aa0000000000000007\
        00000192d3c4e5f600000192d3c4e6f600000192d3c4e7f600000192d3c4e8f6\
        0000000000000007\
        03732d31000c6361726420657870697265640001616e79206279746573";

    pub(in crate::bus::group) fn group() -> GroupPath {
        GroupPath::new(ChannelPath::new("prod", "acme", "orders").unwrap(), "billing").unwrap()
    }

    pub(in crate::bus::group) fn letter(envelope: impl Into<Bytes>) -> DeadLetter {
        let at = |more: u64| Timestamp::from_millis(0x0192_d3c4_e5f6 + more);
        DeadLetter {
            group: group(),
            position: Position { epoch: Epoch::from_u64(0xaa), offset: 7 },
            appended: at(0),
            kind: DeadKind::AttemptsUsedUp,
            reason: "card expired".into(),
            attempts: 5,
            crashes: 1,
            first_delivered: at(0x100),
            last_delivered: at(0x200),
            died: at(0x300),
            session: "s-1".into(),
            node: NodeId::from_u64(7),
            envelope: envelope.into(),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_golden_letter_never_changes() {
        let letter = letter(&b"\x00\x01any bytes"[..]);
        assert_eq!(hex(&letter.encode()), GOLDEN);
        assert_eq!(DeadLetter::decode(&group(), letter.encode()).unwrap(), letter);
        assert_eq!(&*letter.id(), "1730129750262-00000000000000aa:7");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut letter = letter("");
        letter.reason = "ü".repeat(1_000).into();
        let kept = DeadLetter::decode(&group(), letter.encode()).unwrap();
        assert_eq!(&*kept.reason, "ü".repeat(512));
    }

    #[test]
    fn a_replay_says_of_which_letter_and_for_which_group_it_is() {
        let event = Event::new("order.placed", "{}");
        let letter = letter(&event);
        let replayed = Event::try_from(letter.replayed(true)).unwrap();
        assert_eq!((replayed.id(), replayed.data()), (event.id(), event.data()));
        assert_eq!(replayed.extension("replayof"), Some(&*letter.id()));
        let other = GroupPath::new(group().channel().clone(), "search").unwrap();
        assert!(is_replay_for_another(&replayed, &other) && !is_replay_for_another(&replayed, &group()));
        let elsewhere = Event::try_from(letter.replayed(false)).unwrap();
        assert!(!is_replay_for_another(&elsewhere, &other), "another channel's groups all handle it");
    }

    #[test]
    fn what_cannot_be_decoded_is_replayed_as_it_was() {
        let letter = letter("no envelope");
        assert_eq!((letter.replayed(true), letter.event_id()), (letter.envelope.clone(), None));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_say_why(bytes in proptest::collection::vec(any::<u8>(), 0..200), has_version: bool) {
            let mut bytes = bytes;
            if let (true, [version, kind, ..]) = (has_version, &mut bytes[..]) {
                (*version, *kind) = (1, 1 + *kind % 4);
            }
            let bytes = Bytes::from(bytes);
            if let Ok(letter) = DeadLetter::decode(&group(), bytes.clone())
                && letter.reason.len() <= limits::REASON_BYTES_MAX
                && letter.session.len() <= limits::SESSION_BYTES_MAX
            {
                prop_assert_eq!(letter.encode(), bytes);
            }
        }
    }
}
