use super::*;

const HELLO: &[u8] = b"Hello";

fn compress(deflater: &mut Deflater, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    deflater.compress(payload, &mut out);
    out
}

/// Bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(count).collect()
}

#[test]
fn inflates_the_examples_of_rfc_7692() {
    let examples: [&[u8]; 5] = [
        // 7.2.3.1
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        // 7.2.3.3: a block with no compression.
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        // 7.2.3.4: a block that ends the data.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // 7.2.3.5: two blocks.
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        // 7.2.3.2: the second of two that share no window is the first again.
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
    ];
    for example in examples {
        assert_eq!(inflate(example, HELLO.len()).as_deref(), Ok(HELLO), "{example:x?}");
    }
    // 7.2.3.6
    assert_eq!(inflate(&[0x00], 0).as_deref(), Ok(&b""[..]));
}

#[test]
fn refuses_a_payload_that_needs_the_one_before_it() {
    // RFC 7692, 7.2.3.2: the second "Hello" of a sender that takes its context over.
    assert_eq!(inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00], 100), Err(InflateError::Malformed));
}

#[test]
fn compresses_as_rfc_7692_shows() {
    let mut deflater = Deflater::new(WindowBits::MAX, Effort::Fast);
    assert_eq!(compress(&mut deflater, HELLO), [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    assert_eq!(compress(&mut deflater, b""), [0x00]);
}

#[test]
fn compresses_the_same_whatever_came_before() {
    let mut deflater = Deflater::new(WindowBits::MAX, Effort::Fast);
    let event = br#"{"push":{"channel":"orders","pub":{"data":{"orders":"orders"}}}}"#.repeat(40);
    let first = compress(&mut deflater, &event);
    assert!(first.len() < event.len() / 10);
    compress(&mut deflater, &noise(100_000));
    assert_eq!(compress(&mut deflater, &event), first);
    assert_eq!(compress(&mut Deflater::new(WindowBits::MAX, Effort::Fast), &event), first);
}

#[test]
fn appends_to_what_is_there() {
    let mut out = b"head".to_vec();
    Deflater::new(WindowBits::MAX, Effort::Fast).compress(HELLO, &mut out);
    assert_eq!(inflate(out.strip_prefix(b"head").unwrap(), 5).as_deref(), Ok(HELLO));
}

#[test]
fn what_is_compressed_in_any_window_is_inflated() {
    for (bits, effort) in (9..=15).flat_map(|bits| [(bits, Effort::Fast), (bits, Effort::Small)]) {
        let mut deflater = Deflater::new(WindowBits::new(bits).unwrap(), effort);
        for count in [0, 1, 2, 100, 511, 512, 4_095, 16_383, 16_384, 70_000, 300_000] {
            let mut payload = noise(count);
            for payload in [payload.clone(), vec![0; count], {
                payload.extend_from_within(..);
                payload
            }] {
                let compressed = compress(&mut deflater, &payload);
                assert!(compressed.len() <= payload.len() + payload.len() / 8 + payload.len() / 64 + 64);
                assert_eq!(
                    inflate(&compressed, payload.len()).as_deref(),
                    Ok(&payload[..]),
                    "{bits} {count}"
                );
            }
        }
    }
    assert_eq!((WindowBits::new(8), WindowBits::new(16)), (None, None));
}

#[test]
fn a_small_window_is_kept_to() {
    let mut payload = noise(1_000);
    payload.extend_from_within(..);
    let small = compress(&mut Deflater::new(WindowBits::new(9).unwrap(), Effort::Small), &payload);
    let large = compress(&mut Deflater::new(WindowBits::MAX, Effort::Small), &payload);
    assert!(small.len() > 1_900 && large.len() < 1_100, "{} {}", small.len(), large.len());
    let mut decompress = Decompress::new_with_window_bits(false, 9);
    let mut out = Vec::with_capacity(payload.len());
    // In small steps, so that only the window can hold what is referred to.
    for byte in small.chunks(1) {
        decompress.decompress_vec(byte, &mut out, FlushDecompress::Sync).unwrap();
    }
    assert_eq!(out, payload);
}

#[test]
fn a_bomb_is_refused_within_its_bound() {
    let bomb = compress(&mut Deflater::new(WindowBits::MAX, Effort::Small), &vec![0; 1 << 20]);
    assert!(bomb.len() < 1_100, "{}", bomb.len());
    for bytes_max in [0, 1, 1_000, 65_536, (1 << 20) - 1] {
        assert_eq!(inflate(&bomb, bytes_max), Err(InflateError::TooLarge { bytes_max }));
    }
    let whole = inflate(&bomb, 1 << 20).unwrap();
    assert_eq!((whole.len(), whole.capacity()), (1 << 20, 1 << 20));
}

#[test]
fn room_grows_to_the_bound_and_no_further() {
    let mut out = Vec::new();
    for expected in [64, 128, 200, 200] {
        grow(&mut out, 200);
        assert_eq!(out.capacity(), expected);
        out.resize(out.capacity(), 0);
    }
}

#[test]
fn refuses_what_ends_within_a_block() {
    let whole = compress(&mut Deflater::new(WindowBits::MAX, Effort::Fast), &noise(600));
    for cut in [0, 1, 3, whole.len() / 2, whole.len() - 2] {
        assert_eq!(inflate(&whole[..cut], 1_000), Err(InflateError::Malformed), "{cut}");
    }
    assert_eq!(inflate(&[0xff; 20], 1_000), Err(InflateError::Malformed));
}

#[test]
fn data_that_ends_many_times_is_read_on() {
    // Each pair is an empty block that ends the data.
    let mut payload = [0x03, 0x00].repeat(32 << 10);
    payload.push(0x00);
    assert_eq!(inflate(&payload, 100).as_deref(), Ok(&b""[..]));
}
