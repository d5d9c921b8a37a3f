//! The page of all tenants: so many with lines of their own, and all others as one.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::yield_now;

use super::OTHERS;
use super::counts::{Kind, TimesSeen};
use super::tenant::{AuthFailure, Loss, Recovery, StreamRead, TenantMetrics};
use crate::hub::connections::Connections;
use crate::lifecycle::LifecycleEvent;
use crate::node::Node;

/// Outboxes that are looked at before others may run.
const OUTBOXES_AT_ONCE: usize = 1_024;

impl TenantMetrics {
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
            lifecycle_events: self.lifecycle_events.load(),
        }
    }
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
    lifecycle_events: Vec<u64>,
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
            lifecycle_events: zeros(LifecycleEvent::WORDS),
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
            (&mut self.lifecycle_events, &other.lifecycle_events),
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
        let of: [Kinds; 4] = [
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
            (
                "lifecycle_events",
                "Events that told a tenant's backend who is there",
                "kind",
                LifecycleEvent::WORDS,
                |seen| &seen.lifecycle_events,
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
