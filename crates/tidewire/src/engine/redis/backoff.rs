//! How long to wait before a link is dialed again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// Short enough that a server that is back is used at once, long enough not to matter to it.
const MOST: Duration = Duration::from_secs(2);

/// Doubling waits with jitter, so that the nodes of a fleet do not dial in step.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next wait: between half and all of the current step.
    pub(super) fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(MOST);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// The link is up: start from the first step again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new();
        for step in [50, 100, 200, 400, 800, 1_600, 2_000, 2_000] {
            let wait = backoff.wait().as_millis();
            assert!((step / 2..=step).contains(&wait), "{wait} for a step of {step}");
        }
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
