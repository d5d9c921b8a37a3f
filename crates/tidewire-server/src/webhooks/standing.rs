//! How an endpoint does, kept in the store under `webhook:NAME`, so that every node knows and a restart forgets nothing.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidewire::{Clock, Condition, Error, ErrorKind, Tenant, Timestamp};

use crate::config::DisableAfter;

/// How long what was read of the store is taken for what is there.
const READ_EVERY: Duration = Duration::from_secs(5);
/// How often a change is tried again because another node has made one.
const TRIES_MAX: usize = 10;
/// Bytes of what is said of a failure.
const WHY_BYTES_MAX: usize = 500;

/// How an endpoint does. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Standing {
    /// Since when nothing is sent to it, and why.
    pub(crate) disabled: Option<Disabled>,
    /// Failures since the last success.
    pub(crate) failures: u64,
    /// When the first of those was.
    pub(crate) failing_since: Option<u64>,
    /// What the last one was.
    pub(crate) last_failure: Option<String>,
}

/// Since when nothing is sent to an endpoint, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disabled {
    pub(crate) at: u64,
    pub(crate) why: String,
}

impl Standing {
    fn fail(&mut self, now: Timestamp, why: &str, limit: DisableAfter) {
        let since = *self.failing_since.get_or_insert(now.as_millis());
        self.failures += 1;
        self.last_failure = Some(cut(why));
        let over = now.since(Timestamp::from_millis(since));
        if self.failures >= limit.failures && over >= limit.over {
            self.disable(now, &format!("{} failures in a row; the last: {why}", self.failures));
        }
    }

    fn disable(&mut self, now: Timestamp, why: &str) {
        let disabled = || Disabled { at: now.as_millis(), why: cut(why) };
        self.disabled.get_or_insert_with(disabled);
    }
}

fn cut(why: &str) -> String {
    why.get(..why.floor_char_boundary(WHY_BYTES_MAX)).unwrap_or_default().to_owned()
}

/// The standing of one endpoint, with what this node knows of it.
pub(super) struct Record {
    tenant: Tenant,
    key: String,
    clock: Clock,
    known: Mutex<Known>,
    /// One change of this node at a time: only other nodes are in its way.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    standing: Standing,
    read: Option<Timestamp>,
}

impl Record {
    pub(super) fn new(tenant: Tenant, name: &str, clock: Clock) -> Self {
        let key = format!("webhook:{name}");
        Self { tenant, key, clock, known: Mutex::default(), changing: tokio::sync::Mutex::default() }
    }

    /// The standing as it was a few seconds ago at most, or longer where the store does not answer.
    pub(super) async fn recent(&self) -> Standing {
        let now = self.clock.now();
        let is_recent = self.known.lock().read.is_some_and(|read| now.since(read) < READ_EVERY);
        if !is_recent && let Err(error) = self.current().await {
            tracing::warn!(%error, key = self.key, "how a webhook does was not read");
        }
        self.known.lock().standing.clone()
    }

    /// The standing now.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) async fn current(&self) -> tidewire::Result<Standing> {
        Ok(self.read().await?.0)
    }

    async fn read(&self) -> tidewire::Result<(Standing, Option<Bytes>)> {
        let bytes = self.tenant.get(&self.key).await?;
        // What nobody can read any more is as good as nothing.
        let standing: Standing =
            bytes.as_ref().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
        self.know(&standing);
        Ok((standing, bytes))
    }

    fn know(&self, standing: &Standing) {
        *self.known.lock() = Known { standing: standing.clone(), read: Some(self.clock.now()) };
    }

    /// An event was accepted.
    pub(super) async fn succeed(&self) {
        if self.known.lock().standing.failures == 0 {
            return;
        }
        let forget = |standing: &mut Standing| {
            standing.failures = 0;
            standing.failing_since = None;
        };
        self.try_change(forget).await;
    }

    /// An event was not accepted. Says how the endpoint stands then.
    pub(super) async fn fail(&self, why: &str, limit: DisableAfter) -> Standing {
        let now = self.clock.now();
        self.try_change(|standing| standing.fail(now, why, limit)).await
    }

    /// A change that this node goes on without, if the store does not take it.
    async fn try_change(&self, change: impl Fn(&mut Standing)) -> Standing {
        match self.change(&change).await {
            Ok(standing) => standing,
            Err(error) => {
                tracing::warn!(%error, key = self.key, "how a webhook does was not kept");
                let mut known = self.known.lock();
                change(&mut known.standing);
                known.standing.clone()
            }
        }
    }

    /// Nothing is sent any more.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) async fn disable(&self, why: &str) -> tidewire::Result<Standing> {
        let now = self.clock.now();
        self.change(&|standing: &mut Standing| standing.disable(now, why)).await
    }

    /// Events are sent again, as if nothing had been.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) async fn enable(&self) -> tidewire::Result<Standing> {
        self.change(&|standing: &mut Standing| *standing = Standing::default()).await
    }

    async fn change(&self, change: &impl Fn(&mut Standing)) -> tidewire::Result<Standing> {
        let _one_at_a_time = self.changing.lock().await;
        for _ in 0..TRIES_MAX {
            let (before, bytes) = self.read().await?;
            let mut after = before.clone();
            change(&mut after);
            let condition = bytes.map_or(Condition::Absent, Condition::Equals);
            // Strings and numbers into memory: there is nothing that can fail.
            let value = serde_json::to_vec(&after).unwrap_or_default();
            if after == before || self.tenant.put(&self.key, value, None, condition).await? {
                self.know(&after);
                if let (None, Some(Disabled { why, .. })) = (&before.disabled, &after.disabled) {
                    tracing::warn!(tenant = self.tenant.name(), key = self.key, why, "a webhook is disabled");
                }
                return Ok(after);
            }
        }
        let text = format!("{} was changed by others {TRIES_MAX} times in a row", self.key);
        Err(Error::new(ErrorKind::Conflict, text))
    }
}

#[cfg(test)]
mod tests {
    use tidewire::Tidewire;

    use super::*;

    const LIMIT: DisableAfter = DisableAfter { failures: 3, over: Duration::from_secs(60) };

    async fn record(clock: &Clock) -> (Tidewire, Record) {
        let node = Tidewire::builder("memory:").clock(clock.clone()).open().await.unwrap();
        let record = Record::new(node.tenant("shop").unwrap(), "billing", clock.clone());
        (node, record)
    }

    #[tokio::test]
    async fn it_is_given_up_on_after_so_many_failures_over_that_long() {
        let clock = Clock::virtual_at(Timestamp::from_millis(1_000));
        let (_node, record) = record(&clock).await;
        for _ in 0..5 {
            assert_eq!(record.fail("no", LIMIT).await.disabled, None, "not for that long");
        }
        record.succeed().await;
        clock.advance(Duration::from_secs(60));
        for _ in 0..2 {
            assert_eq!(record.fail("no", LIMIT).await.disabled, None, "the success between them counts");
            clock.advance(Duration::from_secs(60));
        }
        let disabled = record.fail("refused", LIMIT).await.disabled.unwrap();
        assert_eq!((disabled.at, &*disabled.why), (181_000, "3 failures in a row; the last: refused"));
    }

    #[tokio::test]
    async fn another_node_learns_of_it_within_seconds_and_no_change_is_lost() {
        let clock = Clock::virtual_at(Timestamp::from_millis(1_000));
        let (node, one) = record(&clock).await;
        let other = Record::new(node.tenant("shop").unwrap(), "billing", clock.clone());
        assert_eq!(other.recent().await.disabled, None);
        one.disable("by ann").await.unwrap();
        clock.advance(READ_EVERY);
        assert_eq!(other.recent().await.disabled.unwrap().why, "by ann");
        let outcomes = tokio::join!(one.fail("a", LIMIT), other.fail("b", LIMIT), one.fail("c", LIMIT));
        assert_eq!(
            [outcomes.0, outcomes.1, outcomes.2].map(|standing| standing.failures).iter().max(),
            Some(&3)
        );
        let standing = other.current().await.unwrap();
        assert_eq!((standing.failures, standing.disabled.unwrap().why), (3, "by ann".into()));
        assert_eq!(one.enable().await.unwrap(), Standing::default());
    }
}
