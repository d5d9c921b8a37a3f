//! What is remembered of the addresses that connections come from.
//!
//! Bounded, and no task or timer for any of them: what an address did is forgotten by arithmetic as time goes by. When the table
//! is full, a new address takes the place of the one, of sixteen that are looked at, that owes least: that is as new again
//! the soonest. Who fills the table from many addresses to have one of his own forgotten has to make each of them owe as much
//! as that one, and an address with connections that are still counted is never forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::bucket::{Bucket, Rate};
use crate::config::EdgeConfig;

/// Addresses that are remembered: some ten megabytes. Who notices is a new address while so many others are in use.
const ADDRESSES_MAX: usize = 100_000;

/// Places that are looked at for one to give away.
const LOOKED_AT: usize = 16;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What each address may do, and what it did.
pub(super) struct Addresses {
    unauthenticated_max: usize,
    arrivals: Option<Rate>,
    failures: Option<Rate>,
    refuse_for: Duration,
    table: Mutex<Table>,
}

/// An address as it is counted: of IPv6 its first half, for whoever has one has all behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    V6(u64),
}

/// What an address did. Times are since the server started.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Connections that have not authenticated.
    unauthenticated: usize,
    arrivals: Bucket,
    failures: Bucket,
    refused_until: Duration,
}

struct Table {
    /// Hashed with a secret of this process, so that nobody can choose addresses that share a place.
    places: HashMap<Key, usize>,
    records: Vec<(Key, Record)>,
    records_max: usize,
    /// Where the next look begins.
    hand: usize,
}

/// A connection that has not authenticated, counted until it has or is gone.
pub(crate) struct Guest {
    addresses: Arc<Addresses>,
    key: Key,
    is_counted: AtomicBool,
}

/// Why one more connection of an address is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    /// Connections that have not authenticated.
    Unauthenticated,
    /// Connections in this time; the next may come after so long.
    Arrivals(Duration),
}

impl Addresses {
    pub(super) fn new(config: &EdgeConfig) -> Arc<Self> {
        Self::with_room(config, ADDRESSES_MAX)
    }

    fn with_room(config: &EdgeConfig, records_max: usize) -> Arc<Self> {
        Arc::new(Self {
            unauthenticated_max: config.unauthenticated_max,
            arrivals: Rate::new(config.connections_per_second, SECOND, config.connections_burst),
            failures: Rate::new(config.failures_per_minute, MINUTE, config.failures_per_minute),
            refuse_for: config.refuse_for,
            table: Mutex::new(Table { places: HashMap::new(), records: Vec::new(), records_max, hand: 0 }),
        })
    }

    /// Counts one more connection of an address, which has not authenticated yet.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Duration) -> Result<Option<Guest>, TooMany> {
        if self.unauthenticated_max == 0 && self.arrivals.is_none() {
            return Ok(None);
        }
        let key = Key::of(address);
        let mut table = self.table.lock();
        let record = table.record(key, now).ok_or(TooMany::Unauthenticated)?;
        let are_counted = self.unauthenticated_max > 0;
        if are_counted && record.unauthenticated >= self.unauthenticated_max {
            return Err(TooMany::Unauthenticated);
        }
        if let Some(rate) = &self.arrivals {
            record.arrivals.take(rate, now).map_err(TooMany::Arrivals)?;
        }
        record.unauthenticated += usize::from(are_counted);
        // Made only where it is kept: one that is dropped here would wait for the table that this holds.
        Ok(are_counted.then(|| Guest { addresses: self.clone(), key, is_counted: AtomicBool::new(true) }))
    }

    /// Counts a failure to authenticate. One too many, and for a while the address may not try again.
    pub(super) fn failed(&self, address: IpAddr, now: Duration) {
        let Some(rate) = &self.failures else { return };
        let mut table = self.table.lock();
        // Without room for it, connections of others hold the whole table.
        let Some(record) = table.record(Key::of(address), now) else { return };
        if record.failures.take(rate, now).is_err() {
            record.refused_until = now.saturating_add(self.refuse_for);
        }
    }

    /// How long an address may not authenticate, if it may not.
    pub(super) fn refused_for(&self, address: IpAddr, now: Duration) -> Option<Duration> {
        self.failures.as_ref()?;
        let table = self.table.lock();
        let (_, record) = table.records.get(*table.places.get(&Key::of(address))?)?;
        Some(record.refused_until.saturating_sub(now)).filter(|wait| !wait.is_zero())
    }
}

impl Key {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments().map(u64::from);
                Self::V6(a << 48 | b << 32 | c << 16 | d)
            }
        }
    }
}

impl Record {
    /// How long until it is as good as new; `None` while connections are counted.
    fn debt(&self, now: Duration) -> Option<Duration> {
        let refused = self.refused_until.saturating_sub(now);
        let debt = self.arrivals.debt(now).max(self.failures.debt(now)).max(refused);
        (self.unauthenticated == 0).then_some(debt)
    }
}

impl Table {
    /// What an address did; a new one takes the place of another where there is no room. `None` if all that are looked at are
    /// in use.
    fn record(&mut self, key: Key, now: Duration) -> Option<&mut Record> {
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => self.place(key, now)?,
        };
        self.records.get_mut(place).map(|(_, record)| record)
    }

    fn place(&mut self, key: Key, now: Duration) -> Option<usize> {
        let place = match self.records.len() {
            length if length < self.records_max => {
                self.records.push((key, Record::default()));
                length
            }
            length => {
                let looked_at = (0..LOOKED_AT.min(length)).map(|step| (self.hand + step) % length);
                let debt = |place: usize| Some((self.records.get(place)?.1.debt(now)?, place));
                let (_, place) = looked_at.filter_map(debt).min()?;
                let former = self.records.get_mut(place)?;
                self.places.remove(&former.0);
                *former = (key, Record::default());
                self.hand = (self.hand + LOOKED_AT) % length;
                place
            }
        };
        self.places.insert(key, place);
        Some(place)
    }
}

impl Guest {
    /// It has authenticated.
    pub(crate) fn leave(&self) {
        if !self.is_counted.swap(false, Relaxed) {
            return;
        }
        let mut table = self.addresses.table.lock();
        let Some(place) = table.places.get(&self.key).copied() else { return };
        if let Some((_, record)) = table.records.get_mut(place) {
            record.unauthenticated = record.unauthenticated.saturating_sub(1);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
