//! One endpoint: its group is consumed while it is enabled, and waits while it is not.

use std::sync::Arc;
use std::time::Duration;

use tidewire::clock::Stopwatch;
use tidewire::name::GroupPath;
use tidewire::{Clock, Consumer, Delivery, Event, Group, Outcome, Tidewire};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::sender::{Answer, Sender};
use super::standing::{Record, Standing};
use crate::config::WebhookConfig;

/// How often a disabled endpoint is looked at, in case another node has enabled it.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Wait before a consumer is begun again that could not begin.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What a handler waits for before it hands back what is not to be sent, until its consumer has heard that it is to stop.
const HAND_BACK_AFTER: Duration = Duration::from_millis(100);

/// The type of the event that tries an endpoint.
const TEST_TYPE: &str = "tidewire.test";

/// One endpoint.
pub(crate) struct Endpoint {
    config: WebhookConfig,
    group: Group,
    sender: Sender,
    record: Record,
    clock: Clock,
    /// It was enabled or disabled.
    changed: Notify,
}

/// What a test event came to.
pub(crate) struct Tested {
    pub(crate) status: Option<u16>,
    /// Why it was not accepted.
    pub(crate) problem: Option<String>,
    pub(crate) took: Duration,
}

impl Endpoint {
    /// # Errors
    /// What cannot be used of the settings.
    pub(super) fn new(config: WebhookConfig, tidewire: &Tidewire, clock: Clock) -> Result<Self, String> {
        let tenant = tidewire.tenant(&config.tenant).map_err(|error| error.to_string())?;
        let group = tenant
            .channel(&config.channel)
            .and_then(|channel| channel.group(&config.name, config.start.into()));
        let group = group.map_err(|error| error.to_string())?;
        Ok(Self {
            group: if config.partitions == 0 { group } else { group.ordered(config.partitions) },
            sender: Sender::new(&config, clock.clone())?,
            record: Record::new(tenant, &config.name, clock.clone()),
            config,
            clock,
            changed: Notify::new(),
        })
    }

    /// Its settings.
    pub(crate) fn config(&self) -> &WebhookConfig {
        &self.config
    }

    pub(super) async fn declare(&self) -> tidewire::Result<()> {
        self.group.declare().await.map(drop)
    }

    /// How it does now.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn standing(&self) -> tidewire::Result<Standing> {
        self.record.current().await
    }

    /// Its group, and whether events are sent to it, as of a few seconds ago.
    pub(crate) async fn glance(&self) -> (GroupPath, bool) {
        (self.group.path().clone(), self.record.recent().await.disabled.is_none())
    }

    /// Sends again what waits, and what comes.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn enable(&self) -> tidewire::Result<Standing> {
        let standing = self.record.enable().await;
        self.changed.notify_one();
        standing
    }

    /// Sends nothing any more until it is enabled; events wait.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn disable(&self, why: &str) -> tidewire::Result<Standing> {
        let standing = self.record.disable(why).await;
        self.changed.notify_one();
        standing
    }

    /// Sends a test event, beside the stream, also to an endpoint that is disabled. Nothing follows from the answer.
    pub(crate) async fn test(&self) -> Tested {
        let event = Event::new(TEST_TYPE, r#"{"test":true}"#).with_time(self.clock.now());
        let watch = Stopwatch::start();
        let answer = self.sender.send(&event, self.group.path().channel()).await;
        let problem = (!matches!(answer, Answer::Accepted(_))).then(|| answer.to_string());
        Tested { status: answer.status().map(|status| status.as_u16()), problem, took: watch.elapsed() }
    }

    /// Consumes its group while it is enabled, until `stop` fires.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if self.record.recent().await.disabled.is_some() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.changed.notified() => {}
                    () = self.clock.sleep(LOOK_EVERY) => {}
                }
                continue;
            }
            match self.clone().consume().await {
                Ok(consumer) => self.attend(&consumer, &stop).await,
                Err(error) => {
                    tracing::warn!(%error, webhook = self.config.name, "a webhook cannot begin; trying again");
                    stop.run_until_cancelled(self.clock.sleep(TRY_AGAIN_AFTER)).await;
                }
            }
        }
    }

    async fn consume(self: Arc<Self>) -> tidewire::Result<Consumer> {
        let (concurrency, retries) = (self.config.concurrency, self.config.retries);
        // The sender gives up by itself, and says better why.
        let timeout = self.config.timeout + Duration::from_secs(10);
        let consuming =
            self.group.consume().concurrency(concurrency).retries(retries.into()).timeout(timeout);
        consuming.run(move |delivery: Delivery| deliver(self.clone(), delivery)).await
    }

    /// Waits until its consumer is to stop, and stops it.
    async fn attend(&self, consumer: &Consumer, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.changed.notified() => {}
            }
            if self.record.recent().await.disabled.is_some() {
                break;
            }
        }
        consumer.stop().await;
    }

    /// Has the consumer stopped, if the endpoint is disabled, and the delivery wait with the others.
    async fn hand_back(&self) -> Outcome {
        self.changed.notify_one();
        self.clock.sleep(HAND_BACK_AFTER).await;
        Outcome::HandBack
    }

    async fn fail(&self, answer: &Answer) {
        let standing = self.record.fail(&answer.to_string(), self.config.disable_after).await;
        if standing.disabled.is_some() {
            self.changed.notify_one();
        }
    }
}

/// Sends one delivery.
async fn deliver(endpoint: Arc<Endpoint>, delivery: Delivery) -> Outcome {
    if endpoint.record.recent().await.disabled.is_some() {
        return endpoint.hand_back().await;
    }
    let answer = tokio::select! {
        biased;
        // Another node sends it now, or will.
        () = delivery.lost().cancelled() => return Outcome::HandBack,
        answer = endpoint.sender.send(delivery.event(), delivery.group().channel()) => answer,
    };
    match &answer {
        Answer::Accepted(_) => {
            endpoint.record.succeed().await;
            Outcome::Ack
        }
        Answer::Gone => match endpoint.disable(&answer.to_string()).await {
            Ok(_) => endpoint.hand_back().await,
            Err(error) => Outcome::retry(format_args!("{answer}, and that was not kept: {error}")),
        },
        Answer::Later(_, after) => {
            endpoint.fail(&answer).await;
            Outcome::retry_after(*after, answer)
        }
        Answer::Refused(_) | Answer::Failed(_) => {
            endpoint.fail(&answer).await;
            Outcome::retry(answer)
        }
    }
}
