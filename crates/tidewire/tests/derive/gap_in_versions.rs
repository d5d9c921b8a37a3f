use tidewire::Event;
use tidewire::derive::serde::{self, Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(crate = "self::serde")]
#[event(name = "order.placed")]
struct OrderPlacedV1 {
    id: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[serde(crate = "self::serde")]
#[event(name = "order.placed", version = 3, previous = OrderPlacedV1)]
struct OrderPlaced {
    id: u64,
}

impl From<OrderPlacedV1> for OrderPlaced {
    fn from(old: OrderPlacedV1) -> Self {
        Self { id: old.id }
    }
}
