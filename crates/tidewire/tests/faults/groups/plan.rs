//! What a schedule of groups consists of: its groups, and what their handlers do with each event. All of it follows from
//! the seed, in every process alike.

use std::time::Duration;

use fastrand::Rng;
use tidewire::Retries;
use uuid::Uuid;

/// Short, so that what a dead process held comes again soon; long enough for a machine that is busy.
pub(crate) const LEASE: Duration = Duration::from_millis(1_500);
/// Attempts of a delivery.
pub(crate) const ATTEMPTS_MAX: u32 = 5;
/// How long a parked key waits.
pub(crate) const PARK_TIME: Duration = Duration::from_millis(250);
/// The stream that groups share, and the one that handlers emit to.
pub(crate) const SOURCE: &str = "load:0";
pub(crate) const MADE: &str = "load:1";
/// Keys of events.
pub(crate) const KEYS: u64 = 12;

/// A group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// 0 without order.
    pub(crate) partitions: u16,
    /// Handlers emit an event with each ack.
    pub(crate) emits: bool,
    /// Events are handled once per id.
    pub(crate) is_dedup: bool,
}

const KINDS: [Kind; 4] = [
    Kind { name: "plain", partitions: 0, emits: true, is_dedup: false },
    Kind { name: "mixed", partitions: 0, emits: false, is_dedup: false },
    Kind { name: "keyed", partitions: 6, emits: true, is_dedup: false },
    Kind { name: "once", partitions: 4, emits: false, is_dedup: true },
];

/// What a handler does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Ack,
    /// Takes its time.
    Slow,
    /// Fails once, and is to come again at once or later.
    RetryNow,
    RetryLater,
    Park,
    Reject,
    /// Fails each time.
    Fail,
    /// Ends the process.
    Crash,
}

/// The groups of a schedule and their handlers.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    seed: u64,
    pub(crate) kinds: Vec<Kind>,
    /// Some events end the process that handles them.
    pub(crate) has_poison: bool,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x6772_6f75_7073);
        let has_poison = random.u32(..4) == 0;
        // An event that ends a process counts against what the other groups of the process have in hand, too.
        let count = if has_poison { 1 } else { 2 };
        let kinds = random.choose_multiple(KINDS, count);
        Self { seed, kinds, has_poison }
    }

    pub(crate) fn kind(&self, group: &str) -> Option<Kind> {
        self.kinds.iter().copied().find(|kind| kind.name == group)
    }

    pub(crate) fn way(&self, group: &str, number: u64) -> Way {
        let hash = group
            .bytes()
            .fold(self.seed ^ (number << 20), |hash, byte| hash.rotate_left(7) ^ u64::from(byte));
        if self.has_poison && number % 100 == 17 {
            return Way::Crash;
        }
        match Rng::with_seed(hash).u32(..100) {
            0..8 => Way::Slow,
            8..14 => Way::RetryNow,
            14..20 => Way::RetryLater,
            20..23 => Way::Park,
            23..26 => Way::Reject,
            26..27 => Way::Fail,
            _ => Way::Ack,
        }
    }

    pub(crate) fn key(&self, number: u64) -> u64 {
        Rng::with_seed(self.seed ^ number).u64(..KEYS)
    }

    pub(crate) fn id(&self, number: u64) -> Uuid {
        Uuid::from_u64_pair(self.seed, number)
    }

    /// Whether the event is published twice, with the same id.
    pub(crate) fn has_copy(&self, number: u64) -> bool {
        number % 9 == 4
    }

    /// Whether bytes that are no event follow it.
    pub(crate) fn has_garbage(&self, number: u64) -> bool {
        number % 100 == 42
    }
}

/// Delivered again soon, so that a schedule ends.
pub(crate) fn retries() -> Retries {
    Retries {
        first_delay: Duration::from_millis(40),
        delay_max: Duration::from_millis(1_300),
        attempts_max: ATTEMPTS_MAX,
        ..Retries::default()
    }
}
