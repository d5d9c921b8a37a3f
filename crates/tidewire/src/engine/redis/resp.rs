//! RESP3: replies sliced out of one read buffer, without copying.
//!
//! Decoding has two passes. The first walks the headers to find out where a frame ends; it keeps its place, so a large
//! reply that comes in many reads is walked once. The second builds the [`Value`] from bytes that are all there, so
//! that no length that the other side claims ever controls an allocation.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};

/// How much is read from a link at once.
const READ_BYTES: usize = 64 << 10;
/// A reply larger than this breaks the link: no request of ours asks for that much.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// A status, an error, a number or a length; Redis cuts error texts far below this.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Lists that a decoder keeps for the aggregates to come: about as many pushes as one read holds.
const LISTS_KEPT_MAX: usize = 512;
/// A list that has room for more values than this is not kept.
const KEPT_VALUES_MAX: usize = 16;
/// The deepest reply we ask for (a group read) nests five levels.
const DEPTH_MAX: usize = 16;

/// One reply, or one push, of the server.
#[derive(Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    BigNumber(Bytes),
    Simple(Bytes),
    Bulk(Bytes),
    /// Text with its three-letter format taken off.
    Verbatim(Bytes),
    Error(Bytes),
    Array(Vec<Value>),
    Set(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// Out of band: never the reply to a request.
    Push(Vec<Value>),
}

impl Value {
    /// The bytes of a string of any kind.
    pub(super) fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Bulk(bytes) | Self::Simple(bytes) | Self::Verbatim(bytes) | Self::BigNumber(bytes) => {
                Some(bytes)
            }
            _ => None,
        }
    }

    /// The bytes of a string of any kind, borrowed.
    pub(super) fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) | Self::Simple(bytes) | Self::Verbatim(bytes) | Self::BigNumber(bytes) => {
                Some(bytes)
            }
            _ => None,
        }
    }

    /// An integer, also one that came as a string.
    pub(super) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => parse_int(self.as_bytes()?),
        }
    }

    /// The elements of an array or a set.
    pub(super) fn into_array(self) -> Option<Vec<Value>> {
        match self {
            Self::Array(items) | Self::Set(items) => Some(items),
            _ => None,
        }
    }
}

impl fmt::Debug for Value {
    // Contents are users' data: a log line shows the shape of a reply, never what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => write!(f, "bool {truth}"),
            Self::Int(number) => write!(f, "int {number}"),
            Self::Double(number) => write!(f, "double {number}"),
            Self::BigNumber(bytes) => write!(f, "big number of {} digits", bytes.len()),
            Self::Simple(bytes) => write!(f, "status {:?}", String::from_utf8_lossy(bytes)),
            Self::Bulk(bytes) => write!(f, "bulk of {} bytes", bytes.len()),
            Self::Verbatim(bytes) => write!(f, "verbatim of {} bytes", bytes.len()),
            Self::Error(bytes) => write!(f, "error {:?}", String::from_utf8_lossy(bytes)),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Set(items) => f.debug_set().entries(items).finish(),
            Self::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(key, value)| (key, value))).finish(),
            Self::Push(items) => {
                f.write_str("push ")?;
                f.debug_list().entries(items).finish()
            }
        }
    }
}

/// What came is not RESP3, or larger than any reply we ask for. The link cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("byte {0:#04x} does not open a RESP3 value")]
    UnknownType(u8),
    #[error("malformed number or length in a reply")]
    BadNumber,
    #[error("a reply is not closed where its length says")]
    BadEnd,
    #[error("a line of a reply is over {LINE_BYTES_MAX} bytes")]
    LongLine,
    #[error("a reply is over {FRAME_BYTES_MAX} bytes")]
    LongFrame,
    #[error("a reply nests deeper than {DEPTH_MAX} levels")]
    Deep,
}

/// Cuts a stream of bytes into [`Value`]s.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    /// Where the frame being walked starts.
    start: usize,
    /// The first header that was not walked yet.
    at: usize,
    /// The aggregates being walked, outermost first.
    open: Vec<Level>,
    /// Empty ones.
    lists: Vec<Vec<Value>>,
}

#[derive(Debug)]
struct Level {
    left: usize,
    kind: LevelKind,
}

#[derive(Debug, PartialEq, Eq)]
enum LevelKind {
    Aggregate,
    /// Facts about the value that follows, which is the one that counts.
    Attribute,
}

impl Decoder {
    /// Room to read into; what is read must be followed by [`Decoder::decode`].
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 4 {
            self.buffer.reserve(READ_BYTES);
        }
        &mut self.buffer
    }

    /// Appends every value that is complete to `values`. Values before a malformed one are still delivered.
    pub(super) fn decode(&mut self, values: &mut Vec<Value>) -> Result<(), ProtocolError> {
        let walked = loop {
            match self.walk() {
                Ok(true) => self.start = self.at,
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if self.start > 0 {
            let bytes = self.buffer.split_to(self.start).freeze();
            let mut frames = Frames { bytes, at: 0, lists: &mut self.lists };
            self.at -= self.start;
            self.start = 0;
            while frames.at < frames.bytes.len() {
                values.push(frames.value()?);
            }
        }
        walked
    }

    /// Takes back the list of a push or an array that was dealt with, for one to come.
    pub(super) fn take_back(&mut self, mut list: Vec<Value>) {
        list.clear();
        if self.lists.len() < LISTS_KEPT_MAX && list.capacity() <= KEPT_VALUES_MAX {
            self.lists.push(list);
        }
    }

    /// Walks on to the end of the current frame; false when more bytes are needed.
    fn walk(&mut self) -> Result<bool, ProtocolError> {
        loop {
            let Some(header) = Header::read(&self.buffer, self.at)? else {
                return Ok(false);
            };
            let counts = match header.body {
                Body::None => {
                    self.at = header.end;
                    true
                }
                Body::Bytes(length) => {
                    let end = header.end + length + 2;
                    if end - self.start > FRAME_BYTES_MAX {
                        return Err(ProtocolError::LongFrame);
                    }
                    match self.buffer.get(header.end + length..end) {
                        Some(b"\r\n") => self.at = end,
                        Some(_) => return Err(ProtocolError::BadEnd),
                        None => return Ok(false),
                    }
                    true
                }
                Body::Values(count) => self.enter(header.end, count, LevelKind::Aggregate)?,
                Body::Attribute(count) => self.enter(header.end, count, LevelKind::Attribute)?,
            };
            if self.at - self.start > FRAME_BYTES_MAX {
                return Err(ProtocolError::LongFrame);
            }
            if counts && self.leave() {
                return Ok(true);
            }
        }
    }

    /// Steps over an aggregate's header; true when it is a whole value already.
    fn enter(&mut self, at: usize, left: usize, kind: LevelKind) -> Result<bool, ProtocolError> {
        self.at = at;
        if left == 0 {
            return Ok(kind == LevelKind::Aggregate);
        }
        if self.open.len() == DEPTH_MAX {
            return Err(ProtocolError::Deep);
        }
        self.open.push(Level { left, kind });
        Ok(false)
    }

    /// Counts one finished value in the aggregates around it; true when that finished the frame.
    fn leave(&mut self) -> bool {
        while let Some(level) = self.open.last_mut() {
            level.left -= 1;
            if level.left > 0 {
                return false;
            }
            let kind = self.open.pop().map(|level| level.kind);
            if kind == Some(LevelKind::Attribute) {
                return false;
            }
        }
        true
    }
}

/// The line that opens a value.
struct Header {
    kind: u8,
    /// The text of the line, without its kind and its end.
    line: (usize, usize),
    /// The first byte after the line.
    end: usize,
    body: Body,
}

enum Body {
    None,
    Bytes(usize),
    Values(usize),
    Attribute(usize),
}

impl Header {
    /// The header at `at`; none when its line is not complete.
    fn read(buffer: &[u8], at: usize) -> Result<Option<Self>, ProtocolError> {
        let Some((&kind, rest)) = buffer.get(at..).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        if !b"_#:,(+$=-!*~%>|".contains(&kind) {
            return Err(ProtocolError::UnknownType(kind));
        }
        let searched = rest.get(..LINE_BYTES_MAX).unwrap_or(rest);
        let Some(length) = searched.iter().position(|&byte| byte == b'\r') else {
            return if searched.len() == LINE_BYTES_MAX { Err(ProtocolError::LongLine) } else { Ok(None) };
        };
        let (Some(line), Some(&feed)) = (rest.get(..length), rest.get(length + 1)) else {
            return Ok(None);
        };
        if feed != b'\n' {
            return Err(ProtocolError::BadEnd);
        }
        let body = match kind {
            b'$' | b'=' | b'!' => length_of(line)?.map_or(Body::None, Body::Bytes),
            b'*' | b'~' | b'>' => length_of(line)?.map_or(Body::None, Body::Values),
            b'%' => Body::Values(length_of(line)?.ok_or(ProtocolError::BadNumber)? * 2),
            b'|' => Body::Attribute(length_of(line)?.ok_or(ProtocolError::BadNumber)? * 2),
            _ => Body::None,
        };
        Ok(Some(Self { kind, line: (at + 1, at + 1 + length), end: at + length + 3, body }))
    }
}

/// A length that fits a frame; none for the null of RESP2 (`-1`).
fn length_of(line: &[u8]) -> Result<Option<usize>, ProtocolError> {
    match parse_int(line) {
        Some(-1) => Ok(None),
        Some(length) => match usize::try_from(length) {
            Ok(length) if length <= FRAME_BYTES_MAX => Ok(Some(length)),
            Ok(_) => Err(ProtocolError::LongFrame),
            Err(_) => Err(ProtocolError::BadNumber),
        },
        None => Err(ProtocolError::BadNumber),
    }
}

/// Complete frames, being built into values.
struct Frames<'a> {
    bytes: Bytes,
    at: usize,
    lists: &'a mut Vec<Vec<Value>>,
}

impl Frames<'_> {
    fn value(&mut self) -> Result<Value, ProtocolError> {
        loop {
            let header = Header::read(&self.bytes, self.at)?.ok_or(ProtocolError::BadEnd)?;
            self.at = header.end;
            match header.body {
                Body::None => return self.leaf(&header),
                Body::Bytes(length) => return self.blob(header.kind, length),
                Body::Attribute(count) => drop(self.values(count)?),
                Body::Values(count) => {
                    return Ok(match header.kind {
                        b'%' => Value::Map(self.pairs(count / 2)?),
                        b'~' => Value::Set(self.values(count)?),
                        b'>' => Value::Push(self.values(count)?),
                        _ => Value::Array(self.values(count)?),
                    });
                }
            }
        }
    }

    fn leaf(&self, header: &Header) -> Result<Value, ProtocolError> {
        let (from, to) = header.line;
        let line = self.bytes.get(from..to).unwrap_or_default();
        Ok(match header.kind {
            b':' => Value::Int(parse_int(line).ok_or(ProtocolError::BadNumber)?),
            b'+' => Value::Simple(self.bytes.slice(from..to)),
            b'-' => Value::Error(self.bytes.slice(from..to)),
            b'(' => Value::BigNumber(self.bytes.slice(from..to)),
            b'#' => match line {
                b"t" => Value::Bool(true),
                b"f" => Value::Bool(false),
                _ => return Err(ProtocolError::BadNumber),
            },
            b',' => {
                let text = std::str::from_utf8(line).map_err(|_| ProtocolError::BadNumber)?;
                Value::Double(text.parse().map_err(|_| ProtocolError::BadNumber)?)
            }
            // `_`, and the nulls of RESP2.
            _ => Value::Null,
        })
    }

    fn blob(&mut self, kind: u8, length: usize) -> Result<Value, ProtocolError> {
        let mut bytes = self.bytes.slice(self.at..self.at + length);
        self.at += length + 2;
        Ok(match kind {
            b'!' => Value::Error(bytes),
            b'=' => {
                if bytes.get(3) != Some(&b':') {
                    return Err(ProtocolError::BadEnd);
                }
                bytes.advance(4);
                Value::Verbatim(bytes)
            }
            _ => Value::Bulk(bytes),
        })
    }

    // The counts below were walked over: that many values are in the bytes.

    fn values(&mut self, count: usize) -> Result<Vec<Value>, ProtocolError> {
        let mut values = self.lists.pop().unwrap_or_default();
        values.reserve_exact(count);
        for _ in 0..count {
            values.push(self.value()?);
        }
        Ok(values)
    }

    fn pairs(&mut self, count: usize) -> Result<Vec<(Value, Value)>, ProtocolError> {
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            pairs.push((self.value()?, self.value()?));
        }
        Ok(pairs)
    }
}

/// A whole decimal number with an optional sign, as Redis writes it.
pub(super) fn parse_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        (b'+', digits) => (false, digits),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    // Counted downwards, because the smallest number has no positive twin.
    let mut number: i64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

#[cfg(test)]
mod tests;
