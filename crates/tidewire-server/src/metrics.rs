//! What a node counts, as Prometheus reads it at `/metrics`.
//!
//! Labels come from our own tables, from the settings, and from the names of tenants, channels and groups, of which so many
//! have lines of their own and all others are counted together. `docs/metrics.md` tells of each line.

mod activity;
mod counts;
mod hooks;
mod lag;
mod links;
mod tenant;
mod tenants;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub(crate) use self::counts::Kind;
pub(crate) use self::hooks::{EndpointMetrics, HookMetrics, Outcome};
pub(crate) use self::lag::Lags;
pub(crate) use self::links::Links;
pub(crate) use self::tenant::{AuthFailure, Loss, Recovery, StreamRead, TenantMetrics, is_write_timed};

use self::activity::Activity;
use self::counts::{Counts, kinds};
use self::tenants::{OfTenants, TenantLines};
use crate::node::Node;

/// What stands for the name of all that have no lines of their own. No name can be this.
const OTHERS: &str = "*";

kinds! {
    /// What carries a connection.
    Transport {
        WebSocket = "websocket",
        Sse = "sse",
        HttpStream = "http_stream",
    }
}

impl Transport {
    pub(crate) fn as_str(self) -> &'static str {
        Self::WORDS.get(self.index()).copied().unwrap_or_default()
    }
}

/// The counters of a node; handles that the parts of the server add to.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Commands of clients, by outcome.
    pub(crate) commands: Family<CommandLabels, Counter>,
    /// Connections that the server ended.
    pub(crate) disconnects: Family<CodeLabel, Counter>,
    /// Who was not let in at the edge.
    pub(crate) refusals: Family<RefusalLabel, Counter>,
    /// Requests to the server API.
    pub(crate) api_requests: Family<ApiLabels, Counter>,
    /// Asks of backends.
    pub(crate) hooks: HookMetrics,
    /// Who was not let in, where no tenant is known.
    pub(crate) strangers: Counts<AuthFailure>,
    received_frames: Counts<Transport>,
    received_bytes: Counts<Transport>,
    /// Tenants in which something has happened.
    ranks: AtomicUsize,
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
pub(crate) struct ApiLabels {
    pub(crate) method: &'static str,
    /// The error code; 0 for success.
    pub(crate) code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransportLabel {
    transport: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusalLabel {
    pub(crate) reason: &'static str,
}

impl Metrics {
    /// Counts a frame of a client.
    pub(crate) fn received(&self, transport: Transport, bytes: usize) {
        self.received_frames.add(transport, 1);
        self.received_bytes.add(transport, bytes as u64);
    }

    fn next_rank(&self) -> usize {
        self.ranks.fetch_add(1, Relaxed)
    }

    fn register(&self, registry: &mut Registry) {
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
        registry.register(
            "api_requests",
            "Requests to the server API, by method and error code (0: success)",
            self.api_requests.clone(),
        );
        self.hooks.register(registry);
        registry.register(
            "edge_refused",
            "Connections and requests not let in, by reason",
            self.refusals.clone(),
        );
        registry.register_collector(Box::new(Received {
            frames: self.received_frames.load(),
            bytes: self.received_bytes.load(),
        }));
    }
}

/// What clients sent, by transport.
#[derive(Debug)]
struct Received {
    frames: Vec<u64>,
    bytes: Vec<u64>,
}

impl Collector for Received {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, counts) in [
            ("received_frames", "Frames of commands from clients", &self.frames),
            (
                "received_bytes",
                "Bytes of these frames, inflated and without their transport's framing",
                &self.bytes,
            ),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (transport, count) in Transport::WORDS.iter().zip(counts) {
                let labels = TransportLabel { transport };
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        Ok(())
    }
}

/// All metrics of a node in OpenMetrics text, with their help.
pub(crate) async fn render(node: &Node) -> String {
    let mut registry = Registry::with_prefix("tidewire");
    let now = node.clock.now();
    node.metrics.register(&mut registry);
    let (lines, strangers) = (TenantLines::of(node).await, node.metrics.strangers.load());
    registry.register_collector(Box::new(OfTenants { lines, strangers }));
    // Each waits for the engine, for as long as a scrape has.
    let (links, activity) = tokio::join!(node.links.of(&node.tidewire, now), Activity::of(node));
    registry.register_collector(Box::new(links));
    registry.register_collector(Box::new(activity));
    let mut page = String::new();
    // Writing into a string does not fail.
    let _written = text::encode(&mut page, &registry).is_ok();
    page
}
