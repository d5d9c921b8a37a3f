//! However the other side fragments what it sends and however a socket cuts it, the same comes out; and whatever it
//! sends, reading stays within the bound.

use bytes::Bytes;
use proptest::prelude::*;
use tidewire_protocol::websocket::{
    CONTROL_PAYLOAD_BYTES_MAX, Deflater, Effort, FrameHeader, Incoming, InflateError, Opcode, ReadError,
    Reader, Role, WindowBits, agree_deflate, encode_close, encode_frame, inflate, requested_protocols,
};

const BYTES_MAX: usize = 4_096;

fn reader(role: Role, is_deflate_agreed: bool, message_bytes_max: usize) -> Reader {
    let reader = Reader::new(role, message_bytes_max);
    if is_deflate_agreed { reader.with_deflate() } else { reader }
}

/// All that a reader makes of `bytes`, cut after each of `steps` in turn.
fn read_in(mut reader: Reader, bytes: &[u8], steps: &[usize]) -> (Vec<Incoming>, Option<ReadError>) {
    let mut all = Vec::new();
    let mut rest = bytes;
    for step in steps.iter().chain([&bytes.len()]) {
        let (mut input, after) = rest.split_at((*step).min(rest.len()));
        loop {
            match reader.read(&mut input) {
                Ok(Some(incoming)) => all.push(incoming),
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
        assert!(input.is_empty());
        rest = after;
    }
    (all, None)
}

fn size(incoming: &Incoming) -> usize {
    match incoming {
        Incoming::Text(text) => text.len(),
        Incoming::Binary(bytes) | Incoming::Ping(bytes) | Incoming::Pong(bytes) => bytes.len(),
        Incoming::Close(close) => close.as_ref().map_or(0, |(_, reason)| reason.len()),
    }
}

/// What is sent, and how.
#[derive(Clone, Debug)]
struct Sent {
    incoming: Incoming,
    is_compressed: bool,
    /// Where a text or binary is cut into fragments.
    cuts: Vec<prop::sample::Index>,
    /// A ping behind each fragment but the last.
    ping: Option<Vec<u8>>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (any::<u8>(), 0..BYTES_MAX).prop_map(|(byte, count)| vec![byte; count]),
    ];
    let incoming = prop_oneof![
        3 => "\\PC{0,200}".prop_map(Incoming::Text),
        3 => bytes.prop_map(|bytes| Incoming::Binary(bytes.into())),
        1 => prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| Incoming::Ping(bytes.into())),
        1 => prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| Incoming::Pong(bytes.into())),
    ];
    let ping = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    (incoming, any::<bool>(), prop::collection::vec(any::<prop::sample::Index>(), 0..4), ping)
        .prop_map(|(incoming, is_compressed, cuts, ping)| Sent { incoming, is_compressed, cuts, ping })
}

fn data_frames(
    sent: &Sent,
    opcode: Opcode,
    payload: &[u8],
    mask: Option<[u8; 4]>,
    out: &mut Vec<u8>,
) -> usize {
    let mut ends: Vec<usize> = sent.cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
    ends.push(payload.len());
    ends.sort_unstable();
    let (mut start, mut rest) = (0, payload);
    for (index, end) in ends.iter().enumerate() {
        let header = FrameHeader {
            opcode: if index == 0 { opcode } else { Opcode::Continuation },
            is_final: index + 1 == ends.len(),
            is_compressed: sent.is_compressed && index == 0,
            mask,
            payload_bytes: 0,
        };
        let (part, after) = rest.split_at(end - start);
        out.extend(encode_frame(header, part));
        (start, rest) = (*end, after);
        if let (Some(ping), false) = (&sent.ping, header.is_final) {
            out.extend(encode_frame(FrameHeader { mask, ..FrameHeader::whole(Opcode::Ping, 0) }, ping));
        }
    }
    ends.len() - 1
}

/// The bytes of what is sent, and what is to come out.
fn encode(all: &[Sent], mask: Option<[u8; 4]>, close: Option<(u16, &str)>) -> (Vec<u8>, Vec<Incoming>) {
    let (mut out, mut expected) = (Vec::new(), Vec::new());
    let mut deflater = Deflater::new(WindowBits::MAX, Effort::Fast);
    for sent in all {
        let (opcode, payload) = match &sent.incoming {
            Incoming::Text(text) => (Opcode::Text, text.as_bytes()),
            Incoming::Binary(bytes) => (Opcode::Binary, &bytes[..]),
            Incoming::Ping(bytes) => (Opcode::Ping, &bytes[..]),
            Incoming::Pong(bytes) => (Opcode::Pong, &bytes[..]),
            Incoming::Close(_) => continue,
        };
        if opcode.is_control() {
            out.extend(encode_frame(FrameHeader { mask, ..FrameHeader::whole(opcode, 0) }, payload));
        } else {
            let mut compressed = Vec::new();
            if sent.is_compressed {
                deflater.compress(payload, &mut compressed);
            }
            let payload = if sent.is_compressed { &compressed } else { payload };
            let pings = data_frames(sent, opcode, payload, mask, &mut out);
            if let Some(ping) = &sent.ping {
                expected.extend(std::iter::repeat_n(Incoming::Ping(Bytes::from(ping.clone())), pings));
            }
        }
        expected.push(sent.incoming.clone());
    }
    out.extend(encode_close(close, mask));
    expected.push(Incoming::Close(close.map(|(code, reason)| (code, reason.to_owned()))));
    (out, expected)
}

/// Bytes that look like frames more often than noise does.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let first =
        prop_oneof![prop::sample::select(vec![0x01u8, 0x80, 0x81, 0x82, 0xc1, 0x88, 0x89]), any::<u8>()];
    let masked = prop_oneof![Just(0u8), Just(0x80)];
    let frame =
        (first, masked, prop::collection::vec(any::<u8>(), 0..140)).prop_map(|(first, masked, payload)| {
            let length = u8::try_from(payload.len()).unwrap_or(127).min(127);
            [vec![first, masked | length], payload].concat()
        });
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        prop::collection::vec(frame, 0..6).prop_map(|frames| frames.concat()),
    ]
}

proptest! {
    #[test]
    fn what_is_sent_comes_out_however_it_is_cut(
        all in prop::collection::vec(sent(), 0..6),
        mask in prop::option::of(any::<[u8; 4]>()),
        close in prop::option::of((3000u16..5000, "\\PC{0,30}")),
        steps in prop::collection::vec(0usize..200, 0..40),
    ) {
        let close = close.as_ref().map(|(code, reason)| (*code, reason.as_str()));
        let (bytes, expected) = encode(&all, mask, close);
        let role = if mask.is_some() { Role::Server } else { Role::Client };
        let read = read_in(reader(role, true, BYTES_MAX), &bytes, &steps);
        prop_assert_eq!(&read, &(expected, None));
        prop_assert_eq!(read_in(reader(role, true, BYTES_MAX), &bytes, &vec![1; bytes.len()]), read);
    }

    #[test]
    fn any_bytes_are_read_or_refused_within_the_bound(
        bytes in hostile(),
        steps in prop::collection::vec(0usize..40, 0..40),
        is_deflate_agreed: bool,
        bytes_max in 0usize..200,
    ) {
        for role in [Role::Server, Role::Client] {
            let whole = read_in(reader(role, is_deflate_agreed, bytes_max), &bytes, &[]);
            for incoming in &whole.0 {
                let is_data = matches!(incoming, Incoming::Text(_) | Incoming::Binary(_));
                let bound = if is_data { bytes_max } else { CONTROL_PAYLOAD_BYTES_MAX };
                prop_assert!(size(incoming) <= bound);
            }
            prop_assert_eq!(read_in(reader(role, is_deflate_agreed, bytes_max), &bytes, &steps), whole);
        }
    }

    /// Damage to good frames reaches further into the reader than noise does.
    #[test]
    fn damaged_frames_are_read_or_refused_within_the_bound(
        all in prop::collection::vec(sent(), 1..4),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let (mut bytes, _) = encode(&all, None, None);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let whole = read_in(reader(Role::Client, true, BYTES_MAX), &bytes, &[]);
        prop_assert!(whole.0.iter().all(|incoming| size(incoming) <= BYTES_MAX));
        prop_assert_eq!(read_in(reader(Role::Client, true, BYTES_MAX), &bytes, &vec![1; bytes.len()]), whole);
    }

    #[test]
    fn any_payload_is_inflated_or_refused_within_the_bound(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        bytes_max in 0usize..2_000,
    ) {
        if let Ok(inflated) = inflate(&payload, bytes_max) {
            prop_assert!(inflated.capacity() <= bytes_max);
        }
    }

    #[test]
    fn what_is_compressed_is_inflated_within_its_own_length_and_not_less(
        payload in prop::collection::vec(0u8..4, 0..3_000),
        bits in 9u8..=15,
        effort in prop::sample::select(vec![Effort::Fast, Effort::Small]),
    ) {
        let mut compressed = Vec::new();
        Deflater::new(WindowBits::new(bits).unwrap(), effort).compress(&payload, &mut compressed);
        let inflated = inflate(&compressed, payload.len());
        prop_assert_eq!(inflated.as_ref(), Ok(&payload));
        if let Some(bytes_max) = payload.len().checked_sub(1) {
            prop_assert_eq!(inflate(&compressed, bytes_max), Err(InflateError::TooLarge { bytes_max }));
        }
    }

    #[test]
    fn any_header_is_read_or_refused(
        noise in "\\PC{0,60}",
        offers in "(permessage-deflate|[;,= \"\\\\]|server_max_window_bits|client_max_window_bits|1[0-9]){0,12}",
    ) {
        for header in [&noise, &offers] {
            let _ = agree_deflate([header.as_str()], WindowBits::MAX);
            prop_assert!(requested_protocols([header.as_str()]).all(|name| !name.is_empty()));
        }
    }
}
