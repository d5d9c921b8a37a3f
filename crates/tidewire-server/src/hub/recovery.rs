//! Giving a subscriber what it missed, from the stream.

use tidewire::{ErrorKind, Position, Received};

use super::relay::Relay;

/// Events in one step of a recovery. A reply or push cannot be taken back, so steps are small enough to keep within the
/// outbox, and large enough to recover 1,000 events in a few reads.
const STEP_EVENTS_MAX: usize = 256;

/// One step of a recovery.
#[derive(Debug)]
pub(crate) enum Step {
    /// The next events, without a hole; at least one.
    Events(Vec<Received>),
    /// What follows the position is no longer kept.
    Lost,
}

/// Reads what follows `after` in the relay's stream, up to offset `until`. There is no cap on a recovery: read again
/// from the last event on until `until` is reached.
///
/// # Errors
/// Those of the engine; the same read may succeed later.
pub(crate) async fn step(relay: &Relay, after: Position, until: u64) -> tidewire::Result<Step> {
    let read = relay.channel().read().after(after).limit(STEP_EVENTS_MAX).await;
    let history = match read {
        Ok(history) => history,
        Err(error) if error.kind() == ErrorKind::PositionLost => return Ok(Step::Lost),
        Err(error) => return Err(error),
    };
    if history.missing_count > 0 {
        return Ok(Step::Lost);
    }
    let mut events = history.events;
    events.retain(|received| received.position.is_some_and(|position| position.offset <= until));
    Ok(if events.is_empty() { Step::Lost } else { Step::Events(events) })
}
