//! One connection of a storm: listens, is cut, comes back for what it missed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::anyhow;
use tidewire_protocol::{Method, Publication, PushBody, Reply, ReplyBody, SubscribeRequest, SubscribeResult};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};

use crate::bench::client::{Connection, check_push};
use crate::bench::crowd::Counter;
use crate::bench::number::{Faults, Sequence, number_in};
use crate::bench::target::Target;
use crate::wire::Ended;

/// The wait before an attempt to connect, as the published SDKs have it: the least, and a random part of a time that
/// doubles up to the longest.
const LEAST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// What all connections of the storm are in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    Listening,
    Cut,
    Recovering,
}

/// How many are how far.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) opened: Counter,
    /// Heard the event before the cut.
    pub(super) began: Counter,
    pub(super) cut: Counter,
    pub(super) recovered: Counter,
    /// Attempts to recover that failed, and connections that were lost again after one that did not.
    pub(super) failed_attempts: Counter,
    /// Why the first of them failed.
    pub(super) first_failure: OnceLock<String>,
}

/// What is the same for all.
pub(super) struct Plan {
    pub(super) target: Arc<Target>,
    pub(super) is_at_once: bool,
    /// The number of the first event after those that are missed.
    pub(super) missed_until: u64,
    pub(super) opening: Semaphore,
    pub(super) progress: Arc<Progress>,
}

/// What a connection went through.
pub(super) struct Followed {
    pub(super) recovered_after: Duration,
    pub(super) faults: Faults,
}

pub(super) struct Follower {
    plan: Arc<Plan>,
    stage: watch::Receiver<Stage>,
    subscription: Subscription,
}

/// Where a subscription is, over several connections.
struct Subscription {
    channel: String,
    epoch: String,
    offset: u64,
    sequence: Sequence,
    is_confirmed: bool,
    was_subscribed: bool,
    missed_until: u64,
}

impl Follower {
    pub(super) fn new(plan: Arc<Plan>, channel: String, stage: watch::Receiver<Stage>) -> Self {
        let subscription = Subscription {
            channel,
            epoch: String::new(),
            offset: 0,
            sequence: Sequence::from(0),
            is_confirmed: false,
            was_subscribed: false,
            missed_until: plan.missed_until,
        };
        Self { plan, stage, subscription }
    }

    /// Goes through all stages; returns when the event after those that were missed is there.
    pub(super) async fn follow(mut self) -> Result<Followed, Ended> {
        let mut connection = self.open().await?;
        self.until_cut(&mut connection).await?;
        drop(connection);
        self.plan.progress.cut.add(1);
        self.wait_for(Stage::Recovering).await?;
        let start = Instant::now();
        let mut connection = self.recover().await?;
        let recovered_after = start.elapsed();
        self.plan.progress.recovered.add(1);
        // A server that is still busy with the others may well end it again.
        while let Err(ended) = self.listen(&mut connection, self.plan.missed_until + 1).await {
            self.count_failed(ended)?;
            connection = self.recover().await?;
        }
        connection.close().await;
        Ok(Followed { recovered_after, faults: self.subscription.sequence.faults })
    }

    async fn open(&mut self) -> Result<Connection, Ended> {
        let plan = self.plan.clone();
        let permit = plan.opening.acquire().await.map_err(|error| Ended::Final(error.into()))?;
        let mut connection = Connection::open(&plan.target).await?;
        self.subscription.ask(&mut connection).await?;
        drop(permit);
        plan.progress.opened.add(1);
        Ok(connection)
    }

    /// Hears the first event, and listens on.
    async fn until_cut(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        self.listen(connection, 1).await?;
        self.plan.progress.began.add(1);
        let Self { stage, subscription, .. } = self;
        tokio::select! {
            changed = stage.wait_for(|stage| *stage == Stage::Cut) => match changed {
                Ok(_) => Ok(()),
                Err(error) => Err(Ended::Final(error.into())),
            },
            ended = async {
                loop {
                    subscription.read(connection).await?;
                }
            } => ended,
        }
    }

    /// Connects until it has all that it missed.
    async fn recover(&mut self) -> Result<Connection, Ended> {
        let mut attempt_count = 0;
        loop {
            if attempt_count > 0 || !self.plan.is_at_once {
                sleep(wait_before(attempt_count)).await;
            }
            match self.try_recover().await {
                Ok(connection) => return Ok(connection),
                // Without end: whoever waits for all of them gives up some time.
                Err(ended) => self.count_failed(ended)?,
            }
            attempt_count += 1;
        }
    }

    fn count_failed(&self, ended: Ended) -> Result<(), Ended> {
        match ended {
            Ended::Lost(reason) => {
                self.plan.progress.failed_attempts.add(1);
                self.plan.progress.first_failure.get_or_init(|| reason);
                Ok(())
            }
            Ended::Final(error) => Err(Ended::Final(error)),
        }
    }

    async fn try_recover(&mut self) -> Result<Connection, Ended> {
        let mut connection = Connection::open(&self.plan.target).await?;
        self.subscription.ask(&mut connection).await?;
        self.listen(&mut connection, self.plan.missed_until).await?;
        Ok(connection)
    }

    /// Until the event before number `until` is there.
    async fn listen(&mut self, connection: &mut Connection, until: u64) -> Result<(), Ended> {
        while self.subscription.sequence.next() < until {
            self.subscription.read(connection).await?;
        }
        Ok(())
    }

    async fn wait_for(&mut self, wanted: Stage) -> Result<(), Ended> {
        let reached = self.stage.wait_for(|stage| *stage == wanted).await;
        reached.map(drop).map_err(|error| Ended::Final(error.into()))
    }
}

impl Subscription {
    /// Subscribes, from where it was, and waits for the answer.
    async fn ask(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        let request = SubscribeRequest {
            channel: self.channel.as_str().into(),
            positioned: true,
            recoverable: true,
            recover: self.was_subscribed,
            epoch: self.epoch.as_str().into(),
            offset: self.offset,
            ..SubscribeRequest::default()
        };
        connection.send(vec![Method::Subscribe(request)]).await?;
        self.is_confirmed = false;
        while !self.is_confirmed {
            self.read(connection).await?;
        }
        Ok(())
    }

    async fn read(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        connection.read(|reply| self.hear(&reply)).await
    }

    fn hear(&mut self, reply: &Reply<'_>) -> Result<(), Ended> {
        match &reply.body {
            ReplyBody::Subscribe(result) => self.confirmed(result),
            ReplyBody::Error(error) => Err(Ended::by_error(&self.channel, error)),
            ReplyBody::Push(push) => match &push.body {
                PushBody::Publication(event) => {
                    self.arrived(event);
                    Ok(())
                }
                other => check_push(other),
            },
            _ => Ok(()),
        }
    }

    fn confirmed(&mut self, result: &SubscribeResult<'_>) -> Result<(), Ended> {
        if !result.recoverable {
            return Err(Ended::Final(anyhow!(
                "nothing can be recovered in {}, because it keeps no events: name one that does with --channel",
                self.channel
            )));
        }
        if self.was_subscribed && !result.recovered {
            // The server says so, and goes on from its newest event.
            self.sequence.skip_to(self.missed_until);
        }
        if !self.was_subscribed || !result.recovered {
            self.offset = result.offset;
        }
        self.epoch = result.epoch.clone().into_owned();
        self.is_confirmed = true;
        self.was_subscribed = true;
        result.publications.iter().for_each(|event| self.arrived(event));
        Ok(())
    }

    fn arrived(&mut self, event: &Publication<'_>) {
        self.offset = self.offset.max(event.offset);
        if let Some(number) = number_in(event.data.as_bytes()) {
            self.sequence.hear(number);
        }
    }
}

fn wait_before(attempt: u32) -> Duration {
    let random_part = LEAST_WAIT.saturating_mul(2_u32.saturating_pow(attempt)).mul_f64(fastrand::f64());
    LEAST_WAIT.saturating_add(random_part).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription() -> Subscription {
        Subscription {
            channel: "bench".into(),
            epoch: String::new(),
            offset: 0,
            sequence: Sequence::from(0),
            is_confirmed: false,
            was_subscribed: false,
            missed_until: 11,
        }
    }

    fn result(recovered: bool, offset: u64) -> SubscribeResult<'static> {
        SubscribeResult {
            recoverable: true,
            recovered,
            offset,
            epoch: "e".into(),
            ..SubscribeResult::default()
        }
    }

    #[test]
    fn a_subscription_goes_on_where_it_was_and_counts_what_the_server_says_is_lost() {
        let mut at = subscription();
        assert!(at.confirmed(&result(false, 40)).is_ok());
        assert_eq!((at.offset, at.epoch.as_str(), at.sequence.next()), (40, "e", 0));
        at.arrived(&Publication {
            offset: 41,
            data: b"~00000000000000000000"[..].into(),
            ..Publication::default()
        });
        assert_eq!((at.offset, at.sequence.next()), (41, 1));
        assert!(at.confirmed(&result(true, 41)).is_ok());
        assert_eq!((at.offset, at.sequence.next()), (41, 1));
        assert!(at.confirmed(&result(false, 60)).is_ok());
        assert_eq!((at.offset, at.sequence.faults), (60, Faults { missing: 10, repeated: 0 }));
    }

    #[test]
    fn a_channel_that_keeps_nothing_is_refused() {
        assert!(matches!(subscription().confirmed(&SubscribeResult::default()), Err(Ended::Final(_))));
    }

    #[test]
    fn waits_grow_to_the_longest() {
        for (attempt, longest) in [(0, 1_000), (1, 1_500), (40, 20_000)] {
            let wait = wait_before(attempt);
            assert!(wait >= LEAST_WAIT && wait <= Duration::from_millis(longest), "{attempt}: {wait:?}");
        }
    }
}
