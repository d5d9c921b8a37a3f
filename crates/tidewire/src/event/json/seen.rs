//! The keys of the objects that are open, as hashes.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::LazyLock;

use super::stack::Stack;
use super::text::{Written, read_unescaped};

/// Keys of one object that are compared one by one; with more of them a hash set is quicker.
const LINEAR_KEYS_MAX: usize = 32;
/// Keys around a value that fit without an allocation: more than ordinary events have.
const INLINE_KEYS: usize = 64;

/// Hashes of the keys of all objects that are open.
pub(super) struct SeenKeys {
    /// Those of the innermost object come last.
    hashes: Stack<u64, INLINE_KEYS>,
    /// Objects with more than [`LINEAR_KEYS_MAX`] keys, by their depth.
    sets: Vec<(usize, HashSet<u64, BuildHasherDefault<AsItIs>>)>,
    /// Keys of all objects, closed ones among them.
    pub(super) all: usize,
    /// The hash of nothing.
    empty: KeyHash,
}

impl SeenKeys {
    pub(super) fn new() -> Self {
        let [state, factor] = *HASH_SEEDS;
        Self { hashes: Stack::new(0), sets: Vec::new(), all: 0, empty: KeyHash { state, factor } }
    }

    /// Remembers a key of the object at `depth`, whose hashes begin at `from`; false if it had that key.
    #[inline]
    pub(super) fn add(&mut self, depth: usize, from: usize, key: &Written<'_>) -> bool {
        let hash = hash(self.empty, key);
        self.all += 1;
        let own = self.hashes.as_slice().get(from..).unwrap_or_default();
        if own.len() < LINEAR_KEYS_MAX {
            // Without an early end, as this is what a compiler makes vector instructions of.
            let is_new = own.iter().fold(true, |is_new, seen| is_new & (*seen != hash));
            self.hashes.push(hash);
            return is_new;
        }
        if self.sets.last().is_none_or(|(of, _)| *of != depth) {
            self.sets.push((depth, own.iter().copied().collect()));
        }
        self.sets.last_mut().is_some_and(|(_, set)| set.insert(hash))
    }

    /// How many hashes are kept in line: where those of the next object begin.
    #[inline]
    pub(super) fn kept(&self) -> usize {
        self.hashes.len()
    }

    /// Forgets the keys of the object at `depth`, whose hashes begin at `from`.
    #[inline]
    pub(super) fn forget(&mut self, depth: usize, from: usize) {
        self.hashes.truncate(from);
        self.sets.pop_if(|(of, _)| *of == depth);
    }
}

/// Hands on what is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Seed and factor of [`KeyHash`]: nobody outside can tell which keys share a hash.
static HASH_SEEDS: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let random = || RandomState::new().build_hasher().finish();
    [random(), random() | 1]
});

/// The hash of a key as it reads: of its bytes in words of eight, the last filled up with zeros, and its length.
#[inline]
fn hash(mut hash: KeyHash, key: &Written<'_>) -> u64 {
    if key.has_escapes {
        return hash_escaped(hash, key.text());
    }
    let (mut rest, mut left) = (key.from, key.bytes);
    while left > 0 {
        // What follows the key in the text is masked out, so that a whole word can be read where there is one.
        let (word, after) = match rest.split_first_chunk::<8>() {
            Some((word, after)) => (u64::from_le_bytes(*word), after),
            None => (rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)), [].as_slice()),
        };
        let unused = 8 - left.min(8);
        hash.add(word & (u64::MAX >> (8 * unused)));
        (rest, left) = (after, left - (8 - unused));
    }
    hash.finish(key.bytes)
}

#[cold]
fn hash_escaped(mut hash: KeyHash, key: &[u8]) -> u64 {
    let (mut word, mut bytes) = (0, 0_usize);
    read_unescaped(key, |piece| {
        for byte in piece {
            word |= u64::from(*byte) << (8 * (bytes % 8));
            bytes += 1;
            if bytes.is_multiple_of(8) {
                hash.add(std::mem::take(&mut word));
            }
        }
    });
    if !bytes.is_multiple_of(8) {
        hash.add(word);
    }
    hash.finish(bytes)
}

#[derive(Clone, Copy)]
struct KeyHash {
    state: u64,
    factor: u64,
}

impl KeyHash {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a product")]
    fn add(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = product as u64 ^ (product >> 64) as u64;
    }

    #[inline]
    fn finish(mut self, bytes: usize) -> u64 {
        self.add(bytes as u64);
        self.state
    }
}
