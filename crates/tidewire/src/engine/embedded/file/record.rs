//! One record of a segment: an event as it is stored. Drawn in `docs/formats/segment.md`.

use std::time::Duration;

use bytes::{Buf, BufMut};

use crate::clock::{Timestamp, millis};
use crate::engine::{Dedup, Version};
use crate::limits;

/// Bytes before a record's data.
pub(super) const HEADER_BYTES: usize = 32;
/// Data of the largest record: one envelope of the largest batch with the longest dedup id and the longest version.
const DATA_BYTES_MAX: usize = limits::BATCH_BYTES_MAX
    + DEDUP_BYTES
    + limits::DEDUP_ID_BYTES_MAX
    + VERSION_BYTES
    + limits::VERSION_EPOCH_BYTES_MAX;
/// Bytes before a dedup id: its length and its window.
const DEDUP_BYTES: usize = 1 + 8;
/// Bytes before the epoch of a version: its length and the number.
const VERSION_BYTES: usize = 1 + 8;

const MAGIC: u16 = u16::from_le_bytes(*b"TR");
const HAS_DEDUP: u8 = 1;
const HAS_VERSION: u8 = 2;

/// Mixed into the checksum of every record header of a directory. An event's data can spell a record, but not
/// one with this number: a search for the next record after damage never finds a forged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(pub(super) u32);

/// What comes before a record's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) offset: u64,
    pub(super) time: Timestamp,
    flags: u8,
    data_bytes: u32,
    data_crc: u32,
}

impl Header {
    /// The header in `bytes`; `None` if they do not hold a valid one.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES], salt: Salt) -> Option<Self> {
        let mut fields = bytes.as_slice();
        if fields.get_u16_le() != MAGIC {
            return None;
        }
        let (flags, reserved) = (fields.get_u8(), fields.get_u8());
        let header_crc = fields.get_u32_le();
        let header = Self {
            flags,
            data_bytes: fields.get_u32_le(),
            data_crc: fields.get_u32_le(),
            offset: fields.get_u64_le(),
            time: Timestamp::from_millis(fields.get_u64_le()),
        };
        let is_valid = header.crc(salt) == header_crc
            && flags & !(HAS_DEDUP | HAS_VERSION) == 0
            && reserved == 0
            && header.data_bytes as usize <= DATA_BYTES_MAX;
        is_valid.then_some(header)
    }

    fn encode(self, salt: Salt) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut fields = bytes.as_mut_slice();
        fields.put_u16_le(MAGIC);
        fields.put_u8(self.flags);
        fields.put_u8(0);
        fields.put_u32_le(self.crc(salt));
        self.put_checked(fields);
        bytes
    }

    fn put_checked(self, mut fields: impl BufMut) {
        fields.put_u32_le(self.data_bytes);
        fields.put_u32_le(self.data_crc);
        fields.put_u64_le(self.offset);
        fields.put_u64_le(self.time.as_millis());
    }

    fn crc(self, salt: Salt) -> u32 {
        let mut checked = [0; HEADER_BYTES - 7];
        let mut fields = checked.as_mut_slice();
        fields.put_u8(self.flags);
        self.put_checked(fields);
        let mut crc = crc32fast::Hasher::new_with_initial(salt.0);
        crc.update(&checked);
        crc.finalize()
    }

    /// Bytes of the data that follows.
    pub(super) fn data_bytes(&self) -> usize {
        self.data_bytes as usize
    }

    /// Bytes of header and data.
    pub(super) fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.data_bytes)
    }

    /// The parts of `data`; `None` if it is not what was written.
    pub(super) fn open<'a>(&self, data: &'a [u8]) -> Option<Body<'a>> {
        if data.len() != self.data_bytes() || crc32fast::hash(data) != self.data_crc {
            return None;
        }
        let mut rest = data;
        let dedup = match self.flags & HAS_DEDUP {
            0 => None,
            _ => Some(take_text(&mut rest)?).map(|(id, window)| (id, Duration::from_millis(window))),
        };
        let version = if self.flags & HAS_VERSION == 0 { None } else { Some(take_text(&mut rest)?) };
        Some(Body { dedup, version, envelope: rest })
    }
}

/// A text and the number that stands with it: bytes of the text (1), number (8), text.
fn take_text<'a>(from: &mut &'a [u8]) -> Option<(&'a str, u64)> {
    let (&bytes, rest) = from.split_first()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(bytes.into())?;
    *from = rest;
    Some((std::str::from_utf8(text).ok()?, u64::from_le_bytes(*number)))
}

fn put_text(out: &mut Vec<u8>, text: &str, number: u64) {
    out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.put_u64_le(number);
    out.put_slice(text.as_bytes());
}

/// The data of a record, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Body<'a> {
    pub(super) dedup: Option<(&'a str, Duration)>,
    /// Epoch and number.
    pub(super) version: Option<(&'a str, u64)>,
    pub(super) envelope: &'a [u8],
}

/// Writes a record to the end of `out`. The parts are within their limits: the log checks them on entry.
pub(super) fn encode(
    out: &mut Vec<u8>,
    salt: Salt,
    offset: u64,
    time: Timestamp,
    dedup: Option<&Dedup>,
    version: Option<&Version>,
    envelope: &[u8],
) {
    let start = out.len();
    out.put_bytes(0, HEADER_BYTES);
    let mut flags = 0;
    if let Some(Dedup { id, window }) = dedup {
        flags |= HAS_DEDUP;
        put_text(out, id, millis(*window));
    }
    if let Some(Version { epoch, number }) = version {
        flags |= HAS_VERSION;
        put_text(out, epoch, *number);
    }
    out.put_slice(envelope);
    let data = out.get(start + HEADER_BYTES..).unwrap_or_default();
    let header = Header {
        offset,
        time,
        flags,
        data_bytes: u32::try_from(data.len()).unwrap_or(u32::MAX),
        data_crc: crc32fast::hash(data),
    };
    if let Some(place) = out.get_mut(start..start + HEADER_BYTES) {
        place.copy_from_slice(&header.encode(salt));
    }
}

/// Bytes that [`encode`] writes.
pub(super) fn encoded_bytes(dedup: Option<&Dedup>, version: Option<&Version>, envelope: &[u8]) -> usize {
    let version_bytes = version.map_or(0, |version| VERSION_BYTES + version.epoch.len());
    HEADER_BYTES + dedup.map_or(0, |dedup| DEDUP_BYTES + dedup.id.len()) + version_bytes + envelope.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt(7);

    fn encoded(dedup: Option<&Dedup>, version: Option<&Version>, envelope: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, SALT, 42, Timestamp::from_millis(1_700_000_000_000), dedup, version, envelope);
        out
    }

    #[test]
    fn a_record_gives_back_its_parts() {
        let dedup = Dedup { id: "order-7".into(), window: Duration::from_secs(120) };
        let version = Version { epoch: "june".into(), number: u64::MAX };
        let (dedup, version) = (Some(&dedup), Some(&version));
        for (dedup, version) in [(None, None), (dedup, None), (None, version), (dedup, version)] {
            let bytes = encoded(dedup, version, b"envelope");
            assert_eq!(bytes.len(), encoded_bytes(dedup, version, b"envelope"));
            let (header, data) = bytes.split_first_chunk().unwrap();
            let header = Header::decode(header, SALT).unwrap();
            assert_eq!((header.offset, header.time.as_millis()), (42, 1_700_000_000_000));
            assert_eq!(header.record_bytes(), bytes.len() as u64);
            let body = header.open(data).unwrap();
            assert_eq!(body.envelope, b"envelope");
            assert_eq!(body.dedup, dedup.map(|dedup| (&*dedup.id, dedup.window)));
            assert_eq!(body.version, version.map(|version| (&*version.epoch, version.number)));
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let dedup = Dedup { id: "id".into(), window: Duration::from_secs(1) };
        let version = Version { epoch: "e".into(), number: 7 };
        let bytes = encoded(Some(&dedup), Some(&version), b"data");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (header, data) = flipped.split_first_chunk().unwrap();
            let opened = Header::decode(header, SALT).and_then(|header| header.open(data));
            assert_eq!(opened, None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_directory_is_not_valid() {
        let bytes = encoded(None, None, b"data");
        assert_eq!(Header::decode(bytes.first_chunk().unwrap(), Salt(8)), None);
    }
}
