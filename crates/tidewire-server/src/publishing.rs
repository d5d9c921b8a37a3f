//! Publishing to a channel by its rule: kept channels append, live ones publish.

use tidewire::{Condition, Effect, Error, ErrorKind, Event, Position, Retention};

use crate::config::{ChannelRule, Keep};
use crate::node::Node;
use crate::tenants::Tenant;

/// Longest idempotency key, in bytes. It is part of a stored key together with the channel's name, which is bounded too.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;

/// How an event is published.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options<'a> {
    /// Requests with the same key have one effect; empty for none.
    pub(crate) idempotency_key: &'a str,
    /// Live even where the channel is kept.
    pub(crate) skips_history: bool,
    /// Only if it is above the channel's version.
    pub(crate) version: Option<Version<'a>>,
}

/// The version of a publication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version<'a> {
    pub(crate) epoch: &'a str,
    pub(crate) number: u64,
}

/// What was published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    /// Where it is in the stream; `None` for a live event.
    pub(crate) position: Option<Position>,
    /// Whether it was published, or why not: then the position is that of the event with the same idempotency key, or the end
    /// of the stream.
    pub(crate) effect: Effect,
}

/// Publishes an event.
///
/// With an idempotency key a repetition has no second effect and the position of the first: on a kept channel as part of
/// the append, so over retries and restarts alike; on a live channel the first request that marks the key publishes.
/// Dropping the future may leave the event published.
pub(crate) async fn publish(
    node: &Node,
    tenant: &Tenant,
    rule: &ChannelRule,
    channel: &str,
    event: Event,
    options: Options<'_>,
) -> tidewire::Result<Published> {
    let key = options.idempotency_key;
    if key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let message =
            format!("idempotency_key is {} bytes, limit is {IDEMPOTENCY_KEY_BYTES_MAX} bytes", key.len());
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    let handle = tenant.handle.channel(channel)?;
    let window = node.config.timing.idempotency_window;
    if let (Some(keep), false) = (rule.keep, options.skips_history) {
        let append = handle.append(event).retention(retention(keep)).durability(keep.durability);
        let append = if key.is_empty() { append } else { append.dedup(key).dedup_window(window) };
        let append = match options.version {
            Some(Version { epoch, number }) => append.version_in(epoch, number),
            None => append,
        };
        let receipt = append.await?;
        return Ok(Published { position: receipt.position, effect: receipt.effect });
    }
    if options.version.is_some() {
        let message = "version needs a kept channel: give its rule keep, and leave skip_history out";
        return Err(Error::new(ErrorKind::InvalidName, message));
    }
    if key.is_empty() {
        handle.publish(event).await?;
        return Ok(Published { position: None, effect: Effect::New });
    }
    let mark = mark_of(channel, key);
    let is_first = tenant.handle.put(&mark, "", Some(window), Condition::Absent).await?;
    if is_first && let Err(error) = handle.publish(event).await {
        // Where nothing was done a repetition must be able to try again; where the outcome is unknown it must not.
        if error.kind() != ErrorKind::TimedOut {
            let _removed = tenant.handle.remove(&mark).await;
        }
        return Err(error);
    }
    Ok(Published { position: None, effect: if is_first { Effect::New } else { Effect::Duplicate } })
}

pub(crate) fn retention(keep: Keep) -> Retention {
    Retention {
        events_max: Some(keep.events),
        age_max: Some(keep.age),
        bytes_max: None,
        at_bound: keep.at_bound,
    }
}

/// The name under which a live publish is marked as done. Callers choose keys freely and store keys are narrower, so
/// what a store key cannot hold is escaped as in URLs.
fn mark_of(channel: &str, key: &str) -> String {
    let mut mark = format!("once:{channel}:");
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':') {
            mark.push(char::from(byte));
        } else {
            mark.push_str(&format!("%{byte:02X}"));
        }
    }
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_different_keys_differ() {
        assert_eq!(mark_of("a:b", "id-1"), "once:a:b:id-1");
        assert_eq!(mark_of("a", "{x} %"), "once:a:%7Bx%7D%20%25");
        assert_ne!(mark_of("a", "%20"), mark_of("a", " "));
    }
}
