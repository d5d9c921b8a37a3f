//! The checks of a running server, over HTTP.

use std::time::Duration;

use anyhow::Result;
use jiff::fmt::rfc2822::DateTimeParser;
use serde::Deserialize;
use tidewire::{Clock, Timestamp};
use ureq::Agent;

use super::{Finding, Report};
use crate::client::{agent, unreachable};
use crate::print::one_line;
use crate::server_url::{ServerPlace, ServerUrl};

/// Clocks further apart than this make fresh tokens look expired or not yet valid.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// Checks the server at `url`.
pub(super) fn check(server: &ServerPlace, report: &mut Report) -> Result<()> {
    let (agent, url) = (agent(server), &server.url);
    let health = match get(&agent, url, "/health") {
        Ok(health) => health,
        Err(error) => {
            return report.add(&Finding::fail(
                "health",
                format!("{error:#}"),
                "start it with `tidewire serve`, or name the right one with --url",
            ));
        }
    };
    report.add(&match health.status {
        200 => Finding::ok("health", format!("{url} is alive")),
        status => Finding::fail(
            "health",
            format!("status {status}: {}", one_line(&health.text)),
            "see whether another program listens there",
        ),
    })?;
    report.add(&match get(&agent, url, "/ready") {
        Ok(Answer { status: 200, .. }) => Finding::ok("ready", "every link of the engine answers"),
        Ok(answer) => Finding::fail(
            "ready",
            deaf_links(&answer),
            "see the server's log; `tidewire doctor --engine URL` checks its engine by itself",
        ),
        Err(error) => Finding::fail("ready", format!("{error:#}"), "see the server's log"),
    })?;
    report.add(&skew(&health))
}

struct Answer {
    status: u16,
    text: String,
    /// The server's time, in whole seconds.
    date: Option<Timestamp>,
    /// Our time when the answer came.
    received: Timestamp,
}

/// The body of `/ready`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Readiness {
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    link: String,
    is_healthy: bool,
}

fn get(agent: &Agent, url: &ServerUrl, path: &str) -> Result<Answer> {
    let mut response = agent.get(url.http(path)).call().map_err(|error| unreachable(url, error))?;
    let received = Clock::system().now();
    let date = response.headers().get("Date").and_then(|date| {
        let time = DateTimeParser::new().parse_timestamp(date.as_bytes()).ok()?;
        Some(Timestamp::from_millis(u64::try_from(time.as_millisecond()).ok()?))
    });
    let text = response.body_mut().read_to_string().map_err(|error| unreachable(url, error))?;
    Ok(Answer { status: response.status().as_u16(), text: text.trim().to_owned(), date, received })
}

/// Names the links that are down; an answer that does not tell is shown as it is.
fn deaf_links(answer: &Answer) -> String {
    let readiness: Readiness = serde_json::from_str(&answer.text).unwrap_or_default();
    let links = readiness.links.into_iter().filter(|link| !link.is_healthy).map(|link| link.link);
    let links = links.collect::<Vec<_>>().join(", ");
    if links.is_empty() {
        return format!("status {}: {}", answer.status, one_line(&answer.text));
    }
    format!("no answer from {}", one_line(&links))
}

fn skew(answer: &Answer) -> Finding {
    let Some(date) = answer.date else {
        return Finding::warn(
            "clock",
            "the server's answer has no Date header",
            "see whether a proxy in front of it takes the header away",
        );
    };
    let skew = answer.received.since(date).max(date.since(answer.received));
    if skew <= SKEW_MAX {
        return Finding::ok("clock", format!("within {} s of ours", SKEW_MAX.as_secs()));
    }
    Finding::warn(
        "clock",
        format!("{} s from ours", skew.as_secs()),
        "set both machines by NTP: tokens expire by the server's clock",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        let now = Timestamp::default();
        Answer { status: 503, text: text.into(), date: Some(now), received: now }
    }

    #[test]
    fn links_that_are_down_are_named() {
        let ready = r#"{"status":"not ready","links":[{"link":"a","is_healthy":true},{"link":"b","is_healthy":false}]}"#;
        assert_eq!(deaf_links(&answer(ready)), "no answer from b");
        assert_eq!(
            deaf_links(&answer(r#"{"status":"not ready","links":[]}"#)),
            r#"status 503: {"status":"not ready","links":[]}"#
        );
        assert_eq!(deaf_links(&answer("down for\nmaintenance")), "status 503: down for maintenance");
    }

    fn skew_of(date_millis: u64, received_millis: u64) -> String {
        let [date, received] = [date_millis, received_millis].map(Timestamp::from_millis);
        let answer = Answer { date: Some(date), received, ..answer("") };
        format!("{:?} {}", skew(&answer).outcome, skew(&answer).found)
    }

    #[test]
    fn clocks_far_apart_are_told_in_both_directions() {
        assert_eq!(skew_of(60_000, 60_900), "Ok within 5 s of ours");
        assert_eq!(skew_of(60_000, 67_000), "Warn 7 s from ours");
        assert_eq!(skew_of(67_000, 60_000), "Warn 7 s from ours");
    }
}
