//! Batching: appends collected by size and time, so that many small ones cost what few large ones do.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::append::{AppendOptions, Receipt};
use super::stats::Counters;
use super::{Bus, no_outcome};
use crate::engine::{Append, Durability};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::limits;
use crate::name::ChannelPath;

/// How a [`Batcher`] collects; [`start`](Self::start) makes it.
#[must_use = "a batcher starts with start()"]
pub struct Batching {
    bus: Arc<Bus>,
    counters: Arc<Counters>,
    channel: ChannelPath,
    events_max: usize,
    bytes_max: usize,
    wait_max: Duration,
    options: AppendOptions,
}

/// Collects appends to one channel and sends each batch as one call. Clones share it; it ends, after sending
/// what it holds, when the last clone is dropped or the node is closed.
#[derive(Clone)]
pub struct Batcher {
    queue: mpsc::Sender<Queued>,
    bus: Arc<Bus>,
    channel: ChannelPath,
    options: AppendOptions,
}

struct Queued {
    id: Uuid,
    append: Append,
    confirm: oneshot::Sender<Result<Receipt>>,
}

/// The receipt to come of an event given to a [`Batcher`]. It may be dropped: the event is appended all the same.
#[derive(Debug)]
pub struct Confirmation(oneshot::Receiver<Result<Receipt>>);

impl Batching {
    pub(super) fn new(bus: Arc<Bus>, counters: Arc<Counters>, channel: ChannelPath) -> Self {
        let (events_max, bytes_max) = (100, limits::BATCH_BYTES_MAX / 4);
        let wait_max = Duration::from_millis(5);
        Self { bus, counters, channel, events_max, bytes_max, wait_max, options: AppendOptions::default() }
    }

    /// Sends a batch when it holds so many events; 100, at most 1,000.
    pub fn events_max(mut self, events_max: usize) -> Self {
        self.events_max = events_max.clamp(1, limits::BATCH_EVENTS_MAX);
        self
    }

    /// Sends a batch before it would pass so many bytes; 1 MiB, at most 4 MiB.
    pub fn bytes_max(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max.min(limits::BATCH_BYTES_MAX);
        self
    }

    /// Sends a batch when its first event has waited so long; 5 ms.
    pub fn wait_max(mut self, wait_max: Duration) -> Self {
        self.wait_max = wait_max;
        self
    }

    /// Announces to nobody.
    pub fn quiet(mut self) -> Self {
        self.options = self.options.quiet();
        self
    }

    /// What must hold before a batch is confirmed.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options = self.options.durability(durability);
        self
    }

    /// Starts to collect.
    pub fn start(self) -> Batcher {
        let (queue, queued) = mpsc::channel(self.events_max);
        let batcher = Batcher {
            queue,
            bus: self.bus.clone(),
            channel: self.channel.clone(),
            options: self.options.clone(),
        };
        self.bus.clone().tasks.spawn(self.collect(queued));
        batcher
    }

    async fn collect(self, mut queued: mpsc::Receiver<Queued>) {
        let stop = self.bus.tasks.stopping().clone();
        let mut carried = None;
        loop {
            let first = match carried.take() {
                Some(first) => first,
                None => tokio::select! {
                    biased;
                    next = queued.recv() => match next {
                        Some(first) => first,
                        None => return,
                    },
                    () = stop.cancelled() => return,
                },
            };
            let mut bytes = first.append.envelope.len();
            let mut batch = vec![first];
            let waited = self.bus.clock.sleep(self.wait_max);
            tokio::pin!(waited);
            while batch.len() < self.events_max {
                let next = tokio::select! {
                    biased;
                    next = queued.recv() => next,
                    () = &mut waited => None,
                    () = stop.cancelled() => None,
                };
                let Some(next) = next else { break };
                bytes += next.append.envelope.len();
                if bytes > self.bytes_max {
                    carried = Some(next);
                    break;
                }
                batch.push(next);
            }
            self.send(batch).await;
        }
    }

    async fn send(&self, batch: Vec<Queued>) {
        let appends: Vec<_> = batch.iter().map(|queued| queued.append.clone()).collect();
        let outcomes = self.bus.append_batch(&self.counters, &appends).await;
        let mut outcomes = match outcomes {
            Ok(outcomes) => outcomes.into_iter(),
            Err(error) => {
                let shared = Arc::new(error);
                for queued in batch {
                    let error = Error::new(shared.kind(), shared.to_string());
                    confirm(queued.confirm, Err(error));
                }
                return;
            }
        };
        for Queued { id, confirm: to, .. } in batch {
            let outcome = outcomes.next().unwrap_or_else(|| Err(no_outcome()));
            confirm(to, outcome.map(|appended| Receipt::new(id, appended)));
        }
    }
}

/// The caller may have dropped the confirmation; then nobody wants to know.
fn confirm(to: oneshot::Sender<Result<Receipt>>, receipt: Result<Receipt>) {
    if let Err(Err(error)) = to.send(receipt) {
        tracing::warn!(%error, "a batched append failed and nobody waits for its receipt");
    }
}

impl Batcher {
    /// Takes an event into the next batch. Waits while the batcher holds a full batch that is not yet sent.
    ///
    /// # Errors
    /// `TooLarge` past a limit; `Closed`. The outcome of the append comes with the [`Confirmation`].
    pub async fn push(&self, mut event: Event) -> Result<Confirmation> {
        let _in_flight = self.bus.enter()?;
        let now = self.bus.clock.now();
        let append = self.options.clone().append(&self.bus, &self.channel, &mut event, now)?;
        let (confirm, confirmed) = oneshot::channel();
        let queued = Queued { id: event.id(), append, confirm };
        self.queue.send(queued).await.map_err(|_| Error::closed("this batcher"))?;
        Ok(Confirmation(confirmed))
    }
}

impl Future for Confirmation {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| match outcome {
            Ok(receipt) => receipt,
            Err(_) => Err(Error::new(ErrorKind::TimedOut, "node closed before the batch was confirmed")),
        })
    }
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batcher({})", self.channel)
    }
}
