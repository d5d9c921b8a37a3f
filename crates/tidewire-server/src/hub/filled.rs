//! Outboxes that a relay has added to, on their way to their sockets.

use std::convert::Infallible;
use std::sync::Arc;

use tidewire::clock::Stopwatch;
use tidewire::tasks::Tasks;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::outbox::Outbox;
use crate::metrics::{TenantMetrics, is_write_timed};

/// Bytes of events that are written together, each with what it takes beside its data: few enough that no outbox is full of
/// them before they are written.
const BYTES_MAX: usize = 64 * 1024;
const EVENT_BYTES: usize = 64;

/// Outboxes in one step of a flush. A write to a socket takes some 5 us, and a step keeps its thread for that many of them.
const STEP_OUTBOXES: usize = 128;

/// The outboxes that have to be flushed.
///
/// One task writes for many connections: to wake the writer of each takes twice as long as its write. Many outboxes are
/// flushed in several tasks, so that all cores take part. Who fills waits for them: where that is slower than events come,
/// they wait in the stream and not in the outboxes.
pub(super) struct Filled {
    outboxes: Vec<Arc<Outbox>>,
    bytes: usize,
    /// Since when the first of them waits.
    since: Option<Stopwatch>,
    tasks: Tasks,
    metrics: Arc<TenantMetrics>,
}

impl Filled {
    pub(super) fn new(tasks: Tasks, metrics: Arc<TenantMetrics>) -> Self {
        Self { outboxes: Vec::new(), bytes: 0, since: None, tasks, metrics }
    }

    /// One that nobody else is about to write.
    pub(super) fn add(&mut self, outbox: &Arc<Outbox>) {
        self.outboxes.push(outbox.clone());
    }

    /// Counts an event that was added to outboxes, by the bytes of its data.
    pub(super) fn count(&mut self, data_bytes: usize) {
        self.bytes += data_bytes + EVENT_BYTES;
        self.since.get_or_insert_with(Stopwatch::start);
    }

    /// Whether it is time for a flush, even though more is there to be added.
    pub(super) fn is_enough(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// Flushes them, and returns when all are.
    pub(super) async fn flush(&mut self) {
        self.bytes = 0;
        let since = self.since.take();
        self.flush_all().await;
        if let Some(since) = since.filter(|_| is_write_timed()) {
            self.metrics.written(since);
        }
    }

    async fn flush_all(&mut self) {
        let mut outboxes = std::mem::take(&mut self.outboxes);
        if outboxes.len() <= STEP_OUTBOXES {
            outboxes.drain(..).for_each(|outbox| outbox.flush());
            // For the next ones, unless it is large.
            self.outboxes = outboxes;
            return;
        }
        let (working, mut all_done) = mpsc::channel::<Infallible>(1);
        while outboxes.len() > STEP_OUTBOXES {
            let step = outboxes.split_off(outboxes.len() - STEP_OUTBOXES);
            let working = working.clone();
            self.tasks.spawn(async move {
                step.iter().for_each(|outbox| outbox.flush());
                drop(working);
            });
        }
        outboxes.iter().for_each(|outbox| outbox.flush());
        drop(working);
        yield_now().await;
        // Nothing is sent; it ends with the last of those who could.
        let _ended = all_done.recv().await.is_none();
    }
}

impl Drop for Filled {
    /// However its relay ends: a frame that nobody is about to write would hold up all that come after it.
    fn drop(&mut self) {
        self.outboxes.iter().for_each(|outbox| outbox.flush());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;
    use crate::hub::outbox::{Frame, Next};

    #[tokio::test]
    async fn what_a_relay_leaves_behind_is_written_all_the_same() {
        let outbox = Arc::new(Outbox::new(100));
        let mut writer = Box::pin(outbox.next());
        assert!(poll!(writer.as_mut()).is_pending());
        let mut filled = Filled::new(Tasks::new(), Arc::default());
        assert!(outbox.add(Frame::new("first".into())), "nobody is about to write it");
        filled.add(&outbox);
        // Whoever comes next relies on the relay.
        outbox.push(Frame::new("second".into()));
        assert!(poll!(writer.as_mut()).is_pending());
        drop(filled);
        let Next::Write(frames) = writer.await else { panic!("there are frames") };
        assert_eq!(frames.len(), 2);
    }

    #[tokio::test]
    async fn all_of_many_are_flushed_when_it_returns() {
        let outboxes: Vec<_> = (0..3 * STEP_OUTBOXES + 1).map(|_| Arc::new(Outbox::new(100))).collect();
        let mut filled = Filled::new(Tasks::new(), Arc::default());
        let mut writers: Vec<_> = outboxes.iter().map(|outbox| Box::pin(outbox.next())).collect();
        for (outbox, writer) in outboxes.iter().zip(&mut writers) {
            assert!(poll!(writer.as_mut()).is_pending());
            assert!(outbox.add(Frame::new("event".into())));
            filled.add(outbox);
        }
        filled.flush().await;
        for writer in &mut writers {
            assert!(poll!(writer.as_mut()).is_ready());
        }
    }
}
