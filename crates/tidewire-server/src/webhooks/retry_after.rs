//! `Retry-After`: [RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#name-retry-after).

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use tidewire::Timestamp;

/// How long to wait: seconds, or until a date. None of what is neither.
pub(super) fn read(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTimeParser::new().parse_timestamp(text).ok()?;
    let millis = u64::try_from(date.as_millisecond()).unwrap_or_default();
    Some(Timestamp::from_millis(millis).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sat, 31 Jan 2026 12:00:30 GMT", Some(30)),
            ("Sat, 31 Jan 2026 11:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(read(text, now).map(|after| after.as_secs()), seconds, "{text}");
        }
    }
}
