//! The items beside the records of a group.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::engine::{Listing, Shelf, ShelfItem};
use crate::limits;

/// Items in memory.
#[derive(Debug, Default)]
pub(in crate::engine::embedded) struct Shelves(BTreeMap<(Shelf, Box<str>), Bytes>);

/// Items that are listed, as many as a page holds.
pub(in crate::engine::embedded) struct ItemPage {
    pub(in crate::engine::embedded) items: Vec<ShelfItem>,
    bytes_left: usize,
}

impl Shelves {
    /// Removes items and puts others; says how many there were of the first.
    pub(in crate::engine::embedded) fn change(
        &mut self,
        removes: &[(Shelf, Box<str>)],
        puts: Vec<ShelfItem>,
    ) -> u64 {
        let removed = removes.iter().filter(|key| self.0.remove(*key).is_some()).count() as u64;
        self.0.extend(puts.into_iter().map(|ShelfItem { shelf, key, bytes }| ((shelf, key), bytes)));
        removed
    }

    /// Items of a shelf.
    pub(in crate::engine::embedded) fn list(&self, shelf: Shelf, listing: Listing) -> Vec<ShelfItem> {
        let mut page = ItemPage::default();
        let mut take = |key: &str, bytes: &Bytes| page.take(shelf, key, bytes.len(), || bytes.clone());
        match listing {
            Listing::After(after, count) => {
                let from = Bound::Excluded((shelf, after));
                let items = self.0.range((from, Bound::Unbounded)).take_while(|((at, _), _)| *at == shelf);
                let count = count.min(limits::BATCH_EVENTS_MAX);
                items.take(count).all(|((_, key), bytes)| take(key, bytes));
            }
            Listing::Keys(keys) => {
                for key in keys {
                    if let Some(bytes) = self.0.get(&(shelf, key.clone()))
                        && !take(&key, bytes)
                    {
                        break;
                    }
                }
            }
        }
        page.items
    }

    /// How many items each shelf has.
    pub(in crate::engine::embedded) fn counts(&self) -> [u64; 4] {
        let mut counts = [0; 4];
        for (shelf, _) in self.0.keys() {
            if let Some(count) = counts.get_mut(*shelf as usize) {
                *count += 1;
            }
        }
        counts
    }
}

impl Default for ItemPage {
    fn default() -> Self {
        Self { items: Vec::new(), bytes_left: limits::BATCH_BYTES_MAX }
    }
}

impl ItemPage {
    /// Takes an item. False if it does not fit: then the page is full.
    pub(in crate::engine::embedded) fn take(
        &mut self,
        shelf: Shelf,
        key: &str,
        length: usize,
        bytes: impl FnOnce() -> Bytes,
    ) -> bool {
        let fits = self.items.is_empty() || length <= self.bytes_left;
        if fits {
            self.bytes_left = self.bytes_left.saturating_sub(length);
            self.items.push(ShelfItem { shelf, key: key.into(), bytes: bytes() });
        }
        fits
    }
}
