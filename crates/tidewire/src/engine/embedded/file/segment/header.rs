//! What a segment says of itself.

use std::io;

use bytes::{Buf, BufMut};

use crate::clock::Timestamp;
use crate::engine::embedded::file::record::Salt;
use crate::position::Epoch;

/// Bytes before the first record.
pub(in super::super) const HEADER_BYTES: usize = 512;

const MAGIC: &[u8; 8] = b"TIDESEGM";
const VERSION: u16 = 1;

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct SegmentHeader {
    pub(in super::super) channel: Box<str>,
    pub(in super::super) base: u64,
    pub(in super::super) epoch: Epoch,
    pub(in super::super) salt: Salt,
    /// No record of an earlier segment is later, none of this one is earlier.
    pub(in super::super) created: Timestamp,
    /// When the last dedup id in the segments before this one is forgotten.
    pub(in super::super) dedup_until: Timestamp,
}

impl SegmentHeader {
    pub(in super::super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut checked = Vec::with_capacity(HEADER_BYTES);
        checked.put_u16_le(VERSION);
        checked.put_u32_le(self.salt.0);
        checked.put_u64_le(self.base);
        checked.put_u64_le(self.epoch.as_u64());
        checked.put_u64_le(self.created.as_millis());
        checked.put_u64_le(self.dedup_until.as_millis());
        checked.put_u16_le(u16::try_from(self.channel.len()).unwrap_or(u16::MAX));
        checked.put_slice(self.channel.as_bytes());
        checked.resize(HEADER_BYTES - MAGIC.len() - size_of::<u32>(), 0);
        let mut bytes = [0; HEADER_BYTES];
        let mut fields = bytes.as_mut_slice();
        fields.put_slice(MAGIC);
        fields.put_u32_le(crc32fast::hash(&checked));
        fields.put_slice(&checked);
        bytes
    }

    /// The header in `bytes`; `None` if it is damaged. A later version is an error: its records may differ.
    pub(in super::super) fn decode(bytes: &[u8; HEADER_BYTES]) -> io::Result<Option<Self>> {
        let mut fields = bytes.as_slice();
        let (magic, crc) = (fields.get_u64_le(), fields.get_u32_le());
        if magic != u64::from_le_bytes(*MAGIC) || crc32fast::hash(fields) != crc {
            return Ok(None);
        }
        // Under the checksum: a flipped bit here is damage, which is repaired, and no later version, which is refused.
        let version = fields.get_u16_le();
        if version != VERSION {
            return Err(io::Error::other(format!(
                "segment has format {version}, this program knows {VERSION}"
            )));
        }
        let salt = Salt(fields.get_u32_le());
        let (base, epoch) = (fields.get_u64_le(), Epoch::from_u64(fields.get_u64_le()));
        let created = Timestamp::from_millis(fields.get_u64_le());
        let dedup_until = Timestamp::from_millis(fields.get_u64_le());
        let channel_bytes = fields.get_u16_le().into();
        let channel = fields.get(..channel_bytes).and_then(|bytes| std::str::from_utf8(bytes).ok());
        Ok(channel.map(|channel| Self { channel: channel.into(), base, epoch, salt, created, dedup_until }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_byte_of_a_header_is_damage() {
        let header = SegmentHeader {
            channel: "orders".into(),
            base: 7,
            epoch: Epoch::from_u64(3),
            salt: Salt(5),
            created: Timestamp::from_millis(1_000),
            dedup_until: Timestamp::from_millis(2_000),
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes).unwrap(), Some(header));
        for at in 0..HEADER_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            assert_eq!(SegmentHeader::decode(&damaged).unwrap(), None, "byte {at}");
        }
    }
}
