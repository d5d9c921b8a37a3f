//! What callers, writer and reader of a connection share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::copies::Waiting;
use super::reply::{Caller, Pending, Reply, reply};
use super::{LinkState, RequestError};
use crate::engine::redis::command::Encode;
use crate::engine::redis::link::Openings;
use crate::engine::redis::resp::Value;

/// What a waiting request costs beside its bytes: its slot and the place of its reply.
const SLOT_BYTES: usize = 128;
/// A buffer that a burst has grown beyond this is not kept.
const SPARE_BYTES_MAX: usize = 1 << 20;

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the writer; used only on the step from an empty buffer.
    wake: Notify,
    room_max: usize,
    /// Held by the first of those who wait for room; the others wait for it, in order.
    turn: tokio::sync::Mutex<()>,
    /// Wakes the first of those who wait for room.
    freed: Notify,
    pub(super) state: watch::Sender<LinkState>,
    pub(super) openings: Openings,
    /// Ticks since the reader last read anything.
    pub(super) quiet_ticks: AtomicU32,
    pub(super) waiting: Waiting,
}

/// Requests in the order of their commands on the link.
#[derive(Default)]
struct Queue {
    /// The number of the open link; none while there is no link.
    link: Option<u64>,
    /// Encoded and not taken by the writer yet.
    out: BytesMut,
    /// Bytes encoded for this link so far.
    encoded: u64,
    /// Bytes that the link took so far.
    written: u64,
    slots: VecDeque<Slot>,
    is_writer_idle: bool,
    /// Bytes that may still be queued.
    room: usize,
    /// Callers that wait for room. While there are any, all others wait behind them.
    waiters: usize,
}

pub(super) struct Slot {
    /// None when its caller was told that the deadline passed; the place stays.
    caller: Option<Caller>,
    /// Where its command ends in the bytes of this link.
    end: u64,
    cost: usize,
    deadline: Instant,
}

/// What became of an attempt to queue a request.
pub(super) enum Enqueue {
    Queued(Pending),
    NoRoom,
    NoLink,
    TooLarge,
}

impl Shared {
    pub(super) fn new(state: watch::Sender<LinkState>, room_max: usize) -> Self {
        Self {
            queue: Mutex::new(Queue { room: room_max, ..Queue::default() }),
            wake: Notify::new(),
            room_max,
            turn: tokio::sync::Mutex::default(),
            freed: Notify::new(),
            state,
            openings: Openings::default(),
            quiet_ticks: AtomicU32::new(0),
            waiting: Waiting::default(),
        }
    }

    /// Encodes a command behind those that wait, if there is a link - that of number `link`, if one is given - and
    /// room. Who waited for room gives its `turn`; others are behind those who wait.
    pub(super) fn enqueue<C: Encode + ?Sized>(
        &self,
        command: &C,
        bytes_max: usize,
        deadline: Instant,
        link: Option<u64>,
        turn: Option<Turn<'_>>,
    ) -> Enqueue {
        let cost = bytes_max + SLOT_BYTES;
        if cost > self.room_max {
            return Enqueue::TooLarge;
        }
        let (caller, pending) = reply();
        let mut queue = self.queue.lock();
        let is_refused = if queue.link.is_none() || (link.is_some() && queue.link != link) {
            Some(Enqueue::NoLink)
        } else if queue.room < cost || (queue.waiters > 0 && turn.is_none()) {
            Some(Enqueue::NoRoom)
        } else {
            None
        };
        if let Some(refused) = is_refused {
            drop(queue);
            return refused;
        }
        queue.room -= cost;
        let before = queue.out.len();
        command.encode(&mut queue.out);
        queue.encoded += (queue.out.len() - before) as u64;
        let end = queue.encoded;
        for _ in 0..command.extra_replies() {
            queue.slots.push_back(Slot { caller: None, end, cost: 0, deadline });
        }
        queue.slots.push_back(Slot { caller: Some(caller), end, cost, deadline });
        let wake = std::mem::take(&mut queue.is_writer_idle);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        Enqueue::Queued(pending)
    }

    /// Waits, behind those who wait already, until a request of this size has room.
    pub(super) async fn wait_for_room(
        &self,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Turn<'_>, RequestError> {
        let waiter = Waiter::new(self);
        let has_room = async {
            let held = self.turn.lock().await;
            while self.queue.lock().room < bytes_max + SLOT_BYTES {
                self.freed.notified().await;
            }
            held
        };
        match tokio::time::timeout_at(deadline, has_room).await {
            Ok(held) => Ok(Turn { _waiter: waiter, _held: held }),
            Err(_) => Err(RequestError::Full),
        }
    }

    /// Requests may be queued from now on.
    pub(super) fn open_link(&self) {
        let link = self.openings.open();
        let mut queue = self.queue.lock();
        queue.link = Some(link);
        queue.encoded = 0;
        queue.written = 0;
        drop(queue);
        self.quiet_ticks.store(0, Ordering::Relaxed);
        self.state.send_replace(LinkState::Up(link));
    }

    /// Ends every request in flight, each with whether it can have been executed.
    pub(super) fn close_link(&self, why: &Arc<str>, next: LinkState) {
        // Before the requests end: one that is repeated must find the link down, and wait.
        let mut queue = self.queue.lock();
        queue.link = None;
        queue.out = BytesMut::new();
        let written = queue.written;
        let slots = std::mem::take(&mut queue.slots);
        queue.room = self.room_max;
        drop(queue);
        self.openings.close();
        self.state.send_replace(next);
        for slot in slots {
            let why = why.clone();
            let error =
                if slot.end <= written { RequestError::Unknown(why) } else { RequestError::NotSent(why) };
            slot.answer(Err(error));
        }
        self.freed.notify_one();
    }

    /// Swaps the encoded bytes for an empty buffer; waits until there are any.
    pub(super) async fn take_encoded(&self, mut spare: BytesMut) -> BytesMut {
        spare.clear();
        if spare.capacity() > SPARE_BYTES_MAX {
            spare = BytesMut::new();
        }
        loop {
            {
                let mut queue = self.queue.lock();
                if !queue.out.is_empty() {
                    return std::mem::replace(&mut queue.out, spare);
                }
                queue.is_writer_idle = true;
            }
            self.wake.notified().await;
            // Those who were woken with the first caller add their commands to the same write.
            tokio::task::yield_now().await;
        }
    }

    /// The link took so many more bytes.
    pub(super) fn count_written(&self, bytes: usize) {
        self.queue.lock().written += bytes as u64;
    }

    /// Gives replies to the requests they belong to; false if one came that nobody asked for.
    pub(super) fn answer(&self, replies: &mut Vec<Value>, slots: &mut Vec<Slot>) -> bool {
        let mut queue = self.queue.lock();
        let paired = replies.len().min(queue.slots.len());
        slots.extend(queue.slots.drain(..paired));
        queue.room += slots.iter().map(|slot| slot.cost).sum::<usize>();
        let has_waiters = queue.waiters > 0;
        drop(queue);
        if has_waiters {
            self.freed.notify_one();
        }
        let is_paired = paired == replies.len();
        for (slot, value) in slots.drain(..).zip(replies.drain(..)) {
            slot.answer(Ok(value));
        }
        is_paired
    }

    /// Tells the callers whose deadline passed. Their slots stay, for the replies that may still come; what was
    /// not written yet still will be, so the outcome is unknown.
    pub(super) fn expire(&self, now: Instant) {
        let mut expired = Vec::new();
        for slot in self.queue.lock().slots.iter_mut().filter(|slot| slot.deadline <= now) {
            expired.extend(slot.caller.take());
        }
        expired.into_iter().for_each(|caller| caller.answer(Err(RequestError::TimedOut)));
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.lock().slots.is_empty()
    }
}

/// The right to the next room.
pub(super) struct Turn<'a> {
    _waiter: Waiter<'a>,
    _held: tokio::sync::MutexGuard<'a, ()>,
}

/// Counts as one who waits for room.
struct Waiter<'a>(&'a Shared);

impl<'a> Waiter<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.queue.lock().waiters += 1;
        Self(shared)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().waiters -= 1;
    }
}

impl Slot {
    fn answer(self, reply: Reply) {
        if let Some(caller) = self.caller {
            caller.answer(reply);
        }
    }
}
