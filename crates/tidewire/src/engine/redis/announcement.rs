//! What travels on a channel: `p` and an envelope for a live event, or the announcement of a kept one as
//! `append.lua` writes it: `a EPOCH OFFSET TIME[ CHANNEL]`, a line feed, and the envelope.

use bytes::{Buf as _, Bytes, BytesMut};

use super::command::{Encode, HEADER_BYTES_MAX, write_argument, write_header};
use crate::clock::Timestamp;
use crate::engine::Kept;
use crate::limits;
use crate::name::ChannelPath;
use crate::position::Position;

/// What a payload starts with when it is a live event.
const LIVE: &[u8] = b"p";
/// Two digits for the kind, three numbers and a channel name.
const HEAD_BYTES_MAX: usize = 80 + limits::CHANNEL_NAME_BYTES_MAX;

/// The command that publishes a live event, written without putting the payload together first.
pub(super) struct PublishLive<'a> {
    pub(super) channel: &'a str,
    pub(super) envelope: &'a [u8],
}

impl Encode for PublishLive<'_> {
    fn wire_bytes_max(&self) -> usize {
        self.channel.len() + self.envelope.len() + 5 * HEADER_BYTES_MAX
    }

    fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.wire_bytes_max());
        out.extend_from_slice(b"*3\r\n$7\r\nPUBLISH\r\n");
        write_argument(out, self.channel.as_bytes());
        write_header(out, b'$', LIVE.len() + self.envelope.len());
        out.extend_from_slice(LIVE);
        out.extend_from_slice(self.envelope);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads what was heard on `channel`; none if it is not ours.
pub(super) fn read(channel: &ChannelPath, mut payload: Bytes) -> Option<(Option<Kept>, Bytes)> {
    if payload.starts_with(LIVE) {
        payload.advance(LIVE.len());
        return Some((None, payload));
    }
    let searched = payload.get(..HEAD_BYTES_MAX).unwrap_or(&payload);
    let end = searched.iter().position(|&byte| byte == b'\n')?;
    let head = payload.split_to(end);
    payload.advance(1);
    let mut words = std::str::from_utf8(&head).ok()?.split(' ');
    if words.next() != Some("a") {
        return None;
    }
    let epoch = words.next()?.parse().ok()?;
    let offset = words.next()?.parse().ok()?;
    let time = Timestamp::from_millis(words.next()?.parse().ok()?);
    let stream = match words.next() {
        Some(name) => Some(ChannelPath::new(channel.environment(), channel.tenant(), name).ok()?),
        None => None,
    };
    Some((Some(Kept { position: Position { epoch, offset }, time, stream }), payload))
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
        let command = PublishLive { channel: "c", envelope: b"a b\nc" };
        let mut decoder = Decoder::default();
        command.encode(decoder.buffer());
        assert!(decoder.buffer().len() <= command.wire_bytes_max());
        let mut values = Vec::new();
        decoder.decode(&mut values).unwrap();
        let payload = values.pop().and_then(Value::into_array).unwrap().pop().unwrap().into_bytes().unwrap();
        assert_eq!(read(&path("c"), payload), Some((None, Bytes::from_static(b"a b\nc"))));
    }

    #[test]
    fn an_announcement_says_where_the_event_is_kept() {
        let position = Position { epoch: Epoch::from_u64(0xab), offset: 7 };
        let time = Timestamp::from_millis(1_700_000_000_000);
        let here = Bytes::from_static(b"a 00000000000000ab 7 1700000000000\nx\ny");
        let kept = Kept { position, time, stream: None };
        assert_eq!(read(&path("c"), here), Some((Some(kept.clone()), Bytes::from_static(b"x\ny"))));
        let elsewhere = Bytes::from_static(b"a 00000000000000ab 7 1700000000000 payments\n");
        let kept = Kept { stream: Some(path("payments")), ..kept };
        assert_eq!(read(&path("c"), elsewhere), Some((Some(kept), Bytes::new())));
    }

    proptest! {
        #[test]
        fn what_others_publish_never_panics(payload in prop::collection::vec(any::<u8>(), 0..100)) {
            drop(read(&path("c"), payload.into()));
        }
    }
}
