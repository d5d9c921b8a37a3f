//! A tenant: an isolation boundary that every name lives in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::bus::{Bus, Channel, Events, Subscribing};
use crate::engine::{Condition, Interest};
use crate::error::Result;
use crate::event::{Catalog, Event, EventChannel, EventSet};
use crate::kit::{Presence, Roster};
use crate::name::{self, ChannelPath, EntryPath, PatternPath};

/// A tenant's channels and entries. No name given to it can reach another tenant. Cheap to clone.
#[derive(Clone)]
pub struct Tenant {
    bus: Arc<Bus>,
    roster: Arc<Roster>,
    environment: Arc<str>,
    name: Arc<str>,
}

impl Tenant {
    pub(crate) fn new(bus: Arc<Bus>, roster: Arc<Roster>, environment: Arc<str>, name: &str) -> Result<Self> {
        name::check_tenant(name)?;
        Ok(Self { bus, roster, environment, name: name.into() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A channel of this tenant. Channels need no creation: a name is enough.
    ///
    /// # Errors
    /// `InvalidName`: 1 to 255 visible ASCII characters except `" * ? [ ] \ { }`.
    pub fn channel(&self, name: &str) -> Result<Channel> {
        Ok(Channel::new(self.bus.clone(), ChannelPath::new(&self.environment, &self.name, name)?))
    }

    /// Who is in a channel of this tenant.
    ///
    /// # Errors
    /// `InvalidName`, as [`channel`](Self::channel).
    pub fn presence(&self, channel: &str) -> Result<Presence> {
        let channel = ChannelPath::new(&self.environment, &self.name, channel)?;
        Ok(Presence::new(self.roster.clone(), channel))
    }

    /// The channel that event type `E` declares, or that all of them do where `E` is an enum of several.
    ///
    /// # Errors
    /// `Conflict` if a type of the program is declared twice, and not alike; `Codec` if a schema is not valid.
    pub fn events<E: EventChannel>(&self) -> Result<Events<E>> {
        self.events_on(E::CHANNEL)
    }

    /// Another channel than the one that event type `E` declares, as a channel of such events.
    ///
    /// # Errors
    /// `InvalidName`; as [`events`](Self::events) otherwise.
    pub fn events_on<E: EventSet>(&self, channel: &str) -> Result<Events<E>> {
        Events::new(self.channel(channel)?)
    }

    /// What this tenant agrees on of its events, beside what the program's own types do; empty unless it was set.
    pub fn catalog(&self) -> Catalog {
        self.bus.catalogs.of_tenant(&self.name)
    }

    /// Sets what this tenant agrees on of its events, in place of what it did before.
    pub fn set_catalog(&self, catalog: Catalog) {
        self.bus.catalogs.set_tenant(&self.name, catalog);
    }

    /// Listens to every channel of this tenant whose name matches, such as `match:*`; see [`name::check_pattern`].
    ///
    /// # Errors
    /// `InvalidName`.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscribing> {
        let pattern = PatternPath::new(&self.environment, &self.name, pattern)?;
        Ok(Subscribing::new(self.bus.clone(), Interest::Pattern(pattern)))
    }

    /// Publishes live events to many channels in one call; one outcome per event, in order.
    pub async fn publish_many<'a>(
        &self,
        events: impl IntoIterator<Item = (&'a str, Event)>,
    ) -> Vec<Result<()>> {
        let publishes =
            events.into_iter().map(|(name, event)| async move { self.channel(name)?.publish(event).await });
        join_all(publishes).await
    }

    /// The value under `key`, if there is one that has not expired.
    ///
    /// # Errors
    /// `InvalidName`; errors of the engine.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.bus.engine.store.get(&self.entry(key)?).await
    }

    /// Sets the value under `key` if `condition` holds, for `ttl` or until removed; says whether it did.
    ///
    /// # Errors
    /// `InvalidName`; errors of the engine.
    pub async fn put(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        ttl: Option<Duration>,
        condition: Condition,
    ) -> Result<bool> {
        self.bus.engine.store.put(&self.entry(key)?, value.into(), ttl, condition).await
    }

    /// Removes the entry under `key`; says whether there was one.
    ///
    /// # Errors
    /// `InvalidName`; errors of the engine.
    pub async fn remove(&self, key: &str) -> Result<bool> {
        self.bus.engine.store.remove(&self.entry(key)?).await
    }

    fn entry(&self, key: &str) -> Result<EntryPath> {
        EntryPath::new(&self.environment, &self.name, key)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({}:{})", self.environment, self.name)
    }
}
