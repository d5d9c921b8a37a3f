//! The appends that wait for their lane.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::batch::Job;
use crate::error::ErrorKind;
use crate::limits;

/// What a lane and those who append through it share.
#[derive(Default)]
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    pushed: Notify,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    is_closed: bool,
}

impl Jobs {
    /// Ends those whose deadline has passed; nothing of them was sent.
    fn expire(&mut self, why: &str) {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|job| job.deadline <= now) {
            self.waiting.pop_front().into_iter().for_each(|job| job.fail(ErrorKind::Unavailable, why));
        }
    }
}

impl Queue {
    /// Adds a job behind the others; drops it if the lane has stopped.
    pub(super) fn push(&self, job: Job) {
        let mut jobs = self.jobs.lock();
        if jobs.is_closed {
            return;
        }
        jobs.waiting.push_back(job);
        let is_first = jobs.waiting.len() == 1;
        drop(jobs);
        if is_first {
            self.pushed.notify_one();
        }
    }

    /// Waits until a job came to an empty queue.
    pub(super) async fn pushed(&self) {
        self.pushed.notified().await;
    }

    /// When the first one's time is up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.jobs.lock().waiting.front().map(|job| job.deadline)
    }

    /// Takes as many as a batch holds.
    pub(super) fn take(&self) -> Vec<Job> {
        let mut jobs = self.jobs.lock();
        // A caller that waited too long behind others is told so; its append must not happen after that.
        jobs.expire("the appends before it took all of its time (limits.call_time_max)");
        let (mut events, mut bytes, mut taken) = (0, 0, Vec::new());
        while let Some(job) = jobs.waiting.front() {
            events += job.appends.len();
            bytes += job.bytes();
            if !taken.is_empty() && (events > limits::BATCH_EVENTS_MAX || bytes > limits::BATCH_BYTES_MAX) {
                break;
            }
            taken.extend(jobs.waiting.pop_front());
        }
        taken
    }

    /// Puts jobs before everything else that waits.
    pub(super) fn put_back(&self, jobs: Vec<Job>) {
        let mut waiting = self.jobs.lock();
        jobs.into_iter().rev().for_each(|job| waiting.waiting.push_front(job));
    }

    /// Ends those whose deadline has passed, with why they were not sent.
    pub(super) fn expire(&self, why: &str) {
        self.jobs.lock().expire(why);
    }

    /// Ends all that waits.
    pub(super) fn fail(&self, kind: ErrorKind, text: &str) {
        let waiting = std::mem::take(&mut self.jobs.lock().waiting);
        waiting.into_iter().for_each(|job| job.fail(kind, text));
    }

    /// Drops what waits and what comes.
    pub(super) fn close(&self) {
        let mut jobs = self.jobs.lock();
        jobs.is_closed = true;
        jobs.waiting.clear();
    }
}
