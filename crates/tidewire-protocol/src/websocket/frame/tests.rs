use super::*;

fn header(bytes: &[u8]) -> Result<Option<(FrameHeader, usize)>, ReadError> {
    FrameHeader::parse(bytes)
}

#[test]
fn encodes_the_examples_of_rfc_6455() {
    let hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(encode_frame(FrameHeader::whole(Opcode::Text, 5), b"Hello"), hello[..]);
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let key = [0x37, 0xfa, 0x21, 0x3d];
    assert_eq!(encode_frame(FrameHeader::whole(Opcode::Text, 5).masked(key), b"Hello"), masked[..]);
    let first = FrameHeader { is_final: false, ..FrameHeader::whole(Opcode::Text, 3) };
    assert_eq!(encode_frame(first, b"Hel"), [0x01, 0x03, 0x48, 0x65, 0x6c][..]);
    let second = FrameHeader::whole(Opcode::Continuation, 2);
    assert_eq!(encode_frame(second, b"lo"), [0x80, 0x02, 0x6c, 0x6f][..]);
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(encode_frame(FrameHeader::whole(Opcode::Ping, 5), b"Hello"), ping[..]);
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(encode_frame(FrameHeader::whole(Opcode::Pong, 5).masked(key), b"Hello"), pong[..]);
    assert_eq!(FrameHeader::whole(Opcode::Binary, 256).encode().as_slice(), [0x82, 0x7e, 0x01, 0x00]);
    let large = [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(FrameHeader::whole(Opcode::Binary, 65_536).encode().as_slice(), large);
}

#[test]
fn encodes_the_example_of_rfc_7692() {
    // 7.2.3.1
    let payload = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let frame = encode_frame(FrameHeader::whole(Opcode::Text, 7).compressed(), &payload);
    assert_eq!(frame, [&[0xc1, 0x07], &payload[..]].concat());
}

#[test]
fn every_header_is_read_back_and_waits_for_its_last_byte() {
    let opcodes =
        [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];
    let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, u64::from(u32::MAX) + 1, i64::MAX as u64];
    for (opcode, payload_bytes) in
        opcodes.into_iter().flat_map(|opcode| lengths.map(|length| (opcode, length)))
    {
        for bits in 0..8 {
            let mask = (bits & 4 > 0).then_some([1, 2, 3, 4]);
            let written = FrameHeader {
                opcode,
                is_final: bits & 1 > 0,
                is_compressed: bits & 2 > 0,
                mask,
                payload_bytes,
            };
            let encoded = written.encode();
            let bytes = encoded.as_slice();
            assert_eq!(header(&[bytes, b"rest"].concat()), Ok(Some((written, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(header(&bytes[..cut]), Ok(None), "{written:?} {cut}");
            }
        }
    }
}

#[test]
fn refuses_lengths_that_are_not_in_their_shortest_form_or_over_63_bits() {
    assert_eq!(header(&[0x82, 126, 0, 125]), Err(ReadError::BadLength));
    assert_eq!(header(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Err(ReadError::BadLength));
    assert_eq!(header(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(ReadError::BadLength));
    assert!(header(&[0x82, 126, 0, 126]).unwrap().is_some());
    assert!(header(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap().is_some());
}

#[test]
fn refuses_reserved_bits_and_opcodes() {
    for first in [0xa1, 0x91, 0xb1] {
        assert_eq!(header(&[first, 0]), Err(ReadError::ReservedBit));
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        assert_eq!(header(&[0x80 | opcode, 0]), Err(ReadError::ReservedOpcode(opcode)));
    }
}

#[test]
fn a_mask_is_the_same_in_words_and_in_bytes() {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let payload: Vec<u8> = (0..100).collect();
    for (start, end) in (0..20).flat_map(|start| (start..100).map(move |end| (start, end))) {
        let mut part = payload[start..end].to_vec();
        apply_mask(&mut part, key, start);
        let expected: Vec<u8> = (start..end).map(|at| payload[at] ^ key[at % 4]).collect();
        assert_eq!(part, expected, "{start}..{end}");
    }
}

#[test]
fn close_frames_carry_a_code_and_a_reason_that_fits() {
    assert_eq!(encode_close(None, None), [0x88, 0x00][..]);
    assert_eq!(encode_close(Some((1000, "")), None), [0x88, 0x02, 0x03, 0xe8][..]);
    assert_eq!(encode_close(Some((3500, "no")), None), [0x88, 0x04, 0x0d, 0xac, b'n', b'o'][..]);
    assert_eq!(encode_close(Some((1000, "")), Some([1, 2, 3, 4])), [0x88, 0x82, 1, 2, 3, 4, 0x02, 0xea][..]);
    let cut = encode_close(Some((1000, &"\u{e9}".repeat(CLOSE_REASON_BYTES_MAX))), None);
    assert_eq!(cut[..2], [0x88, 124]);
    assert_eq!(std::str::from_utf8(&cut[4..]), Ok("\u{e9}".repeat(61).as_str()));
    let full = encode_close(Some((1000, &"x".repeat(500))), None);
    assert_eq!((full[1], full.len()), (125, 127));
}

#[test]
fn codes_that_may_not_travel_are_left_out() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
        assert!(!is_close_code(code), "{code}");
        assert_eq!(encode_close(Some((code, "reason")), None), [0x88, 0x00][..], "{code}");
    }
    for code in
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
    {
        assert!(is_close_code(code), "{code}");
    }
}
