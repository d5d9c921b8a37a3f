//! What waits to be written to one connection.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tidewire::clock::Stopwatch;
use tidewire_protocol::codes::DisconnectCode;
use tokio::sync::Notify;

use crate::tap::Seat;

/// One encoded reply or push. Cloning shares the bytes, so an event is encoded once for all its subscribers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    bytes: Bytes,
    /// `None` for a frame of one connection.
    shared: Option<Arc<Shared>>,
}

/// What those who share a frame have in common.
#[derive(Debug)]
struct Shared {
    /// When it was made: the clock is read once for all of them.
    made: Stopwatch,
    /// The bytes compressed, once one of them wants that.
    compressed: OnceLock<Bytes>,
}

impl Frame {
    /// For one connection, from what the codec wrote.
    pub(crate) fn new(encoded: Bytes) -> Self {
        Self { bytes: encoded, shared: None }
    }

    /// The same for many: it is compressed at most once too.
    pub(crate) fn shared(self) -> Self {
        let shared = Shared { made: Stopwatch::start(), compressed: OnceLock::new() };
        Self { shared: Some(Arc::new(shared)), ..self }
    }

    /// Since when a frame for many has been there.
    pub(crate) fn made(&self) -> Option<Stopwatch> {
        self.shared.as_ref().map(|shared| shared.made)
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes compressed by `compress`.
    pub(crate) fn compressed(&self, compress: impl FnOnce(&[u8]) -> Bytes) -> Bytes {
        match &self.shared {
            Some(shared) => shared.compressed.get_or_init(|| compress(&self.bytes)).clone(),
            None => compress(&self.bytes),
        }
    }
}

/// Why a connection ends, as its client learns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disconnect {
    pub(crate) code: DisconnectCode,
    pub(crate) reason: Cow<'static, str>,
}

impl Disconnect {
    pub(crate) fn new(code: DisconnectCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl From<DisconnectCode> for Disconnect {
    fn from(code: DisconnectCode) -> Self {
        Self::new(code, code.text)
    }
}

/// The frames that wait for one connection, bounded in bytes.
///
/// Anyone may push, without waiting; the connection's writer takes all that waits at once. A push onto a full outbox
/// ends the connection as slow: its client reconnects and recovers from the position that it holds. So at most the
/// bound and one frame wait, and a frame larger than the bound still passes. What the writer has taken counts until it
/// is written. An idle outbox holds no memory.
pub(crate) struct Outbox {
    state: Mutex<State>,
    bytes_max: usize,
    /// Something waits for the writer.
    filled: Notify,
    /// The writer must stop where it is, even inside a write.
    cut: Notify,
    /// The outbox is at most half full again.
    drained: Notify,
}

#[derive(Default)]
struct State {
    frames: Vec<Frame>,
    /// Bytes that wait, and those that the writer has taken and not yet written.
    bytes: usize,
    /// The payload of the newest ping of the transport that is not answered; older ones need no answer (RFC 6455, 5.5.3).
    pong: Option<Bytes>,
    end: Option<Disconnect>,
    /// Its place among those that are watched, while they are.
    seat: Option<Arc<Seat>>,
}

/// What the writer has to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Write these, then say so with [`Outbox::written`].
    Write(Vec<Frame>),
    /// Answer a ping of the transport.
    Pong(Bytes),
    /// Close the connection.
    Close(Disconnect),
}

impl Outbox {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            bytes_max,
            filled: Notify::new(),
            cut: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// The bound.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes that wait now, and those that are being written.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Has what passes watched from now on, or not any more.
    pub(crate) fn sit(&self, seat: Option<Arc<Seat>>) {
        self.state.lock().seat = seat;
    }

    /// Its place among those that are watched, if they are.
    pub(crate) fn seat(&self) -> Option<Arc<Seat>> {
        self.state.lock().seat.clone()
    }

    /// Adds a frame, or ends the connection if the outbox is full.
    pub(crate) fn push(&self, frame: Frame) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        if state.bytes >= self.bytes_max {
            let reason = format!("slow: {} bytes wait (limits.outbox_bytes_max)", state.bytes);
            state.end = Some(Disconnect::new(DisconnectCode::SLOW, reason));
            // The client recovers these from the stream; writing them first would keep the memory.
            state.frames = Vec::new();
            drop(state);
            self.cut.notify_one();
            self.drained.notify_one();
            return;
        }
        if let Some(seat) = &state.seat {
            seat.sent(&frame);
        }
        state.bytes += frame.len();
        state.frames.push(frame);
        drop(state);
        self.filled.notify_one();
    }

    /// Has a ping of the transport answered.
    pub(crate) fn pong(&self, payload: Bytes) {
        self.state.lock().pong = Some(payload);
        self.filled.notify_one();
    }

    /// Ends the connection after what waits is written. The first end counts.
    pub(crate) fn end(&self, disconnect: Disconnect) {
        let mut state = self.state.lock();
        state.end.get_or_insert(disconnect);
        drop(state);
        self.filled.notify_one();
        self.drained.notify_one();
    }

    /// Waits for work; for the writer only. Dropping the future loses nothing.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.filled.notified().await;
        }
    }

    /// Completes when the writer must not go on with what it took, because the connection is slow.
    pub(crate) async fn cut(&self) {
        self.cut.notified().await;
    }

    /// Tells that `bytes` of what was taken are written.
    pub(crate) fn written(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        if state.bytes <= self.bytes_max / 2 {
            drop(state);
            self.drained.notify_one();
        }
    }

    /// Waits until the outbox is at most half full, or ends; for the connection's reader only.
    pub(crate) async fn room(&self) {
        loop {
            {
                let state = self.state.lock();
                if state.end.is_some() || state.bytes <= self.bytes_max / 2 {
                    return;
                }
            }
            self.drained.notified().await;
        }
    }

    /// Whether the connection is about to end.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().end.is_some()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().frames.is_empty()
    }

    fn take(&self) -> Option<Next> {
        let mut state = self.state.lock();
        if let Some(payload) = state.pong.take() {
            return Some(Next::Pong(payload));
        }
        if !state.frames.is_empty() {
            return Some(Next::Write(std::mem::take(&mut state.frames)));
        }
        state.end.clone().map(Next::Close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::new(Bytes::from("x".repeat(bytes)))
    }

    async fn lengths(outbox: &Outbox) -> Vec<usize> {
        match outbox.next().await {
            Next::Write(frames) => frames.iter().map(Frame::len).collect(),
            next => panic!("unexpected: {next:?}"),
        }
    }

    #[tokio::test]
    async fn the_writer_takes_all_that_waits_in_order() {
        let outbox = Outbox::new(100);
        outbox.push(frame(10));
        outbox.push(frame(20));
        assert_eq!(lengths(&outbox).await, [10, 20]);
    }

    #[tokio::test]
    async fn what_is_taken_counts_until_it_is_written() {
        let outbox = Outbox::new(100);
        outbox.push(frame(60));
        assert_eq!(lengths(&outbox).await, [60]);
        outbox.push(frame(40));
        assert!(!outbox.has_ended());
        outbox.push(frame(1));
        outbox.cut().await;
        assert!(matches!(outbox.next().await, Next::Close(end) if end.code == DisconnectCode::SLOW));
    }

    #[tokio::test]
    async fn written_bytes_make_room_again() {
        let outbox = Outbox::new(100);
        for _ in 0..10 {
            outbox.push(frame(90));
            assert_eq!(lengths(&outbox).await, [90]);
            outbox.written(90);
            outbox.room().await;
        }
        assert!(!outbox.has_ended());
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_bound_passes_while_there_is_room() {
        let outbox = Outbox::new(100);
        outbox.push(frame(1));
        outbox.push(frame(500));
        assert_eq!(lengths(&outbox).await, [1, 500]);
        assert!(!outbox.has_ended());
        outbox.push(frame(1));
        assert!(outbox.has_ended());
    }

    #[tokio::test]
    async fn what_waits_is_written_before_an_ordinary_end() {
        let outbox = Outbox::new(100);
        outbox.push(frame(10));
        outbox.end(DisconnectCode::BAD_REQUEST.into());
        outbox.end(DisconnectCode::SHUTDOWN.into());
        outbox.push(frame(10));
        assert_eq!(lengths(&outbox).await, [10]);
        assert!(matches!(outbox.next().await, Next::Close(end) if end.code == DisconnectCode::BAD_REQUEST));
    }

    #[tokio::test]
    async fn an_end_wakes_who_waits_for_room() {
        let outbox = Outbox::new(100);
        outbox.push(frame(90));
        let ends = async { outbox.end(DisconnectCode::SHUTDOWN.into()) };
        tokio::join!(outbox.room(), ends);
    }
}
