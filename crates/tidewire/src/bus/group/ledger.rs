//! What a record of a group holds: the deliveries that are not settled, and with order how far its partition was read.
//! Drawn in `docs/formats/ledger.md`.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};

use super::dead_letter::cut;
use crate::clock::Timestamp;
use crate::position::Epoch;

const VERSION: u8 = 1;
/// Bytes of an error that are remembered while its delivery waits.
const ERROR_BYTES_MAX: usize = 256;

/// The content of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// The epoch that offsets count in.
    pub(super) epoch: Epoch,
    /// The group's generation that `next` is of.
    pub(super) generation: u64,
    /// With order: every event of the partition before this offset is settled or an entry. Else 0.
    pub(super) next: u64,
    /// What is not settled, by offset.
    pub(super) entries: BTreeMap<u64, Entry>,
}

/// A delivery that is not settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Attempts that have ended, crashes included.
    pub(super) attempts: u32,
    /// Attempts that ended with their process.
    pub(super) crashes: u32,
    /// When it was delivered first, if an attempt has ended.
    pub(super) first: Option<Timestamp>,
    /// It waits until then.
    pub(super) due: Option<Timestamp>,
    /// Its event is on the shelf, under its position in this epoch: the stream need not keep it.
    pub(super) shelved: Option<Epoch>,
    /// With order: the hash of its key. Those that share it are delivered one at a time.
    pub(super) chain: Option<u64>,
    /// What went wrong last.
    pub(super) error: Box<str>,
    /// It had its share of crashes and is not handed out at present: the next one is not its doing.
    pub(super) is_spared: bool,
    /// It is ready for a handler, or with one. Not kept: whoever decodes it has handed out nothing.
    pub(super) is_out: bool,
    /// It must be committed before it is handed out. Not kept.
    pub(super) is_fresh: bool,
    /// That of its adoption; 0 for one that this session was the first to have. Not kept.
    pub(super) fence: u64,
}

const RUN: u8 = 0;
const CHAINED: u8 = 1;
const FULL: u8 = 2;
const HAS_CHAIN: u8 = 1;
const IS_SHELVED: u8 = 2;
const IS_SPARED: u8 = 4;

impl Entry {
    fn is_plain(&self) -> bool {
        self.attempts == 0
            && self.due.is_none()
            && self.shelved.is_none()
            && self.error.is_empty()
            && !self.is_spared
    }

    /// Its process is gone: true if an attempt has ended with it, which neither what waits nor what is spared had.
    pub(super) fn crash(&mut self, now: Timestamp) -> bool {
        if self.due.is_some() || self.is_spared {
            return false;
        }
        self.attempts += 1;
        self.crashes += 1;
        self.first = self.first.or(Some(now));
        self.error = "its process ended before it was settled".into();
        true
    }
}

impl Ledger {
    /// The lowest offset that is needed from the stream.
    pub(super) fn floor(&self) -> u64 {
        let unshelved =
            self.entries.iter().find(|(_, entry)| entry.shelved.is_none()).map(|(offset, _)| *offset);
        let next = if self.next > 0 { self.next } else { u64::MAX };
        unshelved.map_or(next, |offset| offset.min(next))
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + 4 * self.entries.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.epoch.as_u64());
        put_varint(&mut out, self.generation);
        put_varint(&mut out, self.next);
        let mut entries = self.entries.iter().peekable();
        let mut before = 0;
        while let Some((&offset, entry)) = entries.next() {
            let delta = offset - before;
            before = offset;
            match entry.chain {
                None if entry.is_plain() => {
                    let mut length = 1;
                    while entries
                        .next_if(|(next, entry)| {
                            **next == before + 1 && entry.is_plain() && entry.chain.is_none()
                        })
                        .is_some()
                    {
                        before += 1;
                        length += 1;
                    }
                    out.put_u8(RUN);
                    put_varint(&mut out, delta);
                    put_varint(&mut out, length);
                }
                Some(chain) if entry.is_plain() => {
                    out.put_u8(CHAINED);
                    put_varint(&mut out, delta);
                    out.put_u64_le(chain);
                }
                _ => {
                    out.put_u8(FULL);
                    put_varint(&mut out, delta);
                    put_full(&mut out, entry);
                }
            }
        }
        out.into()
    }

    /// The ledger that was encoded; none of other bytes. No bytes are a ledger of nothing.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let mut ledger = Self {
            epoch: Epoch::from_u64(bytes.try_get_u64_le().ok()?),
            generation: get_varint(&mut bytes)?,
            next: get_varint(&mut bytes)?,
            entries: BTreeMap::new(),
        };
        let mut before: u64 = 0;
        while bytes.has_remaining() {
            let kind = bytes.get_u8();
            let offset = before.checked_add(get_varint(&mut bytes)?)?;
            before = offset;
            match kind {
                RUN => {
                    let length = get_varint(&mut bytes)?;
                    // More than any process may hold is damage, not a reason to fill the memory.
                    if length == 0 || length > ENTRIES_MAX {
                        return None;
                    }
                    before = offset.checked_add(length - 1)?;
                    ledger.entries.extend((offset..=before).map(|offset| (offset, Entry::default())));
                }
                CHAINED => {
                    let chain = Some(bytes.try_get_u64_le().ok()?);
                    ledger.entries.insert(offset, Entry { chain, ..Entry::default() });
                }
                FULL => {
                    ledger.entries.insert(offset, get_full(&mut bytes)?);
                }
                _ => return None,
            }
        }
        Some(ledger)
    }
}

/// Entries that one run can have.
const ENTRIES_MAX: u64 = 1 << 20;

fn put_full(out: &mut Vec<u8>, entry: &Entry) {
    let mut flags = if entry.chain.is_some() { HAS_CHAIN } else { 0 };
    flags |= if entry.shelved.is_some() { IS_SHELVED } else { 0 };
    flags |= if entry.is_spared { IS_SPARED } else { 0 };
    out.put_u8(flags);
    put_varint(out, entry.attempts.into());
    put_varint(out, entry.crashes.into());
    put_varint(out, entry.first.map_or(0, Timestamp::as_millis));
    put_varint(out, entry.due.map_or(0, Timestamp::as_millis));
    if let Some(chain) = entry.chain {
        out.put_u64_le(chain);
    }
    if let Some(epoch) = entry.shelved {
        out.put_u64_le(epoch.as_u64());
    }
    let error = cut(&entry.error, ERROR_BYTES_MAX);
    put_varint(out, error.len() as u64);
    out.put_slice(error.as_bytes());
}

fn get_full(bytes: &mut &[u8]) -> Option<Entry> {
    let flags = bytes.try_get_u8().ok()?;
    let mut number = || get_varint(bytes);
    let (attempts, crashes) = (u32::try_from(number()?).ok()?, u32::try_from(number()?).ok()?);
    let time = |millis| Some(Timestamp::from_millis(millis)).filter(|_| millis > 0);
    let (first, due) = (time(number()?), time(number()?));
    let mut number = |flag| match flags & flag {
        0 => Some(None),
        _ => bytes.try_get_u64_le().ok().map(Some),
    };
    let (chain, shelved) = (number(HAS_CHAIN)?, number(IS_SHELVED)?.map(Epoch::from_u64));
    let length = usize::try_from(get_varint(bytes)?).ok()?;
    let (error, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let error = std::str::from_utf8(error).ok()?.into();
    let is_spared = flags & IS_SPARED > 0;
    let counts = Entry { attempts, crashes, first, due, ..Entry::default() };
    Some(Entry { shelved, chain, error, is_spared, ..counts })
}

/// LEB128.
fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.put_u8(number.to_le_bytes()[0]);
}

fn get_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let time = || prop::option::of((1..u64::MAX).prop_map(Timestamp::from_millis));
        let counts = (0..3_u32, 0..3_u32, time(), time());
        (counts, prop::option::of(any::<u64>()), prop::option::of(any::<u64>()), "[a-zé]{0,20}").prop_map(
            |((attempts, crashes, first, due), shelved, chain, error)| {
                // What is remembered of attempts is of attempts that ended.
                let (crashes, first) = if attempts == 0 { (0, None) } else { (crashes, first) };
                let shelved = shelved.map(Epoch::from_u64);
                let counts = Entry { attempts, crashes, first, due, ..Entry::default() };
                Entry { shelved, chain, error: error.into(), is_spared: crashes == 2, ..counts }
            },
        )
    }

    proptest! {
        #[test]
        fn a_ledger_is_read_as_it_is_written(
            epoch: u64, generation: u64, next: u64,
            offsets in prop::collection::btree_set(1..500_u64, 0..60),
            entries in prop::collection::vec(prop::option::of(entry()), 60),
        ) {
            let entries = offsets.into_iter().zip(entries.into_iter().map(Option::unwrap_or_default)).collect();
            let ledger = Ledger { epoch: Epoch::from_u64(epoch), generation, next, entries };
            prop_assert_eq!(Ledger::decode(&ledger.encode()), Some(ledger));
        }

        #[test]
        fn other_bytes_are_no_ledger_or_one_of_bounded_size(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(ledger) = Ledger::decode(&bytes) {
                prop_assert!(ledger.entries.len() < 100 << 20);
            }
        }
    }

    /// Version 1, byte for byte. Append-only: a ledger kept by any release is read by all later ones.
    const GOLDEN: &str = "01aa00000000000000039003000502010325232284e49cf2cb02a30203020180d095ffbc31e0f7a7\
        ffbc310700000000000000aa00000000000000026e6f0201040202000000";

    #[test]
    fn the_format_never_changes() {
        let plain = Entry::default;
        let keyed = Entry { chain: Some(0xcbf2_9ce4_8422_2325), ..plain() };
        let waiting = Entry {
            attempts: 2,
            crashes: 1,
            first: Some(Timestamp::from_millis(1_700_000_000_000)),
            due: Some(Timestamp::from_millis(1_700_000_300_000)),
            shelved: Some(Epoch::from_u64(0xaa)),
            chain: Some(7),
            error: "no".into(),
            ..plain()
        };
        let spared = Entry { attempts: 2, crashes: 2, is_spared: true, ..plain() };
        let entries = BTreeMap::from([(5, plain()), (6, plain()), (9, keyed), (300, waiting), (301, spared)]);
        let ledger = Ledger { epoch: Epoch::from_u64(0xaa), generation: 3, next: 400, entries };
        let hex: String = ledger.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    #[test]
    fn a_thousand_events_in_a_row_take_a_few_bytes() {
        let entries = (1_000_000..1_001_000).map(|offset| (offset, Entry::default())).collect();
        let ledger = Ledger { entries, ..Ledger::default() };
        assert!(ledger.encode().len() < 20, "{}", ledger.encode().len());
        assert_eq!(ledger.floor(), 1_000_000);
    }

    #[test]
    fn an_event_on_the_shelf_is_not_needed_from_the_stream() {
        let shelved = Entry { shelved: Some(Epoch::from_u64(1)), ..Entry::default() };
        let entries = BTreeMap::from([(3, shelved), (9, Entry::default())]);
        let ledger = Ledger { next: 20, entries, ..Ledger::default() };
        assert_eq!(ledger.floor(), 9);
    }
}
