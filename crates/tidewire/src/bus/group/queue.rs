//! What is ready for the handlers of one session, and what became of it.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::delivery::Delivery;
use super::outcome::Outcome;

/// Deliveries that are ready, and what became of others. Everybody waits on signals; nobody is blocked.
pub(super) struct Queue {
    ready: Mutex<Ready>,
    /// As many permits as there are jobs, those apart that somebody is about to take.
    count: Semaphore,
    done: Mutex<Vec<Done>>,
    /// The session has something to do: something is done, or too little is ready.
    pub(super) finished: Notify,
}

#[derive(Default)]
struct Ready {
    jobs: VecDeque<Job>,
    /// At so few the session is told.
    low: usize,
}

/// A delivery on its way to a handler.
pub(super) struct Job {
    pub(super) token: Token,
    pub(super) delivery: Delivery,
}

/// Which delivery of which session of the consumer is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) session: u64,
    pub(super) record: u16,
    pub(super) offset: u64,
}

/// What became of a delivery.
pub(super) struct Done {
    pub(super) token: Token,
    pub(super) delivery: Delivery,
    pub(super) verdict: Verdict,
    /// How long the handler took.
    pub(super) took: Duration,
    /// Who wants to know when it is kept; dropped if the delivery is lost before.
    pub(super) kept: Option<oneshot::Sender<()>>,
}

/// What is known of an attempt.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The handler said so.
    Settled(Outcome),
    /// Whoever had it is gone without a word.
    Abandoned,
}

impl Default for Queue {
    fn default() -> Self {
        let (ready, done, finished) = (Mutex::default(), Mutex::default(), Notify::new());
        Self { ready, count: Semaphore::new(0), done, finished }
    }
}

impl Queue {
    /// Adds what is ready.
    pub(super) fn push(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut ready = self.ready.lock();
        let before = ready.jobs.len();
        ready.jobs.extend(jobs);
        self.count.add_permits(ready.jobs.len() - before);
    }

    /// Waits for the next delivery; `None` once the queue is closed. Dropping the future takes nothing.
    pub(super) async fn pop(&self) -> Option<Job> {
        loop {
            self.count.acquire().await.ok()?.forget();
            // None if it was taken back meanwhile.
            if let Some(job) = self.take_first() {
                return Some(job);
            }
        }
    }

    /// The next delivery, if there is one now.
    pub(super) fn try_pop(&self) -> Option<Job> {
        self.count.try_acquire().ok()?.forget();
        self.take_first()
    }

    fn take_first(&self) -> Option<Job> {
        let mut ready = self.ready.lock();
        let job = ready.jobs.pop_front();
        let is_low = job.is_some() && ready.jobs.len() == ready.low;
        drop(ready);
        if is_low {
            self.finished.notify_one();
        }
        job
    }

    /// How many are ready.
    pub(super) fn len(&self) -> usize {
        self.ready.lock().jobs.len()
    }

    /// Has the session told when no more than so many are ready.
    pub(super) fn set_low(&self, low: usize) {
        self.ready.lock().low = low;
    }

    /// Takes back what no handler has begun with.
    pub(super) fn take_back(&self, is_meant: impl Fn(&Token) -> bool) -> Vec<Token> {
        let mut ready = self.ready.lock();
        let (back, kept): (VecDeque<Job>, _) =
            std::mem::take(&mut ready.jobs).into_iter().partition(|job| is_meant(&job.token));
        ready.jobs = kept;
        self.count.forget_permits(back.len());
        back.into_iter().map(|job| job.token).collect()
    }

    /// Nothing is handed out any more.
    pub(super) fn close(&self) {
        self.count.close();
    }

    /// Tells the session what became of a delivery.
    pub(super) fn finish(&self, done: Done) {
        let mut waiting = self.done.lock();
        let is_first = waiting.is_empty();
        waiting.push(done);
        drop(waiting);
        if is_first {
            self.finished.notify_one();
        }
    }

    /// All that became of deliveries since the last look.
    pub(super) fn take_done(&self) -> Vec<Done> {
        std::mem::take(&mut *self.done.lock())
    }
}
