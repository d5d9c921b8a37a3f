//! A stack that allocates only when it grows.

/// The first `N` items in place, all of them on the heap when there are more.
pub(super) struct Stack<T, const N: usize> {
    inline: [T; N],
    len: usize,
    spilled: Vec<T>,
}

impl<T: Copy, const N: usize> Stack<T, N> {
    pub(super) fn new(fill: T) -> Self {
        Self { inline: [fill; N], len: 0, spilled: Vec::new() }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[T] {
        let items =
            if self.len <= N && self.spilled.is_empty() { &self.inline } else { self.spilled.as_slice() };
        items.get(..self.len).unwrap_or_default()
    }

    #[inline]
    pub(super) fn last_mut(&mut self) -> Option<&mut T> {
        let items = if self.spilled.is_empty() { &mut self.inline } else { self.spilled.as_mut_slice() };
        items.get_mut(self.len.checked_sub(1)?)
    }

    #[inline]
    pub(super) fn push(&mut self, item: T) {
        if self.spilled.is_empty() {
            if let Some(place) = self.inline.get_mut(self.len) {
                *place = item;
                self.len += 1;
                return;
            }
            self.spilled.extend_from_slice(&self.inline);
        }
        self.spilled.truncate(self.len);
        self.spilled.push(item);
        self.len += 1;
    }

    #[inline]
    pub(super) fn pop(&mut self) {
        self.truncate(self.len.saturating_sub(1));
    }

    #[inline]
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}
