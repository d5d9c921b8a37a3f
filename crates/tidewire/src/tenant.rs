//! A tenant: an isolation boundary that every name lives in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::bus::{Bus, Channel, Subscribing};
use crate::engine::{Condition, Interest};
use crate::error::Result;
use crate::event::Event;
use crate::name::{self, ChannelPath, EntryPath, PatternPath};

/// A tenant's channels and entries. No name given to it can reach another tenant. Cheap to clone.
#[derive(Clone)]
pub struct Tenant {
    bus: Arc<Bus>,
    environment: Arc<str>,
    name: Arc<str>,
}

impl Tenant {
    pub(crate) fn new(bus: Arc<Bus>, environment: Arc<str>, name: &str) -> Result<Self> {
        name::check_tenant(name)?;
        Ok(Self { bus, environment, name: name.into() })
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
