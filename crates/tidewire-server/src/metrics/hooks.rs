//! What backends are asked, and what came of it.

use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tidewire::BreakerState;

/// Asks of all endpoints. Labels come from the settings.
pub(crate) struct HookMetrics {
    asks: Family<AskLabels, Counter>,
    times: Family<HookLabels, Histogram>,
}

/// Those of one endpoint.
pub(crate) struct EndpointMetrics {
    asks: Family<AskLabels, Counter>,
    times: Family<HookLabels, Histogram>,
    tenant: String,
    endpoint: String,
}

/// An ask that is under way, counted as given up if it does not end.
pub(crate) struct Counted<'e> {
    of: &'e EndpointMetrics,
    hook: &'static str,
    outcome: Outcome,
}

/// What came of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Result,
    Error,
    Disconnect,
    BreakerOpen,
    Overloaded,
    TimedOut,
    Failed,
    BadAnswer,
    GivenUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AskLabels {
    tenant: String,
    endpoint: String,
    hook: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    tenant: String,
    endpoint: String,
    hook: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    tenant: String,
    endpoint: String,
}

impl Default for HookMetrics {
    fn default() -> Self {
        // From 1 ms in steps of two times to 8 s.
        let times = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        Self { asks: Family::default(), times: Family::new_with_constructor(times) }
    }
}

impl HookMetrics {
    pub(crate) fn of(&self, tenant: &str, endpoint: &str) -> EndpointMetrics {
        let (asks, times) = (self.asks.clone(), self.times.clone());
        EndpointMetrics { asks, times, tenant: tenant.into(), endpoint: endpoint.into() }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("hook_asks", "Asks of backends, by outcome", self.asks.clone());
        registry.register(
            "hook_seconds",
            "Time from an ask to its answer, the wait for its turn included",
            self.times.clone(),
        );
    }
}

impl EndpointMetrics {
    pub(crate) fn begin(&self, hook: &'static str) -> Counted<'_> {
        Counted { of: self, hook, outcome: Outcome::GivenUp }
    }
}

impl Counted<'_> {
    pub(crate) fn end(mut self, outcome: Outcome, took: Duration) {
        let (tenant, endpoint) = (self.of.tenant.clone(), self.of.endpoint.clone());
        self.outcome = outcome;
        self.of
            .times
            .get_or_create(&HookLabels { tenant, endpoint, hook: self.hook })
            .observe(took.as_secs_f64());
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let EndpointMetrics { asks, tenant, endpoint, .. } = self.of;
        let outcome = match self.outcome {
            Outcome::Result => "result",
            Outcome::Error => "error",
            Outcome::Disconnect => "disconnect",
            Outcome::BreakerOpen => "breaker_open",
            Outcome::Overloaded => "overloaded",
            Outcome::TimedOut => "timed_out",
            Outcome::Failed => "failed",
            Outcome::BadAnswer => "bad_answer",
            Outcome::GivenUp => "given_up",
        };
        let (tenant, endpoint) = (tenant.clone(), endpoint.clone());
        asks.get_or_create(&AskLabels { tenant, endpoint, hook: self.hook, outcome }).inc();
    }
}

/// What the breaker of each endpoint does.
pub(super) fn breakers(
    endpoints: &[(String, String, BreakerState)],
    encoder: &mut DescriptorEncoder<'_>,
) -> std::fmt::Result {
    let help = "The breaker of an endpoint on this node - 0 closed, 1 half open, 2 open";
    let mut metric = encoder.encode_descriptor("hook_breaker", help, None, MetricType::Gauge)?;
    for (tenant, endpoint, state) in endpoints {
        let labels = EndpointLabels { tenant: tenant.clone(), endpoint: endpoint.clone() };
        metric.encode_family(&labels)?.encode_gauge(&super::activity::number_of(*state))?;
    }
    Ok(())
}
