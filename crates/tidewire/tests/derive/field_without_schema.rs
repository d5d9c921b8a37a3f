use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(crate = "self::serde")]
struct Money(u64);

#[derive(Event, Serialize, Deserialize)]
#[serde(crate = "self::serde")]
#[event(name = "order.placed")]
struct OrderPlaced {
    total: Money,
}
