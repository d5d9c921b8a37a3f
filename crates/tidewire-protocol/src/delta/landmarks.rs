//! Where in the former data a window of 16 bytes may be found.

use crate::limits::DELTA_PLACES_MAX;

/// Bytes in a window and in a block.
pub(super) const WINDOW: usize = WINDOW_U16 as usize;

const WINDOW_U16: u16 = 16;

/// The sum that Fossil's delta writer takes over a window; it moves on by one byte at a constant cost.
#[derive(Clone, Copy)]
pub(super) struct RollingHash {
    sum: u16,
    /// The sum of all sums since the window's begin.
    weighted: u16,
}

impl RollingHash {
    pub(super) fn of(window: &[u8]) -> Self {
        let empty = Self { sum: 0, weighted: 0 };
        window.iter().fold(empty, |hash, byte| {
            let sum = hash.sum.wrapping_add(u16::from(*byte));
            Self { sum, weighted: hash.weighted.wrapping_add(sum) }
        })
    }

    /// Moves the window on by one byte.
    pub(super) fn roll(&mut self, out: u8, into: u8) {
        let out = u16::from(out);
        self.sum = self.sum.wrapping_sub(out).wrapping_add(u16::from(into));
        self.weighted = self.weighted.wrapping_sub(out.wrapping_mul(WINDOW_U16)).wrapping_add(self.sum);
    }

    /// Spreads the hash over `2^(32 - shift)` buckets (Fibonacci hashing: Knuth, volume 3, 6.4).
    fn bucket(self, shift: u32) -> usize {
        let value = (u32::from(self.weighted) << 16) | u32::from(self.sum);
        (value.wrapping_mul(0x9E37_79B9) >> shift) as usize
    }
}

/// The blocks of the former data by their hash: 4 bytes for each, and 4 to 8 for the buckets.
pub(super) struct Landmarks {
    /// By bucket, the first block; by block, the next one of the same bucket. [`NO_BLOCK`] where there is none.
    first: Vec<u32>,
    next: Vec<u32>,
    shift: u32,
}

const NO_BLOCK: u32 = u32::MAX;

impl Landmarks {
    pub(super) fn of(old: &[u8]) -> Self {
        let blocks = old.chunks_exact(WINDOW);
        let bits = blocks.len().next_power_of_two().ilog2().max(1);
        let mut landmarks = Self {
            first: vec![NO_BLOCK; 1 << bits],
            next: vec![NO_BLOCK; blocks.len()],
            shift: u32::BITS - bits,
        };
        // From the last block to the first, so that of equal blocks the one with most behind it is found first.
        for ((at, block), next) in blocks.enumerate().zip(&mut landmarks.next).rev() {
            let bucket = RollingHash::of(block).bucket(landmarks.shift);
            if let Some(first) = landmarks.first.get_mut(bucket) {
                *next = std::mem::replace(first, u32::try_from(at).unwrap_or(NO_BLOCK));
            }
        }
        landmarks
    }

    /// Offsets at which a window with this hash may stand, at most [`DELTA_PLACES_MAX`].
    pub(super) fn places(&self, hash: RollingHash) -> impl Iterator<Item = usize> {
        let known = |block: &u32| *block != NO_BLOCK;
        let first = self.first.get(hash.bucket(self.shift)).copied().filter(known);
        std::iter::successors(first, move |block| self.next.get(*block as usize).copied().filter(known))
            .take(DELTA_PLACES_MAX)
            .map(|block| block as usize * WINDOW)
    }
}
