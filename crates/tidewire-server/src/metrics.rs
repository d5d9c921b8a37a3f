//! What a node counts, as Prometheus reads it at `/metrics`.
//!
//! Labels come from our own tables, from the settings, and from the names of channels and groups, of which so many have lines
//! of their own and all others are counted together. `docs/metrics.md` tells of each line.

mod activity;
mod hooks;
mod lag;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidewire::GapReason;

pub(crate) use self::hooks::{EndpointMetrics, HookMetrics, Outcome};
pub(crate) use self::lag::Lags;

use self::activity::Activity;
use crate::node::Node;

/// The counters of a node; handles that the parts of the server add to.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Open connections of a tenant, from the connect command on.
    pub(crate) connections: Family<TenantLabel, Gauge>,
    /// Subscriptions of a tenant's connections.
    pub(crate) subscriptions: Family<TenantLabel, Gauge>,
    /// Commands of clients, by outcome.
    pub(crate) commands: Family<CommandLabels, Counter>,
    /// Connections that the server ended.
    pub(crate) disconnects: Family<CodeLabel, Counter>,
    /// Events handed to connections.
    pub(crate) deliveries: Counter,
    /// Subscriptions that wanted what they missed, by outcome.
    pub(crate) recoveries: Family<RecoveryLabel, Counter>,
    /// Requests to the server API.
    pub(crate) api_requests: Family<ApiLabels, Counter>,
    /// Asks of backends.
    pub(crate) hooks: HookMetrics,
    gaps: Family<GapLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TenantLabel {
    pub(crate) tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CommandLabels {
    pub(crate) method: &'static str,
    /// The error code; 0 for success, 400 for all of backends.
    pub(crate) code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CodeLabel {
    pub(crate) code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RecoveryLabel {
    pub(crate) outcome: Recovery,
}

/// How a recovery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Recovery {
    /// The subscriber got all that it missed.
    Complete,
    /// What it missed is no longer kept.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ApiLabels {
    pub(crate) method: &'static str,
    /// The error code; 0 for success.
    pub(crate) code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GapLabel {
    reason: &'static str,
}

impl Metrics {
    /// Counts a gap that the library told of.
    pub(crate) fn gap(&self, reason: GapReason) {
        let reason = match reason {
            GapReason::Trimmed => "trimmed",
            GapReason::Damaged => "damaged",
            GapReason::HistoryLost => "history_lost",
            GapReason::Overflow(_) => "overflow",
            GapReason::LinkLost => "link_lost",
            _ => "other",
        };
        self.gaps.get_or_create(&GapLabel { reason }).inc();
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register("subscriptions", "Subscriptions of open connections", self.subscriptions.clone());
        registry.register(
            "commands",
            "Commands of clients, by method and error code (0: success)",
            self.commands.clone(),
        );
        registry.register(
            "disconnects",
            "Connections ended by the server, by code",
            self.disconnects.clone(),
        );
        registry.register("deliveries", "Events handed to connections", self.deliveries.clone());
        registry.register(
            "recoveries",
            "Subscriptions that asked for what they missed",
            self.recoveries.clone(),
        );
        registry.register(
            "api_requests",
            "Requests to the server API, by method and error code (0: success)",
            self.api_requests.clone(),
        );
        self.hooks.register(registry);
        registry.register("gaps", "Gaps in channels that the engine told of, by reason", self.gaps.clone());
    }
}

/// All metrics of a node in OpenMetrics text, with their help.
pub(crate) async fn render(node: &Node) -> String {
    let mut registry = Registry::with_prefix("tidewire");
    node.metrics.register(&mut registry);
    registry.register_collector(Box::new(Activity::of(node).await));
    let mut page = String::new();
    // Writing into a string does not fail.
    let _written = text::encode(&mut page, &registry).is_ok();
    page
}
