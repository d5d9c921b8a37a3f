//! How the engine's links are, as the engine finds out when it is asked.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tidewire::{Tidewire, Timestamp};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long an answer is good for, however often it is scraped: each asking is a round trip on every link.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// How long the round trips may take; a link that takes longer is down. A scrape has 10 s as a rule.
const SAMPLE_WITHIN: Duration = Duration::from_secs(3);

/// The links as they were heard of last.
#[derive(Default)]
pub(crate) struct Links(Mutex<Sampled>);

#[derive(Default)]
struct Sampled {
    at: Option<Timestamp>,
    links: Vec<Link>,
}

#[derive(Clone, Debug, Default)]
struct Link {
    name: String,
    round_trip: Option<Duration>,
    opened: u64,
    open_for: Option<Duration>,
}

/// The lines of links.
#[derive(Debug)]
pub(super) struct LinkLines(Vec<Link>);

impl Links {
    /// How the links are. Dropping the future leaves what was heard before.
    pub(super) async fn of(&self, tidewire: &Tidewire, now: Timestamp) -> LinkLines {
        let mut sampled = self.0.lock().await;
        if sampled.at.is_none_or(|at| now.since(at) >= SAMPLE_EVERY) {
            let links = match timeout(SAMPLE_WITHIN, tidewire.health()).await {
                Ok(health) => health
                    .links
                    .into_iter()
                    .map(|probe| Link {
                        round_trip: probe.outcome.ok(),
                        opened: probe.opened,
                        open_for: probe.open_for,
                        name: probe.link,
                    })
                    .collect(),
                // As it was heard of last, but for what was asked.
                Err(_) if sampled.links.is_empty() => vec![Link { name: "engine".into(), ..Link::default() }],
                Err(_) => {
                    let down = |link: Link| Link { round_trip: None, ..link };
                    std::mem::take(&mut sampled.links).into_iter().map(down).collect()
                }
            };
            *sampled = Sampled { at: Some(now), links };
        }
        LinkLines(sampled.links.clone())
    }
}

impl LinkLines {
    fn gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        value: fn(&Link) -> Option<f64>,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for link in &self.0 {
            if let Some(value) = value(link) {
                metric.encode_family(&[("link", link.name.as_str())])?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

impl Collector for LinkLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let up = ("link_up", "Whether a link of the engine answered just now - 1 yes, 0 no");
        self.gauge(&mut encoder, up, |link| Some(f64::from(u8::from(link.round_trip.is_some()))))?;
        let round_trip = ("link_round_trip_seconds", "The time that it took a link of the engine to answer");
        self.gauge(&mut encoder, round_trip, |link| link.round_trip.map(|time| time.as_secs_f64()))?;
        let open = ("link_open_seconds", "How long a link of the engine has been open");
        self.gauge(&mut encoder, open, |link| link.open_for.map(|time| time.as_secs_f64()))?;
        let help = "Times that a link of the engine was opened; the first is one too";
        let mut metric = encoder.encode_descriptor("link_opened", help, None, MetricType::Counter)?;
        for link in self.0.iter().filter(|link| link.opened > 0) {
            let labels = [("link", link.name.as_str())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&link.opened, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_that_does_not_answer_is_down_and_is_asked_no_more_often_than_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let tidewire = Tidewire::open(&format!("file:{}", folder.path().display())).await.unwrap();
        let (links, now) = (Links::default(), Timestamp::default());
        let is_up = |lines: &LinkLines| lines.0.iter().all(|link| link.round_trip.is_some());
        assert!(is_up(&links.of(&tidewire, now).await));
        tidewire.close(Duration::from_secs(5)).await.unwrap();
        assert!(is_up(&links.of(&tidewire, now).await), "as it was heard of last");
        let lines = links.of(&tidewire, now.saturating_add(SAMPLE_EVERY)).await;
        assert!(!lines.0.is_empty() && !is_up(&lines), "{lines:?}");
    }

    #[tokio::test]
    async fn links_on_redis_tell_since_when_they_are_open() {
        #[expect(clippy::disallowed_methods, reason = "where the tests' server is")]
        let url =
            std::env::var("TIDEWIRE_TEST_REDIS_URL").expect("run `cargo xtask test`, which starts Redis");
        let tidewire = Tidewire::open(&url).await.unwrap();
        let LinkLines(links) = Links::default().of(&tidewire, Timestamp::default()).await;
        assert_eq!(links.len(), 2, "{links:?}");
        assert!(links.iter().all(|link| link.opened == 1 && link.open_for.is_some()), "{links:?}");
    }
}
