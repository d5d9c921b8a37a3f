//! Reading on while a command waits for a backend, so that the end of its connection is noticed.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;

use super::connection::Vitals;
use super::serve::{End, Source};
use crate::hub::outbox::{Disconnect, Outbox};

/// Frames that are read ahead of the one that runs. Behind them the end is noticed when they have run.
const FRAMES_MAX: usize = 16;

/// Frames that came while one ran, and the end behind them.
#[derive(Default)]
pub(super) struct Ahead {
    frames: VecDeque<Bytes>,
    end: Option<End>,
}

impl Ahead {
    /// The next frame. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why none follows.
    pub(super) async fn next(&mut self, source: &mut impl Source, outbox: &Outbox) -> Result<Bytes, End> {
        match (self.frames.pop_front(), self.end.take()) {
            (Some(frame), end) => {
                self.end = end;
                Ok(frame)
            }
            (None, Some(end)) => Err(end),
            (None, None) => source.next(outbox).await,
        }
    }

    /// Runs something of the connection, and reads on meanwhile.
    ///
    /// # Errors
    /// The connection has ended, and what ran was given up because nobody waits for it.
    pub(super) async fn run<F>(
        &mut self,
        source: &mut impl Source,
        outbox: &Outbox,
        vitals: &Vitals,
        mut running: Pin<Box<F>>,
    ) -> Result<Result<(), Disconnect>, End>
    where
        F: Future<Output = Result<(), Disconnect>>,
    {
        while self.end.is_none() && self.frames.len() < FRAMES_MAX {
            tokio::select! {
                biased;
                done = &mut running => return Ok(done),
                next = source.next(outbox) => match next {
                    Ok(frame) => {
                        vitals.hear();
                        self.frames.push_back(frame);
                    }
                    Err(end) => self.end = Some(end),
                },
            }
        }
        let has_ended = self.end.is_some();
        let done = poll_fn(|context| match running.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if has_ended && vitals.is_asking() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match (done.await, self.end.take()) {
            (Some(done), end) => {
                self.end = end;
                Ok(done)
            }
            (None, end) => Err(end.unwrap_or(End::Theirs)),
        }
    }
}
