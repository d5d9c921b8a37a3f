//! What callers, writer and reader of a connection share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot, watch};
use tokio::time::Instant;

use super::copies::Waiting;
use super::{LinkState, RequestError};
use crate::engine::redis::command::Encode;
use crate::engine::redis::resp::Value;

/// What a waiting request costs beside its bytes: its slot and its reply channel.
const SLOT_BYTES: usize = 128;
/// A buffer that a burst has grown beyond this is not kept.
const SPARE_BYTES_MAX: usize = 1 << 20;

pub(super) type Reply = Result<Value, RequestError>;

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the writer; used only on the step from an empty buffer.
    wake: Notify,
    /// One permit per byte that may still be queued.
    room: Semaphore,
    room_max: usize,
    pub(super) state: watch::Sender<LinkState>,
    links: AtomicU64,
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
}

pub(super) struct Slot {
    /// None when its caller was told that the deadline passed; the place stays.
    reply: Option<oneshot::Sender<Reply>>,
    /// Where its command ends in the bytes of this link.
    end: u64,
    cost: usize,
    deadline: Instant,
}

/// What became of an attempt to queue a request.
pub(super) enum Enqueue {
    Queued(oneshot::Receiver<Reply>),
    NoRoom,
    NoLink,
    TooLarge,
}

impl Shared {
    pub(super) fn new(state: watch::Sender<LinkState>, room_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            room: Semaphore::new(room_max),
            room_max,
            state,
            links: AtomicU64::new(0),
            quiet_ticks: AtomicU32::new(0),
            waiting: Waiting::default(),
        }
    }

    /// Encodes a command behind those that wait, if there is a link - that of number `link`, if one is given - and
    /// room, or `room` from a wait for it.
    pub(super) fn enqueue<C: Encode + ?Sized>(
        &self,
        command: &C,
        bytes_max: usize,
        deadline: Instant,
        link: Option<u64>,
        room: Option<SemaphorePermit<'_>>,
    ) -> Enqueue {
        let cost = bytes_max + SLOT_BYTES;
        if cost > self.room_max {
            return Enqueue::TooLarge;
        }
        // Who waits is first: the semaphore gives to them what is released.
        let Some(room) = room.or_else(|| self.room.try_acquire_many(permits(cost)).ok()) else {
            return Enqueue::NoRoom;
        };
        let mut queue = self.queue.lock();
        if queue.link.is_none() || (link.is_some() && queue.link != link) {
            return Enqueue::NoLink;
        }
        room.forget();
        let before = queue.out.len();
        command.encode(&mut queue.out);
        queue.encoded += (queue.out.len() - before) as u64;
        let (sender, receiver) = oneshot::channel();
        let end = queue.encoded;
        for _ in 0..command.extra_replies() {
            queue.slots.push_back(Slot { reply: None, end, cost: 0, deadline });
        }
        queue.slots.push_back(Slot { reply: Some(sender), end, cost, deadline });
        let wake = std::mem::take(&mut queue.is_writer_idle);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        Enqueue::Queued(receiver)
    }

    /// Waits, behind those who wait already, until a request of this size has room.
    pub(super) async fn wait_for_room(
        &self,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, RequestError> {
        let room = self.room.acquire_many(permits(bytes_max + SLOT_BYTES));
        match tokio::time::timeout_at(deadline, room).await {
            Ok(Ok(room)) => Ok(room),
            // The semaphore is never closed.
            Ok(Err(_)) => Err(RequestError::Closed),
            Err(_) => Err(RequestError::Full),
        }
    }

    /// Requests may be queued from now on.
    pub(super) fn open_link(&self) {
        let link = self.links.fetch_add(1, Ordering::Relaxed) + 1;
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
        drop(queue);
        self.state.send_replace(next);
        let mut room = 0;
        for slot in slots {
            room += slot.cost;
            let why = why.clone();
            let error =
                if slot.end <= written { RequestError::Unknown(why) } else { RequestError::NotSent(why) };
            slot.answer(Err(error));
        }
        self.room.add_permits(room);
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
        drop(queue);
        let is_paired = paired == replies.len();
        let mut room = 0;
        for (slot, value) in slots.drain(..).zip(replies.drain(..)) {
            room += slot.cost;
            slot.answer(Ok(value));
        }
        self.room.add_permits(room);
        is_paired
    }

    /// Tells the callers whose deadline passed. Their slots stay, for the replies that may still come; what was
    /// not written yet still will be, so the outcome is unknown.
    pub(super) fn expire(&self, now: Instant) {
        let mut expired = Vec::new();
        for slot in self.queue.lock().slots.iter_mut().filter(|slot| slot.deadline <= now) {
            expired.extend(slot.reply.take());
        }
        for reply in expired {
            // The caller may be gone; nobody else is to be told.
            drop(reply.send(Err(RequestError::TimedOut)));
        }
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.lock().slots.is_empty()
    }
}

/// The whole of `room_max` fits, so nothing that may be queued is cut here.
fn permits(cost: usize) -> u32 {
    u32::try_from(cost).unwrap_or(u32::MAX)
}

impl Slot {
    fn answer(self, reply: Reply) {
        if let Some(sender) = self.reply {
            // A caller that went away has no use for its reply.
            drop(sender.send(reply));
        }
    }
}
