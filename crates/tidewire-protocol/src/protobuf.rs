//! The Protobuf encoding of messages: as much of it as the client protocol uses.
//!
//! Source: the encoding page of the Protocol Buffers documentation. Fields that hold their default are left out, as
//! proto3 has it; unknown fields are skipped; of a field that is there twice the last one counts, and lists grow.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::limits::DEPTH_MAX;

/// Why bytes are not the message that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The bytes end within a field.
    #[error("message ends within a field")]
    Truncated,
    /// A number takes more than ten bytes, or more bits than its field.
    #[error("number is too large for its field")]
    Overflow,
    /// A field has another wire type than its number says, or one that is not in use.
    #[error("field has a wrong wire type")]
    WireType,
    /// A text is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// Messages nest deeper than [`DEPTH_MAX`].
    #[error("messages nest deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// A message: its fields by number.
pub(crate) trait Protobuf<'a>: Default {
    /// Writes the fields that do not hold their default.
    fn write(&self, out: &mut Vec<u8>);

    /// Takes the field `number`; one that it does not know it leaves.
    fn take(&mut self, number: u64, wire: Wire<'a>) -> Result<()>;
}

/// A value as it stands on the wire, and how many levels of messages may be in it.
#[derive(Clone, Copy)]
pub(crate) struct Wire<'a> {
    value: Value<'a>,
    depth_left: usize,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Fixed numbers, which no message of ours has.
    Other,
}

impl<'a> Wire<'a> {
    fn number(self) -> Result<u64> {
        match self.value {
            Value::Number(number) => Ok(number),
            _ => Err(ProtobufError::WireType),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::WireType),
        }
    }

    fn text(self) -> Result<Cow<'a, str>> {
        std::str::from_utf8(self.bytes()?).map(Cow::Borrowed).map_err(|_| ProtobufError::NotUtf8)
    }

    /// Reads the value as a message into `message`.
    pub(crate) fn read_into(self, message: &mut impl Protobuf<'a>) -> Result<()> {
        let depth_left = self.depth_left.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
        let mut input = self.bytes()?;
        while let Some((number, wire)) = field(&mut input, depth_left)? {
            message.take(number, wire)?;
        }
        Ok(())
    }

    pub(crate) fn message<M: Protobuf<'a>>(self) -> Result<M> {
        let mut message = M::default();
        self.read_into(&mut message)?;
        Ok(message)
    }
}

/// Reads a message that takes all of `bytes`.
pub(crate) fn read<'a, M: Protobuf<'a>>(bytes: &'a [u8]) -> Result<M> {
    Wire { value: Value::Bytes(bytes), depth_left: DEPTH_MAX }.message()
}

/// Takes the next message from a frame: its length, then its bytes. `None` at the end.
pub(crate) fn split<'a>(frame: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    if frame.is_empty() {
        return Ok(None);
    }
    let length = varint(frame)?;
    bytes_of(frame, length).map(Some)
}

fn field<'a>(input: &mut &'a [u8], depth_left: usize) -> Result<Option<(u64, Wire<'a>)>> {
    if input.is_empty() {
        return Ok(None);
    }
    let key = varint(input)?;
    let value = match key & 7 {
        0 => Value::Number(varint(input)?),
        1 => bytes_of(input, 8).map(|_| Value::Other)?,
        2 => {
            let length = varint(input)?;
            Value::Bytes(bytes_of(input, length)?)
        }
        5 => bytes_of(input, 4).map(|_| Value::Other)?,
        _ => return Err(ProtobufError::WireType),
    };
    Ok(Some((key >> 3, Wire { value, depth_left })))
}

fn bytes_of<'a>(input: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    let length = usize::try_from(length).map_err(|_| ProtobufError::Truncated)?;
    let (bytes, rest) = input.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
    *input = rest;
    Ok(bytes)
}

fn varint(input: &mut &[u8]) -> Result<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(ProtobufError::Truncated)?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(ProtobufError::Overflow);
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(ProtobufError::Overflow)
}

/// Writes a number in as few bytes as it takes, seven bits in each.
pub(crate) fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let [bits, ..] = (number & 0x7f).to_le_bytes();
        number >>= 7;
        out.push(if number == 0 { bits } else { bits | 0x80 });
        if number == 0 {
            return;
        }
    }
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Writes a message as field `number`, also an empty one: that it is there says something.
pub(crate) fn put_message<'a>(number: u32, message: &impl Protobuf<'a>, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_with_length(out, |out| message.write(out));
}

/// Writes what `write` writes behind its length.
pub(crate) fn put_with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    // The length goes in front once it is known: bytes are moved by at most ten, and nothing is measured twice.
    let length = out.len() - start;
    put_varint(length as u64, out);
    let prefix = out.len() - start - length;
    if let Some(written) = out.get_mut(start..) {
        written.rotate_right(prefix);
    }
}

/// A kind of field.
pub(crate) trait Field<'a> {
    /// Writes it, unless it holds its default.
    fn put(&self, number: u32, out: &mut Vec<u8>);

    /// Takes its value.
    fn take(&mut self, wire: Wire<'a>) -> Result<()>;
}

impl<'a> Field<'a> for u64 {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if *self != 0 {
            put_varint(u64::from(number) << 3, out);
            put_varint(*self, out);
        }
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        *self = wire.number()?;
        Ok(())
    }
}

impl<'a> Field<'a> for u32 {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        u64::from(*self).put(number, out);
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        *self = wire.number()?.try_into().map_err(|_| ProtobufError::Overflow)?;
        Ok(())
    }
}

impl<'a> Field<'a> for i64 {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        self.cast_unsigned().put(number, out);
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        *self = wire.number()?.cast_signed();
        Ok(())
    }
}

impl<'a> Field<'a> for i32 {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        i64::from(*self).put(number, out);
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        *self = wire.number()?.cast_signed().try_into().map_err(|_| ProtobufError::Overflow)?;
        Ok(())
    }
}

impl<'a> Field<'a> for bool {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        u64::from(*self).put(number, out);
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        *self = wire.number()? != 0;
        Ok(())
    }
}

impl<'a> Field<'a> for Cow<'a, str> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_bytes(number, self.as_bytes(), out);
        }
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        *self = wire.text()?;
        Ok(())
    }
}

impl<'a> Field<'a> for Vec<Cow<'a, str>> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        for text in self {
            put_bytes(number, text.as_bytes(), out);
        }
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        self.push(wire.text()?);
        Ok(())
    }
}

impl<'a> Field<'a> for Option<crate::Opaque<'a>> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(data) = self {
            data.put(number, out);
        }
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        self.get_or_insert_default().take(wire)
    }
}

impl<'a> Field<'a> for crate::Opaque<'a> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        let bytes = self.as_bytes();
        if !bytes.is_empty() {
            put_bytes(number, bytes, out);
        }
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        *self = Self::Bytes(Cow::Borrowed(wire.bytes()?));
        Ok(())
    }
}

impl<'a, M: Protobuf<'a>> Field<'a> for Option<M> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(message) = self {
            put_message(number, message, out);
        }
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        // Two halves of one message are one message.
        wire.read_into(self.get_or_insert_default())
    }
}

impl<'a, M: Protobuf<'a>> Field<'a> for Vec<M> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        for message in self {
            put_message(number, message, out);
        }
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        self.push(wire.message()?);
        Ok(())
    }
}

impl<'a> Field<'a> for BTreeMap<Cow<'a, str>, Cow<'a, str>> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        for (key, value) in self {
            put_entry(number, key, |out| value.put(2, out), out);
        }
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        let (key, value) = entry(wire, Field::take)?;
        self.insert(key, value);
        Ok(())
    }
}

impl<'a, M: Protobuf<'a>> Field<'a> for BTreeMap<Cow<'a, str>, M> {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        for (key, value) in self {
            put_entry(number, key, |out| put_message(2, value, out), out);
        }
    }

    fn take(&mut self, wire: Wire<'a>) -> Result<()> {
        let (key, value) = entry(wire, |value, wire| wire.read_into(value))?;
        self.insert(key, value);
        Ok(())
    }
}

/// Writes an entry of a map: a message whose field 1 is the key and whose field 2 is the value.
fn put_entry(number: u32, key: &str, value: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_with_length(out, |out| {
        Cow::Borrowed(key).put(1, out);
        value(out);
    });
}

fn entry<'a, V: Default>(
    wire: Wire<'a>,
    take: impl Fn(&mut V, Wire<'a>) -> Result<()>,
) -> Result<(Cow<'a, str>, V)> {
    let depth_left = wire.depth_left.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
    let (mut key, mut value) = (Cow::Borrowed(""), V::default());
    let mut input = wire.bytes()?;
    while let Some((number, wire)) = field(&mut input, depth_left)? {
        match number {
            1 => key.take(wire)?,
            2 => take(&mut value, wire)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Says which number each field of a message has.
macro_rules! fields {
    ($message:ident $(<$life:lifetime>)? { $($number:literal $field:ident),* $(,)? }) => {
        impl<'a> $crate::protobuf::Protobuf<'a> for $message$(<$life>)? {
            fn write(&self, out: &mut Vec<u8>) {
                $($crate::protobuf::Field::put(&self.$field, $number, out);)*
                let _ = out;
            }

            fn take(
                &mut self,
                number: u64,
                wire: $crate::protobuf::Wire<'a>,
            ) -> Result<(), $crate::protobuf::ProtobufError> {
                match number {
                    $($number => $crate::protobuf::Field::take(&mut self.$field, wire),)*
                    _ => { let _ = wire; Ok(()) }
                }
            }
        }
    };
}
pub(crate) use fields;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_specification_shows() {
        let written = |number| {
            let mut out = Vec::new();
            put_varint(number, &mut out);
            assert_eq!(varint(&mut out.as_slice()), Ok(number));
            out
        };
        assert_eq!(written(1), [1]);
        assert_eq!(written(150), [0x96, 1]);
        assert_eq!(written(u64::MAX).len(), 10);
        assert_eq!(varint(&mut [0xff; 10].as_slice()), Err(ProtobufError::Overflow));
        assert_eq!(varint(&mut [0xff; 9].as_slice()), Err(ProtobufError::Truncated));
        let mut out = Vec::new();
        (-1_i32).put(1, &mut out);
        assert_eq!(out.len(), 11, "a negative number is written in 64 bits");
    }

    #[test]
    fn a_length_goes_before_what_it_counts() {
        for length in [0, 1, 127, 128, 20_000] {
            let mut out = vec![7];
            put_with_length(&mut out, |out| out.resize(1 + length, 9));
            let mut rest = &out[1..];
            assert_eq!(split(&mut rest).unwrap().map_or(0, <[u8]>::len), length);
            assert!(rest.is_empty() && out[0] == 7);
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_before_anything_is_taken() {
        for frame in [&[0x80][..], &[5, 1, 2], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]] {
            assert!(split(&mut &*frame).is_err(), "{frame:?}");
        }
    }
}
