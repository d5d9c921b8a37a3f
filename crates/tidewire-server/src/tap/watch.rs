//! What a connection leaves behind for those who watch its user, without waiting for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use tidewire::{Clock, Timestamp};
use tokio::sync::mpsc;

use crate::hub::outbox::Frame;
use crate::publication::Form;

/// Things that wait to be told of. What is more than that at once is counted and left out.
const SEEN_MAX: usize = 1_000;
/// The same in bytes of their frames, which they keep from being freed.
const SEEN_BYTES_MAX: usize = 1024 * 1024;

/// A user who is watched on this node, by one tap or by several.
#[derive(Default)]
pub(crate) struct Watched(Mutex<Vec<Arc<Watch>>>);

/// One tap on this node.
pub(crate) struct Watch {
    sender: mpsc::Sender<Seen>,
    bytes: AtomicUsize,
    left_out: AtomicU64,
    clock: Clock,
}

/// The place of a connection among those that are watched.
pub(crate) struct Seat {
    pub(crate) watched: Arc<Watched>,
    pub(crate) client: Arc<str>,
    pub(crate) form: Form,
}

/// Something that a connection did.
pub(super) struct Seen {
    pub(super) at: Timestamp,
    pub(super) seat: Arc<Seat>,
    pub(super) what: What,
}

/// What it did.
#[derive(Clone)]
pub(super) enum What {
    Opened,
    Commands(Bytes),
    Frame(Frame),
    Closed { code: u32, reason: Box<str> },
}

impl What {
    fn bytes(&self) -> usize {
        match self {
            Self::Commands(frame) => frame.len(),
            Self::Frame(frame) => frame.len(),
            Self::Opened | Self::Closed { .. } => 0,
        }
    }
}

impl Watched {
    pub(crate) fn add(&self, watch: Arc<Watch>) {
        self.0.lock().push(watch);
    }

    /// Takes a tap away. True if none is left.
    pub(crate) fn remove(&self, watch: &Arc<Watch>) -> bool {
        let mut watches = self.0.lock();
        watches.retain(|other| !Arc::ptr_eq(other, watch));
        watches.is_empty()
    }
}

impl Seat {
    /// It has a session.
    pub(crate) fn opened(self: &Arc<Self>) {
        self.see(&What::Opened);
    }

    /// It got a frame of commands.
    pub(crate) fn heard(self: &Arc<Self>, frame: &Bytes) {
        self.see(&What::Commands(frame.clone()));
    }

    /// It is sent a frame.
    pub(crate) fn sent(self: &Arc<Self>, frame: &Frame) {
        self.see(&What::Frame(frame.clone()));
    }

    /// It has ended.
    pub(crate) fn closed(self: &Arc<Self>, code: u32, reason: &str) {
        self.see(&What::Closed { code, reason: reason.into() });
    }

    fn see(self: &Arc<Self>, what: &What) {
        for watch in self.watched.0.lock().iter() {
            watch.keep(Seen { at: watch.clock.now(), seat: self.clone(), what: what.clone() });
        }
    }
}

impl Watch {
    pub(super) fn new(clock: Clock) -> (Arc<Self>, mpsc::Receiver<Seen>) {
        let (sender, receiver) = mpsc::channel(SEEN_MAX);
        let (bytes, left_out) = (AtomicUsize::new(0), AtomicU64::new(0));
        (Arc::new(Self { sender, bytes, left_out, clock }), receiver)
    }

    fn keep(&self, seen: Seen) {
        let bytes = seen.what.bytes();
        let before = self.bytes.fetch_add(bytes, Relaxed);
        if before + bytes > SEEN_BYTES_MAX || self.sender.try_send(seen).is_err() {
            self.bytes.fetch_sub(bytes, Relaxed);
            self.leave_out(1);
        }
    }

    /// The next thing that waits.
    pub(super) fn take(&self, seen: &mut mpsc::Receiver<Seen>) -> Option<Seen> {
        let seen = seen.try_recv().ok()?;
        self.bytes.fetch_sub(seen.what.bytes(), Relaxed);
        Some(seen)
    }

    pub(super) fn leave_out(&self, count: u64) {
        self.left_out.fetch_add(count, Relaxed);
    }

    pub(super) fn take_left_out(&self) -> u64 {
        self.left_out.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_and_keeps_nothing() {
        let (watch, mut seen) = Watch::new(Clock::system());
        let watched = Arc::new(Watched::default());
        watched.add(watch.clone());
        let seat = Arc::new(Seat { watched, client: "c".into(), form: Form::default() });
        seat.sent(&Frame::new(vec![b'x'; SEEN_BYTES_MAX].into()));
        seat.heard(&Bytes::from_static(b"{}"));
        assert_eq!(watch.take_left_out(), 1, "in bytes");
        assert!(watch.take(&mut seen).is_some());
        for _ in 0..SEEN_MAX + 5 {
            seat.heard(&Bytes::from_static(b"{}"));
        }
        assert_eq!(watch.take_left_out(), 5, "in number");
        while watch.take(&mut seen).is_some() {}
        assert_eq!(watch.bytes.load(Relaxed), 0);
    }
}
