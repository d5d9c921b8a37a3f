//! Typed handles: a channel whose events are Rust types.

use std::fmt;
use std::marker::PhantomData;

use super::append::Appending;
use super::channel::Channel;
use super::group::Group;
use super::item::{Gap, Item, Received};
use super::subscription::{Subscribing, Subscription};
use crate::engine::Start;
use crate::error::Result;
use crate::event::{Event, EventSet, Receiving, Sending, Unreadable};

/// A channel of events of type `E`: one type, or an enum of several. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidewire::Result<()> {
/// # use serde::{Deserialize, Serialize};
/// use tidewire::{Event, Tidewire, TypedItem};
///
/// #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// #[event(name = "product.created", channel = "products", key = id)]
/// struct ProductCreated {
///     id: u64,
///     name: String,
/// }
///
/// let shop = Tidewire::open("memory:").await?.tenant("shop")?;
/// let products = shop.events::<ProductCreated>()?;
/// let mut subscription = products.subscribe().open().await?;
///
/// products.append(&ProductCreated { id: 7, name: "cup".into() }).dedup("product-7").await?;
///
/// let Some(TypedItem::Event(created)) = subscription.next().await else { panic!("an event") };
/// assert_eq!(created.event.name, "cup");
/// assert_eq!(created.received.event.key(), Some("7"));
/// # Ok(()) }
/// ```
pub struct Events<E> {
    channel: Channel,
    set: PhantomData<fn(E) -> E>,
}

impl<E: EventSet> Events<E> {
    pub(crate) fn new(channel: Channel) -> Result<Self> {
        channel.bus().catalogs.declare(E::contracts())?;
        Ok(Self { channel, set: PhantomData })
    }

    /// The channel beneath.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The event as it is sent: with the key, subject and version that its type declares, checked, sealed, signed.
    ///
    /// # Errors
    /// `Codec` if it does not keep to its contract; `Conflict` if it is another tenant's; `NotFound` if a key to sign or seal
    /// it with is missing.
    pub fn event(&self, event: &E) -> Result<Event> {
        let bus = self.channel.bus();
        event.to_event(&Sending {
            tenant: self.channel.path().tenant(),
            keys: &bus.keys,
            now: bus.clock.now(),
        })
    }

    /// Sends a live event; see [`Channel::publish`].
    ///
    /// # Errors
    /// Those of [`event`](Self::event) and of [`Channel::publish`].
    pub async fn publish(&self, event: &E) -> Result<()> {
        self.channel.publish(self.event(event)?).await
    }

    /// Appends an event; see [`Channel::append`]. Errors of [`event`](Self::event) come when it is awaited.
    pub fn append(&self, event: &E) -> Appending {
        self.channel.appending(self.event(event))
    }

    /// Listens; see [`Channel::subscribe`].
    pub fn subscribe(&self) -> Subscribing<E> {
        self.channel.subscribing()
    }

    /// A group of consumers; a handler of it takes an `E`. See [`Channel::group`].
    ///
    /// # Errors
    /// As [`Channel::group`].
    pub fn group(&self, name: &str, start: Start) -> Result<Group> {
        self.channel.group(name, start)
    }
}

/// A running subscription to events of type `E`. Its guarantees are those of [`Subscription`].
pub struct TypedSubscription<E> {
    inner: Subscription,
    set: PhantomData<fn() -> E>,
}

/// What a [`TypedSubscription`] yields.
#[derive(Debug, Clone)]
pub enum TypedItem<E> {
    /// An event.
    Event(Typed<E>),
    /// Events are missing here.
    Gap(Gap),
    /// An event that is no `E`, or cannot be trusted to be one.
    Unreadable(Received, Unreadable),
}

/// A typed event as a subscriber gets it.
#[derive(Debug, Clone)]
pub struct Typed<E> {
    /// The event.
    pub event: E,
    /// How it came: its position, time and attributes.
    pub received: Received,
}

impl<E: EventSet> TypedSubscription<E> {
    pub(super) fn new(inner: Subscription) -> Self {
        Self { inner, set: PhantomData }
    }

    /// The next item; `None` once the subscription is closed with the node.
    ///
    /// Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<TypedItem<E>> {
        let received = match self.inner.next().await? {
            Item::Event(received) => received,
            Item::Gap(gap) => return Some(TypedItem::Gap(gap)),
        };
        let receiving = Receiving { tenant: received.channel.tenant(), keys: &self.inner.bus().keys };
        Some(match E::from_event(&received.event, &receiving) {
            Ok(event) => TypedItem::Event(Typed { event, received }),
            Err(why) => TypedItem::Unreadable(received, why),
        })
    }
}

impl<E> Clone for Events<E> {
    fn clone(&self) -> Self {
        Self { channel: self.channel.clone(), set: PhantomData }
    }
}

impl<E> fmt::Debug for Events<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({})", self.channel.path())
    }
}

impl<E> fmt::Debug for TypedSubscription<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedSubscription").finish_non_exhaustive()
    }
}
