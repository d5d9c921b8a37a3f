use super::*;
use crate::websocket::{Deflater, Effort, WindowBits, encode_close, encode_frame};

const BYTES_MAX: usize = 1_000;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn client() -> Reader {
    Reader::new(Role::Client, BYTES_MAX)
}

/// All that a client's reader makes of `bytes`, cut into steps.
fn read_in(mut reader: Reader, bytes: &[u8], step: usize) -> (Vec<Incoming>, Option<ReadError>) {
    let mut all = Vec::new();
    for mut input in bytes.chunks(step) {
        loop {
            match reader.read(&mut input) {
                Ok(Some(incoming)) => all.push(incoming),
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
        assert!(input.is_empty());
    }
    (all, None)
}

/// As [`read_in`], and the same whatever the steps are.
fn read_with(reader: impl Fn() -> Reader, bytes: &[u8]) -> (Vec<Incoming>, Option<ReadError>) {
    let whole = read_in(reader(), bytes, bytes.len().max(1));
    for step in 1..bytes.len().min(20) {
        assert_eq!(read_in(reader(), bytes, step), whole, "in steps of {step}");
    }
    whole
}

/// What a server sends that a client refuses.
fn fault(bytes: &[u8]) -> Option<ReadError> {
    read_with(client, bytes).1
}

fn fragment(opcode: Opcode, payload: &[u8]) -> Bytes {
    encode_frame(FrameHeader { is_final: false, ..FrameHeader::whole(opcode, 0) }, payload)
}

fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    encode_frame(FrameHeader::whole(opcode, 0), payload)
}

fn text(text: &str) -> Incoming {
    Incoming::Text(text.to_owned())
}

#[test]
fn reads_the_examples_of_rfc_6455() {
    let unmasked: &[u8] = &[
        0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f, // a text
        0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f, // the same in fragments
        0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f, // a ping
    ];
    let ping = Incoming::Ping(Bytes::from_static(b"Hello"));
    assert_eq!(read_with(client, unmasked), (vec![text("Hello"), text("Hello"), ping], None));
    let masked: &[u8] = &[
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58, // a text
        0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58, // a pong
    ];
    let pong = Incoming::Pong(Bytes::from_static(b"Hello"));
    let server = || Reader::new(Role::Server, BYTES_MAX);
    assert_eq!(read_with(server, masked), (vec![text("Hello"), pong], None));
    for size in [256, 65_536] {
        let payload = vec![7; size];
        let reader = || Reader::new(Role::Client, size);
        let expected = vec![Incoming::Binary(payload.clone().into())];
        assert_eq!(read_with(reader, &frame(Opcode::Binary, &payload)), (expected, None));
    }
}

#[test]
fn reads_the_examples_of_rfc_7692() {
    let reader = || client().with_deflate();
    let bytes: &[u8] = &[
        0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, // 7.2.3.1, whole
        0x41, 0x03, 0xf2, 0x48, 0xcd, 0x80, 0x04, 0xc9, 0xc9, 0x07, 0x00, // in fragments
        0xc1, 0x0b, 0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00, // 7.2.3.3
        0xc1, 0x08, 0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, // 7.2.3.4
        0xc1, 0x0d, 0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07,
        0x00, // 7.2.3.5
        0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f, // not compressed, although it might be
    ];
    assert_eq!(read_with(reader, bytes), (vec![text("Hello"); 6], None));
}

#[test]
fn a_server_demands_masks_and_a_client_refuses_them() {
    let unmasked = frame(Opcode::Text, b"x");
    let masked = encode_frame(FrameHeader::whole(Opcode::Text, 0).masked(KEY), b"x");
    let server = || Reader::new(Role::Server, BYTES_MAX);
    assert_eq!(read_with(server, &unmasked), (vec![], Some(ReadError::Unmasked)));
    assert_eq!(read_with(server, &masked), (vec![text("x")], None));
    assert_eq!(read_with(client, &masked), (vec![], Some(ReadError::Masked)));
}

#[test]
fn compression_is_refused_where_it_is_not_agreed_or_not_on_a_first_fragment() {
    let compressed = |opcode| encode_frame(FrameHeader::whole(opcode, 0).compressed(), b"\0");
    assert_eq!(fault(&compressed(Opcode::Text)), Some(ReadError::ReservedBit));
    let fault = |bytes: &[u8]| read_with(|| client().with_deflate(), bytes).1;
    assert_eq!(fault(&compressed(Opcode::Text)), None);
    assert_eq!(fault(&compressed(Opcode::Ping)), Some(ReadError::ReservedBit));
    let mixed = [fragment(Opcode::Text, b"x"), compressed(Opcode::Continuation)].concat();
    assert_eq!(fault(&mixed), Some(ReadError::ReservedBit));
}

#[test]
fn control_frames_come_between_fragments() {
    let bytes = [
        fragment(Opcode::Text, b"a"),
        frame(Opcode::Ping, b"1"),
        fragment(Opcode::Continuation, b""),
        frame(Opcode::Pong, b""),
        frame(Opcode::Continuation, b"b"),
    ];
    let expected = vec![Incoming::Ping(Bytes::from_static(b"1")), Incoming::Pong(Bytes::new()), text("ab")];
    assert_eq!(read_with(client, &bytes.concat()), (expected, None));
}

#[test]
fn refuses_control_frames_that_are_long_or_fragmented() {
    assert_eq!(fault(&frame(Opcode::Ping, &[0; 125])), None);
    for opcode in [Opcode::Ping, Opcode::Pong, Opcode::Close] {
        let long = FrameHeader::whole(opcode, 126).encode();
        assert_eq!(fault(long.as_slice()), Some(ReadError::LongControl));
        assert_eq!(fault(&fragment(opcode, b"")), Some(ReadError::FragmentedControl));
    }
}

#[test]
fn refuses_fragments_out_of_order() {
    assert_eq!(fault(&frame(Opcode::Continuation, b"x")), Some(ReadError::NothingToContinue));
    assert_eq!(fault(&fragment(Opcode::Continuation, b"x")), Some(ReadError::NothingToContinue));
    let mixed = [fragment(Opcode::Text, b"a"), frame(Opcode::Text, b"b")].concat();
    assert_eq!(fault(&mixed), Some(ReadError::MixedFragments));
    let after = [frame(Opcode::Text, b"a"), frame(Opcode::Continuation, b"b")].concat();
    assert_eq!(fault(&after), Some(ReadError::NothingToContinue));
}

#[test]
fn refuses_malformed_headers() {
    assert_eq!(fault(&[0x91, 0x00]), Some(ReadError::ReservedBit));
    assert_eq!(fault(&[0x83, 0x00]), Some(ReadError::ReservedOpcode(3)));
    assert_eq!(fault(&[0x81, 0x7e, 0x00, 0x01]), Some(ReadError::BadLength));
}

#[test]
fn a_length_over_the_limit_is_refused_from_its_header_alone() {
    let too_large = Some(ReadError::TooLarge { bytes_max: BYTES_MAX });
    assert_eq!(fault(&frame(Opcode::Binary, &[0; BYTES_MAX])), None);
    for length in [BYTES_MAX + 1, 1 << 20, usize::MAX >> 1] {
        assert_eq!(fault(FrameHeader::whole(Opcode::Binary, length).encode().as_slice()), too_large);
    }
    let last = FrameHeader::whole(Opcode::Continuation, 2).encode();
    let sum = [&fragment(Opcode::Binary, &[0; BYTES_MAX - 1])[..], last.as_slice()].concat();
    assert_eq!(fault(&sum), too_large);
}

#[test]
fn room_is_made_as_bytes_come_and_within_the_limit() {
    let mut reader = Reader::new(Role::Client, 1 << 20);
    let bytes = frame(Opcode::Binary, &vec![0; 1 << 20]);
    assert_eq!(reader.read(&mut &bytes[..100]), Ok(None));
    assert!(reader.fragments.as_ref().unwrap().payload.capacity() < 200);
    for mut part in bytes[100..bytes.len() - 1].chunks(1_000) {
        assert_eq!(reader.read(&mut part), Ok(None));
        assert!(reader.fragments.as_ref().unwrap().payload.capacity() <= 1 << 20);
    }

    let mut reader = client();
    for at in 0..BYTES_MAX {
        let opcode = if at == 0 { Opcode::Binary } else { Opcode::Continuation };
        assert_eq!(reader.read(&mut &fragment(opcode, b"x")[..]), Ok(None));
        assert!(reader.fragments.as_ref().unwrap().payload.capacity() <= BYTES_MAX);
    }
}

#[test]
fn holds_no_memory_while_nothing_is_partly_here() {
    let mut reader = client().with_deflate();
    let is_idle = |reader: &Reader| {
        reader.fragments.is_none() && reader.frame.is_none() && reader.control.capacity() == 0
    };
    for bytes in [
        frame(Opcode::Ping, b"abc"),
        frame(Opcode::Text, b"abc"),
        encode_frame(FrameHeader::whole(Opcode::Text, 0).compressed(), b"\0"),
        frame(Opcode::Binary, &[0; BYTES_MAX]),
        encode_close(Some((1000, "bye")), None),
    ] {
        let (head, mut last) = bytes.split_at(bytes.len() - 1);
        assert_eq!(reader.read(&mut &head[..]), Ok(None));
        assert!(!is_idle(&reader));
        assert!(matches!(reader.read(&mut last), Ok(Some(_))));
        assert!(is_idle(&reader));
    }
    let mut failed = client();
    assert_eq!(failed.read(&mut &fragment(Opcode::Text, b"abc")[..]), Ok(None));
    assert_eq!(failed.read(&mut &frame(Opcode::Text, b"abc")[..]), Err(ReadError::MixedFragments));
    assert!(is_idle(&failed));
}

#[test]
fn reads_closes_and_passes_over_what_is_behind_them() {
    let close = |code: Option<(u16, &str)>| encode_close(code, None);
    let read = |bytes: &[u8]| read_with(client, bytes);
    assert_eq!(read(&close(None)), (vec![Incoming::Close(None)], None));
    let bytes = [close(Some((4999, "b\u{e9}"))), frame(Opcode::Text, b"late"), Bytes::from_static(&[0xff])];
    assert_eq!(read(&bytes.concat()), (vec![Incoming::Close(Some((4999, "b\u{e9}".into())))], None));
}

#[test]
fn refuses_malformed_closes() {
    assert_eq!(fault(&frame(Opcode::Close, &[3])), Some(ReadError::BadClose));
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        assert_eq!(fault(&frame(Opcode::Close, &code.to_be_bytes())), Some(ReadError::BadClose), "{code}");
    }
    assert_eq!(fault(&frame(Opcode::Close, &[0x03, 0xe8, 0xff])), Some(ReadError::NotUtf8));
}

#[test]
fn text_is_utf_8_also_where_fragments_cut_a_character() {
    let cut = [fragment(Opcode::Text, &[0xc3]), frame(Opcode::Continuation, &[0xa9])].concat();
    assert_eq!(read_with(client, &cut), (vec![text("\u{e9}")], None));
    assert_eq!(fault(&frame(Opcode::Text, &[0xc3])), Some(ReadError::NotUtf8));
    assert_eq!(fault(&frame(Opcode::Text, &[0xed, 0xa0, 0x80])), Some(ReadError::NotUtf8));
    assert_eq!(fault(&frame(Opcode::Binary, &[0xc3])), None);
}

#[test]
fn what_inflates_past_the_limit_or_not_at_all_is_refused() {
    let fault = |payload: &[u8]| {
        let bytes = encode_frame(FrameHeader::whole(Opcode::Text, 0).compressed(), payload);
        read_with(|| client().with_deflate(), &bytes).1
    };
    let mut bomb = Vec::new();
    Deflater::new(WindowBits::MAX, Effort::Small).compress(&[0; 100 * BYTES_MAX], &mut bomb);
    assert!(bomb.len() <= BYTES_MAX);
    assert_eq!(fault(&bomb), Some(ReadError::TooLarge { bytes_max: BYTES_MAX }));
    assert_eq!(fault(&[0xff; 9]), Some(ReadError::BadDeflate));
}

#[test]
fn an_error_is_final_and_names_its_close_code() {
    let mut reader = client();
    assert_eq!(reader.read(&mut &[0x83, 0x00][..]), Err(ReadError::ReservedOpcode(3)));
    assert_eq!(reader.read(&mut &frame(Opcode::Text, b"x")[..]), Err(ReadError::ReservedOpcode(3)));
    assert_eq!(ReadError::ReservedOpcode(3).close_code(), 1002);
    assert_eq!(ReadError::BadClose.close_code(), 1002);
    assert_eq!(ReadError::NotUtf8.close_code(), 1007);
    assert_eq!(ReadError::BadDeflate.close_code(), 1007);
    assert_eq!(ReadError::TooLarge { bytes_max: 1 }.close_code(), 1009);
}
