//! Who publishes what groups handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use tidewire::{Channel, ErrorKind, Event, Tenant};
use tokio::time::MissedTickBehavior;

use super::notes::{Note, Notes, Sort};
use super::plan::{MADE, Plan, SOURCE};
use super::worker::{again, group};

const EVERY: Duration = Duration::from_millis(12);

/// Appends one event after the other, each until it is confirmed.
pub(crate) struct Publisher {
    tenant: Tenant,
    source: Channel,
    plan: Plan,
    notes: Arc<Notes>,
    /// The last number that was confirmed.
    pub(crate) confirmed: Arc<AtomicU64>,
}

impl Publisher {
    pub(crate) fn new(tenant: &Tenant, plan: Plan, notes: Arc<Notes>) -> Result<Self> {
        let source = tenant.channel(SOURCE)?;
        Ok(Self { tenant: tenant.clone(), source, plan, notes, confirmed: Arc::default() })
    }

    /// Makes the groups, so that no event comes before them, and the stream that handlers emit to.
    pub(crate) async fn declare(&self) -> Result<()> {
        for kind in &self.plan.kinds {
            again(|| async { group(&self.tenant, &self.plan, kind.name)?.declare().await }).await?;
        }
        let made = self.tenant.channel(MADE)?;
        again(|| async { made.append(Event::new("made", "first")).dedup("first").await }).await?;
        Ok(())
    }

    /// Publishes from a number on, until it is over.
    pub(crate) async fn run(&self, from: u64, is_over: impl Fn() -> bool) -> Result<()> {
        self.declare().await?;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in from.. {
            ticks.tick().await;
            if is_over() {
                break;
            }
            let key = format!("key:{}", self.plan.key(number));
            // The same after a restart, which may publish it again.
            let event =
                Event::new("numbered", number.to_string()).with_key(&key).with_id(self.plan.id(number));
            self.append(event.clone(), Sort::Event, number).await?;
            if self.plan.has_copy(number) {
                self.append(event, Sort::Copy, number).await?;
            }
            self.confirmed.store(number, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn append(&self, event: Event, sort: Sort, number: u64) -> Result<()> {
        let id = format!("{sort:?}:{number}");
        loop {
            let error = match self.source.append(event.clone()).dedup(&id).await {
                Ok(receipt) => {
                    if let Some(position) = receipt.position {
                        self.notes.add(&Note::Published { sort, number, place: position.into() });
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            let is_full = ["OOM", "MISCONF"].iter().any(|word| error.to_string().contains(word));
            if !error.is_retryable() && !is_full && error.kind() != ErrorKind::TimedOut {
                bail!("an append fails: {error:?}");
            }
            tokio::time::sleep(EVERY).await; // tidy: it is tried again
        }
    }
}
