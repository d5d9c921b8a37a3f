//! What the server itself counted.

use anyhow::Result;

use crate::bench::http::Http;
use crate::bench::target::Target;

const METRIC: &str = "tidewire_recoveries_total{";

/// Subscriptions that asked for what they missed, by how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Recoveries {
    pub(super) complete: f64,
    pub(super) lost: f64,
}

impl Recoveries {
    /// None from a server that has no such metrics.
    pub(super) async fn read(target: &Target) -> Result<Option<Self>> {
        let mut http = Http::open(target).await?;
        let (path, authority) = (target.http_path("/metrics"), target.authority());
        http.send(&format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await?;
        // Without the page the storm is as good; a server may well stream it.
        let Ok(answer) = http.answer().await else { return Ok(None) };
        let is_ours = answer.status == 200 && answer.body.contains("tidewire_");
        Ok(is_ours.then(|| Self::parse(&answer.body)))
    }

    fn parse(page: &str) -> Self {
        let count = |outcome: &str| -> f64 {
            let lines = page.lines().filter_map(|line| line.strip_prefix(METRIC)?.split_once('}'));
            let ours = lines.filter(|(labels, _)| labels.contains(outcome));
            ours.filter_map(|(_, count)| count.trim().parse::<f64>().ok()).sum()
        };
        Self { complete: count("outcome=\"complete\""), lost: count("outcome=\"lost\"") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_outcomes_and_no_other_metric() {
        let page = "# TYPE tidewire_recoveries counter\ntidewire_recoveries_total{tenant=\"lost\",outcome=\"complete\"} 5\n\
                    tidewire_recoveries_total{tenant=\"lost\",outcome=\"lost\"} 2\ntidewire_drops_total{reason=\"lost\"} 9\n";
        assert_eq!(Recoveries::parse(page), Recoveries { complete: 5.0, lost: 2.0 });
        assert_eq!(Recoveries::parse("# EOF\n"), Recoveries::default());
    }
}
