//! Waits between tries of a request that no server takes now.

use std::time::Duration;

use tokio::time::Instant;

/// A failover takes longer than the first; the longest is short beside a call.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Waits that grow while a request is tried again.
pub(in crate::engine::redis) struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: PAUSE_FIRST }
    }
}

impl Pauses {
    /// Waits, not past `deadline`. False when that has passed.
    pub(super) async fn wait(&mut self, deadline: Instant) -> bool {
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(PAUSE_MAX);
        tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
        Instant::now() < deadline
    }
}
