//! What a segment says of itself.

use std::io;

use bytes::{Buf, BufMut};

use crate::clock::Timestamp;
use crate::engine::Version;
use crate::engine::embedded::file::record::Salt;
use crate::limits;
use crate::position::Epoch;

/// Bytes before the first record.
pub(in super::super) const HEADER_BYTES: usize = 512;

const MAGIC: &[u8; 8] = b"TIDESEGM";
const VERSION: u16 = 1;
/// Where the version before the segment stands: at the end, so that the path has the rest.
const VERSION_AT: usize = HEADER_BYTES - (1 + 8 + 1 + limits::VERSION_EPOCH_BYTES_MAX);

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
    /// The stream's version before the first record.
    pub(in super::super) version: VersionBefore,
}

/// The version that a stream has before a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum VersionBefore {
    Is(Option<Version>),
    /// Only the segments before it tell.
    NotKnown,
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
        let checked_at = MAGIC.len() + size_of::<u32>();
        checked.resize(VERSION_AT - checked_at, 0);
        match &self.version {
            VersionBefore::Is(None) => checked.put_u8(0),
            VersionBefore::Is(Some(Version { epoch, number })) => {
                checked.put_u8(1);
                checked.put_u64_le(*number);
                checked.put_u8(u8::try_from(epoch.len()).unwrap_or(u8::MAX));
                checked.put_slice(epoch.as_bytes());
            }
            VersionBefore::NotKnown => checked.put_u8(2),
        }
        checked.resize(HEADER_BYTES - checked_at, 0);
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
        let version = read_version(&bytes[VERSION_AT..]);
        Ok(channel.map(|channel| Self {
            channel: channel.into(),
            base,
            epoch,
            salt,
            created,
            dedup_until,
            version,
        }))
    }
}

fn read_version(mut fields: &[u8]) -> VersionBefore {
    let (kind, number, epoch_bytes) = (fields.get_u8(), fields.get_u64_le(), fields.get_u8());
    let epoch = fields.get(..epoch_bytes.into()).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match (kind, epoch) {
        // As in a segment from before there were versions.
        (0, _) => VersionBefore::Is(None),
        (1, Some(epoch)) => VersionBefore::Is(Some(Version { epoch: epoch.into(), number })),
        _ => VersionBefore::NotKnown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_byte_of_a_header_is_damage() {
        let header = SegmentHeader {
            channel: "o".repeat(VERSION_AT - 52).into(),
            base: 7,
            epoch: Epoch::from_u64(3),
            salt: Salt(5),
            created: Timestamp::from_millis(1_000),
            dedup_until: Timestamp::from_millis(2_000),
            version: VersionBefore::Is(Some(Version { epoch: "e".repeat(64).into(), number: u64::MAX })),
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes).unwrap(), Some(header));
        for at in 0..HEADER_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            assert_eq!(SegmentHeader::decode(&damaged).unwrap(), None, "byte {at}");
        }
    }

    #[test]
    fn the_longest_path_has_room_before_the_version() {
        let separators = ":tenant:".len() + ":".len();
        let names = limits::ENVIRONMENT_NAME_BYTES_MAX
            + limits::TENANT_NAME_BYTES_MAX
            + limits::CHANNEL_NAME_BYTES_MAX;
        assert!(52 + names + separators <= VERSION_AT);
    }
}
