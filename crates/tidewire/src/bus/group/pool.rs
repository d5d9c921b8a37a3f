//! Fairness: handlers of several consumers share slots by weight, and no one of them can hold up the others.

mod bucket;
mod rota;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::bucket::Bucket;
use self::rota::{Grant, MemberId, Rota, Ticket};
use crate::clock::Clock;

/// Slots for handlers that run at the same time, shared by the consumers that are given it. Cheap to clone.
///
/// Only consumers with something to do compete: while others are idle, one may use every slot. Where they compete, each
/// gets handler time by its weight, however many events wait for it and however long its handlers take. One that was idle
/// has the next slot that is free, and no claim to what it did not use.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

/// What a consumer gets of a [`Pool`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Handler time that it gets where consumers compete, relative to the others; 1, from 1 to 1,000.
    pub weight: u32,
    /// Slots that it has at a time; as many as the pool has, at least 1.
    pub concurrency_max: Option<usize>,
    /// How many handlers it starts over time; no limit.
    pub rate_max: Option<Rate>,
}

/// How many may start over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// So many in a second, on average; at least one in 1,000 s.
    pub per_second: f64,
    /// So many at once after a pause; at least 1, and what one millisecond brings.
    pub burst: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: 1, concurrency_max: None, rate_max: None }
    }
}

impl Share {
    /// The largest weight: one with it has a thousand times the handler time of one with the smallest.
    pub const WEIGHT_MAX: u32 = 1_000;
}

struct Shared {
    clock: Clock,
    rota: Mutex<Rota<oneshot::Sender<Grant>>>,
}

/// One that takes part in a pool, until it and its slots are dropped.
#[derive(Clone)]
pub(super) struct Member(Arc<Seat>);

struct Seat {
    pool: Arc<Shared>,
    id: MemberId,
    /// Held by the one that is next in a member with a rate: nobody else can use up what it has waited for.
    bucket: Option<tokio::sync::Mutex<Bucket>>,
}

/// A slot in use; dropping it gives it back.
#[must_use = "a slot that is dropped is given back"]
pub(super) struct Slot {
    seat: Arc<Seat>,
    grant: Option<Grant>,
}

/// Somebody who waits for a slot; dropping it gives up the place, or the slot that came meanwhile.
struct Waiting {
    seat: Arc<Seat>,
    ticket: Ticket,
    granted: oneshot::Receiver<Grant>,
}

impl Pool {
    pub(crate) fn new(concurrency: usize, clock: Clock) -> Self {
        Self(Arc::new(Shared { clock, rota: Mutex::new(Rota::new(concurrency.max(1))) }))
    }

    /// Somebody new to share with.
    pub(super) fn member(&self, share: Share) -> Member {
        let Share { weight, concurrency_max, rate_max } = share;
        let pool = self.0.clone();
        let id = pool.rota.lock().join(
            weight.clamp(1, Share::WEIGHT_MAX),
            concurrency_max.map_or(usize::MAX, |concurrency_max| concurrency_max.max(1)),
        );
        let bucket = rate_max.map(|rate| tokio::sync::Mutex::new(Bucket::new(rate, pool.clock.monotonic())));
        Member(Arc::new(Seat { pool, id, bucket }))
    }
}

impl Member {
    /// Waits for a slot. Dropping the future takes none.
    pub(super) async fn slot(&self) -> Slot {
        let Some(bucket) = &self.0.bucket else { return self.enter().await };
        let clock = &self.0.pool.clock;
        let mut bucket = bucket.lock().await;
        while let Some(wait) = bucket.wait(clock.monotonic()) {
            clock.sleep(wait).await;
        }
        let slot = self.enter().await;
        bucket.take(clock.monotonic());
        slot
    }

    async fn enter(&self) -> Slot {
        let (seat, pool) = (&self.0, &self.0.pool);
        let mut waiting = {
            let mut rota = pool.rota.lock();
            if let Some(grant) = rota.start(seat.id, pool.clock.monotonic()) {
                return Slot { seat: seat.clone(), grant: Some(grant) };
            }
            let (granting, granted) = oneshot::channel();
            let ticket = rota.ask(seat.id, granting);
            Waiting { seat: seat.clone(), ticket, granted }
        };
        let grant = (&mut waiting.granted).await.ok();
        Slot { seat: seat.clone(), grant }
    }
}

impl Shared {
    /// Gives a slot back, and to whom it is due.
    fn finish(&self, grant: Grant) {
        let now = self.clock.monotonic();
        let mut rota = self.rota.lock();
        rota.finish(grant, now);
        // Sent under the lock: who gives up its place there finds the place or the slot.
        while let Some((granting, grant)) = rota.next(now) {
            if let Err(unwanted) = granting.send(grant) {
                rota.finish(unwanted, now);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.seat.pool.finish(grant);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let is_still_waiting = self.seat.pool.rota.lock().withdraw(self.seat.id, self.ticket);
        if !is_still_waiting && let Ok(grant) = self.granted.try_recv() {
            self.seat.pool.finish(grant);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pool.rota.lock().leave(self.id);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} free)", self.0.rota.lock().free())
    }
}

#[cfg(test)]
mod tests;
