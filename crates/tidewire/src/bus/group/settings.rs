//! How a consumer works.

use std::sync::Arc;
use std::time::Duration;

use super::extract::Unknown;
use super::retries::Retries;
use crate::bus::Gap;

/// Who is told of events that a group did not get.
pub(super) type OnGap = Arc<dyn Fn(&Gap) + Send + Sync>;

/// The settings of one consumer.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) lease: Duration,
    pub(super) concurrency: usize,
    pub(super) retries: Retries,
    pub(super) timeout: Duration,
    /// How long an event's id is remembered as handled; none: not at all.
    pub(super) dedup: Option<Duration>,
    pub(super) park_time: Duration,
    pub(super) stop_within: Duration,
    pub(super) is_muted: bool,
    pub(super) unknown: Unknown,
    pub(super) on_gap: Option<OnGap>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            concurrency: 64,
            retries: Retries::default(),
            timeout: Duration::from_secs(600),
            dedup: None,
            park_time: Duration::from_secs(300),
            stop_within: Duration::from_secs(10),
            is_muted: false,
            unknown: Unknown::default(),
            on_gap: None,
        }
    }
}
