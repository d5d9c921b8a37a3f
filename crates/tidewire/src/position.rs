//! Where an event is in a stream.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// One unbroken history of a stream. A new epoch says that history was lost.
///
/// Shown as 16 hexadecimal digits. `Epoch::default()` is that of no stream: it equals no real one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// A fresh, random epoch.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    /// From its number, as stored by an engine.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Its number, for an engine to store.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Epoch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits =
            Some(text).filter(|text| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()));
        digits.and_then(|text| u64::from_str_radix(text, 16).ok()).map(Self).ok_or_else(|| {
            Error::new(ErrorKind::Codec, format!("epoch {text:?} is not 16 hexadecimal digits"))
        })
    }
}

/// Where an event is in a stream: epoch and offset. Opaque to users; shown as `EPOCH:OFFSET`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// The history that the offset counts in.
    pub epoch: Epoch,
    /// 1 for the first event of the epoch; 0 stands before it.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (epoch, offset) = text
            .split_once(':')
            .ok_or_else(|| Error::new(ErrorKind::Codec, format!("position {text:?} is not EPOCH:OFFSET")))?;
        let offset = offset.parse().map_err(|error| {
            Error::new(ErrorKind::Codec, format!("offset of position {text:?} is not a number"))
                .caused_by(error)
        })?;
        Ok(Self { epoch: epoch.parse()?, offset })
    }
}
