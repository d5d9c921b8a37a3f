//! One event on its way through a handler.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use super::{Bench, Process};
use crate::bus::{DeadLetter, Delivery, Outcome, Pulled};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

/// Attempts after which a run is given up: a handler that parks or hands back each time would go on for ever.
const ATTEMPTS_MAX: usize = 1_000;
/// Real time after which the handler's timeout is made to pass.
const PATIENCE: Duration = Duration::from_secs(1);

/// An event to be handled, and what goes wrong meanwhile; awaiting it handles it.
#[must_use = "an event is handled when its run is awaited"]
pub struct Running<'b> {
    bench: &'b Bench,
    event: Event,
    key: Option<Box<str>>,
    failures: usize,
    crashes: usize,
}

/// What became of an event.
#[derive(Debug, Clone)]
pub struct Run {
    /// The attempts, in their order.
    pub attempts: Vec<Attempt>,
    /// The dead letter that it ended as, if it did.
    pub dead: Option<DeadLetter>,
}

/// One time that an event was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The attempt's number, as the handler saw it.
    pub number: u32,
    /// When it began.
    pub began: Timestamp,
    /// What the handler said; `None` if its process ended before that was kept.
    pub outcome: Option<Outcome>,
}

impl<'b> Running<'b> {
    pub(super) fn new(bench: &'b Bench, event: Event) -> Self {
        Self { bench, event, key: None, failures: 0, crashes: 0 }
    }

    /// Appends it with a key.
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The first `attempts` fail before the handler is called: retries as the group has them.
    pub fn failing(mut self, attempts: usize) -> Self {
        self.failures = attempts;
        self
    }

    /// In so many attempts the process ends after the handler has done its work and before that is acknowledged. The
    /// delivery comes again to a new process: what the handler does has to bear being done twice.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidewire::Result<()> {
    /// use std::collections::HashSet;
    /// use std::sync::{Arc, Mutex};
    /// use tidewire::testing::Bench;
    /// use tidewire::{Event, State};
    ///
    /// type Shipped = Arc<Mutex<HashSet<String>>>;
    ///
    /// async fn ship(State(shipped): State<Shipped>, event: Event) {
    ///     shipped.lock().unwrap().insert(event.id().to_string());
    /// }
    ///
    /// let shipped = Shipped::default();
    /// let state = shipped.clone();
    /// let bench = Bench::with(ship, move |consuming| consuming.state(state.clone())).await?;
    ///
    /// let run = bench.run(Event::new("order.placed", "7")).crashing(1).await?;
    /// run.assert_acked();
    /// assert_eq!(run.attempts.len(), 2);
    /// assert_eq!(shipped.lock().unwrap().len(), 1, "shipping twice is shipping once");
    /// # Ok(()) }
    /// ```
    pub fn crashing(mut self, attempts: usize) -> Self {
        self.crashes = attempts;
        self
    }

    async fn run(mut self) -> Result<Run> {
        let bench = self.bench;
        let mut process = bench.start().await?;
        let append = bench.channel()?.append(self.event.clone());
        match &self.key {
            Some(key) => append.key(key).await?,
            None => append.await?,
        };
        let mut run = Run { attempts: Vec::new(), dead: None };
        while run.attempts.len() < ATTEMPTS_MAX {
            let pulled = process.deliveries.next().await.ok_or_else(|| Error::closed("the bench"))?;
            let (number, began) = (pulled.delivery().attempt(), bench.clock.now());
            let outcome = self.attempt(&process, pulled.delivery().clone()).await;
            let outcome = if self.is_to_crash() {
                process = self.crash(process, pulled).await?;
                None
            } else {
                pulled.settled(outcome.clone()).await?;
                Some(outcome)
            };
            run.attempts.push(Attempt { number, began, outcome });
            if self.is_settled().await? {
                process.stop().await;
                run.dead = self.dead_letter().await?;
                return Ok(run);
            }
        }
        process.stop().await;
        let text = format!("the event was not settled in {ATTEMPTS_MAX} attempts");
        Err(Error::new(ErrorKind::TimedOut, text))
    }

    async fn attempt(&mut self, process: &Process, delivery: Delivery) -> Outcome {
        if self.failures > 0 {
            self.failures -= 1;
            return Outcome::retry("the test has this attempt fail");
        }
        let handling = process.service.handle(delivery);
        let timing_out = async {
            Clock::system().sleep(PATIENCE).await;
            self.bench.clock.advance(process.timeout);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            outcome = handling => outcome,
            () = timing_out => Outcome::HandBack,
        }
    }

    fn is_to_crash(&mut self) -> bool {
        let is_crash = self.crashes > 0;
        self.crashes = self.crashes.saturating_sub(1);
        is_crash
    }

    /// Ends the process that has the delivery, and waits for its lease in another.
    async fn crash(&self, process: Process, pulled: Pulled) -> Result<Process> {
        process.crash().await;
        drop(pulled);
        let next = self.bench.start().await?;
        self.bench.clock.advance(process.lease);
        Ok(next)
    }

    /// Whether nothing is left to do. Where the delivery waits, time passes until it is due.
    async fn is_settled(&self) -> Result<bool> {
        let Bench { clock, group, .. } = self.bench;
        loop {
            let status = group.status().await?;
            if let Some(due) = status.next_due {
                clock.advance(due.since(clock.now()));
                return Ok(false);
            }
            if status.lag_events > 0 {
                return Ok(false);
            }
            if status.outbox == 0 {
                return Ok(true);
            }
            // What was appended is taken off the outbox when the session renews its lease.
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    }

    async fn dead_letter(&self) -> Result<Option<DeadLetter>> {
        let dead_letters = self.bench.group.dead_letters();
        let mut after = Box::from("");
        loop {
            let page = dead_letters.list(&after, crate::limits::BATCH_EVENTS_MAX).await?;
            let own = page.letters.into_iter().find(|letter| letter.event_id() == Some(self.event.id()));
            match (own, page.next) {
                (None, Some(next)) => after = next,
                (own, _) => return Ok(own),
            }
        }
    }
}

impl<'b> IntoFuture for Running<'b> {
    type Output = Result<Run>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'b>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl Run {
    /// What the handler said in the end.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.attempts.last()?.outcome.as_ref()
    }

    /// How long the event waited between one attempt and the next: its retries as they were, jitter included, and after a
    /// crash the lease.
    pub fn waits(&self) -> Vec<Duration> {
        let pairs = self.attempts.iter().zip(self.attempts.iter().skip(1));
        pairs.map(|(one, next)| next.began.since(one.began)).collect()
    }

    /// Panics unless the event was acknowledged in the end.
    #[track_caller]
    pub fn assert_acked(&self) {
        assert_eq!(self.outcome(), Some(&Outcome::Ack), "the event was not acknowledged: {self:?}");
    }

    /// The dead letter that the event ended as; panics if it did not.
    #[track_caller]
    pub fn assert_dead(&self) -> &DeadLetter {
        match &self.dead {
            Some(letter) => letter,
            None => panic!("the event is no dead letter: {self:?}"),
        }
    }

    /// Panics unless the event was tried again so many times before it was settled.
    #[track_caller]
    pub fn assert_retried(&self, retries: usize) {
        assert_eq!(self.attempts.len(), retries + 1, "the event was not retried so often: {self:?}");
    }
}
