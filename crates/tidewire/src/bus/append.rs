//! Appending: the options of one append, and its receipt.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::Bus;
use super::stats::Counters;
use crate::clock::Timestamp;
use crate::engine::{Announce, Append, Appended, Dedup, Durability, Effect, Retention, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::limits;
use crate::name::ChannelPath;
use crate::position::Position;

/// How long a dedup id is remembered unless said otherwise.
const DEDUP_WINDOW: Duration = Duration::from_secs(300);

/// Where an appended event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its id. For a duplicate: the id of the event that was **not** appended.
    pub id: Uuid,
    /// Its position; that of the first append for a duplicate, the end of the stream for a stale version, `None` while it
    /// waits for its time.
    pub position: Option<Position>,
    /// While it waits for its time: what [`Channel::cancel`](super::Channel::cancel) takes it back by.
    pub scheduled: Option<Box<str>>,
    /// Whether it was appended.
    pub effect: Effect,
    /// What held when the append was confirmed.
    pub durability: Durability,
}

impl Receipt {
    pub(super) fn new(id: Uuid, appended: Appended) -> Self {
        let Appended { position, scheduled, effect, durability } = appended;
        Self { id, position, scheduled, effect, durability }
    }

    /// The dedup id was seen before: nothing was appended or announced.
    pub fn is_duplicate(&self) -> bool {
        self.effect == Effect::Duplicate
    }

    /// The version is not above the channel's: nothing was appended or announced.
    pub fn is_stale(&self) -> bool {
        self.effect == Effect::Stale
    }
}

/// One append and its options; awaiting it appends.
///
/// Dropping the future may leave the event appended.
#[must_use = "an append happens when it is awaited"]
pub struct Appending {
    bus: Arc<Bus>,
    counters: Arc<Counters>,
    channel: ChannelPath,
    event: Result<Event>,
    options: AppendOptions,
}

/// What can be said of an append beside its event.
#[derive(Debug, Clone, Default)]
pub(super) struct AppendOptions {
    is_quiet: bool,
    announce_on: Option<String>,
    dedup_id: Option<String>,
    dedup_window: Option<Duration>,
    version: Option<Version>,
    retention: Option<Retention>,
    durability: Durability,
    deliver_at: Option<Timestamp>,
}

impl Appending {
    pub(super) fn new(
        bus: Arc<Bus>,
        counters: Arc<Counters>,
        channel: ChannelPath,
        event: Result<Event>,
    ) -> Self {
        Self { bus, counters, channel, event, options: AppendOptions::default() }
    }

    /// Announces to nobody: only readers and groups find it.
    pub fn quiet(mut self) -> Self {
        self.options = self.options.quiet();
        self
    }

    /// Announces it on another channel of the tenant too.
    pub fn announce_on(mut self, channel: &str) -> Self {
        self.options.announce_on = Some(channel.to_owned());
        self
    }

    /// Sets the event's key: events of one key are ordered among each other. That of a signed event stands in its signature and
    /// is declared with its type: another one is an `InvalidName` error when this is awaited.
    pub fn key(mut self, key: &str) -> Self {
        self.event = self.event.and_then(|event| match event.is_signed() && event.key() != Some(key) {
            true => Err(Error::new(
                ErrorKind::InvalidName,
                format!("{} is signed and has its key already: declare it with the type", event.event_type()),
            )),
            false => Ok(event.with_key(key)),
        });
        self
    }

    /// Appends once per id, at most 255 bytes, while the id is remembered: five minutes, if
    /// [`dedup_window`](Self::dedup_window) does not say otherwise.
    pub fn dedup(mut self, id: &str) -> Self {
        self.options.dedup_id = Some(id.to_owned());
        self
    }

    /// How long the dedup id is remembered.
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.options.dedup_window = Some(window);
        self
    }

    /// Appends only if `number` is above the version that the channel has, and gives the channel this one: of several
    /// publishers that tell the same thing, one that is late changes nothing. See [`Receipt::is_stale`]. An append whose
    /// outcome was not known and that is tried again may find its own version.
    pub fn version(self, number: u64) -> Self {
        self.version_in("", number)
    }

    /// As [`version`](Self::version), where numbers are compared within `epoch`, at most 64 bytes: another one starts anew.
    pub fn version_in(mut self, epoch: &str, number: u64) -> Self {
        self.options.version = Some(Version { epoch: epoch.into(), number });
        self
    }

    /// What the stream keeps from now on; otherwise what the node was opened with.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.options.retention = Some(retention);
        self
    }

    /// What must hold before the append is confirmed.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options = self.options.durability(durability);
        self
    }

    /// Appends it at `time`, not before. The receipt then has no position. Not together with a version, which is compared
    /// when the event is appended: an `InvalidName` error.
    pub fn deliver_at(mut self, time: impl Into<Timestamp>) -> Self {
        self.options.deliver_at = Some(time.into());
        self
    }

    async fn run(self) -> Result<Receipt> {
        let Self { bus, counters, channel, event, options } = self;
        let mut event = event?;
        let _in_flight = bus.enter()?;
        let now = bus.clock.now();
        let append = options.append(&bus, &channel, &mut event, now)?;
        let appended = bus.append(&counters, append, now).await?;
        Ok(Receipt::new(event.id(), appended))
    }
}

impl AppendOptions {
    pub(super) fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    pub(super) fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Checks the options and the event, and encodes them for the engine.
    pub(super) fn append(
        self,
        bus: &Bus,
        channel: &ChannelPath,
        event: &mut Event,
        now: Timestamp,
    ) -> Result<Append> {
        let announce = match (self.is_quiet, self.announce_on) {
            (false, None) => Announce::Here,
            (true, None) => Announce::Quiet,
            (false, Some(other)) => {
                Announce::AlsoOn(ChannelPath::new(channel.environment(), channel.tenant(), &other)?)
            }
            (true, Some(other)) => {
                return Err(Error::new(
                    ErrorKind::InvalidName,
                    format!("append is quiet and announced on {other:?}; choose one"),
                ));
            }
        };
        let window = self.dedup_window.unwrap_or(DEDUP_WINDOW);
        let dedup = self.dedup_id.map(|id| check_dedup(id, window)).transpose()?;
        if let Some(Version { epoch, .. }) = &self.version {
            check_version_epoch(epoch)?;
            if self.deliver_at.is_some() {
                let text = "append has a version and a time; choose one: nobody could be told that it came to be stale";
                return Err(Error::new(ErrorKind::InvalidName, text));
            }
        }
        event.stamp(bus.node, now, &bus.limits)?;
        Ok(Append {
            channel: channel.clone(),
            envelope: Bytes::from(&*event),
            announce,
            dedup,
            version: self.version,
            retention: self.retention.unwrap_or(bus.retention),
            durability: self.durability,
            deliver_at: self.deliver_at,
        })
    }
}

fn check_dedup(id: String, window: Duration) -> Result<Dedup> {
    match id.len() {
        0 => Err(Error::new(ErrorKind::InvalidName, "dedup id is empty")),
        1..=limits::DEDUP_ID_BYTES_MAX => Ok(Dedup { id: id.into(), window }),
        seen => Err(Error::too_large("dedup id", seen, limits::DEDUP_ID_BYTES_MAX, "DEDUP_ID_BYTES_MAX")),
    }
}

fn check_version_epoch(epoch: &str) -> Result<()> {
    match epoch.len() {
        0..=limits::VERSION_EPOCH_BYTES_MAX => Ok(()),
        seen => {
            let max = limits::VERSION_EPOCH_BYTES_MAX;
            Err(Error::too_large("version epoch", seen, max, "VERSION_EPOCH_BYTES_MAX"))
        }
    }
}

impl IntoFuture for Appending {
    type Output = Result<Receipt>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Appending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appending").field("channel", &self.channel).field("options", &self.options).finish()
    }
}
