//! The REST API under `/v1`: paths with their names encoded, requests, and answers or why there is none.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Result;
use jiff::{Span, SpanRelativeTo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidewire::{Clock, Timestamp};
use url::form_urlencoded::byte_serialize;

use crate::client::{Api, Verb};

/// A path under `/v1`, with the query behind it.
#[derive(Clone)]
pub(crate) struct RestPath {
    path: String,
    has_query: bool,
}

impl RestPath {
    /// That of a channel.
    pub(crate) fn channel(channel: &str) -> Self {
        Self { path: "/v1/channels".into(), has_query: false }.name(channel)
    }

    /// That of a group of a channel.
    pub(crate) fn group(channel: &str, group: &str) -> Self {
        Self::channel(channel).then("groups").name(group)
    }

    /// That of all webhooks.
    pub(crate) fn webhooks() -> Self {
        Self { path: "/v1/webhooks".into(), has_query: false }
    }

    /// That of a webhook.
    pub(crate) fn webhook(name: &str) -> Self {
        Self::webhooks().name(name)
    }

    /// That of connections that have ended.
    pub(crate) fn closed_connections() -> Self {
        Self { path: "/v1/connections/closed".into(), has_query: false }
    }

    /// That of what goes on at the connections of a user.
    pub(crate) fn tap(user: &str) -> Self {
        Self { path: "/v1/users".into(), has_query: false }.name(user).then("tap")
    }

    /// That of the catalog of events.
    pub(crate) fn catalog() -> Self {
        Self { path: "/v1/catalog.json".into(), has_query: false }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.path
    }

    /// Goes on with a part of ours.
    pub(crate) fn then(mut self, part: &str) -> Self {
        self.path.push('/');
        self.path.push_str(part);
        self
    }

    /// Goes on with a name.
    pub(crate) fn name(self, name: &str) -> Self {
        let encoded = encode(name);
        self.then(&encoded)
    }

    /// Adds a parameter of the query, if it has a value.
    pub(crate) fn query(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.path.push(if self.has_query { '&' } else { '?' });
            self.path.push_str(name);
            self.path.push('=');
            self.path.push_str(&encode(value));
            self.has_query = true;
        }
        self
    }
}

impl Api {
    /// Reads what is at a path.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &RestPath) -> Result<T> {
        self.rest(Verb::Get, &path.path, String::new())
    }

    /// Removes what is at a path.
    pub(crate) fn delete(&self, path: &RestPath) -> Result<()> {
        let _empty: serde::de::IgnoredAny = self.rest(Verb::Delete, &path.path, String::new())?;
        Ok(())
    }

    /// Sends a body to a path.
    pub(crate) fn send<T: DeserializeOwned>(
        &self,
        verb: Verb,
        path: &RestPath,
        body: &impl Serialize,
    ) -> Result<T> {
        self.rest(verb, &path.path, serde_json::to_string(body)?)
    }
}

fn encode(name: &str) -> String {
    // Forms write a space as `+`, paths do not; a plus of the name is encoded already.
    byte_serialize(name.as_bytes()).map(|part| if part == "+" { "%20" } else { part }).collect()
}

/// A moment of the command line: RFC 3339, or how long ago, such as 15m or 7d.
pub(crate) fn moment(text: &str) -> Result<String, String> {
    let ago = || -> Result<Duration, jiff::Error> {
        text.parse::<Span>()?.to_duration(SpanRelativeTo::days_are_24_hours())?.try_into()
    };
    let time =
        text.parse::<Timestamp>().ok().or_else(|| Some(Clock::system().now().saturating_sub(ago().ok()?)));
    time.map(|time| time.to_string())
        .ok_or_else(|| "write a time such as 2026-01-31T12:00:00Z, or how long ago: 15m, 2h, 7d".into())
}

/// A time for people, without its fraction.
pub(crate) fn seconds_of(time: &str) -> Cow<'_, str> {
    match (time.split_once('.'), time.strip_suffix('Z')) {
        (Some((seconds, _)), Some(_)) => format!("{seconds}Z").into(),
        _ => time.into(),
    }
}

/// A duration for people.
pub(crate) fn duration_of(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_and_queries_hold_what_is_given() {
        let path = RestPath::group("shop:orders/7", "a+b").then("dead-letters");
        let path =
            path.query("reason", Some("card # declined")).query("kind", None).query("limit", Some("5"));
        assert_eq!(
            path.path,
            "/v1/channels/shop%3Aorders%2F7/groups/a%2Bb/dead-letters?reason=card%20%23%20declined&limit=5"
        );
    }

    #[test]
    fn moments_are_times_or_how_long_ago() {
        assert_eq!(moment("2026-01-31T12:00:00+01:00").unwrap(), "2026-01-31T11:00:00Z");
        assert!(moment("1h").unwrap() < moment("1m").unwrap());
        assert!(moment("yesterday").unwrap_err().contains("15m"));
    }

    #[test]
    fn people_read_whole_seconds_and_two_units() {
        assert_eq!(seconds_of("2026-01-31T12:00:00.123Z"), "2026-01-31T12:00:00Z");
        assert_eq!(seconds_of("2026-01-31T12:00:00Z"), "2026-01-31T12:00:00Z");
        let durations = [7, 7_000, 61_000, 3_660_000, 90_000_000].map(duration_of);
        assert_eq!(durations, ["7ms", "7s", "1m1s", "1h1m", "1d1h"]);
    }
}
