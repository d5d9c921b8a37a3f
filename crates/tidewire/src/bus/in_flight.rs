//! Calls in flight, so that closing can wait for them.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts calls in flight, and refuses new ones once it is closed.
#[derive(Default)]
pub(super) struct InFlight {
    /// Twice the count of calls, and one when closed.
    state: AtomicUsize,
    ended: Notify,
}

const CLOSED: usize = 1;
const CALL: usize = 2;

/// One call in flight, until it is dropped.
pub(super) struct Call<'a>(&'a InFlight);

impl InFlight {
    /// Counts a call; none once closed.
    pub(super) fn enter(&self) -> Option<Call<'_>> {
        // Counted before it is looked at, so that a call that is let in is always waited for.
        let before = self.state.fetch_add(CALL, Ordering::AcqRel);
        let call = Call(self);
        (before & CLOSED == 0).then_some(call)
    }

    /// Refuses new calls and waits for those in flight.
    pub(super) async fn drain(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
        loop {
            let ended = self.ended.notified();
            if self.state.load(Ordering::Acquire) == CLOSED {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.0.state.fetch_sub(CALL, Ordering::AcqRel) == CALL | CLOSED {
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn draining_refuses_new_calls_and_waits_for_those_in_flight() {
        let in_flight = InFlight::default();
        let (one, other) = (in_flight.enter().unwrap(), in_flight.enter().unwrap());
        let mut drained = Box::pin(in_flight.drain());
        assert!(drained.as_mut().now_or_never().is_none());
        assert!(in_flight.enter().is_none());
        drop(one);
        assert!(drained.as_mut().now_or_never().is_none());
        drop(other);
        assert!(drained.now_or_never().is_some());
        assert!(in_flight.drain().now_or_never().is_some());
    }
}
