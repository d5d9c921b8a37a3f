//! One frame: its header in both directions, its mask, and the close frame (RFC 6455, 5).

use bytes::Bytes;

use super::reader::ReadError;
use crate::limits::CLOSE_REASON_BYTES_MAX;

/// Most bytes in the payload of a control frame (RFC 6455, 5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Two bytes, eight of length, four of mask.
pub(super) const HEADER_BYTES_MAX: usize = 14;

const FINAL: u8 = 0x80;
const RESERVED_1: u8 = 0x40;
const RESERVED_2_3: u8 = 0x30;
const MASKED: u8 = 0x80;
/// In place of a length: two bytes of length follow.
const LENGTH_16: u8 = 126;
/// In place of a length: eight bytes of length follow.
const LENGTH_64: u8 = 127;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with the text or binary begun before.
    Continuation,
    /// UTF-8, or the first fragment of it.
    Text,
    /// Bytes, or the first fragment of them.
    Binary,
    /// The last frame of its direction.
    Close,
    /// To be answered by a pong.
    Ping,
    /// The answer to a ping, with its payload.
    Pong,
}

impl Opcode {
    /// Whether the frame is about the connection: never fragmented, never compressed, at most
    /// [`CONTROL_PAYLOAD_BYTES_MAX`] bytes, also between the fragments of others.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn number(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn from_number(number: u8) -> Result<Self, ReadError> {
        match number {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xa => Ok(Self::Pong),
            _ => Err(ReadError::ReservedOpcode(number)),
        }
    }
}

/// All that a frame says before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub opcode: Opcode,
    /// Whether no fragment follows.
    pub is_final: bool,
    /// Whether the payload, with those of the fragments to come, is compressed: only on a first fragment, and only
    /// where both sides agreed.
    pub is_compressed: bool,
    /// The key of the mask: a client masks every frame, with a new random key, and a server none.
    pub mask: Option<[u8; 4]>,
    /// How long the payload is.
    pub payload_bytes: u64,
}

impl FrameHeader {
    /// A frame that is not a fragment, neither compressed nor masked. A control frame has at most
    /// [`CONTROL_PAYLOAD_BYTES_MAX`] bytes of payload; a longer one is refused by whoever reads it.
    pub fn whole(opcode: Opcode, payload_bytes: usize) -> Self {
        let payload_bytes = payload_bytes as u64;
        Self { opcode, is_final: true, is_compressed: false, mask: None, payload_bytes }
    }

    /// The same for a payload that [`super::Deflater::compress`] made.
    pub fn compressed(self) -> Self {
        Self { is_compressed: true, ..self }
    }

    /// The same from a client.
    pub fn masked(self, key: [u8; 4]) -> Self {
        Self { mask: Some(key), ..self }
    }

    /// The header as it is written, with the shortest form of the length.
    pub fn encode(&self) -> HeaderBytes {
        let mut header = HeaderBytes { bytes: [0; HEADER_BYTES_MAX], len: 0 };
        let mut first = self.opcode.number();
        if self.is_final {
            first |= FINAL;
        }
        if self.is_compressed {
            first |= RESERVED_1;
        }
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        match (u8::try_from(self.payload_bytes), u16::try_from(self.payload_bytes)) {
            (Ok(length), _) if length < LENGTH_16 => header.put(&[first, masked | length]),
            (_, Ok(length)) => {
                header.put(&[first, masked | LENGTH_16]);
                header.put(&length.to_be_bytes());
            }
            _ => {
                header.put(&[first, masked | LENGTH_64]);
                header.put(&self.payload_bytes.to_be_bytes());
            }
        }
        header.put(self.mask.as_ref().map_or(&[], |key| key));
        header
    }

    /// Reads a header off the front; none while it is not all there. Gives its length beside it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ReadError> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        if first & RESERVED_2_3 != 0 {
            return Err(ReadError::ReservedBit);
        }
        let opcode = Opcode::from_number(first & 0x0f)?;
        let Some((payload_bytes, rest)) = parse_length(second & !MASKED, rest)? else {
            return Ok(None);
        };
        let (mask, rest) = match (second & MASKED, rest.split_first_chunk()) {
            (0, _) => (None, rest),
            (_, Some((&key, rest))) => (Some(key), rest),
            (_, None) => return Ok(None),
        };
        let (is_final, is_compressed) = (first & FINAL != 0, first & RESERVED_1 != 0);
        let header = Self { opcode, is_final, is_compressed, mask, payload_bytes };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

/// The length that `short` says or that follows it, which must be in its shortest form, with what is behind it.
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, ReadError> {
    let (length, least, rest) = match short {
        LENGTH_16 => match rest.split_first_chunk() {
            Some((&length, rest)) => (u64::from(u16::from_be_bytes(length)), u64::from(LENGTH_16), rest),
            None => return Ok(None),
        },
        LENGTH_64 => match rest.split_first_chunk() {
            Some((&length, rest)) => (u64::from_be_bytes(length), u64::from(u16::MAX) + 1, rest),
            None => return Ok(None),
        },
        _ => (u64::from(short), 0, rest),
    };
    if length < least || length > i64::MAX.unsigned_abs() {
        return Err(ReadError::BadLength);
    }
    Ok(Some((length, rest)))
}

/// The header of a frame as it is written, 2 to 14 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderBytes {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

impl HeaderBytes {
    /// The bytes, to be written before the payload.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn put(&mut self, part: &[u8]) {
        let end = self.len + part.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(part);
            self.len = end;
        }
    }
}

impl AsRef<[u8]> for HeaderBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// A frame as it is written, masked if its header has a key. The length is that of `payload`, whatever the header says.
pub fn encode_frame(header: FrameHeader, payload: &[u8]) -> Bytes {
    let header = FrameHeader { payload_bytes: payload.len() as u64, ..header };
    let head = header.encode();
    let head = head.as_slice();
    let mut frame = Vec::with_capacity(head.len() + payload.len());
    frame.extend_from_slice(head);
    frame.extend_from_slice(payload);
    if let (Some(key), Some(body)) = (header.mask, frame.get_mut(head.len()..)) {
        apply_mask(body, key, 0);
    }
    frame.into()
}

/// A close frame as it is written. The reason is cut at [`CLOSE_REASON_BYTES_MAX`], between characters. A code that may
/// not travel ([`is_close_code`]) is left out with its reason, as is none: that is how a close without a code is
/// answered.
pub fn encode_close(close: Option<(u16, &str)>, mask: Option<[u8; 4]>) -> Bytes {
    let mut payload = Vec::new();
    if let Some((code, reason)) = close.filter(|(code, _)| is_close_code(*code)) {
        let reason = reason.get(..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)).unwrap_or_default();
        payload.extend(code.to_be_bytes());
        payload.extend(reason.as_bytes());
    }
    encode_frame(FrameHeader { mask, ..FrameHeader::whole(Opcode::Close, payload.len()) }, &payload)
}

/// Whether a code may stand in a close frame: those of the registry, but for the ones that only tell what did not
/// happen (1005, 1006, 1015), and 3000 to 4999 (RFC 6455, 7.4).
pub fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Puts a mask on, or takes it off. `offset` is where in the payload `bytes` start.
pub(super) fn apply_mask(bytes: &mut [u8], mut key: [u8; 4], offset: usize) {
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    // Words are whole turns of the key, so what is left starts at its first byte.
    for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests;
