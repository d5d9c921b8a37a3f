//! What travels on a channel: `p` and an envelope for a live event, or an announcement of kept ones as
//! `append.lua` writes it.

use bytes::{Buf as _, Bytes, BytesMut};

use super::command::{Encode, HEADER_BYTES_MAX, write_header};
use super::keys::{self, Tag};
use super::scripts::Publish;
use crate::clock::Timestamp;
use crate::engine::{Kept, Term};
use crate::name::ChannelPath;
use crate::position::Position;

/// What a payload starts with when it is a live event.
const LIVE: &[u8] = b"p";

/// The command that publishes a live event, written without putting name and payload together first.
pub(super) struct PublishLive<'a> {
    publish: Publish,
    channel: &'a ChannelPath,
    tag: Tag,
    envelope: &'a [u8],
}

impl<'a> PublishLive<'a> {
    pub(super) fn new(publish: Publish, channel: &'a ChannelPath, tag: Tag, envelope: &'a [u8]) -> Self {
        Self { publish, channel, tag, envelope }
    }

    fn channel(&self) -> [&str; 5] {
        keys::channel_parts(self.channel, self.tag)
    }
}

fn bytes_of(parts: [&str; 5]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

impl Encode for PublishLive<'_> {
    fn wire_bytes_max(&self) -> usize {
        bytes_of(self.channel()) + self.envelope.len() + 5 * HEADER_BYTES_MAX
    }

    fn encode(&self, out: &mut BytesMut) {
        let channel = self.channel();
        out.extend_from_slice(match self.publish {
            Publish::Classic => b"*3\r\n$7\r\nPUBLISH\r\n",
            Publish::Sharded => b"*3\r\n$8\r\nSPUBLISH\r\n",
        });
        write_header(out, b'$', bytes_of(channel));
        channel.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        out.extend_from_slice(b"\r\n");
        write_header(out, b'$', LIVE.len() + self.envelope.len());
        out.extend_from_slice(LIVE);
        out.extend_from_slice(self.envelope);
        out.extend_from_slice(b"\r\n");
    }
}

/// A live event as those with patterns hear it: where it was published, and the event.
pub(super) fn live_for_patterns(channel: &str, envelope: &[u8]) -> Vec<u8> {
    [channel.as_bytes(), b"\n", LIVE, envelope].concat()
}

/// The announcement of one event on a channel in another slot than its stream, as `append.lua` writes those in its own.
pub(super) fn elsewhere(
    stream: &ChannelPath,
    Place { position, time, term }: Place,
    envelope: &[u8],
) -> Vec<u8> {
    let (Position { epoch, offset }, time) = (position, time.as_millis());
    let head = format!("a {epoch} {offset} {time} {} {}\n", write_term(term), stream.channel());
    let length = u32::try_from(envelope.len()).unwrap_or(u32::MAX);
    [head.as_bytes(), &length.to_le_bytes(), envelope].concat()
}

/// Where and when scripts appended an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: Position,
    pub(super) time: Timestamp,
    pub(super) term: Term,
}

impl Place {
    /// Reads `EPOCH OFFSET TIME TERM`.
    pub(super) fn read<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let (epoch, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let time = Timestamp::from_millis(words.next()?.parse().ok()?);
        Some(Self { position: Position { epoch, offset }, time, term: read_term(words.next()?)? })
    }
}

/// A term as scripts write it: the first 16 hexadecimal digits of an id.
pub(super) fn read_term(text: &str) -> Option<Term> {
    u64::from_str_radix(text, 16).ok().map(Term)
}

pub(super) fn write_term(term: Term) -> String {
    format!("{:016x}", term.0)
}

/// What was heard on one channel at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Live(Bytes),
    /// Events of one stream whose positions follow one another. None tells that the stream is under another epoch.
    Kept(Vec<(Kept, Bytes)>),
}

/// Reads what was heard on `channel`; none if it is not ours.
pub(super) fn read(channel: &ChannelPath, mut payload: Bytes) -> Option<Heard> {
    if payload.starts_with(LIVE) {
        payload.advance(LIVE.len());
        return Some(Heard::Live(payload));
    }
    let head = take_line(&mut payload)?;
    let mut words = std::str::from_utf8(&head).ok()?.split(' ');
    if words.next() != Some("a") {
        return None;
    }
    let Place { position, time, term } = Place::read(&mut words)?;
    let stream = match words.next() {
        Some(name) => Some(ChannelPath::new(channel.environment(), channel.tenant(), name).ok()?),
        None => None,
    };
    let mut events = Vec::new();
    for offset in position.offset.. {
        if payload.is_empty() {
            break;
        }
        let kept = Kept { position: Position { offset, ..position }, term, time, stream: stream.clone() };
        events.push((kept, take_frame(&mut payload)?));
    }
    Some(Heard::Kept(events))
}

/// The bytes before the envelope in a frame.
pub(super) const FRAME_HEAD_BYTES: usize = 4;

/// Takes one envelope and the length before it.
pub(super) fn take_frame(frames: &mut Bytes) -> Option<Bytes> {
    let length = (frames.len() >= FRAME_HEAD_BYTES).then(|| frames.get_u32_le())?;
    let length = usize::try_from(length).ok().filter(|length| *length <= frames.len())?;
    Some(frames.split_to(length))
}

pub(super) fn take_line(payload: &mut Bytes) -> Option<Bytes> {
    let end = payload.iter().position(|&byte| byte == b'\n')?;
    let line = payload.split_to(end);
    payload.advance(1);
    Some(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::redis::resp::{Decoder, Value};
    use crate::position::Epoch;

    fn path(channel: &str) -> ChannelPath {
        ChannelPath::new("dev", "default", channel).unwrap()
    }

    #[test]
    fn a_live_event_comes_back_as_it_was() {
        let channel = path("c");
        let command = PublishLive::new(Publish::Classic, &channel, Tag::of_channel(&channel), b"a b\nc");
        let mut decoder = Decoder::default();
        command.encode(decoder.buffer());
        assert!(decoder.buffer().len() <= command.wire_bytes_max());
        let mut values = Vec::new();
        decoder.decode(&mut values).unwrap();
        let mut words = values.pop().and_then(Value::into_array).unwrap();
        let payload = words.pop().unwrap().into_bytes().unwrap();
        assert_eq!(words.pop().unwrap().as_bytes(), Some(keys::channel(&channel).as_bytes()));
        assert_eq!(read(&path("c"), payload), Some(Heard::Live(Bytes::from_static(b"a b\nc"))));
    }

    #[test]
    fn an_announcement_says_where_each_event_is_kept() {
        let kept = |offset, stream| {
            let (position, time) =
                (Position { epoch: Epoch::from_u64(0xab), offset }, Timestamp::from_millis(9));
            Kept { position, term: Term(0xcd), time, stream }
        };
        let here =
            Bytes::from_static(b"a 00000000000000ab 7 9 00000000000000cd\n\x03\0\0\0x\ny\0\0\0\0\x01\0\0\0z");
        let events = [(7, &b"x\ny"[..]), (8, b""), (9, b"z")];
        let events = events.map(|(offset, envelope)| (kept(offset, None), Bytes::from_static(envelope)));
        assert_eq!(read(&path("c"), here), Some(Heard::Kept(events.to_vec())));
        let elsewhere = Bytes::from_static(b"a 00000000000000ab 7 9 00000000000000cd payments\n\0\0\0\0");
        let events = vec![(kept(7, Some(path("payments"))), Bytes::new())];
        let Kept { position, term, time, .. } = kept(7, None);
        assert_eq!(super::elsewhere(&path("payments"), Place { position, time, term }, b""), elsewhere);
        assert_eq!(read(&path("c"), elsewhere), Some(Heard::Kept(events)));
    }

    #[test]
    fn an_announcement_that_was_cut_or_forged_is_not_read() {
        let head = "a 00000000000000ab 7 9 00000000000000cd";
        for text in [
            "",
            "a",
            head,
            &format!("{head}\n\x03\0\0\0xy"),
            "a 00000000000000ab 7 9\n",
            "a 1 7 9 00000000000000cd\n",
            "b\n",
        ] {
            assert_eq!(read(&path("c"), Bytes::copy_from_slice(text.as_bytes())), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_others_publish_never_panics(payload in prop::collection::vec(any::<u8>(), 0..100)) {
            drop(read(&path("c"), payload.into()));
        }
    }
}
