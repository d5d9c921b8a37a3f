//! What waits to be written to one connection.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
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

/// Frames that wait together: one most often, which needs no room of its own.
pub(crate) type Frames = SmallVec<[Frame; 1]>;

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

/// What carries frames to a client, where it can take some of them at once.
pub(crate) trait Carrier: Send + Sync {
    /// Writes frames as far as that needs no waiting.
    fn try_write(&self, frames: &[Frame]) -> Carried;
}

/// How far a write got.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    All,
    /// Some of it: the bytes that are left.
    Part(Bytes),
    /// Nothing: the writer is to do it, and to find out why.
    Nothing,
}

/// The frames that wait for one connection, bounded in bytes.
///
/// Anyone may push, without waiting; the connection's writer takes all that waits at once. A push onto a full outbox
/// ends the connection as slow: its client reconnects and recovers from the position that it holds. So at most the
/// bound and one frame wait, and a frame larger than the bound still passes. What the writer has taken counts until it
/// is written. An idle outbox holds no memory.
///
/// Who has frames for many does not wake a writer for each: it [adds](Outbox::add) them, and [flushes](Outbox::flush) what
/// it has added to, which writes to the carrier at once. The writer is woken for what the carrier does not take.
pub(crate) struct Outbox {
    state: Mutex<State>,
    bytes_max: usize,
    carrier: Option<Arc<dyn Carrier>>,
    /// Something waits for the writer.
    filled: Notify,
    /// The writer must stop where it is, even inside a write.
    cut: Notify,
    /// The outbox is at most half full again.
    drained: Notify,
}

#[derive(Default)]
struct State {
    frames: Frames,
    /// What is left of a write that stopped in the middle: nothing may be written before it.
    rest: Option<Box<Rest>>,
    /// Somebody writes: whoever comes meanwhile leaves what waits to him.
    is_writing: bool,
    /// Bytes that wait, and those that were taken and are not yet written.
    bytes: usize,
    /// The payload of the newest ping of the transport that is not answered; older ones need no answer (RFC 6455, 5.5.3).
    pong: Option<Bytes>,
    end: Option<Disconnect>,
    /// Its place among those that are watched, while they are.
    seat: Option<Arc<Seat>>,
}

/// The end of some frames, as it is written.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) bytes: Bytes,
    /// Bytes of the frames that it is the end of, for [`Outbox::written`].
    pub(crate) frame_bytes: usize,
}

/// What the writer has to do next; then it says so with [`Outbox::written`].
#[derive(Debug)]
pub(crate) enum Next {
    /// Write these.
    Write(Frames),
    /// Write this, as it is.
    Finish(Box<Rest>),
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
            carrier: None,
            filled: Notify::new(),
            cut: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// The same, with what takes frames at once.
    pub(crate) fn with_carrier(mut self, carrier: Arc<dyn Carrier>) -> Self {
        self.carrier = Some(carrier);
        self
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

    /// Adds a frame and wakes the writer, or ends the connection if the outbox is full.
    pub(crate) fn push(&self, frame: Frame) {
        if self.add(frame) {
            self.filled.notify_one();
        }
    }

    /// Adds a frame, or ends the connection if the outbox is full. True if nobody is about to write it: who added it has to
    /// see to that.
    #[must_use = "a frame that nobody is about to write stays"]
    pub(crate) fn add(&self, frame: Frame) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return false;
        }
        if state.bytes >= self.bytes_max {
            let reason = format!("slow: {} bytes wait (limits.outbox_bytes_max)", state.bytes);
            state.end = Some(Disconnect::new(DisconnectCode::SLOW, reason));
            // The client recovers these from the stream; writing them first would keep the memory.
            (state.frames, state.rest) = (Frames::new(), None);
            drop(state);
            self.cut.notify_one();
            self.filled.notify_one();
            self.drained.notify_one();
            return false;
        }
        if let Some(seat) = &state.seat {
            seat.sent(&frame);
        }
        let is_first = state.frames.is_empty() && !state.is_writing;
        state.bytes += frame.len();
        state.frames.push(frame);
        is_first
    }

    /// Writes what waits as far as the carrier takes it without waiting, and leaves the rest to the writer.
    pub(crate) fn flush(&self) {
        let Some(carrier) = &self.carrier else { return self.filled.notify_one() };
        let frames = {
            let mut state = self.state.lock();
            if state.is_writing {
                return;
            }
            // What does not wait in frames goes through the writer, which keeps the order.
            if state.rest.is_some() || state.pong.is_some() || state.end.is_some() {
                return self.filled.notify_one();
            }
            state.is_writing = true;
            std::mem::take(&mut state.frames)
        };
        let frame_bytes = frames.iter().map(Frame::len).sum();
        let carried = carrier.try_write(&frames);
        let mut state = self.state.lock();
        let had_room = self.has_room(&state);
        match carried {
            Carried::All => {
                state.bytes = state.bytes.saturating_sub(frame_bytes);
            }
            Carried::Part(bytes) if state.end.is_none() => {
                state.rest = Some(Box::new(Rest { bytes, frame_bytes }));
            }
            Carried::Nothing if state.end.is_none() => {
                let newer = std::mem::replace(&mut state.frames, frames);
                state.frames.extend(newer);
            }
            // It ends as slow: its writer tells the client so, if that is still possible.
            Carried::Part(_) | Carried::Nothing => {}
        }
        state.is_writing = false;
        let (has_more, has_drained) = (!state.is_idle(), !had_room && self.has_room(&state));
        drop(state);
        if has_more {
            self.filled.notify_one();
        }
        if has_drained {
            self.drained.notify_one();
        }
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
    pub(crate) async fn cut(&self) -> Disconnect {
        loop {
            self.cut.notified().await;
            if let Some(end) = &self.state.lock().end {
                return end.clone();
            }
        }
    }

    /// Tells that what was taken is written; `bytes` of its frames.
    pub(crate) fn written(&self, bytes: usize) {
        let mut state = self.state.lock();
        let had_room = self.has_room(&state);
        state.is_writing = false;
        state.bytes = state.bytes.saturating_sub(bytes);
        let has_drained = !had_room && self.has_room(&state);
        drop(state);
        if has_drained {
            self.drained.notify_one();
        }
    }

    /// Waits until the outbox is at most half full, or ends; for the connection's reader only.
    pub(crate) async fn room(&self) {
        loop {
            {
                let state = self.state.lock();
                if state.end.is_some() || self.has_room(&state) {
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

    fn has_room(&self, state: &State) -> bool {
        state.bytes <= self.bytes_max / 2
    }

    fn take(&self) -> Option<Next> {
        let mut state = self.state.lock();
        if state.is_writing {
            return None;
        }
        let next = state.take();
        state.is_writing = next.is_some();
        next
    }
}

impl State {
    /// Whether nothing is to be done.
    fn is_idle(&self) -> bool {
        self.frames.is_empty() && self.rest.is_none() && self.pong.is_none() && self.end.is_none()
    }

    fn take(&mut self) -> Option<Next> {
        if let Some(rest) = self.rest.take() {
            return Some(Next::Finish(rest));
        }
        if let Some(payload) = self.pong.take() {
            return Some(Next::Pong(payload));
        }
        if !self.frames.is_empty() {
            return Some(Next::Write(std::mem::take(&mut self.frames)));
        }
        self.end.clone().map(Next::Close)
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
        assert_eq!(outbox.cut().await.code, DisconnectCode::SLOW);
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
        outbox.written(10);
        assert!(matches!(outbox.next().await, Next::Close(end) if end.code == DisconnectCode::BAD_REQUEST));
    }

    #[tokio::test]
    async fn an_end_wakes_who_waits_for_room() {
        let outbox = Outbox::new(100);
        outbox.push(frame(90));
        let ends = async { outbox.end(DisconnectCode::SHUTDOWN.into()) };
        tokio::join!(outbox.room(), ends);
    }

    /// Takes as much as it is told to, and has the outbox added to in the middle of a write.
    #[derive(Default)]
    struct Script {
        taken: Mutex<Vec<u8>>,
        outbox: OnceLock<std::sync::Weak<Outbox>>,
        /// What the next writes take, and the frame that comes meanwhile.
        steps: Mutex<std::collections::VecDeque<(Take, Option<Frame>)>>,
    }

    #[derive(Clone, Copy)]
    enum Take {
        All,
        /// At most so many bytes.
        Bytes(usize),
        Nothing,
    }

    impl Script {
        fn outbox() -> (Arc<Self>, Arc<Outbox>) {
            let script = Arc::new(Self::default());
            let outbox = Arc::new(Outbox::new(1_000).with_carrier(script.clone()));
            script.outbox.set(Arc::downgrade(&outbox)).unwrap();
            (script, outbox)
        }

        fn then(&self, take: Take, meanwhile: Option<Frame>) {
            self.steps.lock().push_back((take, meanwhile));
        }

        fn take(&self, bytes: &[u8]) {
            self.taken.lock().extend_from_slice(bytes);
        }

        fn text(&self) -> String {
            String::from_utf8(self.taken.lock().clone()).unwrap()
        }

        /// Does what the writer does, as long as there is something.
        fn write(&self, outbox: &Outbox) {
            while let Some(next) = outbox.take() {
                let bytes = match next {
                    Next::Write(frames) => {
                        frames.iter().for_each(|frame| self.take(frame.as_bytes()));
                        frames.iter().map(Frame::len).sum()
                    }
                    Next::Finish(rest) => {
                        self.take(&rest.bytes);
                        rest.frame_bytes
                    }
                    next => panic!("unexpected: {next:?}"),
                };
                outbox.written(bytes);
            }
        }
    }

    impl Carrier for Script {
        fn try_write(&self, frames: &[Frame]) -> Carried {
            let (take, meanwhile) = self.steps.lock().pop_front().unwrap_or((Take::All, None));
            let all: Vec<u8> = frames.iter().flat_map(|frame| frame.as_bytes().to_vec()).collect();
            if let Some(frame) = meanwhile {
                let outbox = self.outbox.get().unwrap().upgrade().unwrap();
                assert!(!outbox.add(frame), "who writes sees to it");
                outbox.flush();
            }
            let count = match take {
                Take::All => all.len(),
                Take::Bytes(bytes) => bytes.min(all.len()),
                Take::Nothing => 0,
            };
            self.take(&all[..count]);
            match &all[count..] {
                [] => Carried::All,
                _ if count == 0 => Carried::Nothing,
                rest => Carried::Part(Bytes::copy_from_slice(rest)),
            }
        }
    }

    fn text(text: &str) -> Frame {
        Frame::new(text.to_owned().into())
    }

    fn fill(outbox: &Outbox, frame: Frame) {
        if outbox.add(frame) {
            outbox.flush();
        }
    }

    #[tokio::test]
    async fn what_the_carrier_takes_wakes_no_writer_and_counts_no_more() {
        let (script, outbox) = Script::outbox();
        let mut writer = Box::pin(outbox.next());
        assert!(futures_util::poll!(writer.as_mut()).is_pending());
        for _ in 0..10 {
            fill(&outbox, frame(900));
        }
        assert_eq!(script.text().len(), 9_000);
        assert!(futures_util::poll!(writer.as_mut()).is_pending());
        assert!(!outbox.has_ended());
    }

    #[tokio::test]
    async fn the_writer_goes_on_where_the_carrier_stopped() {
        let (script, outbox) = Script::outbox();
        script.then(Take::Bytes(2), Some(text("-second")));
        fill(&outbox, text("first"));
        fill(&outbox, text("-third"));
        let Next::Finish(rest) = outbox.next().await else { panic!("it stopped in the middle") };
        assert_eq!((&*rest.bytes, rest.frame_bytes), (&b"rst"[..], 5));
        // As long as somebody writes, nobody else does.
        fill(&outbox, text("-fourth"));
        assert!(outbox.take().is_none());
        script.take(&rest.bytes);
        outbox.written(rest.frame_bytes);
        script.write(&outbox);
        assert_eq!(script.text(), "first-second-third-fourth");
        assert_eq!(outbox.state.lock().bytes, 0);
    }

    #[tokio::test]
    async fn what_comes_during_a_write_is_left_to_a_writer_that_is_woken() {
        let (script, outbox) = Script::outbox();
        script.then(Take::All, Some(text("-second")));
        let mut writer = Box::pin(outbox.next());
        assert!(futures_util::poll!(writer.as_mut()).is_pending());
        fill(&outbox, text("first"));
        let Next::Write(frames) = writer.await else { panic!("there is a frame") };
        assert_eq!((script.text().as_str(), frames[0].as_bytes()), ("first", &b"-second"[..]));
    }

    #[test]
    fn an_outbox_that_is_over_its_bound_is_written_no_more() {
        let (script, outbox) = Script::outbox();
        script.then(Take::Nothing, None);
        fill(&outbox, frame(1_000));
        fill(&outbox, frame(1));
        assert!(outbox.has_ended());
        outbox.flush();
        assert_eq!(script.text(), "");
        assert!(matches!(outbox.take(), Some(Next::Close(end)) if end.code == DisconnectCode::SLOW));
    }

    #[test]
    fn every_order_of_adding_flushing_and_writing_keeps_the_order_of_frames() {
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (script, outbox) = Script::outbox();
            let (mut last, mut expected) = (0, String::new());
            for _ in 0..30 {
                let mut next = || {
                    last += 1;
                    let added = format!("{last},");
                    expected.push_str(&added);
                    text(&added)
                };
                let frame = next();
                let meanwhile = rng.bool().then(next);
                let take = match rng.u8(0..3) {
                    0 => Take::All,
                    1 => Take::Bytes(rng.usize(0..6)),
                    _ => Take::Nothing,
                };
                // Only a write that happens uses the step up.
                let is_first = outbox.add(frame);
                if is_first && outbox.state.lock().rest.is_none() {
                    script.then(take, meanwhile);
                } else if let Some(frame) = meanwhile {
                    outbox.push(frame);
                }
                if is_first {
                    outbox.flush();
                }
                if rng.u8(0..4) == 0 {
                    script.write(&outbox);
                }
            }
            script.write(&outbox);
            assert_eq!(script.text(), expected, "seed {seed}");
            assert_eq!(outbox.state.lock().bytes, 0, "seed {seed}");
        }
    }
}
