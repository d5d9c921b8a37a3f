//! Fresh ids: UUIDv7 (RFC 9562), each larger than the one before it of the same thread.
//!
//! A thread counts for itself, so that publishers never wait for one another.

use std::cell::Cell;

use uuid::Uuid;

use crate::clock::{Clock, Timestamp};

/// Bits of an id beside its time, its version and its variant.
const TAIL_BITS: u32 = 74;
/// Those of them that stand after the variant.
const LOW_BITS: u32 = 62;

thread_local! {
    static LAST: Cell<Last> = const { Cell::new(Last { millis: 0, tail: 0 }) };
}

/// The id that was made last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Last {
    millis: u64,
    tail: u128,
}

/// A fresh id.
pub(super) fn fresh() -> Uuid {
    let next = LAST.get().next(Clock::system().now());
    LAST.set(next);
    next.id()
}

impl Last {
    /// In a new millisecond all of the tail is random; within one, and while the clock is set back, it grows by a random
    /// step.
    fn next(self, now: Timestamp) -> Self {
        let tail = self.tail + 1 + u128::from(fastrand::u32(..));
        if now.as_millis() > self.millis {
            Self { millis: now.as_millis(), tail: fastrand::u128(..1 << TAIL_BITS) }
        } else if tail >> TAIL_BITS == 0 {
            Self { tail, ..self }
        } else {
            Self { millis: self.millis + 1, tail: 0 }
        }
    }

    fn id(self) -> Uuid {
        let (high, low) = (self.tail >> LOW_BITS, self.tail & ((1 << LOW_BITS) - 1));
        Uuid::from_u128(u128::from(self.millis) << 80 | 0x7 << 76 | high << 64 | 0b10 << LOW_BITS | low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_version_7_and_grow() {
        let before = Clock::system().now().as_millis();
        let ids: Vec<Uuid> = (0..10_000).map(|_| fresh()).collect();
        assert!(ids.is_sorted_by(|one, next| one < next));
        for id in ids {
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
            let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
            let millis = seconds * 1_000 + u64::from(nanos) / 1_000_000;
            assert!((before..before + 60_000).contains(&millis), "{millis}");
        }
    }

    #[test]
    fn ids_grow_while_the_clock_stands_and_past_the_last_tail() {
        let full = Last { millis: 5, tail: (1 << TAIL_BITS) - 1 };
        let next = full.next(Timestamp::from_millis(3));
        assert_eq!((next.millis, next.tail), (6, 0));
        assert!(next.next(Timestamp::from_millis(6)) > next);
        assert!(next.next(Timestamp::from_millis(7)).id() > next.id());
    }
}
