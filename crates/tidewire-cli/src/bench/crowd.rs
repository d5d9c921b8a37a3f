//! Many connections at once: opening them, and noticing when one ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::client::{Connection, into_error};
use super::target::Target;
use crate::wire::Ended;

/// Connections that are being opened at a time, so that opening is no storm.
pub(super) const OPENING_AT_ONCE: usize = 100;

/// The connections of a benchmark and who listens to them.
#[derive(clap::Args)]
pub(super) struct CrowdArguments {
    /// The channel; one that nobody else publishes to
    #[arg(long, default_value = "bench")]
    pub(super) channel: String,
    /// Threads of the load generator; with one, the server has the other cores for itself
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(super) threads: u16,
}

/// Tasks that go on until they are dropped: one that ends says why.
pub(super) type Listeners = JoinSet<Result<(), Ended>>;

/// Opens connections with a subscription each, and hands each over at once, so that somebody answers its pings.
pub(super) async fn open_many(
    target: &Target,
    channel: &str,
    count: usize,
    mut take: impl FnMut(Connection),
) -> Result<()> {
    let opening = (0..count).map(|_| async {
        let mut connection = Connection::open(target).await?;
        connection.subscribe(channel).await?;
        Ok(connection)
    });
    let mut opened = stream::iter(opening).buffer_unordered(OPENING_AT_ONCE);
    let mut open_count = 0;
    while let Some(connection) = opened.next().await {
        match connection.map_err(into_error) {
            Ok(connection) => take(connection),
            Err(error) if open_count == 0 => return Err(error),
            Err(error) => return Err(error.context(format!("after {open_count} connections"))),
        }
        open_count += 1;
    }
    Ok(())
}

/// Does the work while all tasks go on.
///
/// # Errors
/// Those of the work, and the end of a task.
pub(super) async fn beside<T, W>(
    tasks: &mut JoinSet<Result<T, Ended>>,
    work: impl Future<Output = Result<W>>,
) -> Result<W>
where
    T: 'static,
{
    tokio::select! {
        done = work => done,
        Some(ended) = tasks.join_next() => match outcome(ended) {
            Ok(_) => bail!("a connection ended before its time"),
            Err(error) => Err(error),
        },
    }
}

/// What a task came to.
pub(super) fn outcome<T>(ended: Result<Result<T, Ended>, JoinError>) -> Result<T> {
    ended.context("a connection's task failed")?.map_err(into_error)
}

/// Counts what many tasks do; one waits until it is enough.
#[derive(Default)]
pub(super) struct Counter {
    count: AtomicU64,
    goal: AtomicU64,
    is_reached: Notify,
}

impl Counter {
    pub(super) fn add(&self, count: u64) {
        let now = self.count.fetch_add(count, Ordering::SeqCst).saturating_add(count);
        if now >= self.goal.load(Ordering::SeqCst) {
            self.is_reached.notify_one();
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits for a count.
    ///
    /// # Errors
    /// If it takes longer, with the count so far, of `what`.
    pub(super) async fn reach(&self, goal: u64, within: Duration, what: &str) -> Result<()> {
        self.goal.store(goal, Ordering::SeqCst);
        let reach = async {
            // Whoever added meanwhile has left a permit, or is seen in the count.
            while self.count() < goal {
                self.is_reached.notified().await;
            }
        };
        let in_time = timeout(within, reach).await;
        in_time.map_err(|_| anyhow!("{} of {goal} {what} after {within:?}", self.count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_counter_is_waited_for_or_says_how_far_it_is() {
        let counter = Counter::default();
        let (second, ()) = tokio::join!(counter.reach(3, Duration::from_secs(1), "things"), async {
            counter.add(1);
            counter.add(2);
        });
        second.unwrap();
        counter.reach(2, Duration::from_secs(1), "things").await.unwrap();
        let late = counter.reach(4, Duration::from_millis(1), "things").await.unwrap_err();
        assert_eq!(late.to_string(), "3 of 4 things after 1ms");
    }
}
