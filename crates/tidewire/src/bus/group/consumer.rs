//! Consumers: what runs the handlers of a group on this node, or hands out deliveries one by one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument as _;

use super::Group;
use super::breaker::{Breaker, BreakerState, Breaking};
use super::counters::{ConsumerStats, Counters, add};
use super::delivery::{Delivery, States};
use super::extract::Unknown;
use super::gate::{Gate, Leave};
use super::handler::{EventHandler, HandlerService};
use super::outcome::{IntoOutcome, Outcome};
use super::pool::{Pool, Share};
use super::queue::{Done, Job, Queue, Token, Verdict};
use super::retries::Retries;
use super::session::Session;
use super::settings::Settings;
use super::span;
use crate::bus::lane::Lane;
use crate::bus::{Bus, Gap, event_log};
use crate::clock::Stopwatch;
use crate::engine::Interest;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Unreadable;

/// How a group is consumed on this node; [`run`](Self::run) or [`deliveries`](Self::deliveries) starts it.
#[must_use = "a consumer starts with run() or deliveries()"]
pub struct Consuming {
    group: Group,
    settings: Settings,
    states: States,
    breaking: Option<Breaking>,
    share: Option<(Pool, Share)>,
    is_verified: bool,
    layers: Vec<Box<dyn FnOnce(HandlerService) -> HandlerService + Send>>,
}

impl Consuming {
    pub(super) fn new(group: Group) -> Self {
        Self {
            group,
            settings: Settings::default(),
            states: States::default(),
            breaking: None,
            share: None,
            is_verified: false,
            layers: Vec::new(),
        }
    }

    /// Handlers that run at once; 64.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.settings.concurrency = handlers.max(1);
        self
    }

    /// How long this process holds its deliveries without a word; 5 s, at least 100 ms. It is renewed three times as
    /// often, whatever the handlers do; when the process is dead, its deliveries come again after this.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// When and how often a failed delivery comes again.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.settings.retries = retries;
        self
    }

    /// Holds deliveries back while the handlers of this process fail; they burn no attempt meanwhile. Without it each is
    /// retried by itself.
    pub fn breaker(mut self, breaking: Breaking) -> Self {
        self.breaking = Some(breaking);
        self
    }

    /// Shares the slots of `pool` with its other consumers, beside the limit of [`concurrency`](Self::concurrency).
    pub fn pool(mut self, pool: &Pool, share: Share) -> Self {
        self.share = Some((pool.clone(), share));
        self
    }

    /// A handler that takes longer is dropped at its next `await`, and the delivery is retried; 10 minutes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Drops an event whose id this group has handled within `window`. The mark is written in the step that acknowledges
    /// the delivery. Two copies that two processes handle at the same moment are both handled; with order by a key that
    /// the copies share they are not.
    pub fn dedup(mut self, window: Duration) -> Self {
        self.settings.dedup = Some(window);
        self
    }

    /// How long a parked key waits; 5 minutes.
    pub fn park_time(mut self, time: Duration) -> Self {
        self.settings.park_time = time;
        self
    }

    /// How long a stop waits for handlers that have begun; 10 s. After that their deliveries are handed back.
    pub fn stop_within(mut self, time: Duration) -> Self {
        self.settings.stop_within = time;
        self
    }

    /// What handlers emit is dropped: for a replay into a group of its own that is to have no effect.
    pub fn muted(mut self) -> Self {
        self.settings.is_muted = true;
        self
    }

    /// What becomes of an event of a type or version that the handler does not take, where it takes typed events: it is a
    /// dead letter, unless this says otherwise.
    pub fn unknown(mut self, unknown: Unknown) -> Self {
        self.settings.unknown = unknown;
        self
    }

    /// Is called with every stretch of events that the group does not get: trimmed, damaged, or lost by the engine. It must
    /// not block.
    pub fn on_gap(mut self, told: impl Fn(&Gap) + Send + Sync + 'static) -> Self {
        self.settings.on_gap = Some(Arc::new(told));
        self
    }

    /// What handlers get as [`State`](super::State), one value per type.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.insert(state);
        self
    }

    /// Wraps the handler in a `tower` layer; later ones are outside of earlier ones. All of them are inside of decoding,
    /// dedup, breaker, retries and timeout, whose order is fixed.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<HandlerService> + Send + 'static,
        L::Service: Service<Delivery, Response: IntoOutcome, Error: fmt::Display, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.layers.push(Box::new(|service| service.layered(layer)));
        self
    }

    /// Makes the group if it is not there and runs `handler` for each delivery, until the consumer is stopped.
    ///
    /// # Errors
    /// `InvalidName` if an argument of the handler asks for a state that was not given; as
    /// [`Group::declare`] otherwise.
    pub async fn run<Args: 'static>(self, handler: impl EventHandler<Args>) -> Result<Consumer> {
        let (consuming, service) = self.with_handler(handler)?;
        let Self { group, settings, states, breaking, share, .. } = consuming;
        let concurrency = settings.concurrency;
        let gate = Gate {
            breaker: breaking
                .map(|breaking| Breaker::new(breaking, group.path.clone(), group.bus.clock.clone())),
            member: share.map(|(pool, share)| pool.member(share)),
        };
        let consumer = Consumer::start(group, settings, states, gate).await?;
        for _ in 0..concurrency {
            let running = consumer.running.clone();
            let service = service.clone();
            let crashed = running.crashed.clone();
            let work = async move { running.work(service).await };
            consumer.running.bus.tasks.spawn(async move {
                crashed.run_until_cancelled(work).await;
            });
        }
        Ok(consumer)
    }

    /// The handler with all that is around it between a delivery and its outcome.
    pub(crate) fn with_handler<Args: 'static>(
        mut self,
        handler: impl EventHandler<Args>,
    ) -> Result<(Self, HandlerService)> {
        let layers = std::mem::take(&mut self.layers).into_iter();
        let service = layers.fold(HandlerService::new(handler), |service, layer| layer(service));
        let service = service.with_timeout(self.settings.timeout, self.group.bus.clock.clone());
        service.check(&self.states)?;
        self.group.bus.catalogs.declare(service.contracts())?;
        Ok((self, service))
    }

    /// The longest that a handler may take, and how long the process holds its deliveries without a word.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        (self.settings.timeout, self.settings.lease)
    }

    /// Holds each event against the contract that the tenant or the program has of its type, before it is handed out one by one
    /// by [`deliveries`](Self::deliveries): its signature, its seal, its data. One that does not keep to it is a dead letter.
    /// Handlers of typed events do so by themselves.
    pub fn verified(mut self) -> Self {
        self.is_verified = true;
        self
    }

    /// Makes the group if it is not there and hands out its deliveries to whoever asks for the next one.
    ///
    /// # Errors
    /// As [`Group::declare`].
    pub async fn deliveries(self) -> Result<Deliveries> {
        let Self { group, settings, states, is_verified, .. } = self;
        let consumer = Consumer::start(group, settings, states, Gate::default()).await?;
        Ok(Deliveries { consumer, is_verified })
    }
}

/// A running consumer. Dropping it stops it in the background; [`stop`](Self::stop) waits for that.
pub struct Consumer {
    running: Arc<Running>,
}

/// What a consumer's tasks share.
struct Running {
    bus: Arc<Bus>,
    group: Group,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    gate: Gate,
    stop: CancellationToken,
    stopped: CancellationToken,
    crashed: CancellationToken,
}

impl Consumer {
    async fn start(group: Group, settings: Settings, states: States, gate: Gate) -> Result<Self> {
        let bus = group.bus.clone();
        drop(bus.enter()?);
        let (queue, counters) = (Arc::<Queue>::default(), Arc::<Counters>::default());
        let lane = Arc::new(Lane::new(&bus.limits, None));
        let interest = Interest::Work(group.path.channel().clone());
        // Heard before the group is looked at, so that nothing falls in between.
        bus.hub.listen(&interest, lane.clone()).await?;
        let opened = bus.engine.log.group_open(&group.path, group.opening).await;
        let (stop, stopped) = (bus.tasks.stopping().child_token(), CancellationToken::new());
        let crashed = CancellationToken::new();
        let session = Session::new(&group, settings, states, queue.clone(), counters.clone(), lane.clone());
        let running = Arc::new(Running {
            bus: bus.clone(),
            group,
            queue: queue.clone(),
            counters: counters.clone(),
            gate,
            stop: stop.clone(),
            stopped: stopped.clone(),
            crashed: crashed.clone(),
        });
        if let Err(error) = opened {
            if bus.hub.leave(&interest, &lane) {
                drop(bus.hub.release(interest).await);
            }
            return Err(error);
        }
        let (tasks, path) = (bus.tasks.clone(), running.group.path.clone());
        bus.consumers.begin(&path, &counters, running.gate.breaker.as_ref());
        tasks.spawn(async move {
            crashed.run_until_cancelled(session.run(stop)).await;
            queue.close();
            bus.consumers.end(&path, &counters);
            if bus.hub.leave(&interest, &lane)
                && let Err(error) = bus.hub.release(interest).await
            {
                tracing::debug!(%error, "the work of a group is still listened to");
            }
            stopped.cancel();
        });
        Ok(Self { running })
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.running.group
    }

    /// What this consumer did.
    pub fn stats(&self) -> ConsumerStats {
        self.running.counters.stats()
    }

    /// Whether deliveries are held back because handlers fail; always closed without [`Consuming::breaker`].
    pub fn breaker(&self) -> BreakerState {
        self.running.gate.state()
    }

    /// Ends as with its process: at once, in the middle of whatever its handlers do, and without a word to the engine.
    pub(crate) fn crash(&self) {
        self.running.crashed.cancel();
    }

    /// Takes nothing new, waits for the handlers that have begun ([`Consuming::stop_within`]), hands the rest back without
    /// an attempt counted, and ends.
    pub async fn stop(&self) {
        self.running.stop.cancel();
        self.running.stopped.cancelled().await;
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.running.stop.cancel();
    }
}

impl Running {
    /// Leave to handle a delivery; none if the consumer stops or the delivery is lost before.
    async fn leave_for(&self, delivery: &Delivery) -> Option<Leave> {
        if self.gate.is_open() {
            return Some(self.gate.leave().await);
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = delivery.lost().cancelled() => None,
            leave = self.gate.leave() => Some(leave),
        }
    }

    /// An attempt begins.
    fn begin(&self, delivery: &Delivery) {
        add(&self.counters.delivered, 1);
        event_log::delivered(delivery, || self.bus.clock.now().since(delivery.time()));
    }

    /// Handles one delivery after the other.
    async fn work(&self, service: HandlerService) {
        while let Some(Job { token, delivery }) = self.queue.pop().await {
            let Some(leave) = self.leave_for(&delivery).await else {
                let verdict = Verdict::Settled(Outcome::HandBack);
                self.queue.finish(Done { token, delivery, verdict, took: Duration::ZERO, kept: None });
                continue;
            };
            self.begin(&delivery);
            let watch = Stopwatch::start();
            let outcome = service.handle(delivery.clone()).instrument(span::of(&delivery)).await;
            leave.end(&outcome);
            self.queue.finish(Done {
                token,
                delivery,
                verdict: Verdict::Settled(outcome),
                took: watch.elapsed(),
                kept: None,
            });
        }
    }
}

/// The deliveries of a group on this node, for whoever asks for the next one. Dropping it stops the consumer.
pub struct Deliveries {
    consumer: Consumer,
    is_verified: bool,
}

impl Deliveries {
    /// The next delivery; `None` once the consumer is stopped. Dropping the future takes nothing.
    pub async fn next(&self) -> Option<Pulled> {
        loop {
            let job = self.consumer.running.queue.pop().await?;
            if let Some(pulled) = self.admitted(job) {
                return Some(pulled);
            }
        }
    }

    /// The next delivery, if there is one now.
    pub fn try_next(&self) -> Option<Pulled> {
        loop {
            if let Some(pulled) = self.admitted(self.consumer.running.queue.try_pop()?) {
                return Some(pulled);
            }
        }
    }

    /// The delivery of a job; none if its event does not keep to its contract, which is settled then.
    fn admitted(&self, job: Job) -> Option<Pulled> {
        let pulled = self.pulled(job);
        if !self.is_verified {
            return Some(pulled);
        }
        let (tenant, event) = (self.consumer.group().path.channel().tenant(), pulled.delivery().event());
        let outcome = match self.consumer.running.bus.verify(tenant, event) {
            Ok(()) => return Some(pulled),
            Err(why @ Unreadable::UnknownKey(_)) => Outcome::retry(why),
            Err(why) => Outcome::reject(why),
        };
        pulled.settle(outcome);
        None
    }

    /// The consumer behind it.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    fn pulled(&self, Job { token, delivery }: Job) -> Pulled {
        self.consumer.running.begin(&delivery);
        Pulled {
            delivery,
            token,
            queue: self.consumer.running.queue.clone(),
            watch: Stopwatch::start(),
            is_settled: false,
        }
    }
}

/// A delivery that waits to be settled. Dropping it hands it back, without an attempt counted.
#[must_use = "a delivery is settled by an outcome; dropped, it comes back"]
pub struct Pulled {
    delivery: Delivery,
    token: Token,
    queue: Arc<Queue>,
    watch: Stopwatch,
    is_settled: bool,
}

impl Pulled {
    /// The delivery.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Settles it. That is kept with the next turn, a few milliseconds later; of a process that dies before, the delivery
    /// comes again.
    pub fn settle(mut self, outcome: impl IntoOutcome) {
        self.finish(Verdict::Settled(outcome.into_outcome()), None);
    }

    /// Settles it, at once; await the answer to know that it is kept.
    pub fn settled(mut self, outcome: impl IntoOutcome) -> Settling {
        let (kept, answer) = oneshot::channel();
        self.finish(Verdict::Settled(outcome.into_outcome()), Some(kept));
        Settling(answer)
    }

    /// Gives up on it as if its process had died: that counts as an attempt.
    pub fn abandon(mut self) {
        self.finish(Verdict::Abandoned, None);
    }

    fn finish(&mut self, verdict: Verdict, kept: Option<oneshot::Sender<()>>) {
        self.is_settled = true;
        let (token, delivery, took) = (self.token, self.delivery.clone(), self.watch.elapsed());
        self.queue.finish(Done { token, delivery, verdict, took, kept });
    }
}

impl Drop for Pulled {
    fn drop(&mut self) {
        if !self.is_settled {
            self.finish(Verdict::Settled(Outcome::HandBack), None);
        }
    }
}

/// A settlement on its way to the engine; awaiting it is awaiting that it is kept. Dropping it changes nothing.
#[derive(Debug)]
pub struct Settling(oneshot::Receiver<()>);

impl Future for Settling {
    type Output = Result<()>;

    /// `LockLost` if the delivery was lost before: it comes again.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost =
            |_| Error::new(ErrorKind::LockLost, "delivery was lost before it was settled: it comes again");
        Pin::new(&mut self.0).poll(context).map(|kept| kept.map_err(lost))
    }
}

impl fmt::Debug for Consuming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consuming").field("group", &self.group.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consumer({})", self.running.group.path)
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deliveries({})", self.consumer.running.group.path)
    }
}

impl fmt::Debug for Pulled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pulled({:?})", self.delivery)
    }
}
