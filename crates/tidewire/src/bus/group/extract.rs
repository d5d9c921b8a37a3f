//! What a handler's arguments can be.

use std::any::type_name;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, Emitted, States};
use super::outcome::Outcome;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Contract, Event, EventChannel, EventSet, Receiving, Sending, Unreadable};
use crate::name;

/// What a delivery can give to a handler as an argument.
///
/// ```
/// use tidewire::{Delivery, FromDelivery, Outcome};
///
/// /// The order that an event is about.
/// struct OrderId(u64);
///
/// impl FromDelivery for OrderId {
///     fn from_delivery(delivery: &Delivery) -> Result<Self, Outcome> {
///         let subject = delivery.event().subject().unwrap_or_default();
///         let id = subject.strip_prefix("order/").and_then(|id| id.parse().ok());
///         id.map(Self).ok_or_else(|| Outcome::reject("subject is not order/NUMBER"))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a delivery does not give a handler a `{Self}`",
    note = "it gives `Event`, `Delivery`, `Bytes`, `Json<T>`, `State<T>`, `Emit`, `Lost`, and what implements \
            `FromDelivery`"
)]
pub trait FromDelivery: Sized {
    /// Takes it from the delivery.
    ///
    /// # Errors
    /// What becomes of the delivery instead; the handler is not called.
    fn from_delivery(delivery: &Delivery) -> Result<Self, Outcome>;

    /// Whether the program gave what this needs; asked once, before the first delivery. Who uses another extractor in
    /// [`from_delivery`](Self::from_delivery) asks it here, too.
    ///
    /// # Errors
    /// What is missing.
    fn check(states: &States) -> Result<()> {
        let _nothing_needed = states;
        Ok(())
    }

    /// The contracts of the events that this reads, which the node then knows.
    fn contracts() -> Vec<&'static Arc<Contract>> {
        Vec::new()
    }
}

impl FromDelivery for Delivery {
    fn from_delivery(delivery: &Delivery) -> Result<Self, Outcome> {
        Ok(delivery.clone())
    }
}

impl FromDelivery for Event {
    fn from_delivery(delivery: &Delivery) -> Result<Self, Outcome> {
        Ok(delivery.event().clone())
    }
}

/// The event's data, as it was published.
impl FromDelivery for Bytes {
    fn from_delivery(delivery: &Delivery) -> Result<Self, Outcome> {
        Ok(delivery.event().data().clone())
    }
}

/// What becomes of an event of a type or version that a typed handler does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unknown {
    /// It goes to the dead letters.
    #[default]
    DeadLetter,
    /// It is acknowledged and has no effect.
    Skip,
    /// It waits for [`Consuming::park_time`](super::Consuming::park_time), in case a newer program comes to take it.
    Park,
}

/// A typed event, whatever its version; what the derive of `Event` makes a handler's argument of.
///
/// # Errors
/// A type or version that `E` does not have: as [`Consuming::unknown`](super::Consuming::unknown) says. A key that this node
/// does not have: a retry, for a rotation may be on its way. What keeps to no contract, or cannot be trusted: a reject.
pub fn typed<E: EventSet>(delivery: &Delivery) -> Result<E, Outcome> {
    let group = &delivery.parts().group;
    let receiving = Receiving { tenant: group.path.channel().tenant(), keys: &group.keys };
    E::from_event(delivery.event(), &receiving).map_err(|why| match (&why, group.unknown) {
        (Unreadable::UnknownKey(_), _) => Outcome::retry(why),
        (Unreadable::Invalid(_), _) | (_, Unknown::DeadLetter) => Outcome::reject(why),
        (_, Unknown::Skip) => Outcome::Ack,
        (_, Unknown::Park) => Outcome::park(why),
    })
}

/// The event's data, read as JSON, whatever its content type says. Data that cannot be read is rejected with the place
/// and the reason: it goes to the dead letters and the consumer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromDelivery for Json<T> {
    fn from_delivery(delivery: &Delivery) -> Result<Self, Outcome> {
        let data = delivery.event().data();
        serde_json::from_slice(data).map(Self).map_err(|error| Outcome::reject(why_not::<T>(data, &error)))
    }
}

/// Why `data` is no `T`. Read a second time, keeping note of the place, so that what can be read costs nothing more.
fn why_not<T: DeserializeOwned>(data: &[u8], error: &serde_json::Error) -> String {
    let mut json = serde_json::Deserializer::from_slice(data);
    let place = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(located) if located.path().iter().next().is_some() => format!(" at {}", located.path()),
        _ => String::new(),
    };
    format!("data is not JSON for {}{place}: {error}", type_name::<T>())
}

/// What the program gave its handlers, by type. One that is missing is an error when the consumer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<T: Clone + Send + Sync + 'static> FromDelivery for State<T> {
    fn from_delivery(delivery: &Delivery) -> Result<Self, Outcome> {
        delivery.parts().group.states.get().map(Self).ok_or_else(|| Outcome::retry(missing_state::<T>()))
    }

    fn check(states: &States) -> Result<()> {
        states.get::<T>().map(drop).ok_or_else(missing_state::<T>)
    }
}

fn missing_state<T>() -> Error {
    let name = type_name::<T>();
    Error::new(
        ErrorKind::NotFound,
        format!("a handler takes State<{name}>, but was given no state of that type"),
    )
}

/// Fires when this process has lost the delivery: stop, for somebody else handles it or will.
#[derive(Debug, Clone)]
pub struct Lost(pub CancellationToken);

impl FromDelivery for Lost {
    fn from_delivery(delivery: &Delivery) -> Result<Self, Outcome> {
        Ok(Self(delivery.lost().clone()))
    }
}

/// Appends events in the same step as the delivery is acknowledged. With any other outcome they are dropped, and in a
/// shadow group always. Cheap to clone.
#[derive(Clone)]
pub struct Emit(Delivery);

impl Emit {
    /// Appends `event` to a channel of the same tenant when the delivery is acknowledged, marked as
    /// [caused by](Event::caused_by) the event that is being handled.
    ///
    /// # Errors
    /// `InvalidName` for the channel; `TooLarge` past a limit of an event, or of what one delivery may emit: 100 events,
    /// 2 MiB; `Closed` when the delivery is settled already.
    pub fn append(&self, channel: &str, event: Event) -> Result<()> {
        let parts = self.0.parts();
        name::check_channel(channel)?;
        let event = event.caused_by(&parts.event);
        event.check(&parts.group.limits)?;
        parts.emitted.lock().push(Emitted { channel: channel.into(), event })
    }

    /// Appends a typed event to the channel that its type declares; see [`append`](Self::append).
    ///
    /// # Errors
    /// As [`append`](Self::append); `Codec`, `Conflict` and `NotFound` as [`Events::event`](crate::Events::event).
    pub fn event<E: EventChannel>(&self, event: &E) -> Result<()> {
        let group = &self.0.parts().group;
        let tenant = group.path.channel().tenant();
        let sending = Sending { tenant, keys: &group.keys, now: group.clock.now() };
        self.append(E::CHANNEL, event.to_event(&sending)?)
    }
}

impl FromDelivery for Emit {
    fn from_delivery(delivery: &Delivery) -> Result<Self, Outcome> {
        Ok(Self(delivery.clone()))
    }
}

impl fmt::Debug for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Emit").field(&self.0).finish()
    }
}

macro_rules! derefs {
    ($($name:ident)*) => {
        $(impl<T> Deref for $name<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        })*
    };
}

derefs! { Json State }

#[cfg(test)]
mod tests;
