//! What a node counts of each tenant.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;
use tidewire::clock::Stopwatch;
use tidewire::{Clock, GapReason, Timestamp};
use tokio::task::yield_now;

use super::OTHERS;
use super::counts::{Counts, Kind, Times, TimesSeen, kinds};
use crate::hub::connections::Connections;
use crate::node::Node;

/// One write in so many is timed.
const WRITES_FOR_ONE_TIMED: u32 = 64;

/// Outboxes that are looked at before others may run.
const OUTBOXES_AT_ONCE: usize = 1_024;

kinds! {
    /// How a recovery ended.
    Recovery {
        /// The subscriber got all that it missed.
        Complete = "complete",
        /// What it missed is no longer kept.
        Lost = "lost",
    }
}

kinds! {
    /// What was meant for clients and did not reach them.
    Loss {
        /// A live event: this node was too slow for it.
        Overflow = "overflow",
        /// Live events of a channel while the link to the engine was down.
        LinkLost = "link_lost",
        /// Kept events of a channel that retention removed before they were read.
        Trimmed = "trimmed",
        /// Kept events of a channel that the engine found damaged.
        Damaged = "damaged",
        /// Kept events of a channel whose stream began anew.
        HistoryLost = "history_lost",
        /// A gap of a kind that this version does not know.
        Other = "other",
        /// A subscription that the server ended because its subscriber lacks events; its client comes back for them.
        Expelled = "expelled",
        /// A connection whose outbox was full.
        Slow = "slow",
        /// What a connection was told to do from outside, with too much of that waiting.
        Order = "order",
        /// What was to be done to a user's connections and could not be told to the other nodes.
        Effect = "effect",
    }
}

kinds! {
    /// Why somebody was not let in, or not allowed something.
    AuthFailure {
        /// No token where one is needed.
        TokenMissing = "token_missing",
        /// A token that is forged, malformed, or not for us.
        TokenInvalid = "token_invalid",
        /// A token that was good once.
        TokenExpired = "token_expired",
        /// A token whose key could not be fetched.
        TokenUnavailable = "token_unavailable",
        /// The token of a subscription that does not allow it.
        SubscriptionToken = "subscription_token",
        /// A command that neither a rule nor the token allows.
        Permission = "permission",
        /// A web page that may not connect.
        Origin = "origin",
        /// A request to the server API without a known key.
        ApiKey = "api_key",
    }
}

kinds! {
    /// What a stream was read for.
    StreamRead {
        /// To begin listening where it ends.
        Open = "open",
        /// To learn where it ends, for a client that was further than this node.
        End = "end",
        /// For what subscribers missed.
        Recovery = "recovery",
    }
}

/// What a node counts of one tenant.
#[derive(Default)]
pub(crate) struct TenantMetrics {
    /// Which of those with lines of their own it is, from 0, once something has happened in it.
    rank: OnceLock<usize>,
    clock: Clock,
    /// Open connections, from the connect command on.
    pub(crate) connections: Gauge,
    pub(crate) subscriptions: Gauge,
    deliveries: AtomicU64,
    /// From publishing to the outboxes, of each delivery.
    delivery_lag: Times,
    /// From the outbox to the socket, of some writes.
    write_lag: Times,
    pub(crate) losses: Counts<Loss>,
    pub(crate) recoveries: Counts<Recovery>,
    recovered_events: AtomicU64,
    pub(crate) stream_reads: Counts<StreamRead>,
    pub(crate) auth_failures: Counts<AuthFailure>,
}

impl TenantMetrics {
    /// Lags are told by `clock`.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Counts an event that was handed to so many connections; `since` is when it was published. The clock is read once for
    /// all of them. Where the clock of the node that published it is ahead of ours, it took no time.
    pub(crate) fn delivered(&self, count: u64, since: Timestamp) {
        if count > 0 {
            self.deliveries.fetch_add(count, Relaxed);
            self.delivery_lag.add(self.clock.now().since(since), count);
        }
    }

    /// Counts a write, one of many, whose oldest frame was made then.
    pub(crate) fn written(&self, since: Stopwatch) {
        self.write_lag.add(since.elapsed(), 1);
    }

    /// Counts a gap that the library told of.
    pub(crate) fn missed(&self, reason: GapReason) {
        let (loss, count) = match reason {
            GapReason::Overflow(count) => (Loss::Overflow, count),
            GapReason::LinkLost => (Loss::LinkLost, 1),
            GapReason::Trimmed => (Loss::Trimmed, 1),
            GapReason::Damaged => (Loss::Damaged, 1),
            GapReason::HistoryLost => (Loss::HistoryLost, 1),
            _ => (Loss::Other, 1),
        };
        self.losses.add(loss, count);
    }

    /// Counts events that were given to a subscriber that had missed them.
    pub(crate) fn recovered(&self, events: usize) {
        self.recovered_events.fetch_add(events as u64, Relaxed);
    }

    async fn seen(&self, people: &Connections) -> Seen {
        let number = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or_default();
        let outboxes = outboxes(people).await;
        Seen {
            connections: number(&self.connections),
            subscriptions: number(&self.subscriptions),
            outbox_bytes: outboxes.0,
            outbox_bytes_largest: outboxes.1,
            deliveries: self.deliveries.load(Relaxed),
            delivery_lag: self.delivery_lag.load(),
            write_lag: self.write_lag.load(),
            losses: self.losses.load(),
            recoveries: self.recoveries.load(),
            recovered_events: self.recovered_events.load(Relaxed),
            stream_reads: self.stream_reads.load(),
            auth_failures: self.auth_failures.load(),
        }
    }
}

/// Whether this write is one of those that are timed. Each thread counts its own, so that none waits for another.
pub(crate) fn is_write_timed() -> bool {
    thread_local!(static WRITES: Cell<u32> = const { Cell::new(0) });
    let before = WRITES.replace(WRITES.get().wrapping_add(1));
    before.is_multiple_of(WRITES_FOR_ONE_TIMED)
}

/// Bytes that wait in all outboxes, and in the fullest.
async fn outboxes(people: &Connections) -> (u64, u64) {
    let (mut sum, mut largest) = (0, 0);
    for handles in people.all().chunks(OUTBOXES_AT_ONCE) {
        for handle in handles {
            let bytes = handle.outbox.bytes() as u64;
            sum += bytes;
            largest = largest.max(bytes);
        }
        yield_now().await;
    }
    (sum, largest)
}

/// The counts of a tenant, or of several, at a moment.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    connections: u64,
    subscriptions: u64,
    outbox_bytes: u64,
    outbox_bytes_largest: u64,
    deliveries: u64,
    delivery_lag: TimesSeen,
    write_lag: TimesSeen,
    losses: Vec<u64>,
    recoveries: Vec<u64>,
    recovered_events: u64,
    stream_reads: Vec<u64>,
    auth_failures: Vec<u64>,
}

impl Default for Seen {
    fn default() -> Self {
        let zeros = |words: &[&str]| vec![0; words.len()];
        Self {
            connections: 0,
            subscriptions: 0,
            outbox_bytes: 0,
            outbox_bytes_largest: 0,
            deliveries: 0,
            delivery_lag: TimesSeen::default(),
            write_lag: TimesSeen::default(),
            losses: zeros(Loss::WORDS),
            recoveries: zeros(Recovery::WORDS),
            recovered_events: 0,
            stream_reads: zeros(StreamRead::WORDS),
            auth_failures: zeros(AuthFailure::WORDS),
        }
    }
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.subscriptions += other.subscriptions;
        self.outbox_bytes += other.outbox_bytes;
        self.outbox_bytes_largest = self.outbox_bytes_largest.max(other.outbox_bytes_largest);
        self.deliveries += other.deliveries;
        self.delivery_lag.add(&other.delivery_lag);
        self.write_lag.add(&other.write_lag);
        self.recovered_events += other.recovered_events;
        for (counts, more) in [
            (&mut self.losses, &other.losses),
            (&mut self.recoveries, &other.recoveries),
            (&mut self.stream_reads, &other.stream_reads),
            (&mut self.auth_failures, &other.auth_failures),
        ] {
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
    }
}

/// The tenants of a node at a moment: so many with lines of their own, and all others as one.
#[derive(Debug)]
pub(super) struct TenantLines(Vec<(String, Seen)>);

impl TenantLines {
    /// Those in which something happened first have lines of their own; those in which nothing has happened, if there is room.
    pub(super) async fn of(node: &Node) -> Self {
        let (mut lines, mut others) = (Vec::new(), None::<Seen>);
        let tenants_max = node.config.metrics.tenants_max;
        let has_room_for_all = node.tenants.all().count() <= tenants_max;
        for tenant in node.tenants.all() {
            let seen = tenant.metrics.seen(&tenant.people).await;
            let rank = match seen == Seen::default() {
                true => tenant.metrics.rank.get(),
                false => Some(tenant.metrics.rank.get_or_init(|| node.metrics.next_rank())),
            };
            if has_room_for_all || rank.is_some_and(|rank| *rank < tenants_max) {
                lines.push((tenant.handle.name().to_owned(), seen));
            } else {
                others.get_or_insert_default().add(&seen);
            }
        }
        lines.extend(others.map(|others| (OTHERS.to_owned(), others)));
        Self(lines)
    }

    fn numbers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Number = (&'static str, &'static str, MetricType, fn(&Seen) -> u64);
        let of: [Number; 6] = [
            ("connections", "Open connections", MetricType::Gauge, |seen| seen.connections),
            ("subscriptions", "Subscriptions of open connections", MetricType::Gauge, |seen| {
                seen.subscriptions
            }),
            ("outbox_bytes", "Bytes that wait for connections", MetricType::Gauge, |seen| seen.outbox_bytes),
            (
                "outbox_bytes_largest",
                "Bytes that wait for the slowest connection",
                MetricType::Gauge,
                |seen| seen.outbox_bytes_largest,
            ),
            ("deliveries", "Events handed to connections", MetricType::Counter, |seen| seen.deliveries),
            (
                "recovered_events",
                "Events given to subscribers that had missed them",
                MetricType::Counter,
                |seen| seen.recovered_events,
            ),
        ];
        for (name, help, kind, value) in of {
            let is_gauge = matches!(kind, MetricType::Gauge);
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for (tenant, seen) in &self.0 {
                let labels = [("tenant", tenant.as_str())];
                let mut metric = metric.encode_family(&labels)?;
                match is_gauge {
                    true => metric.encode_gauge(&value(seen))?,
                    false => metric.encode_counter::<NoLabelSet, _, u64>(&value(seen), None)?,
                }
            }
        }
        Ok(())
    }

    fn times(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Histogram = (&'static str, &'static str, fn(&Seen) -> &TimesSeen);
        let of: [Histogram; 2] = [
            ("delivery_lag_seconds", "From publishing an event to handing it to a connection", |seen| {
                &seen.delivery_lag
            }),
            ("write_lag_seconds", "From handing an event to a connection to writing it, sampled", |seen| {
                &seen.write_lag
            }),
        ];
        for (name, help, times) in of {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (tenant, seen) in &self.0 {
                let (labels, times) = ([("tenant", tenant.as_str())], times(seen));
                let mut metric = metric.encode_family(&labels)?;
                let (sum, count) = (times.seconds(), times.count());
                metric.encode_histogram::<NoLabelSet>(sum, count, &times.buckets(), None)?;
            }
        }
        Ok(())
    }

    fn kinds(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Kinds = (&'static str, &'static str, &'static str, &'static [&'static str], fn(&Seen) -> &[u64]);
        let of: [Kinds; 3] = [
            ("drops", "What was meant for clients and did not reach them", "reason", Loss::WORDS, |seen| {
                &seen.losses
            }),
            (
                "recoveries",
                "Subscriptions that asked for what they missed",
                "outcome",
                Recovery::WORDS,
                |seen| &seen.recoveries,
            ),
            (
                "stream_reads",
                "Reads of streams for the subscribers of this node",
                "purpose",
                StreamRead::WORDS,
                |seen| &seen.stream_reads,
            ),
        ];
        for (name, help, label, words, counts) in of {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (tenant, seen) in &self.0 {
                for (word, count) in words.iter().zip(counts(seen)) {
                    let labels = [("tenant", tenant.as_str()), (label, *word)];
                    let mut metric = metric.encode_family(&labels)?;
                    metric.encode_counter::<NoLabelSet, _, u64>(count, None)?;
                }
            }
        }
        Ok(())
    }

    /// Failures of the tenants, and those of whom no tenant is known.
    fn auth_failures(&self, encoder: &mut DescriptorEncoder<'_>, strangers: &[u64]) -> fmt::Result {
        let help = "Who was not let in or not allowed something, by kind";
        let mut metric = encoder.encode_descriptor("auth_failures", help, None, MetricType::Counter)?;
        let of_tenants = self.0.iter().map(|(tenant, seen)| (tenant.as_str(), seen.auth_failures.as_slice()));
        for (tenant, counts) in of_tenants.chain([("", strangers)]) {
            for (word, count) in AuthFailure::WORDS.iter().zip(counts) {
                let labels = [("tenant", tenant), ("kind", *word)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        Ok(())
    }
}

/// [`TenantLines`], with what is of no tenant that is known.
#[derive(Debug)]
pub(super) struct OfTenants {
    pub(super) lines: TenantLines,
    pub(super) strangers: Vec<u64>,
}

impl Collector for OfTenants {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.lines.numbers(&mut encoder)?;
        self.lines.times(&mut encoder)?;
        self.lines.kinds(&mut encoder)?;
        self.lines.auth_failures(&mut encoder, &self.strangers)
    }
}
