//! What of the new data stands in the former data.

use super::landmarks::{Landmarks, RollingHash, WINDOW};
use super::number::digit_count;

/// Where commands may begin and end.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Borders {
    /// Anywhere.
    Bytes,
    /// Between the characters of UTF-8.
    Characters,
}

impl Borders {
    fn allow(self, data: &[u8], at: usize) -> bool {
        // A byte within a character is 10xxxxxx.
        self == Self::Bytes || data.get(at).is_none_or(|byte| byte & 0xC0 != 0x80)
    }
}

/// A part of the new data that is a part of the former data.
#[derive(Clone, Copy)]
pub(super) struct Match {
    pub(super) old_at: usize,
    pub(super) new_at: usize,
    pub(super) count: usize,
}

impl Match {
    pub(super) fn new_end(self) -> usize {
        self.new_at + self.count
    }

    /// Whether the command costs less than the bytes that it saves, with what goes before it being inserted.
    fn pays(self, inserted: usize) -> bool {
        const SIGNS: u32 = 3;
        let digits = digit_count(self.count) + digit_count(self.old_at) + digit_count(inserted);
        self.count > (digits + SIGNS) as usize
    }
}

/// The copies that make up a delta, in the order of the new data and apart from each other.
///
/// Most publications change a few bytes: what the two begin and end with is found first, and the index is built only when
/// there is more than a window between them.
///
/// The work is linear: a place of the new data is compared with a bounded count of places, each comparison ends at the
/// first difference, and a longer match is either taken, which moves on past it, or too short to pay, which bounds it too.
pub(super) struct Matches<'a> {
    old: &'a [u8],
    /// The new data up to the common end.
    between: &'a [u8],
    new: &'a [u8],
    borders: Borders,
    landmarks: Option<Landmarks>,
    begin: Option<Match>,
    end: Option<Match>,
    /// Where the last copy ended in both.
    old_at: usize,
    new_at: usize,
}

impl<'a> Matches<'a> {
    pub(super) fn new(old: &'a [u8], new: &'a [u8], borders: Borders) -> Self {
        let align = |count| aligned_down(new, count, borders);
        let count = align(common_prefix(old, new));
        let begin = Some(Match { old_at: 0, new_at: 0, count }).filter(|copy| copy.pays(0));
        let begun = begin.map_or(0, Match::new_end);

        let rest = |data: &'a [u8]| data.get(begun..).unwrap_or_default();
        let new_at = aligned_up(new, new.len() - common_suffix(rest(old), rest(new)), borders);
        let count = new.len() - new_at;
        let end = Some(Match { old_at: old.len() - count, new_at, count }).filter(|copy| copy.pays(0));

        let between = new.get(..end.map_or(new.len(), |copy| copy.new_at)).unwrap_or(new);
        let landmarks = (between.len() >= begun + WINDOW).then(|| Landmarks::of(old));
        Self { old, between, new, borders, landmarks, begin, end, old_at: begun, new_at: begun }
    }

    /// The next copy between the common begin and the common end.
    fn next_between(&mut self) -> Option<Match> {
        let landmarks = self.landmarks.as_ref()?;
        let mut hash = RollingHash::of(self.between.get(self.new_at..self.new_at + WINDOW)?);
        for at in self.new_at.. {
            // Numbers and words are replaced in place more often than text is moved.
            let in_place = self.old_at + (at - self.new_at);
            let places = landmarks.places(hash).chain([in_place]);
            let copies = places.filter_map(|place| self.copy_around(place, at));
            if let Some(copy) = copies.max_by_key(|copy| copy.count) {
                (self.old_at, self.new_at) = (copy.old_at + copy.count, copy.new_end());
                return Some(copy);
            }
            hash.roll(*self.between.get(at)?, *self.between.get(at + WINDOW)?);
        }
        None
    }

    /// The longest copy that has `old_at` and `new_at` in it, if it pays.
    fn copy_around(&self, old_at: usize, new_at: usize) -> Option<Match> {
        let ahead = common_prefix(self.old.get(old_at..)?, self.between.get(new_at..)?);
        if ahead == 0 {
            return None;
        }
        let behind = common_suffix(self.old.get(..old_at)?, self.between.get(self.new_at..new_at)?);
        let from = aligned_up(self.new, new_at - behind, self.borders);
        let to = aligned_down(self.new, new_at + ahead, self.borders);
        let count = to.checked_sub(from)?;
        let copy = Match { old_at: old_at + from - new_at, new_at: from, count };
        copy.pays(from - self.new_at).then_some(copy)
    }
}

impl Iterator for Matches<'_> {
    type Item = Match;

    fn next(&mut self) -> Option<Match> {
        self.begin.take().or_else(|| self.next_between()).or_else(|| {
            self.landmarks = None;
            self.end.take()
        })
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

fn aligned_down(data: &[u8], at: usize, borders: Borders) -> usize {
    (0..=at).rev().find(|at| borders.allow(data, *at)).unwrap_or(0)
}

fn aligned_up(data: &[u8], at: usize, borders: Borders) -> usize {
    (at..data.len()).find(|at| borders.allow(data, *at)).unwrap_or(data.len())
}
