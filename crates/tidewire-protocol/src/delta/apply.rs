//! The reader's side, for clients and tests.

use super::{checksum, number};

/// Why a delta cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// The delta ends within a command, or without a checksum.
    #[error("delta is cut short")]
    CutShort,
    /// What stands at this offset of the delta is no number or no command, or follows the end.
    #[error("delta is malformed at byte {at}")]
    Malformed {
        /// Offset in the delta, in bytes.
        at: usize,
    },
    /// The delta makes more than the caller takes.
    #[error("delta makes {bytes} bytes, limit is {bytes_max}")]
    TooLarge {
        /// What the delta says that it makes.
        bytes: usize,
        /// What the caller takes.
        bytes_max: usize,
    },
    /// A copy reaches past the former data: the delta is for other data.
    #[error("delta copies what the former data does not have")]
    OutOfBounds,
    /// The commands make more or less than the delta says.
    #[error("delta makes another size than it says")]
    WrongSize,
    /// The result is not what the delta was made from: the delta is for other data, or damaged.
    #[error("delta makes data with another checksum")]
    WrongChecksum,
}

/// The data that `delta` makes of `old`.
///
/// Never panics, whatever the bytes are; never allocates more than `bytes_max`, and nothing where the delta says that it makes
/// more.
pub fn apply(old: &[u8], delta: &[u8], bytes_max: usize) -> Result<Vec<u8>, DeltaError> {
    let mut reader = Reader { delta, at: 0 };
    let size = reader.number()?;
    reader.sign(b'\n')?;
    if size > bytes_max {
        return Err(DeltaError::TooLarge { bytes: size, bytes_max });
    }
    let mut new = Vec::with_capacity(size);
    loop {
        let number = reader.number()?;
        let part = match reader.byte()? {
            b'@' => {
                let from = reader.number()?;
                reader.sign(b',')?;
                let to = from.checked_add(number).ok_or(DeltaError::OutOfBounds)?;
                old.get(from..to).ok_or(DeltaError::OutOfBounds)?
            }
            b':' => reader.bytes(number)?,
            b';' if new.len() != size => return Err(DeltaError::WrongSize),
            b';' if number != checksum(&new) as usize => return Err(DeltaError::WrongChecksum),
            b';' if reader.at != delta.len() => return Err(DeltaError::Malformed { at: reader.at }),
            b';' => return Ok(new),
            _ => return Err(DeltaError::Malformed { at: reader.at - 1 }),
        };
        if part.len() > size - new.len() {
            return Err(DeltaError::WrongSize);
        }
        new.extend_from_slice(part);
    }
}

struct Reader<'a> {
    delta: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, DeltaError> {
        let byte = self.delta.get(self.at).ok_or(DeltaError::CutShort)?;
        self.at += 1;
        Ok(*byte)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], DeltaError> {
        let rest = self.delta.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..count).ok_or(DeltaError::CutShort)?;
        self.at += count;
        Ok(bytes)
    }

    fn sign(&mut self, sign: u8) -> Result<(), DeltaError> {
        let at = self.at;
        if self.byte()? == sign { Ok(()) } else { Err(DeltaError::Malformed { at }) }
    }

    /// At least one digit, and no more than 32 bits: what every reader of the format can hold.
    fn number(&mut self) -> Result<usize, DeltaError> {
        let begin = self.at;
        let mut number = 0u32;
        while let Some(digit) = self.delta.get(self.at).and_then(|byte| number::value(*byte)) {
            number = number.checked_mul(64).ok_or(DeltaError::Malformed { at: begin })? | digit;
            self.at += 1;
        }
        if self.at == begin {
            return Err(if begin < self.delta.len() {
                DeltaError::Malformed { at: begin }
            } else {
                DeltaError::CutShort
            });
        }
        usize::try_from(number).map_err(|_| DeltaError::Malformed { at: begin })
    }
}
