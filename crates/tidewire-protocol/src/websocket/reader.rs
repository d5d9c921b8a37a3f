//! Bytes in, whole messages out, for either side (RFC 6455, 5.4 to 5.6).

use bytes::Bytes;

use super::deflate::{InflateError, inflate};
use super::frame::{
    CONTROL_PAYLOAD_BYTES_MAX, FrameHeader, HEADER_BYTES_MAX, Opcode, apply_mask, is_close_code,
};

/// Which side reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Every frame that is read must be masked.
    Server,
    /// No frame that is read may be masked.
    Client,
}

/// What the other side sent, fragments joined and inflated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// To be answered by a pong with the same payload.
    Ping(Bytes),
    /// The answer to a ping, or unasked for.
    Pong(Bytes),
    /// The last thing that comes: its code and its reason, if it has any. To be answered by a close frame, unless one
    /// was sent.
    Close(Option<(u16, String)>),
}

/// Why the other side is not read any further. Send a close frame with [`ReadError::close_code`], then disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A reserved bit is set, or that of compression where it may not be.
    #[error("reserved bit is set")]
    ReservedBit,
    /// The frame is of no kind that is known.
    #[error("opcode {0:#x} is reserved")]
    ReservedOpcode(u8),
    /// A length is not in its shortest form, or over 63 bits.
    #[error("malformed length of a frame")]
    BadLength,
    /// A client sent a frame without a mask.
    #[error("frame of a client is not masked")]
    Unmasked,
    /// A server sent a frame with a mask.
    #[error("frame of a server is masked")]
    Masked,
    /// A control frame is longer than [`CONTROL_PAYLOAD_BYTES_MAX`].
    #[error("control frame is over {CONTROL_PAYLOAD_BYTES_MAX} bytes")]
    LongControl,
    /// A control frame is a fragment.
    #[error("control frame is fragmented")]
    FragmentedControl,
    /// A fragment goes on with nothing.
    #[error("continuation without a beginning")]
    NothingToContinue,
    /// Something begins before the fragments of what came before it are all there.
    #[error("fragments of two messages are mixed")]
    MixedFragments,
    /// The payload of a close frame is one byte long, or its code may not travel.
    #[error("malformed close frame")]
    BadClose,
    /// Text or the reason of a close frame is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A compressed payload cannot be inflated.
    #[error("payload cannot be inflated")]
    BadDeflate,
    /// What comes is over the bound, on the wire or inflated.
    #[error("message is over {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
}

impl ReadError {
    /// The code of the close frame that tells the other side: 1002 (it broke the protocol), 1007 (a payload is not
    /// what it says it is) or 1009 (too large).
    pub fn close_code(self) -> u16 {
        match self {
            Self::NotUtf8 | Self::BadDeflate => 1007,
            Self::TooLarge { .. } => 1009,
            _ => 1002,
        }
    }
}

impl From<InflateError> for ReadError {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::Malformed => Self::BadDeflate,
            InflateError::TooLarge { bytes_max } => Self::TooLarge { bytes_max },
        }
    }
}

/// Reads one side of one connection.
///
/// It holds no memory but itself while nothing is partly here, and never more than the bound given to it: a length over
/// the bound is refused when its header is read, and room is made as bytes come, not as a header claims. A compressed
/// message is held twice while it is inflated, each time within the bound.
#[derive(Debug)]
pub struct Reader {
    role: Role,
    is_deflate_agreed: bool,
    message_bytes_max: usize,
    /// The part of a header that is here.
    head: [u8; HEADER_BYTES_MAX],
    head_len: usize,
    frame: Option<OpenFrame>,
    /// The text or binary whose fragments are not all here.
    fragments: Option<Fragments>,
    /// The payload of the control frame that is being read.
    control: Vec<u8>,
    end: Option<End>,
}

/// A frame whose payload is not all here.
#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    header: FrameHeader,
    read: usize,
    left: usize,
}

#[derive(Debug)]
struct Fragments {
    opcode: Opcode,
    is_compressed: bool,
    payload: Vec<u8>,
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Failed(ReadError),
}

impl Reader {
    /// A reader that takes no compressed frames. `message_bytes_max` bounds a text or binary, fragments together, both
    /// as it travels and inflated.
    pub fn new(role: Role, message_bytes_max: usize) -> Self {
        Self {
            role,
            is_deflate_agreed: false,
            message_bytes_max,
            head: [0; HEADER_BYTES_MAX],
            head_len: 0,
            frame: None,
            fragments: None,
            control: Vec::new(),
            end: None,
        }
    }

    /// The same where permessage-deflate is agreed.
    pub fn with_deflate(self) -> Self {
        Self { is_deflate_agreed: true, ..self }
    }

    /// The next thing that is whole, taken off the front of `input`. None when all of `input` is taken: more bytes are
    /// needed, or a close was read, behind which everything is passed over.
    ///
    /// An error is final: every later call gives it again.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, ReadError> {
        match self.end {
            Some(End::Failed(error)) => return Err(error),
            Some(End::Closed) => {
                *input = &[];
                return Ok(None);
            }
            None => {}
        }
        let incoming = self.read_frames(input);
        self.end = match incoming {
            Ok(Some(Incoming::Close(_))) => Some(End::Closed),
            Err(error) => Some(End::Failed(error)),
            Ok(_) => None,
        };
        if self.end.is_some() {
            self.fragments = None;
            self.control = Vec::new();
        }
        incoming
    }

    fn read_frames(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, ReadError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_header(input)? {
                    Some(header) => self.open(header)?,
                    None => return Ok(None),
                },
            };
            self.read_payload(&mut frame, input);
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if let Some(incoming) = self.finish(frame.header)? {
                return Ok(Some(incoming));
            }
        }
    }

    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, ReadError> {
        let had = self.head_len;
        for (room, byte) in self.head.iter_mut().skip(had).zip(*input) {
            *room = *byte;
            self.head_len += 1;
        }
        let header = FrameHeader::parse(self.head.get(..self.head_len).unwrap_or_default())?;
        let taken = header.map_or(self.head_len, |(_, length)| length) - had;
        *input = input.get(taken..).unwrap_or_default();
        Ok(header.map(|(header, _)| {
            self.head_len = 0;
            header
        }))
    }

    /// Refuses a frame that may not come now, before anything of its payload is taken.
    fn open(&mut self, header: FrameHeader) -> Result<OpenFrame, ReadError> {
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(ReadError::Unmasked),
            (Role::Client, Some(_)) => return Err(ReadError::Masked),
            _ => {}
        }
        let may_be_compressed =
            self.is_deflate_agreed && matches!(header.opcode, Opcode::Text | Opcode::Binary);
        if header.is_compressed && !may_be_compressed {
            return Err(ReadError::ReservedBit);
        }
        let length = usize::try_from(header.payload_bytes).ok();
        if header.opcode.is_control() {
            if !header.is_final {
                return Err(ReadError::FragmentedControl);
            }
            let left = length.filter(|length| *length <= CONTROL_PAYLOAD_BYTES_MAX);
            return Ok(OpenFrame { header, read: 0, left: left.ok_or(ReadError::LongControl)? });
        }
        let had = match (&self.fragments, header.opcode) {
            (None, Opcode::Continuation) => return Err(ReadError::NothingToContinue),
            (None, _) => 0,
            (Some(fragments), Opcode::Continuation) => fragments.payload.len(),
            (Some(_), _) => return Err(ReadError::MixedFragments),
        };
        let left = length.filter(|length| *length <= self.message_bytes_max - had);
        let left = left.ok_or(ReadError::TooLarge { bytes_max: self.message_bytes_max })?;
        self.fragments.get_or_insert_with(|| Fragments {
            opcode: header.opcode,
            is_compressed: header.is_compressed,
            payload: Vec::new(),
        });
        Ok(OpenFrame { header, read: 0, left })
    }

    /// Takes what is here of the payload.
    fn read_payload(&mut self, frame: &mut OpenFrame, input: &mut &[u8]) {
        let (part, rest) = input.split_at_checked(frame.left).unwrap_or((input, &[]));
        *input = rest;
        let bytes_max = self.message_bytes_max;
        let payload = match &mut self.fragments {
            Some(fragments) if !frame.header.opcode.is_control() => &mut fragments.payload,
            _ => &mut self.control,
        };
        let start = payload.len();
        // What is known to be the last frame gets no room behind its end, others what makes many small ones cheap.
        let end_max = if frame.header.is_final { start + frame.left } else { bytes_max };
        if payload.capacity() < start + part.len() {
            let wanted = payload.capacity().saturating_mul(2).min(end_max).max(start + part.len());
            payload.reserve_exact(wanted - start);
        }
        payload.extend_from_slice(part);
        if let (Some(key), Some(part)) = (frame.header.mask, payload.get_mut(start..)) {
            apply_mask(part, key, frame.read);
        }
        frame.read += part.len();
        frame.left -= part.len();
    }

    /// What a frame that is all here completes.
    fn finish(&mut self, header: FrameHeader) -> Result<Option<Incoming>, ReadError> {
        match header.opcode {
            Opcode::Ping => Ok(Some(Incoming::Ping(std::mem::take(&mut self.control).into()))),
            Opcode::Pong => Ok(Some(Incoming::Pong(std::mem::take(&mut self.control).into()))),
            Opcode::Close => parse_close(&self.control).map(|close| Some(Incoming::Close(close))),
            Opcode::Continuation | Opcode::Text | Opcode::Binary if !header.is_final => Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                let Some(Fragments { opcode, is_compressed, mut payload }) = self.fragments.take() else {
                    return Err(ReadError::NothingToContinue);
                };
                if is_compressed {
                    payload = inflate(&payload, self.message_bytes_max)?;
                }
                if opcode == Opcode::Binary {
                    return Ok(Some(Incoming::Binary(payload.into())));
                }
                let text = String::from_utf8(payload).map_err(|_| ReadError::NotUtf8)?;
                Ok(Some(Incoming::Text(text)))
            }
        }
    }
}

fn parse_close(payload: &[u8]) -> Result<Option<(u16, String)>, ReadError> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(ReadError::BadClose) };
    };
    let code = u16::from_be_bytes(code);
    if !is_close_code(code) {
        return Err(ReadError::BadClose);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ReadError::NotUtf8)?;
    Ok(Some((code, reason.to_owned())))
}

#[cfg(test)]
mod tests;
