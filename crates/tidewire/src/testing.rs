//! For tests of what handles events: a real engine in memory, a real group on it, and time that moves only when it has to.
//!
//! [`docs/testing.md`](https://github.com/tidewire/tidewire/blob/main/docs/testing.md) shows what tests look like.

mod run;

use std::fmt;
use std::time::Duration;

pub use run::{Attempt, Run, Running};

use crate::bus::{Channel, Consuming, Deliveries, EventHandler, Group, HandlerService};
use crate::clock::{Clock, Timestamp};
use crate::engine::Start;
use crate::error::Result;
use crate::event::Event;
use crate::limits;
use crate::tenant::Tenant;
use crate::tidewire::Tidewire;

/// When a bench begins, so that what a test prints is the same each time: 2026-01-01T00:00:00Z.
const BEGIN: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// A place to try a handler: one event after the other, each to its end.
///
/// What is between an event and the handler is what is there in production: the stream, the group, its leases, retries and
/// dead letters, on the engine `memory:`. Only time is not real: where a delivery waits, the clock is moved to where it is
/// due.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidewire::Result<()> {
/// use std::time::Duration;
/// use tidewire::testing::Bench;
/// use tidewire::{Delivery, Emit, Event, Json, Outcome};
///
/// async fn ship(Json(order): Json<u64>, delivery: Delivery, emit: Emit) -> Result<(), Outcome> {
///     if delivery.attempt() == 1 {
///         return Err(Outcome::retry_after(Duration::from_secs(60), "the carrier is closed"));
///     }
///     emit.append("shipments", Event::new("order.shipped", order.to_string()))?;
///     Ok(())
/// }
///
/// let bench = Bench::new(ship).await?;
///
/// let run = bench.run(Event::new("order.placed", "7")).await?;
/// run.assert_acked();
/// assert_eq!(run.waits(), [Duration::from_secs(60)]);
/// assert_eq!(bench.appended("shipments").await?.len(), 1);
///
/// let run = bench.run(Event::new("order.placed", "seven")).await?;
/// assert!(run.assert_dead().reason.contains("is not JSON"));
/// # Ok(()) }
/// ```
pub struct Bench {
    tidewire: Tidewire,
    clock: Clock,
    tenant: Tenant,
    group: Group,
    handler: Box<MakeProcess>,
}

/// Makes the consumer and its handler anew, as each process of it would.
type MakeProcess = dyn Fn(&Group) -> Result<(Consuming, HandlerService)> + Send + Sync;

/// Another node on the engine of a first one, in the same process: for tests of what several nodes do with each other, on an
/// engine that only one process can open. With a clock of its own it can stand still. Its tasks run on the runtime that it is
/// used on, so dropping that runtime is as a `kill -9` of the node; closing either node closes the engine of both.
pub fn beside(first: &Tidewire, clock: Clock) -> Tidewire {
    first.beside(clock)
}

/// A process of the group under test.
struct Process {
    deliveries: Deliveries,
    service: HandlerService,
    timeout: Duration,
    lease: Duration,
}

impl Bench {
    /// A bench for `handler`, consumed with default settings.
    ///
    /// # Errors
    /// As [`Consuming::run`].
    pub async fn new<Args: 'static>(handler: impl EventHandler<Args>) -> Result<Self> {
        Self::with(handler, |consuming| consuming).await
    }

    /// A bench for `handler`, consumed as `configure` says: with its states, layers, retries, dedup. A breaker and a pool
    /// are left out, for one event alone waits for neither.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidewire::Result<()> {
    /// use tidewire::testing::Bench;
    /// use tidewire::{Event, Outcome, Retries, State};
    ///
    /// async fn charge(State(limit): State<usize>, event: Event) -> Result<(), Outcome> {
    ///     if event.data().len() > limit { Err(Outcome::retry("declined")) } else { Ok(()) }
    /// }
    ///
    /// let retries = Retries { attempts_max: 3, ..Retries::default() };
    /// let bench = Bench::with(charge, move |consuming| consuming.state(3_usize).retries(retries)).await?;
    ///
    /// bench.run(Event::new("payment", "99")).await?.assert_acked();
    /// let run = bench.run(Event::new("payment", "9999")).await?;
    /// assert_eq!(run.assert_dead().attempts, 3);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Consuming::run`].
    pub async fn with<Args: 'static>(
        handler: impl EventHandler<Args>,
        configure: impl Fn(Consuming) -> Consuming + Send + Sync + 'static,
    ) -> Result<Self> {
        let clock = Clock::virtual_at(BEGIN);
        let tidewire = Tidewire::builder("memory:").clock(clock.clone()).open().await?;
        let tenant = tidewire.tenant("test")?;
        let group = tenant.channel("tested")?.group("bench", Start::Earliest)?;
        let handler: Box<MakeProcess> =
            Box::new(move |group| configure(group.consume()).with_handler(handler.clone()));
        let bench = Self { tidewire, clock, tenant, group, handler };
        // What the handler lacks is said now, and not with the first event.
        bench.start().await?.stop().await;
        Ok(bench)
    }

    /// Gives the event to the handler until it is settled; await the result.
    pub fn run(&self, event: Event) -> Running<'_> {
        Running::new(self, event)
    }

    /// The tenant of the handler: for states that publish, append or read by themselves, and to see what they did.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The node under the bench.
    pub fn tidewire(&self) -> &Tidewire {
        &self.tidewire
    }

    /// The clock, which stands still while nothing waits. A handler that asks for the time should ask it.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The group of the handler: its dead letters, its status.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// What was appended to a channel of the tenant until now, emitted or otherwise; at most 1,000 events.
    ///
    /// # Errors
    /// `InvalidName`; `Codec` for what is no event.
    pub async fn appended(&self, channel: &str) -> Result<Vec<Event>> {
        let history = self.tenant.channel(channel)?.read().limit(limits::BATCH_EVENTS_MAX).await?;
        Ok(history.events.into_iter().map(|received| received.event).collect())
    }

    fn channel(&self) -> Result<Channel> {
        self.tenant.channel(self.group.path().channel().channel())
    }

    async fn start(&self) -> Result<Process> {
        let (consuming, service) = (self.handler)(&self.group)?;
        let (timeout, lease) = consuming.times();
        let deliveries = consuming.concurrency(1).deliveries().await?;
        Ok(Process { deliveries, service, timeout, lease })
    }
}

impl Process {
    async fn stop(self) {
        self.deliveries.consumer().stop().await;
    }

    /// Ends it in the middle of what it does.
    async fn crash(&self) {
        self.deliveries.consumer().crash();
        self.deliveries.consumer().stop().await;
    }
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bench({})", self.clock.now())
    }
}

#[cfg(test)]
mod tests;
