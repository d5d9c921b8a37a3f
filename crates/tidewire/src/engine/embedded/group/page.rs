//! The events of a turn: one page of several ranges.

use crate::engine::{Page, Range, Turned};
use crate::limits;

/// Reads what a turn has claimed and what it asked for, as much as a page holds; the rest is told as unread.
pub(in crate::engine::embedded) fn read_turn<E>(
    reads: &[(u64, u64)],
    turned: &mut Turned,
    mut read: impl FnMut(Range) -> Result<Page, E>,
) -> Result<(), E> {
    let mut ranges: Vec<(u64, u64)> = reads.iter().copied().chain(turned.claimed).collect();
    ranges.sort_unstable();
    let (mut next, mut bytes_left) = (turned.first, limits::BATCH_BYTES_MAX);
    let mut is_full = false;
    for (first, last) in ranges {
        let last = last.min(turned.last);
        next = next.max(first);
        if !is_full && next <= last {
            let events_left = limits::BATCH_EVENTS_MAX - turned.events.len();
            let page = read(Range { last, ..Range::from(next, events_left) })?;
            let is_gone = page.events.is_empty() && events_left > 0;
            for event in page.events {
                let bytes = event.envelope.len();
                if bytes > bytes_left && !turned.events.is_empty() {
                    break;
                }
                bytes_left = bytes_left.saturating_sub(bytes);
                next = event.offset + 1;
                turned.events.push(event);
            }
            // A page that ends before its range was full.
            is_full = next <= last && !is_gone;
        }
        if is_full && next <= last {
            turned.unread.push((next, last));
        }
        next = next.max(last.saturating_add(1));
    }
    Ok(())
}
