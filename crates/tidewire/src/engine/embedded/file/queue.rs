//! What waits for a writer thread, bounded in bytes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind, Result};

/// Jobs on their way to a writer thread, which takes all that wait at once.
pub(super) struct Queue<J> {
    waiting: Mutex<Waiting<J>>,
    arrived: Condvar,
    room: Arc<Semaphore>,
    bytes_max: u32,
    call_time_max: Duration,
}

struct Waiting<J> {
    jobs: Vec<J>,
    is_closed: bool,
}

/// A question to a writer thread. It takes room in the queue until it is answered.
pub(super) struct Asked<T> {
    answer: oneshot::Sender<Result<T>>,
    _room: OwnedSemaphorePermit,
}

/// Room in a queue for a question, and since when it is asked.
pub(super) struct Room {
    permit: OwnedSemaphorePermit,
    watch: Stopwatch,
}

/// A question that is asked and not answered.
pub(super) struct Asking<T> {
    answered: oneshot::Receiver<Result<T>>,
    watch: Stopwatch,
}

impl<T> Asked<T> {
    /// Answers. Who asked may have gone, which is their affair.
    pub(super) fn answer(self, answer: Result<T>) {
        let _gone = self.answer.send(answer).is_err();
    }
}

impl<J> Queue<J> {
    pub(super) fn new(bytes_max: usize, call_time_max: Duration) -> Self {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).max(1);
        Self {
            waiting: Mutex::new(Waiting { jobs: Vec::new(), is_closed: false }),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(bytes_max as usize)),
            bytes_max,
            call_time_max,
        }
    }

    /// Hands over the job of a question that takes `bytes`, and waits for the answer.
    ///
    /// # Errors
    /// When the time of a call is up: `Backpressure` if there was no room, `TimedOut` if there is no answer, and the
    /// job may be done later. `Closed` after [`close`](Self::close): it was not done.
    pub(super) async fn ask<T>(&self, bytes: usize, job: impl FnOnce(Asked<T>) -> J) -> Result<T> {
        let room = self.room(bytes).await?;
        self.answer(self.ask_in(room, job)?).await
    }

    /// Hands over the job of a question at once, in room that was reserved for it. As [`ask`](Self::ask).
    pub(super) fn ask_in<T>(&self, room: Room, job: impl FnOnce(Asked<T>) -> J) -> Result<Asking<T>> {
        let (answer, answered) = oneshot::channel();
        if !self.push(job(Asked { answer, _room: room.permit })) {
            return Err(closed());
        }
        Ok(Asking { answered, watch: room.watch })
    }

    /// Waits for the answer. As [`ask`](Self::ask).
    pub(super) async fn answer<T>(&self, asking: Asking<T>) -> Result<T> {
        let time_left = self.call_time_max.saturating_sub(asking.watch.elapsed());
        match tokio::time::timeout(time_left, asking.answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(closed())),
            Err(_) => Err(Error::new(
                ErrorKind::TimedOut,
                format!("disk did not answer within {:?} (limits.call_time_max)", self.call_time_max),
            )),
        }
    }

    /// Waits for room for a question that takes `bytes`. As [`ask`](Self::ask).
    pub(super) async fn room(&self, bytes: usize) -> Result<Room> {
        let watch = Stopwatch::start();
        Ok(Room { permit: self.permit(bytes).await?, watch })
    }

    async fn permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        // A job that is larger than the whole queue goes alone.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) {
            return Ok(room);
        }
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        match tokio::time::timeout(self.call_time_max, room).await {
            Ok(room) => room.map_err(|_| closed()),
            Err(_) => Err(Error::new(
                ErrorKind::Backpressure,
                format!(
                    "engine has {} bytes in flight, no room for {bytes} within {:?} (limits.in_flight_bytes_max)",
                    self.bytes_max, self.call_time_max
                ),
            )),
        }
    }

    /// Hands a job over. False if the queue is closed.
    pub(super) fn push(&self, job: J) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.is_closed {
            return false;
        }
        waiting.jobs.push(job);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// Waits for jobs and takes all that are there; `None` once the queue is closed and empty.
    pub(super) fn take_all(&self) -> Option<Vec<J>> {
        let mut waiting = self.waiting.lock();
        self.arrived.wait_while(&mut waiting, |waiting| waiting.jobs.is_empty() && !waiting.is_closed);
        let jobs = std::mem::take(&mut waiting.jobs);
        (!jobs.is_empty()).then_some(jobs)
    }

    /// Takes no further jobs. Those that wait are still done.
    pub(super) fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.room.close();
        self.arrived.notify_all();
    }
}

fn closed() -> Error {
    Error::closed("engine")
}
