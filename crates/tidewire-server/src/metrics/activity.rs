//! What goes on in channels and groups, put together anew for each scrape.

use std::fmt;

use futures_util::future::join_all;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tidewire::name::{ChannelPath, GroupPath};
use tidewire::{
    BreakerState, ChannelActivity, ConsumerStats, GroupActivity, GroupStatus, HandlerTimes, PublisherStats,
};

use super::OTHERS;
use super::hooks::breakers;
use crate::node::Node;

/// Every so many steps of a histogram are told as one: times are told within a factor of four.
const STEPS_TOLD_AS_ONE: usize = 2;

/// A metric: its name, its help, and its value.
type Told<T, V> = (&'static str, &'static str, fn(&T) -> V);

/// What went on in channels and groups until now.
pub(super) struct Activity {
    channels: Vec<ChannelActivity>,
    groups: Vec<GroupActivity>,
    status: Vec<(GroupPath, GroupStatus)>,
    /// The groups of webhooks, and whether they are enabled.
    webhooks: Vec<(GroupPath, bool)>,
    /// The endpoints of hooks by tenant and name, and their breakers.
    hooks: Vec<(String, String, BreakerState)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    tenant: String,
    channel: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    tenant: String,
    channel: String,
    group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SettledLabels {
    tenant: String,
    channel: String,
    group: String,
    outcome: &'static str,
}

impl GroupLabels {
    fn of(group: Option<&GroupPath>) -> Self {
        let (tenant, channel) = names(group.map(GroupPath::channel));
        Self { tenant, channel, group: group.map_or(OTHERS, GroupPath::group).into() }
    }

    fn settled(self, outcome: &'static str) -> SettledLabels {
        let Self { tenant, channel, group } = self;
        SettledLabels { tenant, channel, group, outcome }
    }
}

fn names(channel: Option<&ChannelPath>) -> (String, String) {
    let names = channel.map_or((OTHERS, OTHERS), |channel| (channel.tenant(), channel.channel()));
    (names.0.into(), names.1.into())
}

impl Activity {
    pub(super) async fn of(node: &Node) -> Self {
        let groups = node.tidewire.consumers();
        let status = node.lags.of(&groups, &node.tidewire, node.clock.now()).await;
        let channels = node.tidewire.channels(node.config.metrics.channels_max);
        let webhooks = join_all(node.webhooks.all().map(|endpoint| endpoint.glance())).await;
        let hooks = node.tenants.hooks().flat_map(|hooks| hooks.endpoints()).map(|endpoint| {
            let (tenant, name, breaker) = endpoint.standing();
            (tenant.to_owned(), name.to_owned(), breaker)
        });
        Self { channels, groups, status, webhooks, hooks: hooks.collect() }
    }

    fn sent(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let of: [Told<ChannelActivity, PublisherStats>; 2] = [
            ("published", "Live events of this node, by outcome", |activity| activity.published),
            ("appended", "Events that this node appended to streams, by outcome", |activity| {
                activity.appended
            }),
        ];
        for (name, help, stats) in of {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for activity in &self.channels {
                let (tenant, channel) = names(activity.channel.as_ref());
                let stats = stats(activity);
                for (outcome, count) in [("ok", stats.succeeded), ("failed", stats.failed)] {
                    let labels = OutcomeLabels { tenant: tenant.clone(), channel: channel.clone(), outcome };
                    metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn counts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let of: [Told<ConsumerStats, u64>; 7] = [
            ("group_delivered", "Attempts that consumers of this node began", |stats| stats.delivered),
            ("group_dead", "Deliveries that went to the dead letters", |stats| stats.dead),
            ("group_crashed", "Attempts of dead processes that this node took over", |stats| stats.crashed),
            ("group_duplicates", "Events dropped because their id was handled before", |stats| {
                stats.duplicates
            }),
            ("group_missed", "Events that were gone before they could be delivered", |stats| stats.missed),
            ("group_sessions_lost", "Sessions of this node that lost what they held", |stats| {
                stats.sessions_lost
            }),
            ("group_rebuilt", "Times that the group was lost and made again", |stats| stats.rebuilt),
        ];
        for (name, help, count) in of {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for GroupActivity { group, stats, .. } in &self.groups {
                let labels = GroupLabels::of(group.as_ref());
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count(stats), None)?;
            }
        }
        let help =
            "Attempts that consumers of this node ended, by outcome; retry: those that are tried again";
        let mut metric = encoder.encode_descriptor("group_settled", help, None, MetricType::Counter)?;
        for GroupActivity { group, stats, .. } in &self.groups {
            for (outcome, count) in [
                ("ack", stats.acked),
                ("retry", stats.retried),
                ("reject", stats.rejected),
                ("park", stats.parked),
                ("hand_back", stats.handed_back),
            ] {
                let labels = GroupLabels::of(group.as_ref()).settled(outcome);
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn times(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time in handlers of this node";
        let mut metric =
            encoder.encode_descriptor("group_handler_seconds", help, None, MetricType::Histogram)?;
        for GroupActivity { group, stats, .. } in &self.groups {
            let labels = GroupLabels::of(group.as_ref());
            #[expect(clippy::cast_precision_loss, reason = "exact for 285 years of handler time")]
            let sum = stats.handler_micros as f64 / 1e6;
            let (count, buckets) = (stats.handler_times.count(), buckets(&stats.handler_times));
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let of: [Told<GroupActivity, u64>; 2] = [
            ("group_consumers", "Consumers of this node", |activity| activity.consumers as u64),
            ("group_breaker", "The breaker on this node - 0 closed, 1 half open, 2 open", |activity| {
                number_of(activity.breaker)
            }),
        ];
        for (name, help, value) in of {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for activity in &self.groups {
                let labels = GroupLabels::of(activity.group.as_ref());
                metric.encode_family(&labels)?.encode_gauge(&value(activity))?;
            }
        }
        Ok(())
    }

    fn progress(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let of: [Told<GroupStatus, f64>; 7] = [
            ("group_lag_events", "Events that are not settled", |status| float(status.lag_events)),
            (
                "group_lag_seconds",
                "Age of the oldest event that is not settled and does not wait",
                |status| status.lag.as_secs_f64(),
            ),
            ("group_in_flight", "Events with sessions of any node", |status| float(status.in_flight)),
            ("group_waiting", "Events that wait to be tried again", |status| float(status.waiting)),
            ("group_dead_letters", "Dead letters that are kept", |status| float(status.dead_letters)),
            ("group_outbox", "Emitted events that are not appended yet", |status| float(status.outbox)),
            ("group_sessions", "Sessions of any node", |status| float(status.sessions.len() as u64)),
        ];
        for (name, help, value) in of {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (group, status) in &self.status {
                metric.encode_family(&GroupLabels::of(Some(group)))?.encode_gauge(&value(status))?;
            }
        }
        Ok(())
    }
}

/// A breaker's state as metrics have it.
pub(super) fn number_of(breaker: BreakerState) -> u64 {
    match breaker {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}

fn webhooks(webhooks: &[(GroupPath, bool)], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Whether events are sent to the endpoint of a webhook - 1 enabled, 0 disabled";
    let mut metric = encoder.encode_descriptor("webhook_enabled", help, None, MetricType::Gauge)?;
    for (group, is_enabled) in webhooks {
        metric.encode_family(&GroupLabels::of(Some(group)))?.encode_gauge(&u64::from(*is_enabled))?;
    }
    Ok(())
}

/// The steps as seconds and counts, some of them told as one.
fn buckets(times: &HandlerTimes) -> Vec<(f64, u64)> {
    let steps: Vec<_> = times.steps().collect();
    let told = steps.chunks(STEPS_TOLD_AS_ONE).map(|steps| {
        let longest = steps.last().and_then(|(longest, _)| *longest);
        (
            longest.map_or(f64::INFINITY, |longest| longest.as_secs_f64()),
            steps.iter().map(|(_, count)| count).sum(),
        )
    });
    told.collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Collector for Activity {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.sent(&mut encoder)?;
        self.counts(&mut encoder)?;
        self.times(&mut encoder)?;
        self.gauges(&mut encoder)?;
        self.progress(&mut encoder)?;
        webhooks(&self.webhooks, &mut encoder)?;
        breakers(&self.hooks, &mut encoder)
    }
}

impl fmt::Debug for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activity").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}
