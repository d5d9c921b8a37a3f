//! What becomes of the entries whose handlers are done.

use std::time::Duration;

use bytes::Bytes;

use super::Session;
use crate::bus::event_log;
use crate::bus::group::counters::add;
use crate::bus::group::dead_letter::{DeadKind, DeadLetter, cut};
use crate::bus::group::delivery::Delivery;
use crate::bus::group::ledger::Entry;
use crate::bus::group::letters::bound_dead_letters;
use crate::bus::group::outbox::Following;
use crate::bus::group::outcome::Outcome;
use crate::bus::group::queue::{Done, Verdict};
use crate::bus::group::retries::Retries;
use crate::engine::{Dedup, Stored};
use crate::limits::REASON_BYTES_MAX;

/// Dead letters after which this session has the group's counted.
const BOUND_EVERY: u64 = 256;

impl Session {
    /// Takes over what became of deliveries.
    pub(super) fn settle_done(&mut self) {
        for done in self.queue.take_done() {
            // What another session of this consumer handed out is lost already.
            if done.token.session == self.serial {
                self.settle(done);
            }
        }
        let made = std::mem::take(&mut *self.made.lock());
        self.pending.removes.extend(made.into_iter().map(|key| (crate::engine::Shelf::Outbox, key)));
    }

    fn settle(&mut self, done: Done) {
        let Done { token, delivery, verdict, took, kept } = done;
        let (record, offset) = (token.record, token.offset);
        let epoch = self.epoch;
        let is_meant =
            |entry: &mut Entry| entry.is_out && entry.shelved.unwrap_or(epoch) == delivery.position().epoch;
        if !self.entry_mut(record, offset).is_some_and(is_meant) {
            return;
        }
        self.settled_count += 1;
        self.pending.kept.extend(kept);
        self.pending.is_due = true;
        if self.settings.dedup.is_some() {
            match verdict {
                Verdict::Settled(Outcome::Ack) => self.twins.ack(delivery.event().id()),
                _ => self.twins.release(delivery.event().id()),
            }
        }
        let verdict = self.scrubbed(&delivery, verdict);
        self.counters.took(took);
        match &verdict {
            Verdict::Abandoned => event_log::settled(&delivery, None, took),
            Verdict::Settled(outcome) => event_log::settled(&delivery, Some(outcome), took),
        }
        match verdict {
            Verdict::Abandoned => {
                self.retry(record, &delivery, None, "whoever had it did not settle it in time")
            }
            Verdict::Settled(outcome) => match outcome {
                Outcome::Ack => self.ack(record, offset, &delivery),
                Outcome::Retry { after, error } => self.retry(record, &delivery, after, &error),
                Outcome::Reject { reason } => {
                    add(&self.counters.rejected, 1);
                    self.die(record, &stored(&delivery), DeadKind::Rejected, &reason);
                }
                Outcome::Park { reason } => self.park(record, &delivery, &reason),
                Outcome::HandBack => {
                    add(&self.counters.handed_back, 1);
                    self.take_in(record, offset);
                    self.keep_body(record, stored(&delivery));
                    self.activate(record, offset);
                }
            },
        }
    }

    /// The verdict without what is hidden of the event: a handler may say of it what it likes, and reasons are logged and
    /// listed.
    fn scrubbed(&self, delivery: &Delivery, mut verdict: Verdict) -> Verdict {
        let why = match &mut verdict {
            Verdict::Settled(
                Outcome::Retry { error: why, .. }
                | Outcome::Reject { reason: why }
                | Outcome::Park { reason: why },
            ) => why,
            Verdict::Settled(_) | Verdict::Abandoned => return verdict,
        };
        if let Some(scrubbed) = self.bus.scrubbed(self.path.channel().tenant(), delivery.event(), why) {
            *why = scrubbed;
        }
        verdict
    }

    fn ack(&mut self, record: u16, offset: u64, delivery: &Delivery) {
        for (number, emitted) in delivery.close_emitted().into_iter().enumerate() {
            match Following::new(&self.bus, &self.path, delivery.position(), number, emitted) {
                Ok(following) => {
                    self.pending.puts.push(following.item());
                    self.pending.following.push(following);
                }
                // Checked when it was emitted; what is left is a limit that has changed since.
                Err(error) => return self.retry(record, delivery, None, &error.to_string()),
            }
        }
        if let Some(window) = self.settings.dedup {
            self.pending.marks.push(Dedup { id: delivery.event().id().to_string().into(), window });
        }
        add(&self.counters.acked, 1);
        self.remove_entry(record, offset);
    }

    /// A failed attempt: the delivery comes again, or its attempts are used up.
    fn retry(&mut self, record: u16, delivery: &Delivery, after: Option<Duration>, error: &str) {
        let offset = delivery.position().offset;
        let now = self.engine_now();
        let retries = self.settings.retries;
        self.take_in(record, offset);
        let Some(entry) = self.entry_mut(record, offset) else { return };
        entry.attempts += 1;
        entry.first = entry.first.or(Some(delivery.first_delivered()));
        entry.error = cut(error, REASON_BYTES_MAX).into();
        let attempts = entry.attempts;
        if attempts >= retries.attempts_max {
            self.die(record, &stored(delivery), DeadKind::AttemptsUsedUp, error);
            return;
        }
        add(&self.counters.retried, 1);
        let delay = after.unwrap_or_else(|| retries.delay(attempts)).min(Retries::DELAY_MAX);
        if delay.is_zero() {
            self.keep_body(record, stored(delivery));
            self.activate(record, offset);
        } else {
            self.set_aside(record, stored(delivery), now.saturating_add(delay));
        }
    }

    fn park(&mut self, record: u16, delivery: &Delivery, reason: &str) {
        let offset = delivery.position().offset;
        add(&self.counters.parked, 1);
        self.take_in(record, offset);
        let due = self.engine_now().saturating_add(self.settings.park_time);
        if let Some(entry) = self.entry_mut(record, offset) {
            entry.first = entry.first.or(Some(delivery.first_delivered()));
            entry.error = cut(reason, REASON_BYTES_MAX).into();
        }
        self.set_aside(record, stored(delivery), due);
    }

    /// An entry is not with a handler any more, and what is known of it has changed.
    fn take_in(&mut self, record: u16, offset: u64) {
        self.pending.is_due = true;
        let Some(holding) = self.holdings.get_mut(&record) else { return };
        holding.is_dirty = true;
        if let Some(entry) = holding.ledger.entries.get_mut(&offset)
            && entry.is_out
        {
            entry.is_out = false;
            self.out_count -= 1;
        }
    }

    /// Moves an entry to the dead letters.
    pub(super) fn die(&mut self, record: u16, stored: &Stored, kind: DeadKind, reason: &str) {
        let Some(entry) = self.remove_entry(record, stored.offset) else { return };
        add(&self.counters.dead, 1);
        let now = self.engine_now();
        let letter = DeadLetter {
            group: self.path.clone(),
            position: self.position_of(&entry, stored.offset),
            appended: stored.time,
            kind,
            reason: cut(reason, REASON_BYTES_MAX).into(),
            // The attempt that a handler ended with a reject is counted nowhere else.
            attempts: entry.attempts + u32::from(kind == DeadKind::Rejected),
            crashes: entry.crashes,
            first_delivered: entry.first.unwrap_or(now),
            last_delivered: now,
            died: now,
            session: self.name.clone(),
            node: self.bus.node,
            envelope: stored.envelope.clone(),
        };
        tracing::warn!(group = %self.path, position = %letter.position, reason, "a delivery went to the dead letters");
        event_log::dead(&letter);
        self.pending.puts.push(letter.to_item());
        self.deaths += 1;
        if self.deaths.is_multiple_of(BOUND_EVERY) {
            let (bus, path) = (self.bus.clone(), self.path.clone());
            self.bus.tasks.spawn(async move {
                if let Err(error) = bound_dead_letters(&*bus.engine.log, &path).await {
                    tracing::warn!(%error, group = %path, "the dead letters of the group were not counted");
                }
            });
        }
    }
}

/// The event of a delivery as it was kept.
fn stored(delivery: &Delivery) -> Stored {
    let (offset, time) = (delivery.position().offset, delivery.time());
    Stored { offset, time, envelope: Bytes::from(delivery.event()) }
}
